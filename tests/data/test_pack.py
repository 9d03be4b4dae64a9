"""Packing: nothing is lost, nothing leaks, no image is cut, shares are kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from foretell.data.document import Document, Segment
from foretell.data.encode import encode_document, image_spans
from foretell.data.loader import Loader
from foretell.data.pack import PackSource, pack
from foretell.data.shards import Shards
from foretell.errors import DataError, RunError
from foretell.images import Tiling
from foretell.template import END_OF_TEXT, IMAGE, Template, special_tokens

TILING = Tiling(tile=32, patch=8, shuffle=2, grid=2)


class Bytes:
    """A tokenizer whose ids are control tokens, then bytes."""

    specials = special_tokens(2)
    vocab_size = len(specials) + 256

    def encode(self, text: str, start: bool = True) -> list[int]:
        return [len(self.specials) + byte for byte in text.encode()]

    def encode_batch(self, texts: list[str], start: bool = True) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    @property
    def controls(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.specials)}

    def special(self, token: str) -> int:
        return self.specials.index(token)

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps(self.specials))


TEMPLATE = Template(Bytes(), TILING)


def png(color: int = 0, size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, (color % 256, color // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def text_document(i: int, text: str, kind: str = "text") -> Document:
    return Document(f"d{i}", (Segment(text=text),), "test", "CC0-1.0", kind=kind)


def chat(i: int, question: str, answer: str, image: bytes | None = None) -> Document:
    asked = [Segment(image=image, role="user")] if image else []
    return Document(
        f"c{i}",
        (*asked, Segment(text=question, role="user"), Segment(text=answer, role="assistant")),
        "test",
        "CC0-1.0",
        kind="chat",
    )


def run(tmp_path: Path, documents: list[Document], length: int = 64, tokens: int = 10**9, **kwargs):
    kwargs = {"max_epochs": 1.0} | kwargs
    source = {"s": PackSource(lambda: iter(documents))}
    return pack(source, TEMPLATE, Bytes(), tmp_path / "pack", length, tokens, **kwargs)


def segments(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Every packed segment, with its targets as the loader gives them."""
    for batch in Loader.fixed(folder, 1, 10**6):
        for number in range(batch.segments.max() + 1):
            at = batch.segments[0] == number
            yield {name: getattr(batch, name)[0][at] for name in ("tokens", "targets", "positions", "kinds")}


def learned_pairs(encoded) -> Counter[tuple[int, int]]:
    """(context token, target) of every learned token of a document but its first."""
    return Counter(
        (int(a), int(b)) for a, b, learn in zip(encoded.ids, encoded.ids[1:], encoded.loss[1:], strict=False) if learn
    )


def packed_pairs(folder: Path) -> Counter[tuple[int, int]]:
    pairs: Counter[tuple[int, int]] = Counter()
    for s in segments(folder):
        pairs.update((int(a), int(b)) for a, b in zip(s["tokens"], s["targets"], strict=True) if b != -100)
    return pairs


words = st.text("ab \n", min_size=0, max_size=150)
plain = st.lists(st.one_of(words, st.just(png()), st.just(png(3, (64, 64)))), min_size=1, max_size=4).map(
    lambda parts: tuple(Segment(text=p) if isinstance(p, str) else Segment(image=p, alt="alt") for p in parts)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(plain, st.tuples(words, words)), min_size=1, max_size=6), st.integers(50, 130))
def test_every_learned_token_is_a_target_exactly_once_and_no_image_is_cut(tmp_path_factory, drawn, length):
    documents = []
    for i, entry in enumerate(drawn):
        if isinstance(entry[0], str):
            documents.append(chat(i, *entry, image=png(i)))
        else:
            documents.append(Document(str(i), entry, "test", "CC0-1.0"))
    expected: Counter[tuple[int, int]] = Counter()
    tiles = 0
    for document in documents:
        encoded = encode_document(document, TEMPLATE)
        assert all(stop - start <= length for start, stop in image_spans(encoded.ids, TEMPLATE))
        expected += learned_pairs(encoded)
        tiles += len(encoded.tiles)
    folder = tmp_path_factory.mktemp("p")
    try:
        metrics = run(folder, documents, length)
    except DataError:
        assert not expected
        return
    assert packed_pairs(folder / "pack") == expected
    assert metrics["learned_tokens"] == sum(expected.values())
    slot = TEMPLATE.special(IMAGE)
    for batch in Loader.fixed(folder / "pack", 1, 10**6):
        assert (batch.tokens == slot).sum() == len(batch.tiles) * TILING.tokens_per_tile
        assert not (batch.targets == slot).any()
        for number in range(batch.segments.max() + 1):
            ids = batch.tokens[0][batch.segments[0] == number]
            spans = image_spans(ids, TEMPLATE)
            held = sum(int((ids[a:b] == slot).sum()) for a, b in spans)
            assert held == (ids == slot).sum()


def test_segments_restart_positions_and_leak_no_target(tmp_path):
    run(tmp_path, [text_document(i, "ab" * 9) for i in range(7)])
    end = TEMPLATE.special(END_OF_TEXT)
    for s in segments(tmp_path / "pack"):
        assert s["positions"].tolist() == list(range(len(s["tokens"])))
        assert s["targets"][:-1].tolist() == s["tokens"][1:].tolist()
        assert s["targets"][-1] == -100 and s["tokens"][-1] == end


def test_captions_follow_images_and_texts_are_kept_apart():
    parts = (Segment(text="before"), Segment(text="more"), Segment(image=png(), alt="alt", caption="caption"))
    encoded = encode_document(Document("d", (*parts, Segment(text="after")), "s", "CC0-1.0"), TEMPLATE)
    text = bytes(i - len(Bytes.specials) for i in encoded.ids if i >= len(Bytes.specials)).decode()
    assert text.replace("\n", "") == "beforemorecaptionafter"
    assert text.startswith("before\n\nmore") and text.endswith("caption\n\nafter")
    assert encoded.ids[-1] == TEMPLATE.special(END_OF_TEXT) and encoded.loss[-1]
    (start, stop) = image_spans(encoded.ids, TEMPLATE)[0]
    assert not encoded.loss[start:stop].any() and encoded.loss[:start].all() and encoded.loss[stop:].all()


def test_a_text_only_template_leaves_out_images_of_documents_and_skips_conversations(tmp_path):
    template = Template(Bytes(), None)
    both = [Document("d", (Segment(text="x" * 40), Segment(image=png())), "s", "CC0-1.0"), chat(1, "q", "a", png())]
    source = {"s": PackSource(lambda: iter(both))}
    metrics = pack(source, template, Bytes(), tmp_path / "pack", 64, 1000, 1.0)
    assert metrics["skipped"] == {"documents with a bad conversation": 1} and metrics["tokens"] == 41


def test_bad_images_and_images_longer_than_a_row_are_counted(tmp_path):
    good = [text_document(i, "fine " * 20) for i in range(3)]
    bad = Document("bad", (Segment(text="x" * 30), Segment(image=png()[:40])), "s", "CC0-1.0")
    big = Document("big", (Segment(text="y" * 30), Segment(image=png(2, (64, 64)))), "s", "CC0-1.0")
    metrics = run(tmp_path, [*good, bad, big, chat(1, "q", "a", png(2, (64, 64)))], length=20)
    assert metrics["skipped"] == {"documents with a bad image": 1, "images longer than a row": 2}
    assert Shards(tmp_path / "pack").read([0])["tiles"].shape == (0, 32, 32, 3)


def test_a_document_left_out_in_every_pass_is_counted_once(tmp_path):
    bad = Document("bad", (Segment(text="x" * 30), Segment(image=png()[:40])), "s", "CC0-1.0")
    metrics = run(tmp_path, [text_document(0, "fine " * 20), bad], length=20, max_epochs=4.0)
    assert metrics["skipped"] == {"documents with a bad image": 1} and metrics["by_source"]["s"]["epochs"] > 3


@pytest.mark.parametrize("tokens", [20_000, 60_000])
def test_rows_are_full_on_a_normal_mix(tmp_path, tokens):
    rng = np.random.default_rng(0)

    def code() -> Iterator[Document]:
        return (text_document(i, "c" * int(rng.lognormal(6.5, 1.2)), "code") for i in range(10_000))

    def chats() -> Iterator[Document]:
        return (chat(i, "q" * int(rng.integers(5, 60)), "a" * 20) for i in range(10_000))

    def scenes() -> Iterator[Document]:
        return (chat(i, "q" * int(rng.integers(100, 300)), "a" * 9, png(i)) for i in range(10_000))

    sources = {"code": PackSource(code, 2.0), "chats": PackSource(chats, 1.0), "scenes": PackSource(scenes, 1.0)}
    metrics = pack(sources, TEMPLATE, Bytes(), tmp_path / "pack", 512, tokens)
    assert metrics["fill"] >= 0.97
    assert abs(metrics["tokens"] - tokens) <= 512
    for name, share in (("code", 0.5), ("chats", 0.25), ("scenes", 0.25)):
        assert metrics["by_source"][name]["share"] == pytest.approx(share, abs=1024 / tokens)
    assert sum(kind["tokens"] for kind in metrics["by_kind"].values()) == metrics["tokens"]


def test_a_small_source_is_repeated_then_its_share_shrinks(tmp_path):
    small = [text_document(i, "s" * 49, "small") for i in range(10)]
    large = [text_document(i, "l" * 49, "large") for i in range(1000)]
    sources = {"small": PackSource(lambda: iter(small)), "large": PackSource(lambda: iter(large))}
    metrics = pack(sources, TEMPLATE, Bytes(), tmp_path / "pack", 64, 10_000, max_epochs=2.5)
    assert metrics["by_source"]["small"]["tokens"] == 1250 and metrics["by_source"]["small"]["epochs"] == 2.5
    assert metrics["by_source"]["large"]["tokens"] == 8750 and metrics["by_source"]["large"]["epochs"] is None
    assert "2.5 passes" in metrics["notes"][0] and "12.5%" in metrics["notes"][0]


def test_the_same_inputs_give_the_same_files_and_another_seed_another_order(tmp_path):
    documents = [text_document(i, f"{i} " * 30) for i in range(40)]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, documents, seed=seed)
    a, b, c = (json.loads((tmp_path / name / "pack/index.json").read_text())["files"] for name in "abc")
    assert a == b and a != c


def test_shards_are_bounded(tmp_path, monkeypatch):
    documents = [text_document(i, "t" * 60) for i in range(30)]
    monkeypatch.setattr("foretell.data.shards.SHARD_BYTES", 64 * 6 * 4)
    metrics = run(tmp_path, documents)
    index = json.loads((tmp_path / "pack/index.json").read_text())
    assert index["shards"] == [4] * 7 + [2] and metrics["rows"] == 30
    whole = Shards(tmp_path / "pack", verify=True).read(range(30))
    assert whole["tokens"].shape == (30, 64) and whole["tokens"].dtype == np.uint16


def test_an_empty_corpus_says_what_to_do_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"gave nothing to pack .*Check their paths"):
        run(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_pack_leaves_the_old_one(tmp_path):
    documents = [text_document(0, "t" * 60)]
    run(tmp_path, documents)
    before = (tmp_path / "pack/index.json").read_bytes()

    def broken() -> Iterator[Document]:
        yield from documents
        raise OSError("the disk went away")

    with pytest.raises(DataError, match="'s' cannot be read: the disk went away"):
        pack({"s": PackSource(broken)}, TEMPLATE, Bytes(), tmp_path / "pack", 64, 1000)
    assert (tmp_path / "pack/index.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_progress_reaches_the_end(tmp_path):
    seen: list[tuple[int, int]] = []
    run(tmp_path, [text_document(i, "p" * 80) for i in range(9)], tokens=600, progress=lambda a, b: seen.append((a, b)))
    assert seen[-1] == (600, 600) and seen == sorted(seen)


def test_texts_encoded_a_window_at_a_time_give_the_ids_of_encode_document(tmp_path):
    documents = [chat(1, "What?", "It is é.", png()), chat(2, "What?", "It is é.")]
    documents += [Document("3", (Segment(text="a"), Segment(image=png(), alt="b"), Segment(text="c")), "s", "CC0-1.0")]
    run(tmp_path, documents, length=200)
    expected = {tuple(encode_document(document, TEMPLATE).ids) for document in documents}
    assert {tuple(s["tokens"]) for s in segments(tmp_path / "pack")} == expected


def test_a_full_disk_is_named_and_the_old_pack_stays(tmp_path, monkeypatch):
    run(tmp_path, [text_document(0, "t" * 60)])
    before = (tmp_path / "pack/index.json").read_bytes()

    def short_write(*_: object) -> None:
        raise OSError("8192 requested and 0 written")

    monkeypatch.setattr(np, "save", short_write)
    with pytest.raises(RunError, match=r"disk is full.*run the same command again"):
        run(tmp_path, [text_document(0, "u" * 60)])
    assert (tmp_path / "pack/index.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_kinds_past_the_255th_are_other(tmp_path):
    metrics = run(tmp_path, [text_document(i, "k" * 20, f"kind {i}") for i in range(300)])
    assert len(metrics["by_kind"]) == 256 and metrics["by_kind"]["other"]["tokens"] == 45 * 21
    assert {s["kinds"].max() for s in segments(tmp_path / "pack")} == set(range(256))


def test_a_curriculum_packs_a_mixture_after_another(tmp_path: Path) -> None:
    """Easy text alone first, then both, then none of it: shares within a phase are those asked for."""

    def texts(letter: str) -> PackSource:
        documents = [
            Document(f"{letter}{i}", (Segment(text=letter * 40),), letter, "CC0-1.0", kind=letter) for i in range(400)
        ]
        return PackSource(lambda: iter(documents))

    phases = [(1.0, {"b": 0.0}), (2.0, {"a": 1.0, "b": 3.0}), (1.0, {"a": 0.0})]
    metrics = pack(
        {"a": texts("a"), "b": texts("b")},
        Template(Bytes(), None),
        Bytes(),
        tmp_path / "p",
        64,
        8000,
        4.0,
        0,
        phases=phases,
    )
    shards = Shards(tmp_path / "p")
    assert sum(shards.phases) == shards.rows and len(shards.phases) == 3
    shares = []
    for start, rows in zip(np.cumsum([0, *shards.phases]), shards.phases, strict=False):
        read = shards.read(range(start, start + rows))
        here = [
            shards.kinds[kind]
            for kind, used in zip(read["kinds"].ravel(), read["segments"].ravel(), strict=True)
            if used >= 0
        ]
        shares.append(here.count("a") / len(here))
    assert shares[0] == 1 and shares[1] == pytest.approx(0.25, abs=0.03) and shares[2] == 0
    assert metrics["by_source"]["a"]["asked_share"] == pytest.approx(0.25 + 0.5 * 0.25)
    assert metrics["by_source"]["a"]["share"] == pytest.approx(metrics["by_source"]["a"]["asked_share"], abs=0.03)
    assert metrics["tokens"] == sum(source["tokens"] for source in metrics["by_source"].values())  # nothing twice

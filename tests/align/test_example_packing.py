"""Replies to one prompt stand side by side, learn only what the assistant says, and are found again as pairs."""

from __future__ import annotations

import base64
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignkit import Base, chat, preferences, write_jsonl
from PIL import Image

from foretell.align.examples import Dialogue, Preference
from foretell.align.packing import Table, count_examples, encode_dialogue, encode_preference, pack_split, replies
from foretell.chat import Conversation
from foretell.data.loader import Loader
from foretell.errors import DataError, RowError
from foretell.train.objective import split
from foretell.tuning import SFTConfig, Tuning


def conversation(*texts: str) -> Conversation:
    return Conversation.from_openai(chat(*texts))


def preference(prompt: str, *replies: str) -> Preference:
    answers = tuple(Conversation(conversation("", reply).messages[1:]) for reply in replies)
    return Preference(conversation(prompt), answers, "rows.jsonl, line 3")


def packed(base: Base, tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    given = Tuning(**{"heldout": 0.0, **settings})
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    return pack_split(
        data, "dpo", "train", base.template, base.tokenizer, tmp_path / "train", given, 128, 16, base.tokenizer.pad,
        lambda number: None,
    )  # fmt: skip


def test_loss_is_on_what_the_assistant_says_and_its_end_token_only(base: Base) -> None:
    (encoded,) = encode_dialogue(base.template, Dialogue(conversation("Q 1", "A 1", "Q 2", "A 2", "Q 3"), "w"), 128)
    learned = base.tokenizer.decode(encoded.ids[encoded.loss].tolist(), skip_special=False)
    assert learned == "A 1<|im_end|>A 2<|im_end|>"
    assert encoded.loss[-1] and encoded.ids[-1] == base.tokenizer.special("<|im_end|>")


def test_replies_share_their_prompt_and_learn_nothing_of_it(base: Base) -> None:
    one = preference("Q", "The sky", "blue")
    later = Preference(Conversation(conversation("Q", "A", "And?").messages), one.replies, "w")
    for found in (encode_preference(base.template, one, 128), encode_preference(base.template, later, 128)):
        texts = [base.tokenizer.decode(e.ids[e.loss].tolist(), skip_special=False) for e in found]
        assert texts == ["The sky<|im_end|>", "blue<|im_end|>"]
        starts = [int(np.flatnonzero(e.loss)[0]) for e in found]
        assert starts[0] == starts[1] and (found[0].ids[: starts[0]] == found[1].ids[: starts[0]]).all()


def test_what_is_too_long_names_the_prompt_or_its_replies(base: Base) -> None:
    with pytest.raises(
        RowError, match=r"line 3, prompt: longer than half a row of 64 tokens. It takes 1\d\d.*sequence_length"
    ):
        encode_preference(base.template, preference("Q " * 60, "A", "B"), 64)
    with pytest.raises(RowError, match=r"line 3, prompt with its replies: longer than a row"):
        encode_preference(base.template, preference("Q", "A " * 30, "B " * 30), 64)


def test_every_pair_of_a_prompt_is_found_in_its_batch(base: Base, tmp_path: Path) -> None:
    sizes = [2, 3, 2, 4, 2, 3]
    rows = [{"prompt": f"Q {i}", "replies": [f"{i} {k}" for k in range(size)]} for i, size in enumerate(sizes)]
    metrics = packed(base, tmp_path, rows)
    assert metrics["examples"] == 6 and metrics["replies"] == sum(sizes) and metrics["rows"] > 1
    table = Table.load(tmp_path / "train")
    assert table.sizes.tolist() == sizes and table.offsets.tolist() == [0, 2, 5, 7, 11, 13, 16]
    batch = Loader.fixed(tmp_path / "train", 64, 1)[0]
    found = replies(batch)
    assert count_examples(batch) == 6 == pytest.approx(found.share.sum())
    flat = batch.tokens.reshape(-1)
    assert (flat[found.ends] == base.tokenizer.special("<|im_end|>")).all()
    pairs = {
        (int(found.example[b]), int(found.rank[b]), int(found.rank[w]))
        for b, w in zip(found.better, found.worse, strict=True)
    }
    assert (found.example[found.better] == found.example[found.worse]).all()
    assert pairs == {(e, a, b) for e, size in enumerate(sizes) for a, b in combinations(range(size), 2)}
    # The k-th reply by rank is the k-th by its text, so rows did not mix them up.
    at = np.flatnonzero(batch.targets.reshape(-1) >= 0)
    for reply in range(len(found.ends)):
        ids = batch.targets.reshape(-1)[at[found.of_target == reply]]
        assert base.tokenizer.decode(ids.tolist()) == f"{found.example[reply]} {found.rank[reply]}"
    parts = [replies(part) for part in split(batch, 1, base.config.image_token, 4)]
    assert sum(len(part.better) for part in parts) == len(found.better)


def test_the_same_row_twice_in_a_batch_makes_no_pairs_between_them(base: Base, tmp_path: Path) -> None:
    packed(base, tmp_path, preferences(1))
    loader = Loader(tmp_path / "train", 1, 0)
    batch = next(loader)
    loader.close()
    arrays = [name for name in batch.__dataclass_fields__ if name != "values"]
    twice = type(batch)(*(np.concatenate([getattr(batch, name)] * 2) for name in arrays))
    found = replies(twice)
    assert found.better.tolist() == [0, 2] and found.worse.tolist() == [1, 3] and count_examples(twice) == 2


def test_bad_rows_end_it_or_are_counted(base: Base, tmp_path: Path) -> None:
    long = {"prompt": "Q " * 200, "chosen": "A", "rejected": "B"}
    rows = [*preferences(2), {"prompt": "Q", "chosen": "A", "rejected": "A"}, long]
    with pytest.raises(RowError, match="line 3, rejected: the same as chosen"):
        packed(base, tmp_path, rows)
    assert not (tmp_path / "train").exists()
    metrics = packed(base, tmp_path, rows, bad_rows="skip")
    assert metrics["examples"] == 2
    assert metrics["skipped"] == {"the same as chosen": 1, "longer than half a row of 128 tokens": 1}
    with pytest.raises(DataError, match=r"no example to train on \(1 rows left out: the same as chosen\)"):
        packed(base, tmp_path / "none", rows[2:3], bad_rows="skip")


def test_what_is_held_out_depends_on_the_prompt_alone(base: Base, tmp_path: Path) -> None:
    rows = [{"messages": chat(f"Q {i % 20}", f"A {i}")} for i in range(60)]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    seen: dict[str, set[str]] = {}
    for name in ("train", "heldout"):
        pack_split(
            data, "sft", name, base.template, base.tokenizer, tmp_path / name, SFTConfig(heldout=0.3), 128, 16, 0,
            lambda number: None,
        )  # fmt: skip
        text = [base.tokenizer.decode(ids.tolist()) for ids in Loader.fixed(tmp_path / name, 99, 1)[0].tokens]
        seen[name] = {f"Q {i}" for i in range(20) if any(f"Q {i}\n" in row for row in text)}
    assert seen["train"] and seen["heldout"] and not seen["train"] & seen["heldout"]
    assert len(seen["train"] | seen["heldout"]) == 20


def test_images_travel_with_their_replies(base: Base, tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.new("RGB", (16, 16), (200, 0, 0)).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    asked = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]}
    ]
    packed(base, tmp_path, [{"prompt": asked, "chosen": "blue", "rejected": "green"}])
    after = Conversation.from_openai([*asked, *chat("", "A")[1:], *asked])  # an image that no reply follows
    (encoded,) = encode_dialogue(base.template, Dialogue(after, "w"), 256)
    assert len(encoded.tiles) == 1 and encoded.loss[-1]
    damaged = Conversation.from_openai([{"role": "user", "content": [b"no image"]}])
    with pytest.raises(RowError, match="w, prompt: cannot be put into"):
        encode_preference(base.template, Preference(damaged, preference("Q", "A", "B").replies, "w"), 128)
    batch = Loader.fixed(tmp_path / "train", 8, 1)[0]
    assert len(batch.tiles) == 2 and len(replies(batch).better) == 1
    assert (batch.tokens == base.config.image_token).sum() == 2 * base.config.vision.tokens_per_tile  # type: ignore[union-attr]

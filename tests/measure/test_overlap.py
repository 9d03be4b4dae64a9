"""Overlap: found is what a plain search finds, nothing more and nothing less, however the index came about."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.errors import DataError, RunError
from foretell.measure.overlap import CorpusFile, Index, build, check, grams, index, normalize, scan, substrings
from foretell.measure.overlap import builder as building
from foretell.measure.overlap.builder import DOCUMENTS, GRAMS, INDEX, TEXT

ALPHABET = "abcdeABxyz0123456789é漢ß"


def corpus(folder: Path, *files: Sequence[str]) -> list[CorpusFile]:
    """Files of documents; what is read is what was written, a line a document."""
    made = []
    for number, documents in enumerate(files):
        path = folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps(d) + "\n" for d in documents))

        def read(path: Path = path) -> Iterator[tuple[int, list[str]]]:
            with path.open() as lines:
                yield from ((row, [json.loads(line)]) for row, line in enumerate(lines, 1))

        made.append(CorpusFile(path.name, path, read))
    return made


def indexed(folder: Path, *files: Sequence[str], ignore_case: bool = False) -> Index:
    build(corpus(folder, *files), folder / "index", ignore_case=ignore_case)
    return Index(folder / "index", verify=True)


def plain(rng: random.Random, length: int, letters: str = ALPHABET) -> str:
    return "".join(rng.choices(letters, k=length))


@given(st.text(max_size=200), st.booleans())
def test_letters_and_digits_of_any_script_are_kept(text: str, ignore_case: bool) -> None:
    shown = text.casefold() if ignore_case else text
    assert normalize(text, ignore_case).decode() == "".join(c for c in shown if c.isalnum())


def test_what_letters_are() -> None:
    assert normalize("Straße 42, «Größe»\n— x_y² 漢字!").decode() == "Straße42Größexy²漢字"
    assert normalize("Straße", ignore_case=True) == normalize("STRASSE", ignore_case=True)
    assert normalize("\ud800a\u0301\u00a0b") == b"ab"
    assert {unicodedata.category(c)[0] for c in map(chr, range(0x3000)) if normalize(c)} == {"L", "N"}
    long = "a é" * (1 << 19)
    assert normalize(long).decode() == long.replace(" ", "")


DOCUMENTS_OF_TEXT = st.lists(st.text("aab01 ,é漢", max_size=150), min_size=1, max_size=8)


@settings(max_examples=50)
@given(DOCUMENTS_OF_TEXT, st.lists(st.text("ab01é漢", min_size=1, max_size=90), max_size=6), st.data())
def test_found_is_what_a_plain_search_finds_first(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], others: list[str], data: st.DataObject
) -> None:
    kept = [normalize(d) for d in documents]
    if not any(kept):
        return
    needles = [other.encode() for other in others]
    for text in filter(None, (k.decode() for k in kept)):  # parts that are there, of every length
        start = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(start + 1, len(text)))
        needles += [text[start:end].encode(), text.encode()]
    found = indexed(tmp_path_factory.mktemp("x"), documents)
    flat = b"".join(k + b"\n" for k in kept if k)
    expected = [None if (at := flat.find(n)) < 0 else at for n in needles]
    assert found.find(needles) == expected


@pytest.mark.parametrize("letters", [ALPHABET, "ab", "0"])
def test_found_across_the_pieces_in_which_things_are_read(tmp_path: Path, monkeypatch, letters: str) -> None:
    """Small buffers, so that everything falls on a border somewhere."""
    monkeypatch.setattr(building, "_BUFFER", 61)
    monkeypatch.setattr(scan, "_AT_ONCE", 67)
    monkeypatch.setattr(index, "_GRAMS_AT_ONCE", 3)
    monkeypatch.setattr(grams.expand, "__defaults__", (5,))
    rng = random.Random(1)
    documents = [plain(rng, rng.choice((1, 20, 49, 50, 51, 300)), letters) for _ in range(60)]
    needles = []
    for text in documents:
        for length in (1, 2, 3, 4, 5, 8, 12, 49, 50, 51, 77):
            if length <= len(text):
                start = rng.randrange(len(text) - length + 1)
                needles.append(text[start : start + length].encode())
                changed = needles[-1].decode()
                needles.append((changed[:-1] + rng.choice(letters)).encode())
                needles.append((rng.choice(letters) + changed[1:]).encode())
    flat = b"".join(d.encode() + b"\n" for d in documents)
    expected = [None if (at := flat.find(n)) < 0 else at for n in needles]
    assert indexed(tmp_path, documents[:30], documents[30:]).find(needles) == expected


def test_every_verbatim_stretch_of_50_is_found_and_no_other(tmp_path: Path) -> None:
    rng = random.Random(0)
    document = plain(rng, 700)
    found = indexed(tmp_path, [plain(rng, 333), document, plain(rng, 90)])
    inside = [document[i : i + 50] for i in range(651)]
    assert None not in found.find([text.encode() for text in inside])
    outside = [text[:k] + "!" + text[k + 1 :] for text in inside for k in (0, 25, 49)]  # in no normalised text
    assert set(found.find([text.encode() for text in outside])) == {None}


def test_planted_leaks(tmp_path: Path) -> None:
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(plain(rng, rng.randint(2, 9), "abcdefghijklmnop") for _ in range(30))

    items = {f"q{i}": sentence() for i in range(40)}
    texts = list(items.values())
    spaced = [t.replace(" ", "\n\t— ") + "?!" for t in texts[10:15]]
    upper = [t.upper() for t in texts[15:20]]
    halves = [half for t in texts[20:25] for half in (t[: len(t) // 2], t[len(t) // 2 :])]
    documents = [*(f"{sentence()} {t} {sentence()}" for t in texts[:10]), *spaced, *upper, *halves, sentence()]
    for ignore_case, cased in ((False, set()), (True, {f"q{i}" for i in range(15, 20)})):
        folder = tmp_path / str(ignore_case)
        folder.mkdir()
        searched = indexed(folder, documents, ignore_case=ignore_case)
        whole = {flag.id for flag in check(searched, items, length=10_000)}  # every item whole
        assert whole == items.keys()
        whole = {flag.id for flag in check(searched, items, length=10_000) if flag.contaminated}
        assert whole == {f"q{i}" for i in range(15)} | cased  # halves in two documents are no whole
        flags = {flag.id: flag for flag in check(searched, items)}
        assert {f"q{i}" for i in range(15)} | cased <= {id for id, flag in flags.items() if flag.contaminated}
        assert not any(flags[f"q{i}"].contaminated for i in range(25, 40))
        assert str(flags["q3"].where) == "0.jsonl:4" and flags["q3"].hit in normalize(items["q3"]).decode()


def test_a_cut_leaves_a_hit_where_a_substring_is_whole(tmp_path: Path) -> None:
    text = plain(random.Random(5), 200, "abcdefgh")
    searched = indexed(tmp_path, ["x" + text[:49], text[100:150] + "x", "zz" + text[60:80]])
    assert [f.contaminated for f in check(searched, {"a": text[:50], "b": text[100:150], "c": text[60:80]})] == [
        False, True, True,
    ]  # fmt: skip


def test_nothing_is_found_across_documents(tmp_path: Path) -> None:
    text = plain(random.Random(2), 100)
    assert not check(indexed(tmp_path, [text[:50], text[50:]]), {"a": text[10:60], "b": text[49:51]})[0].contaminated


def test_substrings_are_drawn_by_seed_and_id_and_are_the_whole_where_short() -> None:
    text = plain(random.Random(3), 400)
    drawn = substrings(text, "a")
    assert len(set(drawn)) == 3 and all(len(d) == 50 and d in text for d in drawn)
    assert drawn == substrings(text, "a") != substrings(text, "b") and drawn != substrings(text, "a", seed=1)
    assert substrings(text[:50], "a") == (text[:50],) and substrings(text[:7], "a") == (text[:7],)
    assert substrings("", "a") == () and len(substrings(text[:51], "a")) == 2
    starts = [text.index(d) for i in range(300) for d in substrings(text, str(i))]
    assert min(starts) < 10 and max(starts) > 340


def test_an_item_without_letters_is_told_and_not_flagged(tmp_path: Path) -> None:
    (flag,) = check(indexed(tmp_path, ["abc"]), {"a": "?! –"})
    assert flag.characters == 0 and not flag.contaminated
    with pytest.raises(ValueError, match="stands everywhere"):
        Index(tmp_path / "index").find([b""])
    with pytest.raises(ValueError, match="at least one"):
        check(Index(tmp_path / "index"), {}, count=0)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Cut(Exception):
    pass


@pytest.mark.parametrize("save_every", [100, 10**9])
@pytest.mark.parametrize("at", [0, 1, 7, 25, 33, 59])
def test_an_index_that_was_cut_off_comes_out_the_same(tmp_path: Path, monkeypatch, at: int, save_every: int) -> None:
    monkeypatch.setattr(building, "_SAVE_EVERY", save_every)
    monkeypatch.setattr(building, "_BUFFER", 200)
    rng = random.Random(at)
    files = corpus(tmp_path, *([plain(rng, rng.randrange(200)) for _ in range(20)] for _ in range(3)))
    build(files, tmp_path / "whole")
    read: list[int] = []

    def cut(file: CorpusFile, number: int) -> CorpusFile:
        def rows() -> Iterator[tuple[int, list[str]]]:
            for row, pieces in file.read():
                if 20 * number + row - 1 == at and not read:
                    read.append(at)
                    raise Cut
                yield row, list(pieces)

        return CorpusFile(file.name, file.path, rows)

    cutting = [cut(file, number) for number, file in enumerate(files)]
    with pytest.raises(Cut):
        build(cutting, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    build(cutting, tmp_path / "index")
    assert bytes_of(tmp_path / "index") == bytes_of(tmp_path / "whole")
    assert not (tmp_path / "index.part").exists()


def test_an_index_is_left_as_it_is_until_its_files_change(tmp_path: Path) -> None:
    files = corpus(tmp_path, ["some text"], ["more"])
    build(files, tmp_path / "index")
    before = (tmp_path / "index" / INDEX).stat().st_mtime_ns
    build(files, tmp_path / "index")
    assert (tmp_path / "index" / INDEX).stat().st_mtime_ns == before
    assert Index(tmp_path / "index").outdated() == []
    files = corpus(tmp_path, ["some text"], ["and more"])
    assert Index(tmp_path / "index").outdated() == [str(tmp_path / "1.jsonl")]
    build(files, tmp_path / "index")
    searched = Index(tmp_path / "index", verify=True)
    assert searched.outdated() == [] and searched.find([b"andmore"]) == [9]
    assert [s["documents"] for s in searched.sources] == [1, 1]
    corpus(tmp_path, ["some text"], ["AND more"])  # of the same size
    assert Index(tmp_path / "index").outdated() == [str(tmp_path / "1.jsonl")]
    (tmp_path / "1.jsonl").unlink()  # what is gone tells nothing
    assert Index(tmp_path / "index").outdated() == []


@pytest.mark.parametrize("name", [TEXT, GRAMS, DOCUMENTS, INDEX])
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    indexed(tmp_path, [plain(random.Random(0), 400)])
    file = tmp_path / "index" / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=f"{name} is damaged or incomplete.*build it again"):
        Index(tmp_path / "index")
    file.write_bytes(whole.replace(whole[5:6], b"~"))
    with pytest.raises(DataError, match=r"damaged or incomplete|in form"):
        Index(tmp_path / "index", verify=True)
    file.unlink()
    with pytest.raises(DataError, match="missing"):
        Index(tmp_path / "index")


def test_an_index_of_another_form_or_for_another_unicode_is_told(tmp_path: Path) -> None:
    indexed(tmp_path, ["text"])
    file = tmp_path / "index" / INDEX
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"unicode": "1.1"}))
    assert "Unicode 1.1" in Index(tmp_path / "index").notes[0]
    file.write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(DataError, match="form 99; this version reads form 1"):
        Index(tmp_path / "index")


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files"):
        build([], tmp_path / "index")
    with pytest.raises(DataError, match="no letters and digits"):
        build(corpus(tmp_path, ["?", ""]), tmp_path / "index")
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="is no index"):
        build(corpus(tmp_path, ["text"]), other)
    assert (other / "precious.txt").read_text() == "mine"
    with building._locked(tmp_path / "index.part"), pytest.raises(RunError, match="another process"):
        build(corpus(tmp_path, ["text"]), tmp_path / "index")


def test_a_row_that_comes_in_pieces_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    rows = [(1, ["one ", "t", "wo"]), (2, []), (4, ["th", "ree"])]
    file = CorpusFile("a", tmp_path / "a", lambda: iter(rows))
    about = build([file], tmp_path / "index")
    searched = Index(tmp_path / "index")
    assert searched.find([b"onetwo", b"twothree", b"three"]) == [0, None, 7]
    assert str(searched.place(9)) == "a:4" and searched.place(6).row == 1
    assert about["documents"] == 2 and about["sources"][0]["empty"] == 1


def test_fingerprints_are_of_whole_grams_at_their_places() -> None:
    text = np.frombuffer(random.Random(0).randbytes(200), np.uint8)
    found = grams.fingerprints(text)
    assert len(found) == (200 - grams.GRAM) // grams.STRIDE + 1
    for k, value in enumerate(found):
        one = text[k * grams.STRIDE : k * grams.STRIDE + grams.GRAM].copy()
        assert grams.fingerprints(one).tolist() == [value]


def test_a_damaged_index_is_built_anew(tmp_path: Path) -> None:
    files = corpus(tmp_path, ["some text"])
    for broken in ("{", "[]", '{"key": 1}'):
        build(files, tmp_path / "index")
        (tmp_path / "index" / INDEX).write_text(broken)
        build(files, tmp_path / "index")
        assert Index(tmp_path / "index", verify=True).find([b"text"]) == [4]

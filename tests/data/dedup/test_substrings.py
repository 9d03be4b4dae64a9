"""Repeated substrings: found wherever they begin, cut but for the first, and nothing else touched."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit import document, removed, run, words
from foretell.data.curate.steps import Removed
from foretell.data.dedup.substrings import SubstringsPass, winnow
from foretell.data.document import Document


def text(each: Document | Removed) -> str:
    assert isinstance(each, Document)
    return "|".join(segment.text or "[image]" for segment in each.segments)


def test_a_passage_is_cut_out_of_all_but_its_first_document(tmp_path: Path) -> None:
    rng = random.Random(0)
    passage = " ".join(words(rng, 60))
    around = [" ".join(words(rng, 100)) for _ in range(6)]
    shards = [
        [document("a", f"{around[0]} {passage}. {around[1]}", locator="f:1"), document("b", around[2])],
        [document("c", f"{around[3]}\n{passage.upper()}!\n{around[4]}", b"image", around[5])],
    ]
    out = run(SubstringsPass(), shards, tmp_path)
    assert out[0] == shards[0]
    assert text(out[1][0]) == f"{around[3]}\n!\n{around[4]}|[image]|{around[5]}"
    told = out[1][0].labels["dedup.substrings"] if isinstance(out[1][0], Document) else ""
    assert told == "60 of 360 words stand earlier, most of them in web/a (f:1)"


@settings(max_examples=25)
@given(st.integers(50, 90), st.integers(0, 120), st.integers(0, 120), st.integers(0, 99))
def test_every_run_of_fifty_words_is_found_and_none_of_forty_nine(
    tmp_path_factory: pytest.TempPathFactory, length: int, before: int, after: int, seed: int
) -> None:
    rng = random.Random(seed)
    scratch = tmp_path_factory.mktemp("s")
    for size, found in ((length, True), (49, False)):
        run_ = words(rng, size)
        one = [f"x{i}" for i in range(before)] + run_ + [f"y{i}" for i in range(after)]
        two = [f"z{i}" for i in range(after + 40)] + run_ + [f"v{i}" for i in range(before + 40)]
        out = run(SubstringsPass(), [[document("a", " ".join(one)), document("b", " ".join(two))]], scratch / str(size))
        rest = two[: after + 40] + two[after + 40 + size :]
        assert text(out[0][1]).split() == (rest if found else two)


def test_every_run_that_is_left_twice_is_short(tmp_path: Path) -> None:
    rng = random.Random(3)
    stock = [words(rng, rng.randrange(30, 90)) for _ in range(12)]
    shards = []
    for s in range(3):
        made = []
        for i in range(12):
            told: list[str] = []
            for _ in range(5):
                told += rng.choice(stock) + [f"{s}n{i}n{rng.randrange(10**9)}" for _ in range(15)]
            made.append(document(f"{s}.{i}", " ".join(told)))
        shards.append(made)
    out = run(SubstringsPass(share=1.0, shortest=0), shards, tmp_path / "a")
    seen: set[tuple[str, ...]] = set()
    every: set[tuple[str, ...]] = set()
    for before, after in zip((d for s in shards for d in s), (d for s in out for d in s), strict=True):
        told = text(before).split()
        every |= {tuple(told[i : i + 50]) for i in range(len(told) - 49)}
        left = text(after).split()
        assert set(left) <= set(told)
        mine = [tuple(left[i : i + 50]) for i in range(len(left) - 49)]
        assert len(mine) == len(set(mine)) and not seen & set(mine)
        seen |= set(mine)
    kept = " ".join(text(d) for s in out for d in s)
    assert all(word in kept for run_ in stock for word in run_)  # each passage stays somewhere
    assert run(SubstringsPass(share=1.0, shortest=0), shards, tmp_path / "b", backwards=True) == out


def test_what_is_left_of_nearly_nothing_goes(tmp_path: Path) -> None:
    rng = random.Random(4)
    told = " ".join(words(rng, 100))
    shards = [[document("a", told + " the end"), document("b", told + " another end")]]
    shards[0].append(document("c", told + " indeed", b"image"))
    found = removed(run(SubstringsPass(), shards, tmp_path))
    assert set(found) == {"b", "c"} and found["b"] == "100 of 102 words stand earlier, most of them in web/a"
    kept = run(SubstringsPass(share=1.0), shards, tmp_path)
    assert text(kept[0][2]).split("|") == [" indeed", "[image]"] and isinstance(kept[0][1], Removed)


def test_text_that_repeats_itself_keeps_its_first_round(tmp_path: Path) -> None:
    told = words(random.Random(5), 70)
    out = run(SubstringsPass(share=1.0), [[document("a", " ".join(told * 4))]], tmp_path)
    assert text(out[0][0]).split() == told


def test_winnowing_takes_a_place_of_every_window() -> None:
    keys = np.random.default_rng(0).integers(0, 1 << 63, 500, np.uint64)
    chosen = winnow(keys, 26)
    assert (np.diff(chosen) <= 26).all() and chosen[0] < 26 and chosen[-1] >= 500 - 26
    assert len(chosen) < 2.5 * 500 / 27

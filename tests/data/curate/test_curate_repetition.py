"""The bound on repeated n-grams is never below what datatrove counts, and tells most texts apart without counting."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("datatrove")

from datatrove.data import Document as Page
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_top_duplicate, get_n_grams

from foretell.data.curate.repetition import in_doubt
from foretell.data.curate.rules import GopherRepetitionStep, simple_words
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.data.parquet import read_documents

SIZES = range(1, 7)


@given(st.lists(st.sampled_from(["1", "11", "111", "a", "b", "ab", "–", "été", "a b", "b c"]), min_size=1, max_size=60))
def test_no_rule_that_a_text_breaks_is_left_out(words: list[str]) -> None:
    characters = len(" ".join(words))
    counts = {n: find_top_duplicate(grams) if (grams := get_n_grams(words, n)) else 0 for n in SIZES}
    twice = {n: find_all_duplicate(words, n) for n in SIZES}
    top = tuple((n, 0.9 * counts[n] / characters) for n in SIZES)
    duplicated = tuple((n, 0.9 * twice[n] / characters) for n in SIZES)
    doubtful, again = in_doubt(words, characters, top, duplicated)
    assert set(doubtful) >= {limit for limit in top if counts[limit[0]]}
    assert set(again) >= {limit for limit in duplicated if twice[limit[0]]}


def test_prose_is_far_from_all_limits_and_a_long_word_is_left_to_datatrove() -> None:
    step, draw = GopherRepetitionStep(), random.Random(1)
    words = [f"{draw.choice('bdfgklmn')}{draw.choice('aeiou')}{draw.randrange(400)}" for _ in range(600)]
    size = len(" ".join(words))
    assert in_doubt(words, size, step.top_n_grams, step.dup_n_grams) == ((), ())
    assert in_doubt([*words, "x" * 201], size, step.top_n_grams, step.dup_n_grams) == (
        step.top_n_grams, step.dup_n_grams,
    )  # fmt: skip
    assert in_doubt(words * 2, 2 * size, step.top_n_grams, step.dup_n_grams) == ((), step.dup_n_grams)


@pytest.mark.realdata
def test_verdicts_on_real_documents_are_those_of_datatrove(real_data: Path) -> None:
    peer, step, removed = GopherRepetitionFilter(language=simple_words()), GopherRepetitionStep().build(), 0
    for path in sorted((real_data / "corpus").glob("*-*.parquet")):
        for document, _ in zip(read_documents(path, images=False), range(25), strict=False):
            text = "\n\n".join(segment.text for segment in document.segments if segment.text)[:20_000]
            for part in (text, text[:500] * 6, text[:3000]):
                verdict = peer.filter(Page(text=part, id="p"))
                why = verdict[1] if isinstance(verdict, tuple) else ""
                ours = step(Document("p", (Segment(part),), "s", "MIT", document.language))
                assert (ours.reason.partition(".")[2] if isinstance(ours, Removed) else "") == why
                removed += bool(why)
    assert removed > 100

"""Answers to published benchmarks are read and scored as their own scripts do."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from foretell.evals.academic_judges import (
    bbh_answer,
    coqa_scores,
    drop_scores,
    first_word,
    last_number,
    read_letter,
    same_number,
)


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("So she makes 9 * 2 = $18 every day.\n#### 18", "18"),
        ("#### 1,234\n\nQuestion 7", "1234"),
        ("It costs $1,234.50.", "1234.50"),
        ("The answer is -3.", "-3"),
        ("between 3 and 5, so 4!", "4"),
        ("উত্তর হল ১৮।", "18"),
        ("答えは5です。", "5"),
        ("1.2.3", None),
        ("none", None),
    ],
)
def test_last_number(reply: str, number: str | None) -> None:
    found = last_number(reply)
    assert (None if found is None else str(found)) == number


def test_numbers_as_languages_group_them() -> None:
    assert same_number("Der Gewinn beträgt 70.000 €.", "70000", any_grouping=True)
    assert same_number("Il gagne 70 000 dollars.", "70000", any_grouping=True)
    assert not same_number("Der Gewinn beträgt 70.000 €.", "70000")
    assert not same_number("70.000", "70", any_grouping=True) or same_number("70.000", "70")
    assert same_number("18.00", "18")


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("B", 1),
        (" C. because", 2),
        ("(D)", 3),
        ("The answer is (B).", 1),
        ("Answer: **C**", 2),
        ("A dog is the right one, so the answer is D", 3),
        ("I think (C) fits", 2),
        ("A) yes", 0),
        ("I do not know", None),
        ("Z", None),
        ("", None),
    ],
)
def test_letters(reply: str, index: int | None) -> None:
    assert read_letter(reply, 4) == index


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("If so. So the answer is (D).", "(D)"),
        ("So the answer is valid.", "valid"),
        ("So the answer is ] ) }.", "] ) }"),
        ("It is (D).", ""),
        ("The answer is (D) 12/14/1937", "(D)"),
        ("**The answer is: (A).**", "(A)"),
        ("The answer is no. Wait, so the answer is yes.\nQ: next", "yes"),
    ],
)
def test_bbh_answers(reply: str, answer: str) -> None:
    assert bbh_answer(reply) == answer


@pytest.mark.realdata
def test_bbh_worked_samples_as_the_harness_reads_them(real_data: Path) -> None:
    seen = 0
    for file in (real_data / "benchmarks/suzgunmirac_BIG-Bench-Hard/cot-prompts").glob("*.txt"):
        for worked in file.read_text(encoding="utf-8").split("\nA: Let's think step by step.")[1:]:
            reply = worked.split("\n\nQ:")[0].strip()
            theirs = re.search(r"(?<=the answer is )(.*)(?=.)", reply)
            if theirs:
                seen += 1
                assert bbh_answer(reply) == theirs[1]
    assert seen >= 78


def test_lambada_words() -> None:
    for reply in (" signs", " signs.", ' "signs"', " signs and wonders"):
        assert first_word(reply) == "signs"
    assert first_word(" signage") != "signs"
    assert first_word("") == ""


@pytest.mark.parametrize(
    ("reply", "golds", "f1", "em"),
    [
        ("a silver clock.", ["silver clock"], 1.0, 1.0),
        ("silver", ["the silver clock"], 2 / 3, 0.0),
        ("yes\nQ: And then?", ["Yes"], 1.0, 1.0),
        ("white", ["white", "white and grey"], (1 / 2 + 1) / 2, 1 / 2),  # each reference is left out once
        ("the", ["a"], 1.0, 1.0),  # nothing is left of either
        ("", ["white"], 0.0, 0.0),
    ],
)
def test_coqa_scores(reply: str, golds: list[str], f1: float, em: float) -> None:
    assert coqa_scores(reply, golds) == {"f1": pytest.approx(f1), "em": em}


@pytest.mark.peer
def test_drop_scores_are_the_published_scripts() -> None:
    theirs = pytest.importorskip("lm_eval.tasks.drop.utils")
    words = ["the", "Broncos", "23", "23.0", "1,200", "yards", "24-yard", "O'Neil", "a", "", "-", "3rd", "and", "U.S."]
    rng = random.Random(0)
    for _ in range(3000):
        golds = [
            [" ".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
            for _ in range(rng.randint(1, 3))
        ]
        told = [" ".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.3:
            told = golds[-1][::-1]
        found = theirs.process_results({"answers": [tuple(gold) for gold in golds]}, told)
        assert drop_scores(told, golds) == {"f1": pytest.approx(found["f1"]), "em": found["em"]}


@pytest.mark.parametrize(
    ("told", "gold", "f1", "em"),
    [
        (["23"], ["23.0"], 1.0, 1.0),
        (["the Denver Broncos"], ["Denver Broncos"], 1.0, 1.0),
        (["Denver"], ["Denver Broncos"], 0.67, 0.0),
        (["24 yards"], ["23 yards"], 0.0, 0.0),  # the numbers differ
        (["b", "a"], ["a x", "b"], 0.5, 0.0),  # "a" is an article
        (["red", "blue"], ["blue", "red"], 1.0, 1.0),
        (["red"], ["blue", "red"], 0.5, 0.0),
        (["twenty-three"], ["twenty three"], 1.0, 1.0),
        ([""], ["4"], 0.0, 0.0),
    ],
)
def test_drop_scores(told: list[str], gold: list[str], f1: float, em: float) -> None:
    assert drop_scores(told, [gold]) == {"f1": f1, "em": em}

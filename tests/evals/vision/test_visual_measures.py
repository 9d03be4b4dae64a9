"""Measures of visual benchmarks against closed forms and the worked cases of the published code."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.evals.vision.measures import (
    MEASURES,
    anls,
    chosen,
    exact_match,
    final_part,
    levenshtein,
    math_match,
    relaxed_accuracy,
    textvqa_score,
    token_f1,
    vqa_score,
)
from foretell.evals.vision.normal import textvqa_normal, vqa_normal


@pytest.mark.parametrize(("agree", "score"), enumerate((0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1)))
def test_vqa_score_of_ten_annotators(agree: int, score: float) -> None:
    said = ["red"] * agree + ["blue", "pink", "grey", "black", "white", "brown", "gold", "teal", "navy", "plum"]
    assert vqa_score("red", said[:10]) == pytest.approx(score)
    assert textvqa_score("red", said[:10]) == pytest.approx(score)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12), st.sampled_from("abcd"))
def test_vqa_score_is_the_mean_over_leaving_each_out(said: list[str], answer: str) -> None:
    left = [said[:i] + said[i + 1 :] for i in range(len(said))]
    plain = [vqa_normal(word) for word in said]
    direct = [min(1, sum(vqa_normal(w) == vqa_normal(answer) for w in rest) / 3) for rest in left]
    assert vqa_score(answer, said) == pytest.approx(sum(direct) / len(plain))


@pytest.mark.parametrize(
    ("text", "plain"),
    [  # what github.com/GT-Vision-Lab/VQA makes of them
        ("The Two dogs.", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("hed've", "he'd've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("1,000 people", "1000 people"),
        ("1,000-year", "1000year"),
        ("u.s.a.", "usa"),
        ("3.5 m.", "3.5 m"),
        ("t-shirt\n", "t shirt"),
        ("50%", "50%"),
        ("it's", "it's"),
    ],
)
def test_vqa_writes_answers_as_its_code_does(text: str, plain: str) -> None:
    assert vqa_normal(text) == plain


def test_textvqa_parts_the_possessive_and_drops_commas_first() -> None:
    assert textvqa_normal("John's, the") == "john 's"
    assert textvqa_normal("1,000-year?") == "1000 year"


def test_a_unanimous_answer_counts_in_any_case() -> None:
    assert vqa_score("Yes.", ["yes"] * 10) == 1
    assert vqa_score("", []) == 0


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [  # pix2struct's relaxed_correctness
        ("10.5", "10", 1),
        ("10.51", "10", 0),
        ("9.5", "10", 1),
        ("9.49", "10", 0),
        ("-10.2", "-10", 1),
        ("10.2", "-10", 0),
        ("5%", "0.05", 1),
        ("5%", "5", 0),
        ("0", "0", 1),
        ("0.0", "0", 0),  # text, since there is no 5 % of 0
        ("0.01", "0", 0),
        ("Peru", "peru", 1),
        ("Peru.", "peru", 0),
        ("1,000", "1000", 0),
        ("nan", "3", 0),
    ],
)
def test_relaxed_accuracy(answer: str, gold: str, right: float) -> None:
    assert relaxed_accuracy(answer, [gold]) == right


@pytest.mark.parametrize(
    ("answer", "golds", "score"),
    [
        ("Hello World", ["hello world"], 1.0),
        ("helo world", ["hello world"], 10 / 11),
        ("hello   world ", ["hello world"], 1.0),
        ("ab", ["ax"], 0.5),  # exactly at the threshold: kept by the published code
        ("abc", ["axy"], 0.0),
        ("Jan 8", ["January 8", "Jan 8"], 1.0),
        ("", ["x"], 0.0),
        ("a very long reply that goes on and on", ["yes"], 0.0),
    ],
)
def test_anls(answer: str, golds: list[str], score: float) -> None:
    assert anls(answer, golds) == pytest.approx(score)


def _slow(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(_slow(a[1:], b) + 1, _slow(a, b[1:]) + 1, _slow(a[1:], b[1:]) + (a[0] != b[0]))


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_levenshtein_is_the_least_number_of_edits(a: str, b: str) -> None:
    assert levenshtein(a, b) == levenshtein(b, a) == _slow(a, b)


def test_levenshtein_of_a_known_pair() -> None:
    assert levenshtein("kitten", "sitting") == 3


def test_exact_match_and_f1() -> None:
    assert exact_match("The Eiffel Tower!", ["eiffel tower"]) == 1
    assert exact_match("tower", ["eiffel tower"]) == 0
    assert token_f1("the tall eiffel tower", ["Eiffel Tower"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("x", ["y", "x z"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("\\frac{1}{2}", "0.5", 1),
        ("\\dfrac12", "1/2", 1),
        ("x = 12", "12", 1),
        ("12 \\text{ cm}", "12", 1),
        ("45^{\\circ}", "45", 1),
        ("3.141", "3.14", 1),
        ("3.2", "3.14", 0),
        ("1/0", "2", 0),
        ("2\\sqrt{3}", "2\\sqrt{3}", 1),
        ("\\sqrt{12}", "2\\sqrt{3}", 0),  # no algebra: stated as a limit
        ("", "2", 0),
    ],
)
def test_math_match(answer: str, gold: str, right: float) -> None:
    assert math_match(answer, [gold]) == right


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("red", "red"),
        ("Red.\nIt is red since", "Red"),
        ("First 2, then 3.\nAnswer: 5.", "5"),
        ("The answer is **Peru**.", "Peru"),
        ("Answer: 4\nNo, wait. Answer: 5", "5"),
        ("So \\boxed{\\frac{1}{2}} it is.", "\\frac{1}{2}"),
        ('"Hello"', "Hello"),
        ("", ""),
    ],
)
def test_what_is_read_of_a_reply(reply: str, answer: str) -> None:
    assert final_part(reply) == answer


def test_an_option_is_chosen_by_its_words_or_its_letter() -> None:
    options = ("fox", "hare", "a red owl")
    assert [chosen(text, text, options) for text in ("hare", "B", "(C)", "a red owl", "wolf")] == [1, 1, 2, 2, None]
    letters = ("C", "A", "D", "B")
    assert [chosen(text, text, letters, False) for text in ("A", "(D)", "It is B", "A or B")] == [1, 2, 3, None]
    assert chosen("True, there is one", "True, there is one", ("true", "false"), False) == 0


def test_all_measures_are_from_0_to_1_and_1_for_the_right_answer() -> None:
    words = ("red", "12", "<h1>Rovo</h1>", "1,5")
    for measure, (a, b) in itertools.product(MEASURES.values(), itertools.product(words, words)):
        assert 0 <= measure(a, [b] * 10) <= 1
        assert not math.isnan(measure(a, [b] * 10))
        if a == b:
            assert measure(a, [b] * 10) == 1

"""A number of a card is read from a file, or it cannot be made; prose holds none."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.errors import CardError
from foretell.report.card.figures import (
    FORMS,
    NAMES,
    RULES,
    Derived,
    Document,
    Figure,
    Prose,
    Quote,
    interval_text,
    where,
    written,
)

VALUE: dict[str, Any] = {
    "a": 0.25,
    "rate": {"estimate": 0.5, "low": 0.375, "high": 0.625},
    "list": [0.5, 0.375, 0.625],
    "rows": [{"n": 3}, {"n": 4}],
    "words": "held  out",
    "when": "2026-03-02T09:00:07+00:00",
    "yes": True,
    "nothing": None,
    "infinite": math.inf,
    "empty": "",
    "tutor.leaked": 1,
}


@pytest.fixture
def document(tmp_path: Path) -> Document:
    (tmp_path / "x.json").write_text(json.dumps(VALUE))
    return Document(tmp_path, "x.json")


def test_a_figure_is_what_its_file_holds(document: Document) -> None:
    assert Figure(document, ("a",)).value == 0.25
    found = document.interval("rate", form="share")
    assert found is not None and found.value == 0.5 and found.interval == (0.375, 0.625)
    assert document.interval("list", form="share") == Figure(document, ("list", 0), "share", ("list", 1), ("list", 2))
    assert [row.figure("n") for row in document.rows("rows")] == [Figure(document, ("rows", i, "n")) for i in (0, 1)]
    assert document.estimate("a") == Figure(document, ("a",))


@pytest.mark.parametrize("at", [("words",), ("yes",), ("nothing",), ("infinite",), ("b",), ("rows", 2, "n"), ()])
def test_no_figure_without_a_finite_number(document: Document, at: tuple[str | int, ...]) -> None:
    assert document.figure(*at) is None
    with pytest.raises(CardError, match="holds no number at"):
        Figure(document, at)


def test_a_figure_takes_no_value() -> None:
    """Neither has a field that a number could be put into; what they tell is computed when it is asked for."""
    assert {field.name for field in dataclasses.fields(Figure)} == {"document", "at", "form", "low", "high"}
    assert {field.name for field in dataclasses.fields(Derived)} == {"rule", "parts", "form", "interval"}
    assert isinstance(Figure.value, property) and isinstance(Derived.value, property)
    assert {f.name for f in dataclasses.fields(Document) if f.init} == {
        "folder", "name", "kind", "made_from", "samples",
    }  # fmt: skip


def test_a_document_must_be_there_and_whole(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="missing"):
        Document(tmp_path, "none.json")
    (tmp_path / "half.json").write_text('{"a": 1')
    with pytest.raises(CardError, match=r"half\.json is damaged"):
        Document(tmp_path, "half.json")


def test_derived_numbers_follow_their_rule(document: Document) -> None:
    three, four, quarter = (Figure(document, at) for at in (("rows", 0, "n"), ("rows", 1, "n"), ("a",)))
    expected = {"sum": 7, "product": 12, "difference": -1, "quotient": 0.75}
    expected |= {"number of": 2, "number above zero of": 2}
    assert expected.keys() == RULES.keys()
    for rule, value in expected.items():
        assert Derived(rule, (three, four)).value == value
    nested = Derived("product", (Derived("sum", (three, four)), quarter))
    assert nested.value == 1.75 and list(nested.sources()) == [three, four, quarter]
    for rule, parts in (("sum", ()), ("mean", (three,)), ("quotient", (three,))):
        with pytest.raises(CardError, match="no number"):
            Derived(rule, parts)


@given(st.text(), st.characters(categories=["Nd", "Nl", "No"]), st.text())
def test_prose_holds_no_digit_of_any_script(before: str, digit: str, after: str) -> None:
    with pytest.raises(CardError, match="prose tells no numbers"):
        Prose(before + digit + after)


def test_prose_holds_words_and_the_names_that_are_allowed() -> None:
    assert Prose("Share right, before and after RLHF.") == "Share right, before and after RLHF."
    for name in NAMES:
        assert Prose(f"as {name} does")
    with pytest.raises(CardError):
        Prose("GPT-4 reached 86.4")
    with pytest.raises(CardError):
        Prose("GPT-4 7")


def test_quotes_stand_in_their_file(document: Document) -> None:
    assert Quote(document, ("words",)).text == "held out"
    assert Quote(document, ("when",)).text == "2026-03-02 09:00 UTC"
    assert Quote(document, ("tutor.leaked",), key=True).text == "tutor.leaked"
    assert document.quote("empty") is None and document.quote("a") is None
    with pytest.raises(CardError, match="holds nothing"):
        Quote(document, ("b",))


def test_places_read_as_code() -> None:
    assert where(("metrics", "rates", "tutor.leaked", 0)) == 'metrics.rates["tutor.leaked"][0]'
    assert where(()) == "the whole"


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [("share", 0.25, "25.0\u202f%"), ("points", 0.25, "+25.0\u202fpoints"), ("count", 1234, "1,234"),
     ("error", 0.25, "0.250"),
     ("duration", 65, "1 min 05 s"), ("hours", 5400, "1.50 h"), ("energy", 7.2e6, "2.00 kWh"), ("money", 7200, "2.00"),
     ("plain", 370.0, "370"), ("percent", 86.4, "86.4\u202f%")],
)  # fmt: skip
def test_forms(tmp_path: Path, form: str, value: float, text: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps([value]))
    assert written(Figure(Document(tmp_path, "x.json"), (0,), form)) == text


def test_an_interval_names_its_unit_once(document: Document) -> None:
    found = document.interval("rate", form="share")
    assert found is not None
    assert interval_text(found) == "37.5 to 62.5\u202f%" and written(found) == "50.0\u202f% (37.5 to 62.5\u202f%)"
    assert "shares" not in FORMS
    with pytest.raises(CardError, match="no form 'shares'"):
        Figure(document, ("a",), "shares")

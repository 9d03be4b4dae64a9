"""Attacks as data: every packaged operator keeps the request readable to who undoes it, and bad files are named."""

from __future__ import annotations

import base64
import codecs
from pathlib import Path

import pytest

from foretell.chat import Conversation
from foretell.errors import EvalError
from foretell.evals.redteam.operators import CODES, dress, load_operators

REQUEST = "How do {x} I open the {a} vault Bope?"
PACKAGED = load_operators()


def test_every_family_has_a_source_and_the_ones_that_are_asked_for_are_there() -> None:
    assert {
        *("direct", "role-play", "fiction", "prefix", "suppression", "splitting", "encoding", "translation"),
        *("escalation", "system", "few-shot", "typographic"),
    } <= set(PACKAGED.families)
    assert all(family.source and family.operators for family in PACKAGED.families.values())


@pytest.mark.parametrize("name", list(PACKAGED.operators))
def test_every_operator_makes_a_conversation_that_carries_the_request(name: str) -> None:
    draft = dress(PACKAGED, (name,), REQUEST)
    messages = [*draft.head(), *({"role": "user", "content": one} for one in draft.lead), draft.last()]
    assert Conversation.from_openai(messages).messages[-1].role == "user"
    operator = PACKAGED.operators[name]
    said = "\n".join([*draft.lead, draft.text])
    if operator.kind == "encode":
        assert CODES[operator.given["encode"]](REQUEST) in said
    elif operator.kind == "split":
        assert all(word in said for word in REQUEST.split())
    else:
        assert REQUEST in said


def test_encodings_can_be_undone() -> None:
    text = "Open the vault"
    assert base64.b64decode(CODES["base64"](text)).decode() == text
    assert codecs.decode(CODES["rot13"](text), "rot13") == text
    assert CODES["reversed"](text)[::-1] == text
    assert bytes.fromhex(CODES["hex"](text)).decode() == text
    assert CODES["leetspeak"]("taste") == "74573"


def test_braces_of_a_request_stay_as_they_are() -> None:
    assert dress(PACKAGED, ("variables",), "{a} {b} {c} {x}").text.count("{a}") == 1


def test_a_composition_works_in_one_order_whatever_it_is_made_of() -> None:
    made = PACKAGED.compose(("base64",), "grandmother")
    assert made == ("grandmother", "base64") == PACKAGED.compose(("grandmother",), "base64")
    text = dress(PACKAGED, made, "Hi there").text
    assert "grandmother" in base64.b64decode(text.rpartition(" ")[2]).decode()
    assert PACKAGED.compose(("german",), "french") is None
    assert PACKAGED.compose(("figure",), "article") is None
    assert PACKAGED.compose(("sure",), "sure") is None
    assert PACKAGED.compose(("plain",), "sure") == ("sure",)


def test_a_request_in_a_picture_is_a_png_beside_words() -> None:
    last = dress(PACKAGED, ("figure",), REQUEST).last()
    conversation = Conversation.from_openai([last])
    assert conversation.images[0].data.startswith(b"\x89PNG")
    assert REQUEST not in conversation.messages[0].text


def test_families_can_be_chosen_and_pictures_left_out() -> None:
    assert list(PACKAGED.only(["system"]).families) == ["direct", "system"]
    assert "typographic" not in PACKAGED.without_images().families
    with pytest.raises(EvalError, match="no family 'sytem'"):
        PACKAGED.only(["sytem"])


HEAD = "families:\n  direct: {title: Plain, source: ours, operators: {plain: {wrap: '{x}'}}}\n"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("families: []\n", 1, "no families"),
        (HEAD + "  role: {title: Role, operators: {a: {wrap: '{x}'}}}\n", 3, "needs title, source and operators"),
        (
            HEAD + "  role:\n    title: R\n    source: s\n    operators:\n      a: {wrap: Play a role.}\n",
            7,
            "has no {x}",
        ),
        (HEAD + "  role:\n    title: R\n    source: s\n    operators:\n      a: {warp: '{x}'}\n", 7, "expected"),
        (
            HEAD + "  code:\n    title: C\n    source: s\n    operators:\n      a: {encode: rot14, wrap: '{x}'}\n",
            7,
            "rot14",
        ),
        (HEAD + "  role:\n    title: R\n    source: s\n    operators:\n      plain: {wrap: '{x}'}\n", 7, "Rename one"),
        (HEAD + "  role:\n    title: R\n    source: s\n    operators: {}\n", 6, "has no operators"),
        (HEAD + "  role:\n   title: R\n  title: [\n", 6, "not readable YAML"),
        (HEAD + HEAD.partition("\n")[2], 3, "'direct' stands twice"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, why: str
) -> None:
    path = tmp_path / "attacks.yaml"
    path.write_text(text)
    with pytest.raises(EvalError) as error:
        load_operators(path)
    assert why in str(error.value)
    assert f"{path}, line {line}" in str(error.value)


def test_a_catalogue_needs_its_baseline(tmp_path: Path) -> None:
    path = tmp_path / "attacks.yaml"
    path.write_text(HEAD.replace("direct", "straight"))
    with pytest.raises(EvalError, match="no family direct"):
        load_operators(path)
    with pytest.raises(EvalError, match="cannot be read"):
        load_operators(tmp_path / "none.yaml")

"""Attacks as data: families of operators that change a request, and what a composition of them makes of it.

An attack is the names of operators in the order in which they are put on. The packaged ones stand in `operators.yaml`,
each family with its source; a file of one's own has the same form.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foretell.data.world.redteam import ENCODINGS
from foretell.errors import EvalError
from foretell.evals.located import line_of, read_located
from foretell.evals.prompts import Message

Attack = tuple[str, ...]
OWN = Path(__file__).with_name("operators.yaml")
BASELINE = "direct"
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
CODES: Mapping[str, Callable[[str], str]] = {
    "base64": ENCODINGS["base64"],
    "rot13": ENCODINGS["rot13"],
    "reversed": ENCODINGS["reversed letters"],
    "spelled": ENCODINGS["spelled letters"],
    "leetspeak": lambda text: text.translate(_LEET),
    "hex": lambda text: text.encode().hex(" "),
}
_FIELDS: Mapping[str, tuple[str, ...]] = {  # of each kind of operator: what it is given, the first by which it is known
    "language": ("language", "wrap"),
    "encode": ("encode", "wrap"),
    "split": ("split",),
    "wrap": ("wrap",),
    "turns": ("turns",),
    "system": ("system",),
    "lead": ("lead",),
    "image": ("image",),
}
_ONCE = ("language", "encode", "split", "lead", "image")  # two of a kind in one attack make no sense
_RANK = {kind: i for i, kind in enumerate(("language", "wrap", "encode", "split", "turns", "system", "lead", "image"))}


@dataclass(frozen=True)
class Operator:
    """kind: of _FIELDS. given: what its entry says."""

    name: str
    family: str
    kind: str
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    name: str
    title: str
    source: str
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """All families and operators, in the order of their file."""

    families: Mapping[str, Family]
    operators: Mapping[str, Operator]

    def family_names(self, attack: Attack) -> list[str]:
        """The families that an attack draws on, each once."""
        return list(dict.fromkeys(self.operators[name].family for name in attack))

    def language(self, attack: Attack) -> str | None:
        """The language that the request is put in."""
        return next((self.operators[n].given["language"] for n in attack if self.operators[n].kind == "language"), None)

    def compose(self, attack: Attack, name: str) -> Attack | None:
        """An attack with one operator more, in the order in which they work; None where the two exclude each other."""
        plain = self.families.get(BASELINE)
        own = [n for n in attack if plain is None or n not in plain.operators]
        kinds = [self.operators[n].kind for n in own]
        new = self.operators[name]
        if name in own or new.family == BASELINE or (new.kind in _ONCE and new.kind in kinds):
            return None
        if {"lead", "image"} <= {*kinds, new.kind}:  # what is led up to is asked in words
            return None
        return tuple(sorted([*own, name], key=lambda n: _RANK[self.operators[n].kind]))

    def only(self, families: Sequence[str]) -> Catalogue:
        """These families alone, and the baseline. Raises EvalError for one that is not there."""
        for name in families:
            if name not in self.families:
                raise EvalError(f"There is no family {name!r} of attacks; there are {', '.join(self.families)}.")
        return self._kept(lambda op: op.family in families or op.family == BASELINE)

    def without_images(self) -> Catalogue:
        """For models that see none."""
        return self._kept(lambda op: op.kind != "image")

    def _kept(self, keeps: Callable[[Operator], bool]) -> Catalogue:
        operators = {name: op for name, op in self.operators.items() if keeps(op)}
        families = {
            name: replace(f, operators=tuple(one for one in f.operators if one in operators))
            for name, f in self.families.items()
        }
        return Catalogue({name: f for name, f in families.items() if f.operators}, operators)


@dataclass(frozen=True)
class Draft:
    """A request in the making. lead: what is asked, and answered, before `text`. picture: whether `text` is drawn."""

    text: str
    system: tuple[str, ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    lead: tuple[str, ...] = ()
    beside: str | None = None

    def head(self) -> list[Message]:
        """All messages before the first that the model answers."""
        system: list[Message] = [{"role": "system", "content": "\n\n".join(self.system)}] if self.system else []
        return [*system, *({"role": role, "content": text} for role, text in self.before)]

    def last(self) -> Message:
        """The message whose answer is judged."""
        if self.beside is None:
            return {"role": "user", "content": self.text}
        url = "data:image/png;base64," + base64.b64encode(draw_text(self.text)).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self.beside}]
        return {"role": "user", "content": parts}


def dress(catalogue: Catalogue, attack: Attack, text: str) -> Draft:
    """A request under an attack."""
    draft = Draft(text)
    for name in attack:
        draft = _put_on(catalogue.operators[name], draft)
    return draft


def load_operators(path: Path = OWN) -> Catalogue:
    """A catalogue. Raises EvalError, naming file and line, for one that cannot be read or used."""
    raw, lines = read_located(path, "catalogue of attacks")

    def fail(at: tuple[Any, ...], why: str) -> EvalError:
        return EvalError(f"{path}, line {line_of(lines, at)}: {why}")

    listed = raw.get("families") if isinstance(raw, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise fail((), "there are no families. Write `families:` and under it name, title, source and operators.")
    families: dict[str, Family] = {}
    operators: dict[str, Operator] = {}
    for family, told in listed.items():
        at = ("families", family)
        if not isinstance(told, dict) or set(told) != {"title", "source", "operators"}:
            raise fail(at, f"{family} needs title, source and operators, and has nothing else.")
        if not all(isinstance(told[key], str) and told[key].strip() for key in ("title", "source")):
            raise fail(at, f"title and source of {family} are text; a source may be a paper, a page or a person.")
        if not isinstance(told["operators"], dict) or not told["operators"]:
            raise fail((*at, "operators"), f"{family} has no operators. Add one, or take the family out.")
        for name, given in told["operators"].items():
            here = (*at, "operators", name)
            if name in operators:
                raise fail(here, f"{name} is an operator of {operators[name].family}, too. Rename one.")
            kind, why = _kind(given)
            if why:
                raise fail(here, f"{name} {why}")
            operators[str(name)] = Operator(str(name), str(family), kind, given)
        families[str(family)] = Family(str(family), told["title"], told["source"], tuple(map(str, told["operators"])))
    if BASELINE not in families:
        raise fail(("families",), f"there is no family {BASELINE}, with which others are compared. Add it.")
    return Catalogue(families, operators)


def draw_text(text: str) -> bytes:
    """A text as a PNG of black letters on white, 384 pixels wide."""
    from PIL import Image, ImageDraw

    from foretell.data.world.drawing import INK, font

    lines = textwrap.wrap(text, 26) or [""]
    image = Image.new("RGB", (384, 40 + 30 * len(lines)), (255, 255, 255))
    ImageDraw.Draw(image).multiline_text((20, 18), "\n".join(lines), font=font(24), fill=INK, spacing=6)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _put_on(operator: Operator, draft: Draft) -> Draft:
    given, text = operator.given, draft.text
    match operator.kind:
        case "wrap" | "language":
            return replace(draft, text=_fill(given["wrap"], x=text))
        case "encode":
            return replace(draft, text=_fill(given["wrap"], x=CODES[given["encode"]](text)))
        case "split":
            a, b, c = _pieces(text)
            return replace(draft, text=_fill(given["split"], a=a, b=b, c=c))
        case "system":
            return replace(draft, system=(*draft.system, given["system"]))
        case "turns":
            return replace(draft, before=(*draft.before, *((role, said) for role, said in given["turns"])))
        case "lead":
            *first, last = (_fill(one, x=text) for one in given["lead"])
            return replace(draft, lead=(*draft.lead, *first), text=last)
        case _:
            return replace(draft, beside=given["image"])


def _fill(template: str, **values: str) -> str:
    """Fields filled in at once, so that what a request itself has in braces stays as it is."""
    return re.sub(r"\{([abcx])\}", lambda found: values.get(found[1], found[0]), template)


def _pieces(text: str) -> tuple[str, str, str]:
    words = text.split()
    if len(words) < 3:
        third = max(1, len(text) // 3)
        return text[:third], text[third : 2 * third], text[2 * third :]
    a, b = len(words) // 3, 2 * len(words) // 3
    return " ".join(words[:a]), " ".join(words[a:b]), " ".join(words[b:])


def _kind(given: Any) -> tuple[str, str]:
    """What kind an entry is of, and what is wrong with it."""
    if not isinstance(given, dict):
        return "", f"is {given!r:.60}; expected one of {', '.join(_FIELDS)}."
    kind = next((k for k, fields in _FIELDS.items() if set(fields) == set(given)), "")
    if not kind:
        forms = "; ".join(" and ".join(fields) for fields in _FIELDS.values())
        return "", f"has {', '.join(map(str, given)) or 'nothing'}; expected {forms}."
    if kind == "turns":
        ok = isinstance(given["turns"], list) and bool(given["turns"])
        ok = ok and all(
            isinstance(t, list) and len(t) == 2 and t[0] in ("user", "assistant") and isinstance(t[1], str)
            for t in given["turns"]
        )
        return kind, "" if ok else "has turns that are no list of [user, text] and [assistant, text]."
    if kind == "lead":
        ok = isinstance(given["lead"], list) and len(given["lead"]) > 1
        ok = ok and all(isinstance(t, str) and t.strip() for t in given["lead"])
        if not ok:
            return kind, "has a lead that is no list of two or more texts."
        return kind, "" if any("{x}" in t for t in given["lead"]) else "has no {x} in its lead, for the request."
    if not all(isinstance(value, str) and value.strip() for value in given.values()):
        return kind, "has a field that is no text."
    if kind == "encode" and given["encode"] not in CODES:
        return kind, f"encodes by {given['encode']!r}; known are {', '.join(CODES)}."
    marks = ["{a}", "{b}", "{c}"] if kind == "split" else ["{x}"] if "wrap" in given else []
    if lacking := [mark for mark in marks if mark not in given["split" if kind == "split" else "wrap"]]:
        return kind, f"has no {' '.join(lacking)}, where the request is to stand."
    return kind, ""

"""What a card may say: numbers and words read from a file, and prose without a digit.

A number on a card is a `Figure`, which holds no value of its own but the file and the field where it stands, or a
`Derived`, which is computed from such by a named rule. So a number that no file holds cannot be written down. `Prose`
refuses digits, so that none comes in as text.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from foretell.errors import CardError
from foretell.pages import compact, duration, number, percent, size

Step = str | int
Steps = tuple[Step, ...]
Kind = Literal["measured", "published", "assumed", "method"]
NAMES = ("GPT-4", "GPT-3.5", "SHA-256", "Brier's")
"""Proper names that prose may hold though they have digits."""
_MOST_BYTES = 256_000_000
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)")


class Prose(str):
    """Words of the card itself. Raises CardError for a digit, or any other character that stands for a number."""

    __slots__ = ()

    def __new__(cls, text: str) -> Prose:
        bare = text
        for name in NAMES:
            bare = bare.replace(name, "")
        if found := next((c for c in bare if unicodedata.numeric(c, None) is not None), None):
            raise CardError(
                f"{found!r} stands in {text!r}, and prose tells no numbers. Read it from a file as a Figure."
            )
        return super().__new__(cls, text)


@dataclass(frozen=True)
class Given:
    """What the user called the model, as it is typed in commands."""

    text: str


@dataclass(frozen=True, eq=False)
class Document:
    """A JSON or YAML file that was read. folder: of the run or measurement; name: within it.

    kind: whether it tells what was measured, what others published, what is assumed, or how it is done. made_from: for
    a file that the card computed, the files it was computed from. samples: where the single answers behind its numbers
    lie. value, sha256: what the file holds, and its digest.
    Raises CardError for a file that is missing, damaged, or larger than 256 MB.
    """

    folder: Path
    name: str
    kind: Kind = "measured"
    made_from: tuple[Path, ...] = ()
    samples: Path | None = None
    value: Any = field(init=False, repr=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                raise CardError(f"{self.path} is larger than {_MOST_BYTES // 10**6} MB, as no summary is.")
            data = self.path.read_bytes()
            value = yaml.safe_load(data) if self.path.suffix in (".yaml", ".yml") else json.loads(data)
        except FileNotFoundError as error:
            raise CardError(f"{self.path} is missing. Make it again with the command that wrote its folder.") from error
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise CardError(
                f"{self.path} is damaged and cannot be read ({why}). Make it again, or leave it out."
            ) from error
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "sha256", hashlib.sha256(data).hexdigest())

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def get(self, *at: Step) -> Any:
        """What stands at a place; None where nothing does."""
        found = self.value
        for step in at:
            if isinstance(found, Mapping):
                found = found.get(step)
            elif isinstance(found, list) and isinstance(step, int) and -len(found) <= step < len(found):
                found = found[step]
            else:
                return None
        return found

    def keys(self, *at: Step) -> list[str]:
        """The keys of an object; none where there is none."""
        found = self.get(*at)
        return [str(key) for key in found] if isinstance(found, Mapping) else []

    def count(self, *at: Step) -> int:
        """The length of a list; 0 where there is none."""
        found = self.get(*at)
        return len(found) if isinstance(found, list) else 0

    def text(self, *at: Step) -> str:
        """The text at a place; empty where there is none."""
        found = self.get(*at)
        return found if isinstance(found, str) else ""

    def rows(self, *at: Step) -> list[View]:
        """The items of a list, or of an object; none where there is neither."""
        found = self.get(*at)
        steps: list[Step] = list(range(len(found))) if isinstance(found, list) else list(self.keys(*at))
        return [View(self, (*at, step)) for step in steps]

    def figure(self, *at: Step, form: str = "number", low: Steps = (), high: Steps = ()) -> Figure | None:
        """The number at a place, with the ends of its interval where both are numbers; None where there is none."""
        if not _is_number(self.get(*at)):
            return None
        both = bool(low and high) and _is_number(self.get(*low)) and _is_number(self.get(*high))
        return Figure(self, at, form, low if both else (), high if both else ())

    def interval(self, *at: Step, form: str = "number") -> Figure | None:
        """An estimate that stands at a place as {estimate, low, high} or as a list of the three."""
        keys: tuple[Step, ...] = (0, 1, 2) if isinstance(self.get(*at), list) else ("estimate", "low", "high")
        value, low, high = ((*at, key) for key in keys)
        return self.figure(*value, form=form, low=low, high=high)

    def estimate(self, *at: Step, form: str = "number") -> Figure | None:
        """A number at a place, or an estimate with its interval."""
        return self.interval(*at, form=form) if isinstance(self.get(*at), dict | list) else self.figure(*at, form=form)

    def quote(self, *at: Step, key: bool = False) -> Quote | None:
        """The words at a place, or with `key` the name of the place itself; None where there are none."""
        found = self.get(*at)
        if found is None or not (key or isinstance(found, str)) or (not key and not found.strip()):
            return None
        return Quote(self, at, key)


@dataclass(frozen=True)
class View:
    """A place in a document, from which on is read."""

    document: Document
    base: Steps

    def get(self, *at: Step) -> Any:
        return self.document.get(*self.base, *at)

    def text(self, *at: Step) -> str:
        return self.document.text(*self.base, *at)

    def figure(self, *at: Step, form: str = "number", ends: tuple[Step, Step] | None = None) -> Figure | None:
        """ends: the keys beside it that hold the ends of its interval."""
        low, high = ((*self.base, *at[:-1], end) for end in ends) if ends else ((), ())
        return self.document.figure(*self.base, *at, form=form, low=low, high=high)

    def interval(self, *at: Step, form: str = "number") -> Figure | None:
        return self.document.interval(*self.base, *at, form=form) if self.get(*at) else None

    def quote(self, *at: Step) -> Quote | None:
        return self.document.quote(*self.base, *at)


@dataclass(frozen=True)
class Figure:
    """A number as it stands in a file.

    at: where. form: how it is written, a key of FORMS. low, high: where the ends of its interval stand, if it has one.
    Raises CardError where no finite number stands there.
    """

    document: Document
    at: Steps
    form: str = "number"
    low: Steps = ()
    high: Steps = ()

    def __post_init__(self) -> None:
        for at in (self.at, *(end for end in (self.low, self.high) if end)):
            if not _is_number(self.document.get(*at)):
                raise CardError(f"{self.document.path} holds no number at {where(at)}. A figure is read from its file.")
        _check_form(self.form)

    @property
    def value(self) -> float:
        found: float = self.document.get(*self.at)
        return found

    @property
    def interval(self) -> tuple[float, float] | None:
        return (self.document.get(*self.low), self.document.get(*self.high)) if self.low and self.high else None

    def sources(self) -> Iterator[Figure]:
        yield self


Rule = Callable[[list[float]], float]
RULES: Mapping[str, Rule] = {
    "sum": math.fsum,
    "product": math.prod,
    "difference": lambda values: values[0] - math.fsum(values[1:]),
    "quotient": lambda values: values[0] / values[1],
    "number of": lambda values: float(len(values)),
    "number above zero of": lambda values: float(sum(value > 0 for value in values)),
}


@dataclass(frozen=True)
class Derived:
    """A number computed from others that were read. rule: a key of RULES; parts: what it is applied to, in order.

    Raises CardError for no part, another rule, or what comes out as no finite number.
    """

    rule: str
    parts: tuple[Figure | Derived, ...]
    form: str = "number"
    interval: None = None

    def __post_init__(self) -> None:
        _check_form(self.form)
        try:
            sound = bool(self.parts) and math.isfinite(self.value)
        except (KeyError, ZeroDivisionError, IndexError, OverflowError):
            sound = False
        if not sound:
            raise CardError(f"The {self.rule} of {len(self.parts)} figures is no number. Leave it out.")

    @property
    def value(self) -> float:
        return RULES[self.rule]([part.value for part in self.parts])

    def sources(self) -> Iterator[Figure]:
        for part in self.parts:
            yield from part.sources()


Number = Figure | Derived


@dataclass(frozen=True)
class Quote:
    """Words as they stand in a file, at `at`; with `key` the last step itself, such as the name of a task.

    A time in UTC is told to the minute."""

    document: Document
    at: Steps
    key: bool = False

    def __post_init__(self) -> None:
        if self.document.get(*self.at) is None:
            raise CardError(f"{self.document.path} holds nothing at {where(self.at)}. A quote is read from its file.")

    @property
    def text(self) -> str:
        words = " ".join(str(self.at[-1] if self.key else self.document.get(*self.at)).split())
        return words[:16].replace("T", " ") + " UTC" if _TIME.fullmatch(words) else words


def where(at: Steps) -> str:
    """A place in a file as one reads it: metrics.loss, rates["tutor.leaked"][0]."""
    told = ""
    for step in at:
        if isinstance(step, str) and step.isidentifier():
            told += f".{step}" if told else step
        else:
            told += f"[{json.dumps(step, ensure_ascii=False)}]"
    return told or "the whole"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + percent(value)


def _points(value: float) -> str:
    """A difference of shares, in percentage points: +81.0 points."""
    return _signed(value).removesuffix("\u202f%") + "\u202fpoints"


def _plain(value: float) -> str:
    """As it is printed on paper: 370, 12.25."""
    return f"{value:,.6g}".replace("-", "−")


FORMS: Mapping[str, Callable[[float], str]] = {
    "number": number,
    "plain": _plain,
    "count": lambda value: f"{value:,.0f}",
    "compact": compact,
    "flops": lambda value: compact(value) + "FLOP",
    "share": percent,
    "level": lambda value: percent(value, 0),
    "points": _points,
    "relative": _signed,
    "percent": lambda value: f"{value:.1f}\u202f%".replace("-", "−"),
    "percentile": lambda value: f"{value:.3g}",
    "duration": duration,
    "hours": lambda value: number(value / 3600) + " h",
    "bytes": size,
    "watts": lambda value: number(value) + " W",
    "energy": lambda value: number(value / 3.6e6) + " kWh",
    "money": lambda value: number(value / 3600),
    "error": lambda value: f"{value:.3f}".replace("-", "−"),
}
"""How numbers are written. Of seconds times watts, "energy" makes kWh; of seconds times a price an hour, "money"."""


def value_text(figure: Number) -> str:
    """A number in its form, without its interval."""
    return FORMS[figure.form](figure.value)


def interval_text(figure: Number) -> str:
    """The interval of a number, such as 20.2 to 34.3 %; empty where it has none."""
    if figure.interval is None:
        return ""
    low, high = (FORMS[figure.form](end) for end in figure.interval)
    unit = next((unit for unit in ("\u202f%", "\u202fpoints") if high.endswith(unit)), "")
    return f"{low.removesuffix(unit)} to {high}"


def written(figure: Number) -> str:
    """A number with its interval in brackets, in its form."""
    ends = interval_text(figure)
    return f"{value_text(figure)} ({ends})" if ends else value_text(figure)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise CardError(f"There is no form {form!r} of a figure; there are {', '.join(FORMS)}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

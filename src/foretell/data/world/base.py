"""The interface of a world kind, and what kinds share. A new kind is one small file with a class like `Kind`."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Protocol, TypeVar

from foretell.data.document import Document, Segment
from foretell.data.splits import Split as Split
from foretell.errors import RecipeError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
WORLD_DATE = "2026-11-20"  # when this world was made up; it changes with what is true in it
HELDOUT_SHARE = 16  # one key in sixteen is held out
_WORD = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?|[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Item:
    """One generated example.

    content: what is read in training; a question is a conversation whose last turn is the right reply.
    Its labels say where the text is wrong on purpose ("conflict", "correct"); such items ask nothing.
    key: what the item is about, in canonical form; it alone decides whether the item is held out.
    task: the name a score is reported under. answer: the short truth that a reply is compared with (`is_right`),
    None where nothing is asked. choices: allowed answers, where the question has a closed set.
    """

    key: str
    task: str
    content: Document
    answer: str | None = None
    choices: tuple[str, ...] = ()


class Kind(Protocol):
    """A family of items. `visual` kinds hold an image that the answer depends on.

    A kind's options are the keyword arguments of its constructor; every task is named "<kind>.<what>".
    """

    name: str
    visual: bool

    def make(self, rng: random.Random, split: Split) -> Item:
        """One item of the split, drawn with `rng` alone."""
        ...


def is_heldout(key: str) -> bool:
    """Whether a key belongs to the held-out part of the world: decided by its hash, for ever."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % HELDOUT_SHARE == 0


def draw(rng: random.Random, split: Split, propose: Callable[[random.Random], T], key: Callable[[T], str]) -> T:
    """Draw proposals until one lies in the split.

    Raises RecipeError when the options leave so few keys that none was met.
    """
    for _ in range(2000):
        proposal = propose(rng)
        if is_heldout(key(proposal)) == (split == "heldout"):
            return proposal
    raise RecipeError(
        f"No {split} item like {key(proposal)!r} was found in 2000 draws: the options leave too few "
        "different items. Widen them (more tasks, languages, digits, entities)."
    )


def final_answer(text: str) -> str:
    """The last number or word of a reply, lower case, without punctuation; "" if there is none.

    A worked reply states its result last: final_answer("3 is red, so 3 + 4 = 7.") == "7".
    """
    found = _WORD.findall(text)
    return found[-1].lower() if found else ""


def is_right(reply: str, answer: str) -> bool:
    """Whether a reply gives the answer: the same text but for case, outer space and a full stop, or ending in it."""
    plain, truth = (text.strip().rstrip(".").lower() for text in (reply, answer))
    return plain == truth or final_answer(reply) == truth


def document(
    kind: str, segments: Iterable[Segment], language: str = "en", labels: dict[str, str] | None = None
) -> Document:
    """A document of the world; its id is given by whoever numbers the items."""
    return Document(
        id="",
        segments=tuple(segments),
        source="foretell.world",
        license="CC0-1.0",
        language=language,
        date=WORLD_DATE,
        kind=kind,
        labels=labels or {},
    )


def dialogue(
    turns: Sequence[tuple[str, str]], image: bytes | None = None, system: str | None = None
) -> tuple[Segment, ...]:
    """(question, reply) turns as segments, after a system message and with an image before the first question."""
    segments = [] if system is None else [Segment(text=system, role="system")]
    if image is not None:
        segments.append(Segment(image=image, role="user"))
    for asked, reply in turns:
        segments += [Segment(text=asked, role="user"), Segment(text=reply, role="assistant")]
    return tuple(segments)


def invent_names(rng: random.Random, count: int, taken: set[str]) -> tuple[str, ...]:
    """Invented names, none of them in `taken`, which they then are."""
    names: list[str] = []
    while len(names) < count:
        name = invent(rng, 2 if rng.random() < 0.5 else 3)
        if name not in taken:
            taken.add(name)
            names.append(name)
    return tuple(names)


def invent(rng: random.Random, syllables: int) -> str:
    """A name of open syllables that starts with a consonant, so that no article before it is elided."""
    parts = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(syllables)]
    return ("".join(parts) + rng.choice(("", "l", "n", "r"))).capitalize()


def png(image: Image) -> bytes:
    """Lossless bytes; the lightest compression, since items are made faster than they are stored."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def require(ok: bool, option: str, value: object, allowed: str) -> None:
    """Raise RecipeError unless an option's value is allowed."""
    if not ok:
        raise RecipeError(f"World option {option} is {value!r}; allowed is {allowed}.")


def subset(option: str, chosen: Sequence[str] | None, allowed: Sequence[str]) -> tuple[str, ...]:
    """The chosen names in the given order (None: all). Raises RecipeError for an unknown or missing name."""
    names = list(allowed) if chosen is None else [chosen] if isinstance(chosen, str) else chosen
    known = isinstance(names, (list, tuple)) and bool(names) and all(name in allowed for name in names)
    require(known, option, chosen, f"one or more of {', '.join(allowed)}")
    return tuple(names)


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether a value is an integer (and not a bool) within [low, high]."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_share(value: object) -> bool:
    """Whether a value is a number within [0, 1]."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1

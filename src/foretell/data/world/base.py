"""The interface of a world kind. A new kind is one small file that registers a class like these."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from foretell.data.document import Document

Split = Literal["train", "heldout"]
T = TypeVar("T")
HELDOUT_SHARE = 16  # one key in sixteen is held out


@dataclass(frozen=True)
class Item:
    """One generated example.

    content: what is read in training; a question is a conversation whose last turn is the right reply
    (or, where labels say so, a wrong one). key: what the item is about, in canonical form; it alone decides whether
    the item is held out. task: the name a score is reported under. answer: the short truth that a reply is
    compared with, None where nothing is asked. choices: allowed answers, where the question has a closed set.
    """

    key: str
    task: str
    content: Document
    answer: str | None = None
    choices: tuple[str, ...] = ()


class Kind(Protocol):
    """A family of items. `visual` kinds hold an image that the answer depends on."""

    name: str
    visual: bool

    def make(self, rng: random.Random, split: Split) -> Item:
        """One item of the split, drawn with `rng` alone."""
        ...


def is_heldout(key: str) -> bool:
    """Whether a key belongs to the held-out part of the world: decided by its hash, for ever."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % HELDOUT_SHARE == 0


def draw(rng: random.Random, split: Split, propose: Callable[[random.Random], T], key: Callable[[T], str]) -> T:
    """Draw proposals until one lies in the split."""
    while True:
        proposal = propose(rng)
        if is_heldout(key(proposal)) == (split == "heldout"):
            return proposal

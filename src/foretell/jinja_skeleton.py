"""A conversation without what it says: marks in the places of its texts, for templates that are not trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretell.errors import ConversationError
from foretell.jinja_marks import ASCII, CLOSE, DIGITS, END, JSON, OPEN, PIECE, SAME, SHOWN
from foretell.template import AddedToken

# A text may double with every escape, so a mark with more of them than a call within a call needs is none.
MARK = re.compile(
    f"{PIECE}[{DIGITS}]{{1,9}}{SAME}([{DIGITS}]{{1,9}})([{JSON}{ASCII}]{{0,4}}){END}"
    f"|((?:[{SHOWN}][{JSON}{ASCII}]{{0,4}})+)|([{OPEN}{CLOSE}])"
)
# What is left of marks, also as Python would spell it.
BROKEN = re.compile(f"[{PIECE}-\ufdef{SHOWN}]|\\\\u(?:fd[de][0-9a-f]|e[0-9a-f]{{3}}|f[0-8][0-9a-f]{{2}})")
_CHARACTER = re.compile(f"([{SHOWN}])([{JSON}{ASCII}]*)")
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)


@dataclass
class Skeleton:
    """Texts by their marks. owners: the message of each. literals: what is shown wherever it stands in a text.
    constants: what is shown where it is the whole text. alphabet: the characters of both."""

    literals: list[str]
    constants: list[str]
    alphabet: str
    added: Mapping[str, AddedToken]
    pieces: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        longest = sorted(self.literals, key=len, reverse=True)
        self._seen = re.compile("(?=(" + ("|".join(map(re.escape, longest)) or "(?!)") + "))")
        self._shown = str.maketrans({char: chr(ord(SHOWN[0]) + i) for i, char in enumerate(self.alphabet)})
        self._whole, self._first = frozenset(self.constants), dict[str, int]()

    def hide(self, text: str, owner: int) -> str:
        """The text's skeleton: white space at its ends and beside literals, and these."""
        if text.strip() in self._whole:
            return text.translate(self._shown)
        hidden, at = "", 0
        for found in self._seen.finditer(text):
            start, stop = max(found.start(1), at), found.end(1)  # literals may overlap
            if stop > at:
                hidden += self._mark(text[at:start], owner) + text[start:stop].translate(self._shown)
                at = stop
        return hidden + self._mark(text[at:], owner)

    def _mark(self, text: str, owner: int) -> str:
        if not (core := text.strip()):
            return text
        if core in self._whole:
            return text.translate(self._shown)
        begin, k = text.index(core), len(self.pieces)
        self.pieces.append(core)
        self.owners.append(owner)
        mark = f"{PIECE}{_number(self._first.setdefault(core, k))}{SAME}{_number(k)}{END}"
        return text[:begin] + mark + text[begin + len(core) :]

    def name(self, text: str, owner: int) -> str:
        """A name or id: as it is where it can be part of no control token, since templates test these."""
        plain = _PLAIN.fullmatch(text) and not any(text in token or token in text for token in self.added)
        return text if plain else self.hide(text, owner)

    def arguments(self, text: str, owner: int) -> Any:
        """The arguments of a tool call as an object; a text that is none stays a text."""
        try:
            found = json.loads(text)
            return self._value(found, owner) if isinstance(found, dict) else self.hide(text, owner)
        except (ValueError, RecursionError):
            return self.hide(text, owner)

    def _value(self, value: Any, owner: int) -> Any:
        if isinstance(value, str):
            return self.hide(value, owner)
        if isinstance(value, list):
            return [self._value(item, owner) for item in value]
        if isinstance(value, dict):
            return {self.name(key, owner): self._value(item, owner) for key, item in value.items()}
        return value

    def text(self, mark: re.Match[str]) -> tuple[str, int | None]:
        """The text of a mark, escaped as often as the mark was, and the message it is from."""
        k = sum((ord(digit) - ord(DIGITS[0])) * 10**i for i, digit in enumerate(reversed(mark[1] or "")))
        shown = [(ord(char) - ord(SHOWN[0]), steps) for char, steps in _CHARACTER.findall(mark[3] or "")]
        source: Sequence[str] = self.pieces if mark[1] else self.alphabet
        texts = []
        for i, steps in shown or [(k, mark[2])]:
            if i >= len(source):
                raise ConversationError("The model's chat template writes marks of its own. Use `complete` with it.")
            text = source[i]
            for step in steps:
                text = json.dumps(text, ensure_ascii=step == ASCII)[1:-1]
            texts.append(text)
        return "".join(texts), self.owners[k] if mark[1] else None


def _number(k: int) -> str:
    return "".join(chr(ord(DIGITS[0]) + int(digit)) for digit in str(k))

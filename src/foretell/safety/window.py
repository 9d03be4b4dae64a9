"""Output held back by a window, so that nothing disallowed is shown first."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Protocol

from foretell.safety.moderation import Finding
from foretell.safety.policy import ACTIONS, Action

_SENTENCE = re.compile(r"[.!?…:;][\"'”’)\]]*\s+|[。！？]+|\n+")
SEGMENT = 160
"""Characters: a sentence that goes on longer is looked at in pieces, cut after white space where there is some."""
CONTEXT = 480
"""Characters before a piece that are read with it."""


class Reader(Protocol):
    """What a window asks; `Moderation` is one."""

    def read(self, text: str, start: int = 0, final: bool = True) -> tuple[Finding, int]:
        """What is found, and the place before which nothing that follows can make a hit; text[:start] was passed on."""
        ...


class Held:
    """Text that comes in pieces, passed on once it is known to be allowed.

    It is read up to places that depend on the text alone (ends of sentences, or SEGMENT characters), whatever the
    pieces. What is passed on ends before any words that might, with what follows, become a rule's hit. Once something
    reaches `stop`, `finding` is set, and nothing more is passed on: neither the hit, nor the rest of what was read with
    it, nor anything after. `noted` is the strictest finding so far, also one that stops nothing: reviewers see it.
    Spans are of the whole text.
    """

    def __init__(self, reader: Reader, stop: Action = "refuse") -> None:
        self._reader, self._stop = reader, ACTIONS.index(stop)
        self._text, self._base = "", 0  # what may still matter, and how much of it was passed on
        self._read = 0  # up to where it was read
        self._gone = 0  # characters before it that no longer matter
        self.finding: Finding | None = None
        self.noted: Finding | None = None

    def push(self, text: str) -> str:
        """What may be shown now, perhaps nothing."""
        if self.finding is not None:
            return ""
        self._text += text
        out = ""
        while self.finding is None and (place := self._next()) is not None:
            out += self._advance(place, final=False)
        return out

    def finish(self) -> str:
        """The rest, if it is allowed. The text has ended."""
        return "" if self.finding is not None else self._advance(len(self._text), final=True)

    def _next(self) -> int | None:
        """The next place to read up to, once nothing that follows can move it."""
        match = _SENTENCE.search(self._text, self._read)
        if match is not None and match.end() - self._read <= SEGMENT:
            # White space at the very end may go on, and belongs to this sentence.
            return match.end() if match.end() < len(self._text) else None
        if len(self._text) - self._read <= SEGMENT:
            return None
        limit = self._read + SEGMENT
        gap = max(self._text.rfind(" ", self._read, limit), self._text.rfind("\n", self._read, limit))
        return gap + 1 if gap > self._read else limit

    def _advance(self, place: int, final: bool) -> str:
        finding, settled = self._reader.read(self._text[:place], self._base, final)
        if finding.span is not None:
            finding = replace(finding, span=(finding.span[0] + self._gone, finding.span[1] + self._gone))
        if self.noted is None or ACTIONS.index(finding.action) > ACTIONS.index(self.noted.action):
            self.noted = finding
        if ACTIONS.index(finding.action) >= self._stop:
            self.finding = finding
            return ""
        until = place if final else settled
        shown = self._text[self._base : until]
        drop = max(0, min(until, place - CONTEXT))
        self._text, self._gone = self._text[drop:], self._gone + drop
        self._base, self._read = until - drop, place - drop
        return shown

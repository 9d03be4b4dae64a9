"""Unicode repair: mojibake, stray control characters, ligatures, line ends and normal form, by ftfy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import StepSection, map_texts
from foretell.data.document import Document
from foretell.errors import MissingExtraError

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

_ODD = re.compile(r"[^\n\t -~]")
LONGEST = 100_000  # characters of a line that are repaired at once


class UnicodeStep(StepSection):
    """Repair of text that was decoded wrongly somewhere on its way.

    uncurl: make curly quotes straight. unescape: undo HTML entities; not by default, since pages about HTML need them.
    width: make full-width letters plain; not by default, since it changes Chinese and Japanese punctuation.
    """

    step: Literal["unicode"] = "unicode"
    uncurl: bool = False
    unescape: bool = False
    width: bool = False

    def make(self) -> Step:
        return UnicodeRepair(self.uncurl, self.unescape, self.width)


@dataclass(frozen=True)
class UnicodeRepair:
    """Changes text only; plain ASCII passes unread."""

    uncurl: bool = False
    unescape: bool = False
    width: bool = False
    name: str = "unicode"

    def __call__(self, document: Document) -> Document | Removed:
        return map_texts(document, self.repair)

    def repair(self, text: str) -> str:
        """Line by line, as ftfy does; a line that is plain ASCII cannot be broken.

        Raises MissingExtraError without ftfy.
        """
        if not self.unescape and not _ODD.search(text):
            return text
        try:
            from ftfy import fix_text
        except ImportError as error:
            raise MissingExtraError("Unicode repair", "data") from error
        config = _config(self.uncurl, self.unescape, self.width)
        return "".join(
            fix_text(line, config) if self.unescape or _ODD.search(line) else line
            for line in text.splitlines(keepends=True)
        )


@lru_cache(4)
def _config(uncurl: bool, unescape: bool, width: bool) -> TextFixerConfig:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        uncurl_quotes=uncurl,
        unescape_html=unescape,
        fix_character_width=width,
        max_decode_length=LONGEST,
        explain=False,
    )

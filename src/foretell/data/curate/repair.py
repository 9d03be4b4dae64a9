"""Unicode repair: mojibake, stray control characters, ligatures, line ends and normal form, by ftfy."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from foretell.data.curate.steps import Removed
from foretell.data.curate.texts import StepSection, map_texts
from foretell.data.document import Document
from foretell.errors import MissingExtraError

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

_ODD = re.compile(r"[^\n\t -~]")
AROUND = 8  # characters: more than any sequence that is taken for mojibake has before or after what is suspect in it
LONGEST = 100_000  # characters of a line that are repaired at once


class UnicodeStep(StepSection):
    """Repair of text that was decoded wrongly somewhere on its way. What ftfy would leave alone is not given to it.

    uncurl: make curly quotes straight. unescape: undo HTML entities; not by default, since pages about HTML need them.
    width: make full-width letters plain; not by default, since it changes Chinese and Japanese punctuation.
    """

    step: Literal["unicode"] = "unicode"
    uncurl: bool = False
    unescape: bool = False
    width: bool = False

    def __call__(self, document: Document) -> Document | Removed:
        return map_texts(document, self.repair)

    def repair(self, text: str) -> str:
        """Line by line, as ftfy does.

        Raises MissingExtraError without ftfy.
        """
        if text.isascii() and not self.unescape and not _ODD.search(text):
            return text
        try:
            from ftfy import fix_text
        except ImportError as error:
            raise MissingExtraError("Unicode repair", "data") from error
        if self.sound(text):
            return text
        config = _config(self.uncurl, self.unescape, self.width)
        return "".join(line if self.sound(line) else fix_text(line, config) for line in text.splitlines(keepends=True))

    def sound(self, text: str) -> bool:
        """Whether ftfy provably changes nothing of the text, whole or line by line.

        None of its replacements finds anything, the text is in NFC, and nothing looks like mojibake. Each sequence that
        does so by ftfy's rule holds two neighbours among the few hundred characters of that rule, or one of the few
        that the pattern of `_suspect` names beside them; so the slow rule is asked only around those.
        """
        if _replaced(self.uncurl, self.unescape, self.width).search(text):
            return False
        if text.isascii():
            return True
        if not unicodedata.is_normalized("NFC", text):
            return False
        suspect, mojibake = _suspect()
        for found in suspect.finditer(text):
            if found["alone"] or mojibake.search(text[max(0, found.start() - AROUND) : found.end() + AROUND]):
                return False
        return True


@lru_cache(8)
def _replaced(uncurl: bool, unescape: bool, width: bool) -> re.Pattern[str]:
    """What ftfy replaces wherever it stands. A form feed stays, but ends a line for Python, so it is looked at too."""
    from ftfy.chardata import CONTROL_CHARS, LIGATURES, WIDTH_MAP

    codes = {
        *CONTROL_CHARS,
        *LIGATURES,
        *(WIDTH_MAP if width else ()),
        *range(0x80, 0xA0),
        *map(ord, "\r\f\u2028\u2029"),
    }
    ways = ["[" + "".join(map(re.escape, map(chr, sorted(codes)))) + "\ud800-\udfff]"]
    if uncurl:
        ways.append("[\u02bc\u2018-\u201f]")
    if unescape:
        ways.append("&#?[0-9A-Za-z]")
    return re.compile("|".join(ways))


@lru_cache(1)
def _suspect() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What every sequence that ftfy takes for mojibake holds, and ftfy's own pattern."""
    from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES

    known = "".join(MOJIBAKE_CATEGORIES.values()) + "".join(
        c for c in BADNESS_RE.pattern if not c.isascii() and c != "-"
    )
    return re.compile(rf"(?P<alone>[ÃÂ] |[Œœ][^A-Za-z])|[{known}]{{2,}}"), BADNESS_RE


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

"""Undo disguises of text: look-alikes, invisible characters, stacked marks, leetspeak, spaced or repeated letters.

`normalize` is safe for any language: what it gives for text that is not disguised reads the same. `spellings` guesses
what a single word may stand for; guesses are only looked up in a lexicon, so a wrong one does no harm.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# Letters of other scripts that look like Latin ones; used only where a word mixes scripts, or none of it is sure.
_LOOKALIKES = {
    **dict(zip("аеорсухіјѕԁԛԝһӏвкмнтьг", "aeopcyxijsdqwhlbkmhtbr", strict=True)),
    **dict(zip("АВЕКМНОРСТУХІЈЅԌԚԜЗ", "abekmhopctyxijsgqwe", strict=True)),
    **dict(zip("αβεικνορτυχγηωϲϳ", "abeikvoptuxynwcj", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "abezhikmnoptyx", strict=True)),
    **dict(zip("օսզցհոᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "ouqghnabcdefghijklmnoprstuvwyz", strict=True)),
}
# Latin letters with a stroke or without a dot, which whole languages need: read otherwise only as a guess.
_STROKED = dict(zip("ıłøđħŧɑɡɩʋ", "ilodhtagiv", strict=True))
_LEET = dict(zip("013456789@$!|+€£¢", "oieasbtbgasiltelc", strict=True))
_AROUND = ".,;:!?|\"'()[]{}<>*_~`“”‘’…«»"
_IGNORED = {"\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u3164", "\uffa0", "\u2800"}
_SPACES = re.compile(r"\s")
_RUN = re.compile(r"(.)\1{2,}")
_NOT_WORD = re.compile(r"[\W_]+")
_CHUNK = re.compile(r"\S+")
_ASCII_PLAIN = re.compile(r"[\t\n\r -~]*\Z")
MARKS = 2
"""Combining marks kept on a letter: Vietnamese needs two; more on one letter are a disguise."""


@dataclass(frozen=True)
class Normal:
    """text: normalised. starts: where in the source each character of `text` comes from, and the source's length."""

    text: str
    starts: tuple[int, ...] | range


def normalize(text: str) -> Normal:
    """Full-width and ornamental letters as plain ones, no invisible characters, few marks, one script a word.

    Case and language stay. Source: Unicode TR 39 for the idea of skeletons; TR 15 for NFKC.
    """
    if _ASCII_PLAIN.match(text):
        return Normal(text, range(len(text) + 1))
    out, starts = list[str](), list[int]()
    for at, plain in _clusters(text):
        for char in plain:
            out.append(char)
            starts.append(at)
    starts.append(len(text))
    joined = "".join(out)
    return Normal(_one_script(joined), tuple(starts))


def _clusters(text: str) -> list[tuple[int, str]]:
    """Each base character with its marks, composed: (place in the text, what it is)."""
    found = list[tuple[int, str]]()
    for at, char in enumerate(text):
        if char in _IGNORED or (unicodedata.category(char) in ("Cf", "Cc") and not _SPACES.match(char)):
            continue
        if unicodedata.combining(char) or unicodedata.category(char) == "Me":
            if found and not found[-1][1].isspace():
                start, base = found[-1]
                if sum(map(bool, map(unicodedata.combining, unicodedata.normalize("NFD", base)))) < MARKS:
                    found[-1] = start, unicodedata.normalize("NFC", base + char)
            continue
        found.append((at, unicodedata.normalize("NFKC", char)))
    return found


def _one_script(text: str) -> str:
    """Look-alikes turned Latin, one for one, in words that hold Latin letters too."""
    if not any(char in _LOOKALIKES for char in text):
        return text
    out = list(text)
    for chunk in _CHUNK.finditer(text):
        word = chunk.group()
        if any(_is_latin(char) for char in word) and any(char in _LOOKALIKES for char in word):
            out[chunk.start() : chunk.end()] = [_LOOKALIKES.get(char, char) for char in word]
    return "".join(out)


def _is_latin(char: str) -> bool:
    return char.isascii() and char.isalpha()


def spellings(chunk: str) -> tuple[str, ...]:
    """What a run of characters without white space may stand for, lower-case letters only, likeliest first.

    Punctuation inside it is left out, accents too; then look-alikes and leetspeak are read as letters; then letters
    that stand three times or more in a row are read as one, and as two.
    """
    lower = chunk.casefold()
    plain = _NOT_WORD.sub("", lower)
    if plain.isascii() and plain.isalpha() and not _RUN.search(plain) and plain == lower:
        return (plain,)
    found = dict.fromkeys([plain])
    read = "".join(_LOOKALIKES.get(char, _STROKED.get(char, char)) for char in lower)
    bare = "".join(c for c in unicodedata.normalize("NFD", read) if not unicodedata.combining(c))
    found[_NOT_WORD.sub("", bare)] = None
    if any(char.isalpha() for char in bare):
        bare = bare.strip(_AROUND)
        found[_leet(bare)] = None
        found[_leet(bare.replace("1", "l"))] = None
    for word in list(found):
        if _RUN.search(word):
            found[_RUN.sub(r"\1", word)] = None
            found[_RUN.sub(r"\1\1", word)] = None
    return tuple(word for word in found if word)


def _leet(word: str) -> str:
    return _NOT_WORD.sub("", "".join(_LEET.get(char, char) for char in word))

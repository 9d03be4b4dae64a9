"""What is compared: a text's letters and digits, in UTF-8.

"Removing all spaces and symbols, keeping only characters (including numbers)" (GPT-4 report, appendix C). Letters and
digits are what Unicode calls so in any script (`str.isalnum`: categories L, Nd and further numbers). Combining marks
are neither; they go on both sides. The report says nothing of case, so that it is kept unless asked otherwise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_AT_ONCE = 1 << 20  # characters, of four bytes each while they are sorted out
_DROPPED = bytes(code for code in range(128) if not chr(code).isalnum())


def normalize(text: str, ignore_case: bool = False) -> bytes:
    """The letters and digits of a text, UTF-8. ignore_case: case-folded as well.

    Each character is judged alone, so that what holds of a text holds of its parts:
    normalize(a + b) == normalize(a) + normalize(b).
    """
    if len(text) > _AT_ONCE:
        pieces = (text[i : i + _AT_ONCE] for i in range(0, len(text), _AT_ONCE))
        return b"".join(normalize(piece, ignore_case) for piece in pieces)
    if ignore_case:
        text = text.casefold()
    if text.isascii():
        return text.encode("ascii").translate(None, _DROPPED)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    kept: str = codes[_kept()[codes]].tobytes().decode("utf-32-le")
    return kept.encode()


@lru_cache(1)
def _kept() -> npt.NDArray[np.bool_]:
    """By code point, whether it is a letter or a digit."""
    return np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.bool_, 0x110000)

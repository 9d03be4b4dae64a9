"""Request bodies: JSON from strangers, read within limits and in one sense only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from foretell.errors import RequestError

_NUMBER = 100  # characters of a number: more have no meaning for a float, and take long to read
_INTEGER = 20  # characters of a whole number: those of 64 bits, signed or not
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(","): 0}
_NO_MARKS = bytes(set(range(256)) - set(_STEPS))
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a request.

    body_bytes, body_s: bytes of its body, and seconds for them to come. headers, header_bytes: how many, and their
    bytes with those of the address. depth: of nested lists and objects. items: values in all of them together, where
    an empty one counts as one more.
    """

    body_bytes: int = 32_000_000
    body_s: float = 60.0
    headers: int = 100
    header_bytes: int = 32_768
    depth: int = 64
    items: int = 250_000


def too_large(limit: int) -> RequestError:
    return RequestError(
        f"The request's body has more than {limit:,} bytes. Send fewer or smaller images and texts.",
        413,
        code="request_too_large",
    )


def parse_json(body: bytes, limits: BodyLimits = BodyLimits()) -> dict[str, Any]:
    """The JSON object of a request's body.

    Refused besides malformed JSON: other encodings than UTF-8, and a byte order mark; NaN, Infinity, and numbers too
    large for a float or for 64 bits; lone surrogates; keys that an object repeats, since two readers of one request
    could each take another of the values. Limits hold before any object is made.
    Raises RequestError with status 413 for too many bytes, 400 for all else; param names the place of a surrogate.
    """
    if len(body) > limits.body_bytes:
        raise too_large(limits.body_bytes)
    # Brackets and commas in texts count here too; where that is within limits, so is what they stand for.
    opened = body.count(b"[") + body.count(b"{")
    if opened > limits.depth or body.count(b",") + opened > limits.items:
        _check_shape(body, limits)
    try:
        text = body.decode()
        if text.startswith("\ufeff"):
            raise RequestError("The request's body begins with a byte order mark. Send UTF-8 without one.")
        found = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise RequestError(f"The request's body is not UTF-8: byte {error.start} begins no character.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RequestError(f"The request's body is not valid JSON: {error.msg} at {where}.") from error
    if not isinstance(found, dict):
        raise RequestError('The request\'s body is JSON, but no object. Expected one such as {"model": …}.')
    if b"\\u" in body and (b"\\ud" in body or b"\\uD" in body) and (place := next(_surrogates(found, ""), None)):
        raise RequestError(
            f"{place} holds half of a surrogate pair, which is no character. Send whole ones.",
            param=place,
            code="invalid_value",
        )
    return found


def _check_shape(body: bytes, limits: BodyLimits) -> None:
    """Raises RequestError for JSON nested too deep or of too many values; malformed JSON may pass.

    Up to the first fault of malformed JSON the count is exact, and a decoder goes no further.
    """
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # A value has the quotes of its key and its own, so what is left unsplit belongs to a body of too many values.
    pieces = plain.split(b'"', 4 * limits.items + 2)
    marks = b"".join(pieces[::2]).translate(None, _NO_MARKS)
    if len(marks.translate(None, b"]}")) > limits.items:
        raise RequestError(f"The request's body has too many values: at most {limits.items:,} are read.")
    if max(accumulate(map(_STEPS.__getitem__, marks)), default=0) > limits.depth:
        raise RequestError(f"The request's body is nested too deep: at most {limits.depth} levels are read.")


def _surrogates(value: Any, place: str) -> Iterator[str]:
    """The places of texts that cannot be written as UTF-8."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            yield place
    elif isinstance(value, dict):
        for key, inner in value.items():
            path = _shown(key) if not place else f"{place}.{_shown(key)}"
            if _SURROGATE.search(key):
                yield path
            yield from _surrogates(inner, path)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _surrogates(inner, f"{place}[{i}]")


def _shown(key: str) -> str:
    """A key as it can be told: short, and without what cannot be printed or encoded."""
    return key if key.isidentifier() and key.isascii() and len(key) <= 64 else ascii(key[:64])


def _number_error(what: str) -> RequestError:
    return RequestError(
        f"The request's body holds {what}. Send a finite number of ordinary size.", code="invalid_value"
    )


def _float(text: str) -> float:
    if len(text) > _NUMBER:
        raise _number_error(f"a number of {len(text)} characters")
    if math.isinf(value := float(text)):
        raise _number_error(f"the number {text}, which is too large")
    return value


def _int(text: str) -> int:
    if len(text) > _INTEGER:
        raise _number_error(f"a whole number of {len(text)} characters")
    return int(text)


def _constant(text: str) -> None:
    raise _number_error(f"{text}, which is no number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RequestError(f"An object in the request's body has the key {_shown(repeated)} twice. Send it once.")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant, strict=True
)

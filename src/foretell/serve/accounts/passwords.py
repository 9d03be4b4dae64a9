"""Passwords: which are taken, and their argon2 hashes, each made and checked with the same work."""

from __future__ import annotations

import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from foretell.serve.refusals import refuse

SHORTEST, LONGEST = 10, 256  # letters


def check(password: str, email: str = "") -> None:
    """Raises RequestError 400 for a password that is too short, too long, or soon guessed."""
    if not SHORTEST <= len(password) <= LONGEST:
        told = f"A password has {SHORTEST} to {LONGEST} letters; this one has {len(password)}."
    elif len(set(password)) < 5:
        told = "The password repeats few letters. Choose another."
    elif _is_like(password.casefold(), email):
        told = "The password is much like the e-mail address. Choose another."
    else:
        return
    raise refuse(told, 400, param="password", code="invalid_password")


def _is_like(password: str, email: str) -> bool:
    """Whether a password is an e-mail address, a part of it, or its name with little besides."""
    name = email.partition("@")[0]
    return password in email or (name in password and 2 * len(name) > len(password))


def hashed(password: str) -> str:
    """What is stored of a password. Takes tens of milliseconds and 64 MB: not for a thread that others wait for."""
    return hasher().hash(_bytes(password))


def is_right(stored: str | None, password: str) -> bool:
    """Whether a password is the one that was hashed. stored: None where there is none to compare with, which takes as
    long: the time does not tell whose e-mail address is known."""
    if stored is None:
        hashed(password)
        return False
    try:
        return hasher().verify(stored, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False


def is_dated(stored: str) -> bool:
    """Whether a hash was made with other settings than today's."""
    return hasher().check_needs_rehash(stored)


@cache
def hasher() -> PasswordHasher:
    return PasswordHasher()  # RFC 9106, the profile of low memory


def _bytes(password: str) -> bytes:
    # The same letters typed on another keyboard may be composed otherwise (NIST SP 800-63B, 3.1.1.2).
    return unicodedata.normalize("NFKC", password[: 4 * LONGEST]).encode("utf-8", "surrogatepass")

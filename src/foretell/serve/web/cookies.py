"""Cookies of the pages, and the proof that a form was sent by one of them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

_SESSION, _VISITOR = "foretell", "foretell-visitor"
_LONGEST = 200  # characters


def read(header: str, *, secure: bool) -> tuple[str | None, str | None]:
    """(session, visitor) of a Cookie header."""
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if value and len(value) <= _LONGEST:
            found.setdefault(name, value)
    return found.get(_name(_SESSION, secure)), found.get(_name(_VISITOR, secure))


def session(secret: str, *, secure: bool, seconds: int) -> str:
    """A Set-Cookie header that begins a session, or with an empty secret ends it."""
    return _written(_name(_SESSION, secure), secret, secure, seconds if secret else 0)


def visitor(secret: str, *, secure: bool) -> str:
    """A Set-Cookie header for who is not logged in, so that their forms can be told from forged ones."""
    return _written(_name(_VISITOR, secure), secret, secure, None if secret else 0)


def new_visitor() -> str:
    return secrets.token_urlsafe(24)


def form_token(secret: str) -> str:
    """What a form must send back. secret: of the session, or of the visitor; another site can read neither."""
    return hmac.new(secret.encode("utf-8", "replace"), b"foretell form", hashlib.sha256).hexdigest()


def is_own_form(token: str, sent: str) -> bool:
    return hmac.compare_digest(token.encode(), sent.encode("utf-8", "replace"))


def is_own_origin(origin: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a form was sent from a page of `origin`.

    Every browser of today sends Origin with a POST; without it only Sec-Fetch-Site or Referer can vouch.
    """
    if (sent := headers.get("origin")) is not None:
        return sent == origin
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return headers.get("referer", "").startswith(origin + "/")


def _name(name: str, secure: bool) -> str:
    # The prefix makes browsers refuse the cookie from other hosts of the domain, and without Secure and Path=/.
    return f"__Host-{name}" if secure else name


def _written(name: str, value: str, secure: bool, seconds: int | None) -> str:
    parts = [f"{name}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
    parts += ["Secure"] if secure else []
    parts += [] if seconds is None else [f"Max-Age={seconds}"]
    return "; ".join(parts)

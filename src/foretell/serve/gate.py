"""Who may call: one small hook, which `door` fills where there are accounts."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from foretell.serve.refusals import refuse

if TYPE_CHECKING:
    from foretell.serve.accounts.account import Account


@dataclass(frozen=True)
class Caller:
    """Who calls. tenant: calls of one tenant may share what was computed for their prompts' beginnings. account: None
    where there are no accounts."""

    tenant: str = ""
    account: Account | None = None


class Gate(Protocol):
    """Asked before anything of a call is read but its head."""

    async def admit(self, key: str | None, path: str) -> Caller:
        """The caller with this key (None: none was sent). Raises RequestError with 401, 403 or 429."""
        ...


class StaticGate:
    """One key for all, or none. Compared in constant time."""

    def __init__(self, key: str | None = None) -> None:
        self._digest = hashlib.sha256(key.encode()).digest() if key else None

    async def admit(self, key: str | None, path: str) -> Caller:
        if self._digest is None:
            return Caller()
        if key is None:
            text = "You didn't provide an API key. Send it in an Authorization header: 'Authorization: Bearer KEY'."
            raise refuse(text, 401, code="missing_api_key")
        if not hmac.compare_digest(hashlib.sha256(key.encode("utf-8", "replace")).digest(), self._digest):
            raise refuse("Incorrect API key provided.", 401, code="invalid_api_key")
        return Caller()

"""Who may call where there are accounts: by key, by what the key may do, and by how the account stands."""

from __future__ import annotations

from foretell.serve.accounts import keys
from foretell.serve.accounts.account import Account
from foretell.serve.gate import Caller
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

_SCOPES = (("/v1/usage", "usage"), ("/v1/", "inference"), ("/metrics", "admin"))


class Door:
    """A gate. pages: whether the paths that are not the API's belong to pages, which look after their own callers."""

    def __init__(self, store: Store, pages: bool = True) -> None:
        self.store, self.pages = store, pages

    async def admit(self, key: str | None, path: str) -> Caller:
        """Raises RequestError: 401 without a good key, 403 for what it, or its account, may not do; StoreError."""
        scope = next((scope for start, scope in _SCOPES if path.startswith(start)), None)
        if scope is None and self.pages:
            return Caller()
        if key is None:
            text = "You didn't provide an API key. Send it in an Authorization header: 'Authorization: Bearer KEY'."
            raise refuse(text, 401, code="missing_api_key")
        account = await self.store.quick(keys.find, self.store, key)
        if account is None:
            raise refuse("Incorrect API key provided, or one that was revoked or has expired.", 401,
                         code="invalid_api_key")  # fmt: skip
        self._check(account, scope)
        return Caller(account.user, account=account)

    def _check(self, account: Account, scope: str | None) -> None:
        if account.status in ("suspended", "banned"):
            text = f"This account is {account.status}. Log in at this server's pages to see why, and to appeal."
            raise refuse(text, 403, code=f"account_{account.status}")
        if scope is not None and scope not in account.scopes:
            raise refuse(f"This key may not do that: it lacks the scope {scope}.", 403, code="insufficient_scope")

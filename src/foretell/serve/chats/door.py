"""Who comes to the chat page: a user who is logged in, or without accounts whoever sits at this machine."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from foretell.errors import ForetellError, RequestError, StoreError
from foretell.serve.accounts import sessions
from foretell.serve.accounts.account import Account
from foretell.serve.front import refusal_response
from foretell.serve.gate import Caller
from foretell.serve.refusals import refusal, refuse
from foretell.serve.web import cookies
from foretell.serve.web.site import Site

log = logging.getLogger("foretell.serve")

TOKEN = "x-foretell-token"  # noqa: S105 - the name of a header
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Visit:
    """One request. owner: whose conversations these are; "" where there are no accounts. token: to be sent back with
    everything that changes something."""

    request: Request
    owner: str
    account: Account | None
    token: str

    @property
    def caller(self) -> Caller:
        return Caller(self.owner, self.account)

    def part(self, name: str) -> str:
        """Of the path."""
        return str(self.request.path_params[name])


Handler = Callable[[Visit], Awaitable[Response]]


class Door:
    """What every request of the page goes through. accounts: False where whoever reaches this machine's own address is
    the one user there is."""

    def __init__(self, site: Site, accounts: bool) -> None:
        self.site, self.accounts = site, accounts

    def api(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that answers in JSON, failures included."""

        async def endpoint(request: Request) -> Response:
            try:
                response = await handler(await self._visit(request))
            except ForetellError as error:
                if isinstance(error, StoreError):
                    log.error("%s", error)
                    error = refuse("The conversations cannot be reached just now. Try again shortly.", 503,
                                   code="store_unavailable")  # fmt: skip
                response = refusal_response(refusal(error))
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return endpoint

    async def _visit(self, request: Request) -> Visit:
        """Raises RequestError: 401, 403 and 421."""
        origin = self.origin(request)
        visit, _ = await self.who(request)
        if self.accounts and visit.account is None:
            raise refuse("Log in to go on.", 401, code="not_logged_in")
        if visit.account is not None and visit.account.status in ("suspended", "banned"):
            text = f"This account is {visit.account.status}. Your account's page says why, and takes an appeal."
            raise refuse(text, 403, code=f"account_{visit.account.status}")
        headers = request.headers
        if request.method in ("GET", "HEAD"):
            # What other pages may not change they need not see either, however a browser was led here.
            if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
                raise _forged()
        elif not (cookies.is_own_origin(origin, headers) and cookies.is_own_form(visit.token, headers.get(TOKEN, ""))):
            raise _forged()
        return visit

    def origin(self, request: Request) -> str:
        """Raises RequestError, 421, for a host that is not this server's: a name that leads here by a trick."""
        found = self.site.origin(request.headers.get("host", ""))
        if found is None:
            raise refuse("This page is not served under this name.", 421, code="misdirected_request")
        return found

    async def who(self, request: Request) -> tuple[Visit, str | None]:
        """The visit, and the secret of a visitor who had none."""
        session, visitor = cookies.read(request.headers.get("cookie", ""), secure=self.site.secure)
        account = None
        if self.accounts and session is not None:
            account = await self.site.store.quick(sessions.find, self.site.store, session)
        if account is not None and session is not None:
            return Visit(request, account.user, account, cookies.form_token(session)), None
        kept = visitor or cookies.new_visitor()
        return Visit(request, "", None, cookies.form_token(kept)), None if visitor else kept


def _forged() -> RequestError:
    return refuse("This did not come from a page of this server, or the page is too old. Load it again.", 403,
                  code="forged_request")  # fmt: skip

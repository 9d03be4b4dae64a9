"""The chat page at /, its files, and the API that it speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from foretell.errors import RequestError, StoreError
from foretell.serve.chats.api import api_routes
from foretell.serve.chats.door import HEADERS, Door, Visit
from foretell.serve.chats.page import FILES, POLICY, chat_page, serve_file
from foretell.serve.chats.parts import Chats
from foretell.serve.front import refusal_response
from foretell.serve.refusals import refuse
from foretell.serve.web import cookies
from foretell.serve.web.site import may

_PAGE = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    **HEADERS,
}
_OWN = (("/account", "Account"), ("/keys", "Keys"), ("/usage", "Usage"))


def chat_routes(chats: Chats, door: Door) -> list[Route]:
    """Of the page too. With accounts they come before the routes of the other pages, of which / is one."""
    page = _page(door)
    return [
        Route("/", page, methods=["GET"], include_in_schema=False),
        Route("/c/{id}", page, methods=["GET"], include_in_schema=False),
        Route(FILES, serve_file, methods=["GET"], include_in_schema=False),
        *api_routes(chats, door),
    ]


def _page(door: Door) -> Callable[[Request], Awaitable[Response]]:
    """The same page for every conversation: which one it shows it reads from its address, and asks for."""

    async def endpoint(request: Request) -> Response:
        try:
            door.origin(request)
            visit, new = await door.who(request)
        except StoreError:
            return refusal_response(refuse("The accounts cannot be reached just now.", 503, code="store_unavailable"))
        except RequestError as error:
            return Response(str(error), error.status, HEADERS, "text/plain; charset=utf-8")
        if door.accounts:
            if visit.account is None:
                wanted = "" if request.url.path == "/" else f"?next={quote(request.url.path)}"
                return RedirectResponse(f"/log-in{wanted}", 303, HEADERS)
            if visit.account.status in ("suspended", "banned"):
                return RedirectResponse("/account", 303, HEADERS)
        links = _links(visit)
        html = chat_page(token=visit.token, title=door.site.title, links=links, log_out=visit.account is not None)
        response = Response(html, 200, _PAGE, "text/html; charset=utf-8")
        if new is not None:
            response.headers.append("set-cookie", cookies.visitor(new, secure=door.site.secure))
        return response

    return endpoint


def _links(visit: Visit) -> list[tuple[str, str]]:
    account = visit.account
    if account is None:
        return []
    found = [*_OWN]
    found += [("/review", "Review")] if may(account, "reviewer") else []
    return [*found, ("/admin", "Administration")] if may(account, "admin") else found

"""Every page with who may use it, and the one door that all of them stand behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from foretell.errors import ForetellError, RequestError, StoreError
from foretell.serve.accounts import sessions
from foretell.serve.web import (
    account,
    admin,
    anomalies,
    appeal,
    audit,
    cookies,
    entrance,
    forms,
    keys,
    people,
    review,
    usage,
    waitlist,
)
from foretell.serve.web.shell import POLICY, shell, static_files
from foretell.serve.web.site import HEADERS, FormError, Handler, NotFound, Page, Reply, Site, Visit, go, may

log = logging.getLogger("foretell.serve")
_AT_ONCE = 8  # pages made at the same time: checking a password takes tens of megabytes
_HEADERS = {"content-security-policy": POLICY, **HEADERS}
_FORGED = "This form was not sent from a page of this server, or it is too old. Load the page again and send it anew."


def pages() -> tuple[Page, ...]:
    """The whole table. A page that is not here is not there."""
    rooms = (entrance, account, keys, usage, appeal, review, anomalies, admin, people, waitlist, audit)
    return tuple(page for room in rooms for page in room.PAGES)


def web_routes(site: Site) -> list[Route]:
    """Routes for an application: pages for people, beside the API under /v1."""
    room = asyncio.Semaphore(_AT_ONCE)
    found = [Route("/static/{name}", _static, methods=["GET"], include_in_schema=False)]
    for page in pages():
        methods = [method for method, handler in (("GET", page.get), ("POST", page.post)) if handler]
        found.append(
            Route(page.path, _door(site, page, room), methods=methods, name=page.path, include_in_schema=False)
        )
    return found


def _door(site: Site, page: Page, room: asyncio.Semaphore) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a page. Who comes and where a form is from is checked before a handler sees anything."""

    async def endpoint(request: Request) -> Response:
        origin = site.origin(request.headers.get("host", ""))
        if origin is None:
            return _answer(site, Reply(b"These pages are not served under this name.", 421))
        session, visitor = cookies.read(request.headers.get("cookie", ""), secure=site.secure)
        kept = visitor or cookies.new_visitor()
        visit = Visit(
            site,
            account=None,
            session=session,
            token=cookies.form_token(kept),
            origin=origin,
            address=request.client.host if request.client else "",
            path=request.url.path,
            params=request.path_params,
            query=dict(request.query_params),
        )
        handler = page.get
        if request.method == "POST":
            handler = page.post
            if not cookies.is_own_origin(origin, request.headers) or (body := await forms.read_body(request)) is None:
                return _answer(site, _refused(visit, 403, "The form was not taken", _FORGED))
            visit = replace(visit, form=body)
        assert handler is not None, "the router lets only declared methods through"
        async with room:
            visit, reply = await asyncio.to_thread(_made, visit, page, handler, request.method == "POST")
        response = _answer(site, reply)
        if reply.session:
            response.headers.append("set-cookie", cookies.visitor("", secure=site.secure))
        elif visit.account is None and not visitor:
            response.headers.append("set-cookie", cookies.visitor(kept, secure=site.secure))
        return response

    return endpoint


def _made(visit: Visit, page: Page, handler: Handler, sent: bool) -> tuple[Visit, Reply]:
    """Runs on a thread: the account, the permission, the form's token, and then the page itself."""
    try:
        found = sessions.find(visit.site.store, visit.session) if visit.session else None
        if found is not None and visit.session is not None:
            visit = replace(visit, account=found, token=cookies.form_token(visit.session))
        else:
            visit = replace(visit, session=None)
        if not may(visit.account, page.who):
            return visit, _turned_away(visit, page, sent)
        if sent and not cookies.is_own_form(visit.token, visit.given(forms.TOKEN)):
            return visit, _refused(visit, 403, "The form was not taken", _FORGED)
        return visit, handler(visit)
    except (FormError, RequestError) as error:
        return visit, _told(visit, page, error)
    except NotFound:
        return visit, _refused(visit, 404, "Nothing here", "There is no such page, or it is not yours.")
    except StoreError as error:
        log.error("%s", error)
        text = "The accounts cannot be reached just now. Nothing was changed; try again shortly."
        return visit, _refused(visit, 503, "Out of order", text)
    except ForetellError as error:
        return visit, _refused(visit, 400, "That did not work", str(error))
    except Exception:
        log.exception("page %s failed", page.path)
        return visit, _refused(
            visit, 500, "Something failed", "The server failed while it made this page. Its log says how."
        )


def _turned_away(visit: Visit, page: Page, sent: bool) -> Reply:
    if visit.account is None:
        wanted = "" if sent else f"?next={quote(visit.path)}"
        return go(f"/log-in{wanted}")
    return _refused(
        visit, 403, "Not for this account", f"This page is for a {page.who} whose account is in good standing."
    )


def _told(visit: Visit, page: Page, error: FormError | RequestError) -> Reply:
    """The form again with what was wrong, or a page that says it where there is no form."""
    status = error.status if isinstance(error, RequestError) else 400
    headers = {name.decode(): value.decode() for name, value in getattr(error, "headers", ())}
    form = page.back or (page.get if page.post else None)
    if status == 404 or form is None or visit.problem:
        return replace(_refused(visit, status, "That did not work", str(error)), headers=headers)
    try:
        return replace(form(replace(visit, problem=str(error))), status=status, headers=headers)
    except (FormError, NotFound, RequestError):
        return replace(_refused(visit, status, "That did not work", str(error)), headers=headers)


def _refused(visit: Visit, status: int, title: str, text: str) -> Reply:
    return shell(replace(visit, problem=""), title, lead=text, status=status)


def _answer(site: Site, reply: Reply) -> Response:
    headers = {**_HEADERS, **reply.headers}
    if reply.location is not None:
        headers["location"] = reply.location
    if reply.download is not None:
        headers["content-disposition"] = f'attachment; filename="{reply.download}"'
    kind = "text/csv; charset=utf-8" if reply.download else "text/html; charset=utf-8"
    response: Response
    if isinstance(reply.body, str | bytes):
        response = Response(reply.body, reply.status, headers, kind)
    else:
        response = StreamingResponse(reply.body, reply.status, headers, kind)
    if reply.session is not None:
        cookie = cookies.session(reply.session, secure=site.secure, seconds=sessions.LONGEST // 1000)
        response.headers.append("set-cookie", cookie)
    return response


async def _static(request: Request) -> Response:
    found = static_files().get(request.path_params["name"])
    if found is None:
        return Response("Nothing here.", 404, media_type="text/plain")
    kind, content = found
    headers = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
    return Response(content, headers=headers, media_type=kind)

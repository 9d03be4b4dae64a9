"""The judging page's server: this machine alone, every form with its token, every judgement on the disk at once."""

from __future__ import annotations

import logging
import time
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foretell.errors import EvalError, ForetellError
from foretell.evals.arena.folder import Arena, load
from foretell.evals.arena.people import People, check_judge
from foretell.measure.machine import is_loopback
from foretell.serve.arena import page
from foretell.serve.run import listen
from foretell.serve.web import cookies
from foretell.serve.web.forms import TOKEN, read_body
from foretell.serve.web.site import HEADERS

log = logging.getLogger("foretell.serve")
_HEADERS = {"content-security-policy": page.POLICY, **HEADERS}
_FORGED = "This form was not sent from a page of this server, or it is too old. Load the page again."
Handler = Callable[[Request, Mapping[str, str], str], Response]


class Desk:
    """What the pages need. clock: seconds, of the time that a judgement takes."""

    def __init__(self, arena: Arena, people: People, clock: Callable[[], float] = time.monotonic) -> None:
        self.arena, self.people, self.clock = arena, people, clock
        self._since: dict[tuple[str, int], float] = {}

    def begin(self, request: Request, form: Mapping[str, str], token: str) -> Response:
        """Ask for a name, or go to the page of the one that was given."""
        if request.method == "GET":
            return _html(page.entrance(self.arena, token))
        return _go(f"/judge/{quote(check_judge(form.get('name', '')), safe='')}")

    def show(self, request: Request, form: Mapping[str, str], token: str) -> Response:
        """The battle before a judge, or that nothing is left."""
        judge = check_judge(request.path_params["judge"])
        shown = self.people.next(judge)
        done = self.people.done(judge)
        if shown is None:
            return _html(page.finished(self.arena, judge, done, token))
        self._since.setdefault((judge, shown.battle.id), self.clock())
        return _html(page.battle(self.arena, judge, shown, done, token))

    def judge(self, request: Request, form: Mapping[str, str], token: str) -> Response:
        """Keep a verdict, or take the last one back; then the next battle."""
        judge = check_judge(request.path_params["judge"])
        if form.get("verdict") == "undo":
            self.people.undo(judge)
        else:
            battle = _whole(form.get("battle", ""))
            # Counted here; less where the page tells that it was out of sight for a part of it.
            since = self._since.pop((judge, battle), None)
            seconds = self.clock() - since if since is not None else 0.0
            seen = _number(form.get("seen", ""))
            self.people.judge(judge, battle, form.get("verdict", ""), min(seconds, seen) if seen else seconds)
        return _go(f"/judge/{quote(judge, safe='')}")


def make_app(desk: Desk) -> Starlette:
    """The ASGI application."""
    return Starlette(
        routes=[
            Route("/", _door(desk.begin), methods=["GET", "POST"]),
            Route("/judge/{judge}", _door(desk.show), methods=["GET"]),
            Route("/judge/{judge}", _door(desk.judge), methods=["POST"]),
            Route("/static/{name}", _static, methods=["GET"]),
        ]
    )


def serve(folder: Path, port: int = 7576, open_browser: bool = True) -> None:
    """Serve the judging page of an arena until interrupted.

    Raises EvalError for a folder without an arena, without replies, or open elsewhere; GenerationError for a port that
    cannot be had.
    """
    arena = load(folder)
    if not arena.open:
        raise EvalError(f"{folder} has no battle to judge: all replies are the same, or none is there.")
    socket = listen("127.0.0.1", port)
    with People(arena) as people, socket:
        config = uvicorn.Config(
            make_app(Desk(arena, people)), log_level="warning", access_log=False, server_header=False,
            proxy_headers=False, lifespan="off", ws="none", timeout_graceful_shutdown=1,
        )  # fmt: skip
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/"
        print(f"Judge {len(arena.open)} battles at {address} (Ctrl+C ends it; what is judged is kept)", flush=True)
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run([socket])


def _door(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Who comes, and where a form is from, is checked before a handler sees anything."""

    async def endpoint(request: Request) -> Response:
        host = request.headers.get("host", "")
        try:
            known = is_loopback(urlsplit(f"http://{host}").hostname or "")
        except ValueError:
            known = False
        if not known:
            return _headed(_html(page.problem("This page is not served under this name."), 421))
        _, visitor = cookies.read(request.headers.get("cookie", ""), secure=False)
        kept = visitor or cookies.new_visitor()
        token, form = cookies.form_token(kept), dict[str, str]()
        if request.method == "POST":
            form = {name: values[-1] for name, values in (await read_body(request) or {}).items()}
            own = cookies.is_own_origin(f"http://{host}", request.headers)
            if not own or not cookies.is_own_form(token, form.get(TOKEN, "")):
                return _headed(_html(page.problem(_FORGED), 403))
        try:
            response = await run_in_threadpool(handler, request, form, token)
        except ForetellError as error:
            response = _html(page.problem(str(error)), 400)
        except Exception:
            log.exception("the judging page failed")
            response = _html(page.problem("The server failed while it made this page. Its log says how."), 500)
        if visitor is None:
            response.headers.append("set-cookie", cookies.visitor(kept, secure=False))
        return _headed(response)

    return endpoint


async def _static(request: Request) -> Response:
    found = page.static_files().get(request.path_params["name"])
    if found is None:
        return _headed(Response("Nothing here.", 404, media_type="text/plain"))
    kind, content = found
    return _headed(Response(content, media_type=kind))


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html")


def _go(place: str) -> Response:
    return Response(status_code=303, headers={"location": place})


def _headed(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 < value < 1e6 else 0.0

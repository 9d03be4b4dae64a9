"""The viewer on this machine: pages and data of a folder of logs, to this machine alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from foretell.errors import ForetellError
from foretell.evals.local import LocalHandler, LocalServer, encode
from foretell.evals.viewer import html, pieces
from foretell.evals.viewer.runs import Run, Shelf
from foretell.pages.documents import static_files

PACKAGE = "foretell.evals.viewer"
_DATA = re.compile(
    r"(?:runs|compare-(?P<first>\w+)-(?P<second>\w+)|(?P<key>\w+)/(?P<what>head|choices|search|rows|samples)"
    r"(?:-(?P<at>\d{1,9}))?)\.json\Z"
)
_LOOK = 0.3  # seconds of one step of a search
_MOST_TERMS = 20


class NotHere(ForetellError):
    """An address without anything."""


def make_server(logs: Path, host: str = "127.0.0.1", port: int = 0) -> LocalServer:
    """A server that is bound and not yet serving. port: 0 takes a free one.

    Raises EvalError for a host that is not this machine, a port in use, or a folder that is none.
    """
    refused = (
        f"The viewer asks for no password and serves this machine alone; {host} is no loopback address. Forward "
        "its port (ssh -L 7575:localhost:7575 MACHINE), or put an export on a web server."
    )
    return LocalServer(host, port, partial(_Handler, Shelf(logs)), refused)


def serve(logs: Path, host: str = "127.0.0.1", port: int = 7575, open_browser: bool = True) -> None:
    """Serve the viewer until interrupted.

    Raises EvalError as `make_server` does.
    """
    with make_server(logs, host, port) as server:
        server.run(f"Logs of {logs}", open_browser=open_browser)


class _Handler(LocalHandler):
    policy = html.policy(live=True) + "; frame-ancestors 'none'"

    def __init__(self, shelf: Shelf, *args: Any) -> None:
        self.shelf, self.files = shelf, static_files(PACKAGE)
        super().__init__(*args)

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        name = asked.path.lstrip("/") or "index.html"
        if not self.is_from_here():
            return
        try:
            body = self._page(name) if name.endswith(".html") else self._file(name, asked.query)
            self.send(200, name, body)
        except NotHere as error:
            self.problem(404, str(error))
        except ForetellError as error:
            self.problem(500, str(error))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, ConnectionError):
                raise
            self.problem(500, f"The log cannot be read ({error!r}). If it was written anew, load this page again.")

    do_HEAD = do_GET

    def _page(self, name: str) -> bytes:
        runs = list(self.shelf.runs().values())
        if name == "index.html":
            return html.runs_page(runs, self.shelf.problems, live=True).encode()
        if name == "view.html":
            return html.view_page(live=True).encode()
        of = [run for run in runs if html.eval_page_name(run.eval) == name]
        if not of:
            raise NotHere(f"There is no {name} here.")
        return html.eval_page(of, live=True).encode()

    def _file(self, name: str, query: str) -> bytes:
        if name in self.files:
            return self.files[name]
        found = _DATA.match(name.removeprefix("data/")) if name.startswith("data/") else None
        if found is None:
            raise NotHere(f"There is no {name} here.")
        if found["first"]:
            return encode(pieces.difference(self._run(found["first"]), self._run(found["second"])))
        if not found["key"]:
            return encode(pieces.run_list(self.shelf.runs().values()))
        run, what, at = self._run(found["key"]), found["what"], int(found["at"] or 0)
        if what == "search":
            given = parse_qs(query)
            start, terms = int(given.get("from", ["0"])[0]), given.get("t", [])[:_MOST_TERMS]
            hits, after = run.search(terms, max(0, start), _LOOK)
            return encode({"hits": hits, "next": after})
        if what == "samples" and at >= len(run.log):
            raise NotHere(f"The run has samples 0 to {len(run.log) - 1}.")
        made: dict[str, Callable[[], Any]] = {
            "head": lambda: pieces.head(run),
            "choices": run.choices,
            "rows": lambda: pieces.rows(run, at),
            "samples": lambda: pieces.events(run.samples(at, at + 1)[0]),
        }
        return encode(made[what]())

    def _run(self, key: str) -> Run:
        run = self.shelf.run(key)
        if run is None:
            raise NotHere("There is no such run in this folder. It may have been deleted or written anew.")
        return run

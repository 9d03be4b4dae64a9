"""Pages that serve this machine alone: where they listen, and until when."""

from __future__ import annotations

import json
import re
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from foretell.errors import EvalError
from foretell.measure.machine import is_loopback
from foretell.pages.documents import media_type


class LocalServer(ThreadingHTTPServer):
    """A server whose threads end with it, at an address of IPv4 or IPv6. It is bound, and not yet serving.

    refused: why it listens on this machine alone; a port of 0 takes a free one. Raises EvalError for another host, or a
    port in use.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler], refused: str) -> None:
        if not is_loopback(host):
            raise EvalError(refused)
        if ":" in host:
            from socket import AF_INET6

            self.address_family = AF_INET6
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            raise EvalError(
                f"Port {port} cannot be used ({error.strerror or error}). Choose another with --port."
            ) from error
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""

    def run(self, title: str, query: str = "", open_browser: bool = True) -> None:
        """Say where the page is, and serve it until interrupted."""
        address = f"{self.address}{query}"
        print(f"{title}: {address} (Ctrl+C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            return


def encode(value: Any) -> bytes:
    """Compact JSON; lone surrogates, which UTF-8 has no form for, become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


class LocalHandler(BaseHTTPRequestHandler):
    """Answers this machine's own pages alone, and nothing that a browser keeps, frames or guesses the kind of.

    policy: the Content-Security-Policy of what it answers.
    """

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "foretell", ""
    timeout = 60
    policy = ""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def is_from_here(self) -> bool:
        """Whether to go on; else it is answered. A page of another name that resolves to this machine, or of another
        site, must not ask."""
        own = self.headers.get("Host", "")
        host, origin = urlsplit("//" + own).hostname or "", self.headers.get("Origin")
        if is_loopback(host) and (origin is None or urlsplit(origin).netloc == own):
            return True
        self.close_connection = True
        self.problem(403, f"{host} is not this machine, or the call comes from another page.")
        return False

    def problem(self, status: int, why: str) -> None:
        self.send(status, ".json", encode({"problem": why}))

    def send(self, status: int, name: str, body: bytes) -> None:
        """name: of what is answered, or its ending alone, which tells its kind."""
        self.send_response(status)
        for header, value in {
            "Content-Type": f"{media_type(name)}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

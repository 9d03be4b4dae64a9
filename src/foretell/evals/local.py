"""Pages that serve this machine alone: where they listen, and until when."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from foretell.errors import EvalError
from foretell.measure.machine import is_loopback


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

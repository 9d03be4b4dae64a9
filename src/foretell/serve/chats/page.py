"""The chat page: one piece of HTML for every conversation, and the files that it loads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from foretell.pages import Html, el
from foretell.pages.documents import document, media_type, static_files

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    # Markup reaches the page in one place alone, static/render.js, and it comes cleaned from the server.
    "require-trusted-types-for 'script'; trusted-types foretell"
)
FILES = "/chat/static/{digest}/{name}"
"""Route of `serve_file`. Modules import each other by relative paths, so the digest is a folder, of all files."""

_STYLES = ("style.css", "icons.css", "chat.css", "thread.css")


@cache
def _files() -> tuple[str, dict[str, bytes]]:
    """Digest of all files, and their content by name."""
    found = static_files("foretell.serve.chats")
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(f"{name} {len(found[name])} ".encode() + found[name])
    return whole.hexdigest()[:12], found


async def serve_file(request: Request) -> Response:
    """A stylesheet or script of the page; browsers may keep it for good, since its address changes with it."""
    digest, files = _files()
    content = files.get(request.path_params["name"])
    if content is None or request.path_params["digest"] != digest:
        return Response("Nothing here.", 404, media_type="text/plain", headers={"cache-control": "no-store"})
    headers = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
    kind = f"{media_type(request.path_params['name'])}; charset=utf-8"
    return Response(content, headers={**headers, "content-type": kind})


def chat_page(
    *, token: str, title: str = "Foretell", links: Sequence[tuple[str, str]] = (), log_out: bool = False
) -> Html:
    """The whole page. Conversations are fetched by its scripts, so it is the same for all of them.

    token: to be sent back with everything that changes something. links: (path, name) of the account's own pages.
    log_out: whether there is a session to end.
    """
    digest, files = _files()

    def address(name: str) -> str:
        return FILES.format(digest=digest, name=name)

    modules = sorted(name for name in files if name.endswith(".js") and name != "theme.js")
    body = el(
        "body",
        el("a", "To the message box", href="#text", class_="skip"),
        _side(title, token, links, log_out),
        el("div", id="veil", hidden=True),
        _main(),
        el("div", id="live", role="status", aria_live="polite", class_="unseen"),
        el("div", id="toasts", role="alert"),
        el("noscript", el("p", "The chat page needs JavaScript, from this server alone.", class_="noscript")),
    )
    more = [
        el("meta", name="foretell-token", content=token),
        # Before anything is drawn, or a chosen theme would come in with a flash of the other one.
        Html(f'<script src="{address("theme.js")}"></script>'),
        *(el("link", rel="modulepreload", href=address(name)) for name in modules),
    ]
    styles, scripts = [address(name) for name in _STYLES], [address("app.js")]
    return document(title, body, *more, styles=styles, scripts=scripts, viewport="interactive-widget=resizes-content")


def _side(title: str, token: str, links: Sequence[tuple[str, str]], log_out: bool) -> Html:
    """Conversations, what is left of the caps, and the ways to everything else."""
    account = el("nav", *(el("a", name, href=path) for path, name in links), id="links", aria_label="Account")
    leave = el(
        "form",
        el("input", type="hidden", name="form", value=token),
        el("button", "Log out", type="submit", class_="link"),
        method="post",
        action="/log-out",
        id="leave",
    )
    return el(
        "aside",
        el("div", el("a", title, href="/", class_="home"), _icon("hide", "side", "Hide conversations"), class_="brand"),
        el("button", _drawn("new"), el("span", "New chat"), el("kbd", "Ctrl Shift O"), type="button", id="new"),
        el(
            "div",
            _drawn("search"),
            el("input", type="search", id="search", placeholder="Search", aria_label="Search conversations"),
            class_="search",
        ),
        el("nav", id="list", aria_label="Conversations"),
        el(
            "div",
            el("div", id="caps"),
            account if links else "",
            el(
                "div",
                el("button", _drawn("more"), el("span", "Menu", id="who"), type="button", id="menu"),
                leave if log_out else "",
                class_="last",
            ),
            class_="foot",
        ),
        id="side",
        aria_label="Sidebar",
    )


def _main() -> Html:
    top = el(
        "header",
        _icon("show", "side", "Show conversations"),
        el("h1", id="heading", class_="unseen", dir="auto", hidden=True),
        el("label", "Model", for_="model", class_="unseen"),
        el("select", id="model"),
        el("span", "and", id="versus", hidden=True),
        el("label", "Second model", for_="second", class_="unseen"),
        el("select", id="second", hidden=True),
        el("span", class_="grow"),
        el("button", type="button", id="persona", hidden=True),
        _icon("pair", "pair", "Compare two models", aria_pressed="false"),
        _icon("settings", "settings", "Persona, system message, temperature"),
        _icon("fresh", "new", "New chat"),
        id="top",
    )
    box = el(
        "div",
        el("ul", id="pictures", aria_label="Attached images", hidden=True),
        el("label", "Message", for_="text", class_="unseen"),
        el("textarea", id="text", rows="1", placeholder="Write a message", autocomplete="off", enterkeyhint="send"),
        el(
            "div",
            _icon("attach", "attach", "Attach images"),
            el("input", type="file", id="file", accept="image/png,image/jpeg,image/webp,image/gif", multiple=True,
               hidden=True, aria_label="Images", tabindex="-1"),
            el("span", id="count"),
            el("button", _drawn("send"), type="submit", id="send", aria_label="Send", title="Send", disabled=True),
            class_="tools",
        ),
        class_="box",
    )  # fmt: skip
    return el(
        "main",
        top,
        el("div", id="banner", role="status", hidden=True),
        el("div", el("div", id="thread"), id="scroll", tabindex="0", role="region", aria_label="Messages"),
        el(
            "div",
            _icon("down", "down", "To the newest message", hidden=True),
            el("form", el("p", id="wrong", role="alert", hidden=True), box, id="say", aria_label="Write a message"),
            el("p", "Answers can be wrong. Check what matters.", id="below"),
            class_="write",
        ),
        el("div", el("p", "Drop images here"), id="drop", hidden=True),
        id="main",
    )


def _drawn(name: str) -> Html:
    return el("span", class_=f"i i-{name}", aria_hidden="true")


def _icon(id: str, drawn: str, label: str, **attributes: str | bool) -> Html:
    """A button that shows a drawing alone."""
    return el("button", _drawn(drawn), type="button", id=id, class_="icon", aria_label=label, title=label, **attributes)

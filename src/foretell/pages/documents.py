"""Whole documents: the head that all of them have, and the files that are served beside them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from foretell.pages.markup import Html, el

MEDIA = {"css": "text/css", "js": "text/javascript", "html": "text/html", "json": "application/json"}


def document(
    title: str,
    body: Html,
    *more: object,
    policy: str = "",
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    viewport: str = "",
) -> Html:
    """A document in English, light and dark. more: what else stands in its head, before its scripts. policy: its
    Content-Security-Policy, where no header says it. styles, scripts: addresses of what it loads, scripts as modules.
    viewport: what it says beside the width."""
    wide = "width=device-width, initial-scale=1" + (f", {viewport}" if viewport else "")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">') if policy else "",
        el("meta", name="viewport", content=wide),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        Html('<link rel="icon" href="data:,">') if styles else "",
        *(el("link", rel="stylesheet", href=name) for name in styles),
        *more,
        *(Html(f'<script type="module" src="{name}"></script>') for name in scripts),
    )
    return Html(f'<!doctype html>\n<html lang="en">{head}{body}</html>\n')


@cache
def static_files(package: str) -> dict[str, bytes]:
    """The stylesheets and scripts in a package's folder `static`, and the stylesheet of all pages, by name."""
    own = resources.files(package).joinpath("static")
    found = {file.name: file.read_bytes() for file in own.iterdir() if media_type(file.name)}
    return found | {"style.css": _style()}


def _style() -> bytes:
    return resources.files("foretell.pages").joinpath("style.css").read_bytes()


def media_type(name: str) -> str:
    """Of a file that is served, by its ending; "" for others."""
    return MEDIA.get(name.rpartition(".")[2], "")


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def page(
    title: str,
    sections: Sequence[Html],
    *,
    kicker: str = "",
    lead: str = "",
    head: Sequence[object] = (),
    footer: object = None,
) -> str:
    """A whole page as one string: title block, list of sections, sections, footer.

    head: content under the title, above the contents. The Content-Security-Policy allows only this stylesheet and
    embedded pictures.
    """
    style = _style().decode()
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    found = [re.match(r'<section id="([^"]*)"[^>]*><h2>(.*?)</h2>', part) for part in sections]
    links = [el("a", Html(m.group(2)), href="#" + m.group(1)) for m in found if m]
    body = el(
        "body",
        el(
            "header",
            el("p", kicker, class_="kicker") if kicker else "",
            el("h1", title),
            el("p", lead, class_="lead") if lead else "",
            *head,
        ),
        el("nav", *links, aria_label="Contents") if len(links) > 2 else "",
        el("main", *sections),
        el("footer", footer) if footer else "",
    )
    silent = el("meta", name="referrer", content="no-referrer")
    return document(title, body, silent, Html(f"<style>{style}</style>"), policy=policy)

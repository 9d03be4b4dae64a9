"""Markdown as safe HTML, in blocks: each top-level block on its own, so that a page changes only what has changed.

Two walls: markdown-it-py reads no HTML, and what it writes is cleaned by nh3, which knows only the few elements and
attributes below. Nothing remote is loaded: images become links.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from foretell.pages import el
from foretell.serve.chats.maths import keep_maths

FORM = 1
"""Of the blocks that are stored; to be raised whenever the same text gives other blocks."""

_LONGEST = 400_000  # characters; longer texts are shown as they are
_LINK = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x20]+\Z", re.IGNORECASE)
_LANGUAGE = re.compile(r"language-[\w+#.-]{1,40}\Z")
_CLASSES = {"th": {"left", "center", "right"}, "td": {"left", "center", "right"}, "span": {"math"}, "div": {"math"}}
_TAGS = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "a", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("hr", "br", "table", "thead", "tbody", "tr", "th", "td", "span", "div"),
}
_ATTRIBUTES: dict[str, set[str]] = {"*": set(), "a": {"href"}, "code": {"class"}, "ol": {"start"}} | {
    tag: {"class"} for tag in _CLASSES
}
_NEVER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean_text(text: str) -> str:
    """Text that every database and page can hold: one kind of line end, and no control characters."""
    return _NEVER.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def blocks_of(text: str) -> list[str]:
    """The top-level blocks of a text as HTML. A text that is too long to be read as Markdown is one block, as it is."""
    return [html for _, html in _rendered(text)]


def plain_blocks(text: str) -> list[str]:
    """What a person wrote: as it stands."""
    return [el("p", text, class_="plain")] if text else []


def stored(blocks: Sequence[str]) -> str:
    return json.dumps([FORM, blocks], ensure_ascii=False, separators=(",", ":"))


def restored(text: str | None) -> list[str] | None:
    """None where blocks are to be made anew."""
    if text is None:
        return None
    form, *rest = json.loads(text)
    return list(rest[0]) if form == FORM else None


class Growing:
    """The blocks of a text that grows at its end. Only the last blocks are read again.

    A link's address that is defined further down is not known before; `finish` reads all anew.
    """

    def __init__(self) -> None:
        self.text = ""
        self.blocks: list[str] = []
        self._read = ""  # what the blocks are of
        self._settled = 0  # blocks that stay, and where they end in the text
        self._offset = 0

    def update(self) -> list[str]:
        """The blocks of the text as it is now."""
        text = self.text  # which may grow meanwhile, where this runs on a thread
        if text != self._read:
            found = _rendered(text[self._offset :])
            self.blocks = self.blocks[: self._settled] + [html for _, html in found]
            if len(found) > 2:  # the last may go on; the one before may still be joined to it
                self._offset += found[-2][0]
                self._settled = len(self.blocks) - 2
            self._read = text
        return self.blocks

    @property
    def open(self) -> int:
        """Characters that `update` reads."""
        return len(self.text) - self._offset

    def finish(self) -> list[str]:
        self.blocks = blocks_of(self.text)
        self._read, self._settled, self._offset = self.text, 0, 0
        return self.blocks


def _rendered(text: str) -> list[tuple[int, str]]:
    """(where it begins in the text, HTML) of each top-level block."""
    text = clean_text(text)
    if len(text) > _LONGEST:
        return [(0, el("pre", text))]
    parser, cleaner = _tools()
    env: dict[str, object] = {}
    try:
        tokens = parser.parse(text, env)
        found, begin = [], 0
        starts = _line_starts(text)
        for i, token in enumerate(tokens):
            if token.level == 0 and token.nesting <= 0:
                group = tokens[begin : i + 1]
                html = cleaner.clean(parser.renderer.render(group, parser.options, env)).strip("\n")
                found.append((starts[group[0].map[0]] if group[0].map else 0, html))
                begin = i + 1
        return found
    except (RecursionError, IndexError, ValueError):  # a text that the parser cannot read is shown as it is
        return [(0, el("p", text, class_="plain"))]


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


@cache
def _tools() -> tuple[MarkdownIt, nh3.Cleaner]:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])
    parser.disable("html_block").disable("html_inline")
    keep_maths(parser)
    parser.validateLink = lambda url: bool(_LINK.match(url))  # type: ignore[method-assign]
    parser.core.ruler.push("tame", _tame)
    cleaner = nh3.Cleaner(
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        link_rel="noreferrer noopener nofollow",
        url_schemes={"http", "https", "mailto"},
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    return parser, cleaner


def _attribute(tag: str, name: str, value: str) -> str | None:
    """The value of an attribute, or None to leave it out."""
    if name == "class":
        known = bool(_LANGUAGE.match(value)) if tag == "code" else value in _CLASSES.get(tag, ())
        return value if known else None
    if name == "href":
        return value if _LINK.match(value) else None
    if name == "start":
        return value if value.isascii() and value.isdigit() else None
    return value


def _tame(state: StateCore) -> None:
    """Alignment as a class in place of a style, and images as links."""
    for token in state.tokens:
        if token.tag in ("th", "td") and (style := token.attrGet("style")) is not None:
            token.attrs = {"class": str(style).removeprefix("text-align:")}
        if token.type == "inline" and token.children:
            token.children = _without_images(token.children)


def _without_images(children: list[Token]) -> list[Token]:
    out: list[Token] = []
    within = 0  # a link
    for child in children:
        within += child.nesting if child.type in ("link_open", "link_close") else 0
        if child.type != "image":
            out.append(child)
            continue
        said = Token("text", "", 0, content=child.content or "image")
        source = str(child.attrGet("src") or "")
        link = [] if within or not source else [Token("link_open", "a", 1, attrs={"href": source})]
        out += [*link, said, *([Token("link_close", "a", -1)] if link else [])]
    return out

"""The judging page: a prompt, two replies without names, critiques beside them where they are shown, and three buttons.

Whole pages from the server, so that judging works without scripts; the one script adds keys and counts the time in
sight. What models wrote passes through the Markdown of the chat page, which cleans it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote

from foretell.evals.arena.folder import Arena
from foretell.evals.arena.people import Shown
from foretell.pages import Html, el, join
from foretell.pages.documents import document, media_type
from foretell.pages.documents import static_files as files
from foretell.pages.markup import picture_shape
from foretell.serve.chats.markdown import blocks_of, plain_blocks
from foretell.serve.web.forms import TOKEN

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_SMALL = 192  # pixels of width
_LONGEST = 12_000_000  # characters of an embedded picture
_SIDES = ("First reply", "Second reply")  # beside or below each other


@cache
def static_files() -> dict[str, tuple[str, bytes]]:
    """(media type, content) by name."""
    found = files("foretell.serve.web") | files("foretell.serve.arena")
    return {name: (media_type(name), content) for name, content in found.items()}


def entrance(arena: Arena, token: str) -> str:
    """Asks who judges."""
    count = len(arena.open)
    told = [
        f"You see a request and two replies to it, {count} times at most. Say which reply is better; stop whenever you "
        "like. Everything is kept as you go, under your name.",
    ]
    if arena.critiques:
        told.append(
            "Beside some of the replies stands what a model found wrong with them. It can be mistaken, or miss what is "
            "wrong. Judge for yourself."
        )
    name = el("input", id="name", name="name", required=True, maxlength=40, autocomplete="nickname", autofocus=True)
    content = el(
        "form", _token(token), el("div", el("label", "Your name", for_="name"), name, class_="field"),
        el("button", "Begin", type="submit", class_="firm"), method="post", action="/", class_="stack",
    )  # fmt: skip
    words = [el("p", text, class_="lead" if not i else None) for i, text in enumerate(told)]
    title = "Which reply is better?"
    return _page(title, el("main", el("header", el("h1", title)), *words, content))


def battle(arena: Arena, judge: str, shown: Shown, done: int, token: str) -> str:
    """One battle. Nothing on it tells who wrote what."""
    said = arena.replies[shown.battle.prompt]
    players = (shown.left, shown.right)
    replies = []
    for side, player in zip(_SIDES, players, strict=True):
        text = said[player]
        body = join(map(Html, blocks_of(text))) if text.strip() else el("p", "(an empty reply)", class_="soft")
        parts = [el("h2", side), el("div", body, class_="said")]
        if shown.assisted:
            told = arena.critiques.get((shown.battle.prompt, player), "")
            body = join(map(Html, blocks_of(told))) if told.strip() else el("p", "Nothing was said.", class_="soft")
            by = el("h3", "Critique by ", el("b", arena.critic), ", which can be wrong")
            parts.append(el("aside", by, body, class_="critique", aria_label=f"Critique of the {side.lower()}"))
        replies.append(el("article", *parts, class_="reply"))
    total = len(arena.open)
    head = el(
        "header", el("p", f"{judge} · {done} of {total} judged", class_="kicker"),
        el("progress", value=done, max=total, aria_label="Judged"), class_="top",
    )  # fmt: skip
    asked = el("section", el("h1", "Request"), *_asked(arena.prompts[shown.battle.prompt].messages), class_="asked")
    return _page(
        "Which reply is better?",
        el("main", head, asked, el("div", *replies, class_="pair"), _verdicts(judge, shown.battle.id, done, token)),
    )


def finished(arena: Arena, judge: str, done: int, token: str) -> str:
    """Nothing is left for this judge."""
    undo = _form(judge, token, el("button", "Take the last one back", name="verdict", value="undo", class_="quiet"))
    content = el(
        "main", el("header", el("p", judge, class_="kicker"), el("h1", "All judged")),
        el("p", f"You have judged {done} battles; nothing is left for you. You may close this page.", class_="lead"),
        undo if done else "",
    )  # fmt: skip
    return _page("All judged", content)


def problem(text: str) -> str:
    """What went wrong, in words."""
    back = el("p", el("a", "To the beginning", href="/"))
    return _page("That did not work", el("main", el("header", el("h1", "That did not work")), el("p", text), back))


def _verdicts(judge: str, battle: int, done: int, token: str) -> Html:
    def button(value: str, label: str, key: str, kind: str = "firm") -> Html:
        return el("button", el("span", label), el("kbd", key), type="submit", name="verdict", value=value, class_=kind)

    return _form(
        judge, token, el("input", type="hidden", name="battle", value=str(battle)),
        el("input", type="hidden", name="seen", id="seen", value=""),
        el("div", button("1", "First is better", "1"), button("0", "Neither", "0", "quiet"),
           button("2", "Second is better", "2"), class_="choose", role="group", aria_label="Which reply is better?"),
        button("undo", "Take the last one back", "U", "plain") if done else "",
        class_="verdict",
    )  # fmt: skip


def _form(judge: str, token: str, *content: object, class_: str | None = None) -> Html:
    action = f"/judge/{quote(judge, safe='')}"
    return el("form", _token(token), *content, method="post", action=action, id="verdict", class_=class_)


def _token(token: str) -> Html:
    return el("input", type="hidden", name=TOKEN, value=token)


def _asked(messages: object) -> list[Html]:
    """The prompt's messages: what people wrote as it stands, with its pictures."""
    found: list[Html] = []
    listed = list(messages) if isinstance(messages, list | tuple) else []
    for message in listed:
        role = str(message.get("role", "user"))
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": str(content or "")}]
        shown = [_part(part, role) for part in parts]
        name = el("h3", {"system": "System message", "assistant": "Assistant"}.get(role, "User"))
        found.append(el("div", name if len(listed) > 1 else "", *shown, class_=f"turn {role}"))
    return found


def _part(part: Mapping[str, Any], role: str) -> Html:
    if part.get("type") == "image_url":
        source = str((part.get("image_url") or {}).get("url", ""))
        if source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,",
                              "data:image/gif;base64,")) and len(source) < _LONGEST:  # fmt: skip
            shape = picture_shape(source)
            small = shape is not None and shape[0] < _SMALL  # as it is, in whole points
            return el("img", src=source, alt="Picture of the request", class_="pixels" if small else None)
        return el("p", "(a picture that cannot be shown)", class_="soft")
    text = str(part.get("text", ""))
    return join(map(Html, blocks_of(text) if role == "assistant" else plain_blocks(text)))


def _page(title: str, main: Html) -> str:
    styles = [f"/static/{name}" for name in ("style.css", "web.css", "arena.css")]
    return document(title, el("body", main), styles=styles, scripts=["/static/arena.js"])

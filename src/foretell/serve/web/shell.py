"""The frame of every page: title bar, ways to the other pages, what went well or wrong."""

from __future__ import annotations

import hashlib
from functools import cache

from foretell.pages import Html, el, join
from foretell.pages.documents import document, media_type
from foretell.pages.documents import static_files as files
from foretell.serve.web.forms import button, form
from foretell.serve.web.site import Reply, Visit, may

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_LONG = 18  # characters of an id that are shown
_OWN = (("/account", "Account"), ("/keys", "Keys"), ("/usage", "Usage"))
_REVIEWER = (("/review", "Review"), ("/anomalies", "Anomalies"))
_ADMIN = (
    ("/admin", "Overview"),
    ("/admin/users", "Users"),
    ("/admin/waitlist", "Waitlist"),
    ("/admin/usage", "All usage"),
    ("/admin/audit", "Audit"),
)
SAID = {
    "welcome": "Your account is open.",
    "opened": "If the address had no account yet, it has one now: log in.",
    "out": "You are logged out.",
    "password": "The password is changed, and every other session has ended.",
    "waiting": "You are on the waitlist. Whoever runs this server will send you a link.",
    "revoked": "The key is revoked. Calls with it fail from now on.",
    "appealed": "Your appeal is with the reviewers.",
    "saved": "Saved.",
    "decided": "The decision is recorded.",
}
"""What a page says after a form was taken, by the word in its address: never words from the address itself."""


@cache
def static_files() -> dict[str, tuple[str, bytes]]:
    """(media type, content) by name; names hold a digest, so that browsers may keep them for good."""
    named = {}
    for name, content in files("foretell.serve.web").items():
        stem, _, ending = name.partition(".")
        digest = hashlib.sha256(content).hexdigest()[:12]
        named[f"{stem}.{digest}.{ending}"] = (media_type(name), content)
    return named


@cache
def _address(name: str) -> str:
    stem, _, ending = name.partition(".")
    return next(f"/static/{key}" for key in static_files() if key.startswith(f"{stem}.") and key.endswith(ending))


def shell(
    visit: Visit, title: str, *content: object, lead: object = "", kicker: object = "", status: int = 200
) -> Reply:
    """A whole page. lead: a sentence under the title; kicker: where the page stands."""
    said = SAID.get(visit.query.get("said", ""), "")
    main = el(
        "main",
        el(
            "header",
            el("p", kicker, class_="kicker") if kicker else "",
            el("h1", title),
            el("p", lead, class_="lead") if lead else "",
        ),
        el("p", visit.problem, class_="told problem", role="alert") if visit.problem else "",
        el("p", said, class_="told", role="status") if said and not visit.problem else "",
        *content,
    )
    skip = el("a", "To the content", href="#main", class_="skip")
    body = el("body", skip, _bar(visit), el("div", main, id="main"))
    styles, scripts = [_address("style.css"), _address("web.css")], [_address("copy.js")]
    return Reply(document(f"{title} · {visit.site.title}", body, styles=styles, scripts=scripts), status)


def _bar(visit: Visit) -> Html:
    account = visit.account
    home = el("a", visit.site.title, href="/", class_="home")
    if account is None:
        links = [el("a", "Log in", href="/log-in")]
    else:
        pages = [*_OWN]
        pages += _REVIEWER if may(account, "reviewer") else ()
        pages += _ADMIN if may(account, "admin") else ()
        links = [el("a", name, href=path, aria_current="page" if visit.path == path else None) for path, name in pages]
        links.append(form(visit, "/log-out", button("Log out", kind="plain"), class_="inline"))
    return el("div", home, el("nav", *links, aria_label="Pages"), class_="bar")


def nothing(text: str) -> Html:
    """Said where a list is empty."""
    return el("p", text, class_="empty")


def panel(title: str, *content: object, note: object = "") -> Html:
    """A titled part of a page."""
    return el("section", el("h2", title), el("p", note, class_="note") if note else "", join(content), class_="part")


def standing(status: str) -> Html:
    """An account's status as a small mark."""
    tone = {"active": " good", "suspended": " bad", "banned": " bad"}.get(status, "")
    return el("span", status, class_=f"tag{tone}")


def person(visit: Visit, id: str) -> Html:
    """An id, which for an admin is the way to its page where it is a user's."""
    if not may(visit.account, "admin") or not id.startswith("user_") or not id[5:].isalnum():
        return brief(id)
    return el("a", brief(id), href=f"/admin/users/{id}")


def brief(id: str) -> Html:
    """The beginning of a long id; all of it under the pointer."""
    return el("span", id if len(id) <= _LONG else f"{id[: _LONG - 4]}…", class_="word", title=id)

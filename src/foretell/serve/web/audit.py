"""The audit log, page by page, and whether its chain holds."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from foretell.pages import Html, code, definitions, el, number, table
from foretell.serve.accounts import audit
from foretell.serve.web.forms import button, field, kept, moment
from foretell.serve.web.shell import brief, nothing, panel, person, shell
from foretell.serve.web.site import Page, Reply, Visit

_EACH = 100
_SHOWN = 300  # characters of a row's details
_TIMES = ("until", "status_until", "status_until_before", "expires", "before")  # details in milliseconds


def _log(visit: Visit) -> Reply:
    about, action = visit.query.get("about", "").strip()[:160], visit.query.get("action", "").strip()[:40]
    before = visit.query.get("before", "")
    with visit.site.store.read() as db:
        found = audit.events(
            db,
            subject=about or None,
            action=action or None,
            before=int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None,
            limit=_EACH + 1,
        )
    more = len(found) > _EACH
    rows = [
        (
            number(event.seq),
            moment(event.time),
            person(visit, event.actor),
            event.action,
            _about(visit, event.subject),
            _details(event),
        )
        for event in found[:_EACH]
    ]
    shown = table(("row", "time, UTC", "who", "did", "to", "details"), rows, align="rlllll")
    older = (
        el("a", "Older rows", href=f"/admin/audit{kept(visit.query, before=str(found[_EACH - 1].seq))}") if more else ""
    )
    return shell(
        visit,
        "Audit log",
        el(
            "form",
            field("About or by", "about", about, required=False, longest=160),
            field("Action begins with", "action", action, required=False, longest=40),
            button("Show", kind="quiet"),
            method="get",
            action="/admin/audit",
            class_="row",
        ),
        panel("Rows", shown if rows else nothing("No such row."), el("p", older, class_="more")),
        panel(
            "Is the log whole?",
            el("p", el("a", "Check every row against the chain", href="/admin/audit/check")),
            note="Each row is sealed with the one before it, so that a change, a removal or an insertion shows.",
        ),
        lead="Every change to an account, with who made it. Rows are only ever added.",
    )


def _check(visit: Visit) -> Reply:
    asked = visit.query.get("hash", "").strip()[:64]
    found = audit.verify(visit.site.store, asked or None)
    words = (
        el("p", "The chain holds.", class_="told", role="status")
        if found.fault is None
        else el("p", f"The chain is broken: {found.fault}.", class_="told problem", role="alert")
    )
    return shell(
        visit,
        "The log's chain",
        words,
        definitions(
            [
                ("Rows checked", number(found.rows)),
                ("of them redacted", number(found.redacted)),
                ("Last row", number(found.last)),
            ]
        ),
        panel(
            "The last hash",
            code(found.last_hash),
            note="Keep it somewhere else. Whoever rewrites the whole log cannot make this hash stand in it again.",
        ),
        el(
            "form",
            field("A hash you kept", "hash", asked, longest=64),
            button("Check that it is in the log", kind="quiet"),
            method="get",
            action="/admin/audit/check",
            class_="row",
        ),
        kicker=el("a", "Audit log", href="/admin/audit"),
    )


def _about(visit: Visit, id: str) -> object:
    """What a row is about: a user's page, or all rows about it."""
    if id.startswith("user_") or not re.fullmatch(r"[a-z]+_[0-9a-f]{24}", id):
        return person(visit, id)
    return el("a", brief(id), href=f"/admin/audit?about={id}")


def _details(event: audit.Event) -> Html | str:
    if event.details is None:
        return el("span", "redacted", class_="soft")
    if not event.details:
        return ""
    told = ", ".join(f"{name}: {_value(name, value)}" for name, value in event.details.items() if value != "")
    return told if len(told) <= _SHOWN else told[: _SHOWN - 1] + "…"


def _value(name: str, value: Any) -> str:
    """As a person reads it: times of the day, not milliseconds."""
    if value is None:
        return "none"
    if name in _TIMES and isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    return value if isinstance(value, str) else json.dumps(value)


PAGES = (
    Page("/admin/audit", "admin", _log),
    Page("/admin/audit/check", "admin", _check),
)

"""A user's keys: made and shown once, listed, revoked."""

from __future__ import annotations

from foretell.pages import Html, el, join
from foretell.serve.accounts import keys
from foretell.serve.accounts.account import SCOPES
from foretell.serve.web.forms import (
    button,
    checks,
    field,
    form,
    moment,
    money,
    read_choices,
    read_day,
    read_line,
    read_money,
)
from foretell.serve.web.shell import nothing, panel, shell
from foretell.serve.web.site import FormError, Page, Reply, Visit, go

_TOLD = {
    "inference": "Ask models",
    "usage": "Read its own usage",
    "review": "Work on the review queue",
    "admin": "Administer the server",
}


def _list(visit: Visit) -> Reply:
    with visit.site.store.read() as db:
        found = keys.of_user(db, visit.caller.user)
    now = visit.site.store.clock()
    usable = [key for key in found if key.state(now) == "usable"]
    ended = [key for key in found if key.state(now) != "usable"]
    parts = [
        panel("Your keys", key_list(visit, usable) if usable else nothing("You have no key yet.")),
        panel(
            "A new key",
            _new(visit)
            if visit.caller.status in ("active", "warned")
            else nothing("A suspended account makes no keys. Your account's page says what you can do."),
        ),
    ]
    if ended:
        parts.append(panel("Ended keys", key_list(visit, ended)))
    lead = f"A program sends its key with every call to {visit.origin}/v1."
    return shell(visit, "Keys", *parts, lead=lead)


def key_list(visit: Visit, found: list[keys.Key], *, own: bool = True) -> Html:
    """Keys, each with a button that revokes it. own: of who looks at them; else of an admin."""
    return el("ul", *(_item(visit, key, own) for key in found), class_="items")


def _item(visit: Visit, key: keys.Key, own: bool) -> Html:
    may = f"may {', '.join(sorted(key.scopes))}"
    told = [may, f"{money(key.budget)} a month" if key.budget is not None else "no budget of its own"]
    times = join(
        [
            "made ",
            moment(key.created),
            ", last used " if key.used else ", never used",
            moment(key.used),
            ", expires " if key.expires else "",
            moment(key.expires),
        ]
    )
    state = key.state(visit.site.store.clock())
    action = f"{'/keys' if own else '/admin/keys'}/{key.id}/revoke"
    return el(
        "li",
        el(
            "div",
            el("p", el("strong", key.name), " ", el("code", f"…{key.hint}", class_="soft")),
            el("p", ", ".join(told)),
            el("p", times, class_="soft"),
            class_="grow",
        ),
        form(visit, action, button("Revoke", kind="danger")) if state == "usable" else el("span", state, class_="tag"),
    )


def _new(visit: Visit) -> Html:
    scopes = [(scope, _TOLD.get(scope, scope)) for scope in SCOPES[visit.caller.role]]
    chosen = visit.form.get("scopes", keys.DEFAULT_SCOPES)
    return form(
        visit,
        "/keys",
        field(
            "Name",
            "name",
            visit.given("name"),
            note="What will use it, such as “evals on the lab's machine”.",
            longest=80,
        ),
        checks("It may", "scopes", scopes, chosen),
        el(
            "div",
            field(
                "Last day",
                "expires",
                visit.given("expires"),
                kind="date",
                note="Empty: it does not expire.",
                required=False,
            ),
            field(
                "Budget a month, in dollars",
                "budget",
                visit.given("budget"),
                note="Empty: as much as your account has.",
                required=False,
                longest=20,
            ),
            class_="cells",
        ),
        button("Make the key"),
        class_="wide",
    )


def _create(visit: Visit) -> Reply:
    store, caller = visit.site.store, visit.caller
    if caller.status not in ("active", "warned"):
        raise FormError("A suspended account makes no keys.")
    name = read_line(visit, "name", "The name", longest=80)
    scopes = read_choices(visit, "scopes", "What it may do", SCOPES[caller.role])
    expires, budget = read_day(visit, "expires", "The last day"), read_money(visit, "budget", "The budget")
    with store.write() as db:
        _, secret = keys.create(db, caller.user, name, now=store.clock(), scopes=scopes, expires=expires, budget=budget)
    call = f"curl {visit.origin}/v1/models -H 'Authorization: Bearer {secret}'"
    return shell(
        visit,
        "Your new key",
        el("div", el("code", secret), class_="secret"),
        el("p", "Copy it now: it is shown this once and stored nowhere. Whoever has it can spend your budget."),
        el("h3", "Try it"),
        el("pre", el("code", call), tabindex="0"),
        el("p", el("a", "To your keys", href="/keys"), class_="aside"),
        kicker=join([el("a", "Keys", href="/keys"), " › ", name]),
    )


def _revoke(visit: Visit) -> Reply:
    store, caller = visit.site.store, visit.caller
    with store.write() as db:
        keys.revoke(db, visit.params["key"], now=store.clock(), user=caller.user, actor=caller.user)
    return go("/keys?said=revoked")


PAGES = (
    Page("/keys", "user", _list, _create),
    Page("/keys/{key}/revoke", "user", post=_revoke),
)

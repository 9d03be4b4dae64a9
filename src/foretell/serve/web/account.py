"""A user's own account: how it stands, and its password."""

from __future__ import annotations

from foretell.pages import definitions, el
from foretell.serve.accounts import people, sessions
from foretell.serve.web.entrance import new_password, read_password
from foretell.serve.web.forms import button, field, form, moment, money
from foretell.serve.web.shell import panel, shell, standing
from foretell.serve.web.site import FormError, Page, Reply, Visit, go


def _account(visit: Visit) -> Reply:
    caller = visit.caller
    with visit.site.store.read() as db:
        person = people.find(db, caller.user, visit.site.store.clock())
    assert person is not None, "a session is of a user"
    facts = [
        ("Email address", person.email),
        ("Role", person.role),
        ("Tier", person.tier),
        ("Standing", standing(caller.status)),
        ("Until", moment(person.status_until) if caller.status == "suspended" else None),
        ("Images", {None: "as the tier says", True: "may be sent", False: "may not be sent"}[person.images]),
        ("Budget a month", "the tier's" if person.budget is None else money(person.budget)),
        ("Opened", moment(person.created)),
        ("Id", el("code", person.id)),
    ]
    return shell(
        visit,
        "Your account",
        _trouble(visit),
        definitions(facts),
        el("p", el("a", "Strikes and appeals", href="/appeal")) if caller.status == "active" else "",
        panel(
            "Change the password",
            form(
                visit,
                "/account",
                field("Password now", "current", kind="password", autocomplete="current-password"),
                new_password("New password"),
                button("Change it", kind="quiet"),
                class_="stack",
            ),
            note="Every other session ends with it. Keys stay as they are.",
        ),
    )


def _trouble(visit: Visit) -> object:
    said = {
        "warned": "This account is warned: something it asked for breaks the usage policy.",
        "suspended": "This account is suspended: its calls are refused.",
        "banned": "This account is banned: its calls are refused.",
    }.get(visit.caller.status)
    if said is None:
        return ""
    return el("p", said, " ", el("a", "What it was, and how to appeal", href="/appeal"), class_="told problem")


def _change(visit: Visit) -> Reply:
    current = visit.given("current")
    if not current:
        raise FormError("The password of now is empty. Fill it in.")
    secret = sessions.change_password(visit.site.store, visit.caller.user, current, read_password(visit), visit.address)
    return go("/account?said=password", session=secret)


PAGES = (Page("/account", "user", _account, _change),)

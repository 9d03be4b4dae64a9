"""Users as an admin sees them: found, told apart, their role, tier, status and budget set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from foretell.pages import Html, definitions, el, join, table
from foretell.serve.accounts import audit, keys, links, people, waitlist
from foretell.serve.accounts.account import ROLES, STATUSES, Role, Status
from foretell.serve.accounts.people import Person
from foretell.serve.reviews.standings import strikes_of
from foretell.serve.web.forms import (
    button,
    dollars,
    field,
    form,
    kept,
    moment,
    money,
    read_choice,
    read_day,
    read_line,
    read_money,
    select,
)
from foretell.serve.web.keys import key_list
from foretell.serve.web.shell import brief, nothing, panel, shell, standing
from foretell.serve.web.shell import person as person_of
from foretell.serve.web.site import FormError, NotFound, Page, Reply, Visit, go

_EACH = 50
_IMAGES = (("", "as the tier says"), ("yes", "may be sent"), ("no", "may not be sent"))


def _users(visit: Visit) -> Reply:
    text = visit.query.get("find", "").strip()[:254]
    after = visit.query.get("after", "")[:254]
    with visit.site.store.read() as db:
        found = people.listing(db, text, after, _EACH + 1, visit.site.store.clock())
    rows = [_row(person) for person in found[:_EACH]]
    more = (
        el("a", "More", href=f"/admin/users{kept(visit.query, after=found[_EACH - 1].email)}")
        if len(found) > _EACH
        else ""
    )
    shown = table(("email address", "role", "tier", "status", "budget a month", "opened"), rows, align="llllrl")
    return shell(
        visit,
        "Users",
        el(
            "form",
            field("Part of an email address, or an id", "find", text, required=False, longest=254),
            button("Find", kind="quiet"),
            method="get",
            action="/admin/users",
            class_="row",
        ),
        panel("Accounts", shown if rows else nothing("No such account."), el("p", more, class_="more")),
    )


def _row(person: Person) -> tuple[object, ...]:
    return (
        el("a", person.email, href=f"/admin/users/{person.id}"),
        person.role,
        person.tier,
        standing(person.status),
        "the tier's" if person.budget is None else money(person.budget),
        moment(person.created),
    )


def _user(visit: Visit) -> Reply:
    store = visit.site.store
    person = _found(visit)
    with store.read() as db:
        theirs = keys.of_user(db, person.id)
        events = audit.events(db, subject=person.id, limit=10)
    strikes = strikes_of(store, person.id)
    facts = [
        ("Id", el("code", person.id)),
        ("Standing", standing(person.status)),
        ("Until", moment(person.status_until) if person.status == "suspended" else None),
        ("Log-in", None if person.can_log_in else "no password yet"),
        ("Opened", moment(person.created)),
    ]
    ways = el(
        "p",
        el("a", "Usage", href=f"/admin/users/{person.id}/usage"),
        " · ",
        el("a", "In the audit log", href=f"/admin/audit?about={person.id}"),
    )
    struck = [
        (
            moment(one.time),
            el("a", one.finding, href=f"/review/{one.finding}"),
            one.step,
            moment(one.overturned_at) or "no",
        )
        for one in strikes
    ]
    return shell(
        visit,
        person.email,
        definitions(facts),
        ways,
        panel("What it may", _settings(visit, person)),
        panel(
            "Password",
            form(visit, f"/admin/users/{person.id}/link", button("Make a link that sets it", kind="quiet")),
            note="For whoever has forgotten it. The link is shown to you, to be sent to them.",
        ),
        panel("Keys", key_list(visit, theirs, own=False) if theirs else nothing("No key.")),
        panel("Strikes", table(("when", "case", "led to", "taken back"), struck)) if struck else "",
        panel(
            "Done last",
            table(
                ("time, UTC", "who", "did", "to"),
                [(moment(e.time), person_of(visit, e.actor), e.action, brief(e.subject)) for e in events],
            ),
        )
        if events
        else "",
        kicker=join([el("a", "Users", href="/admin/users"), " › ", person.id]),
    )


def _settings(visit: Visit, person: Person) -> Html:
    tiers = list(dict.fromkeys([*visit.site.tiers, person.tier]))
    images = {None: "", True: "yes", False: "no"}[person.images]
    return form(
        visit,
        f"/admin/users/{person.id}",
        el(
            "div",
            select("Role", "role", [(role, role) for role in ROLES], visit.given("role", person.role)),
            select("Tier", "tier", [(tier, tier) for tier in tiers], visit.given("tier", person.tier)),
            select("Status", "status", [(one, one) for one in STATUSES], visit.given("status", person.status)),
            field(
                "Suspended through",
                "until",
                visit.given("until", _through(person)),
                kind="date",
                note="Empty: until it is lifted.",
                required=False,
            ),
            field(
                "Budget a month, in dollars",
                "budget",
                visit.given("budget", dollars(person.budget)),
                note="Empty: the tier's.",
                required=False,
                longest=20,
            ),
            select("Images", "images", _IMAGES, visit.given("images", images)),
            class_="cells",
        ),
        field("Why the status changes", "reason", visit.given("reason"), note="For the audit log.", required=False),
        button("Save"),
        class_="wide",
    )


def _found(visit: Visit) -> Person:
    with visit.site.store.read() as db:
        person = people.find(db, visit.params["user"], visit.site.store.clock())
    if person is None:
        raise NotFound
    return person


def _through(person: Person) -> str:
    """The last day of a suspension, as its field holds it."""
    if person.status != "suspended" or person.status_until is None:
        return ""
    return datetime.fromtimestamp((person.status_until - 1) / 1000, UTC).strftime("%Y-%m-%d")


def _set(visit: Visit) -> Reply:
    """Only what differs is set, and so logged."""
    person, store, me = _found(visit), visit.site.store, visit.caller.user
    role = cast(Role, read_choice(visit, "role", "The role", ROLES))
    tier = read_choice(visit, "tier", "The tier", [*visit.site.tiers, person.tier])
    status = cast(Status, read_choice(visit, "status", "The status", STATUSES))
    until, budget = read_day(visit, "until", "The last day"), read_money(visit, "budget", "The budget")
    images = {"": None, "yes": True, "no": False}[read_choice(visit, "images", "Images", ("", "yes", "no"))]
    reason = read_line(visit, "reason", "The reason", required=False)
    if person.id == me and (role != "admin" or status in ("suspended", "banned")):
        raise FormError("You would lock yourself out. Another admin can do that.")
    with store.write() as db:
        now = store.clock()
        if role != person.role:
            people.set_role(db, person.id, role, now=now, actor=me)
        if tier != person.tier:
            people.set_tier(db, person.id, tier, now=now, actor=me)
        if status != person.status or visit.given("until") != _through(person):
            people.set_status(db, person.id, status, now=now, actor=me, until=until, reason=reason)
        if budget != person.budget:
            people.set_budget(db, person.id, budget, now=now, actor=me)
        if images != person.images:
            people.set_images(db, person.id, images, now=now, actor=me)
    return go(f"/admin/users/{person.id}?said=saved")


def _link(visit: Visit) -> Reply:
    person, store = _found(visit), visit.site.store
    with store.write() as db:
        token = waitlist.password_link(db, person.id, now=store.clock(), actor=visit.caller.user)
    return link_page(
        visit,
        f"A link for {person.email}",
        f"{visit.origin}{links.PAGES['password']}?token={token}",
        "Whoever opens it sets the account's password. It works once, within three days, and is shown this once.",
        el("a", person.email, href=f"/admin/users/{person.id}"),
    )


def link_page(visit: Visit, title: str, link: str, note: str, back: object) -> Reply:
    """A link to be sent to somebody, shown once."""
    return shell(visit, title, el("div", el("code", link), class_="secret"), el("p", note), kicker=back)


def _revoke(visit: Visit) -> Reply:
    store = visit.site.store
    with store.write() as db:
        keys.revoke(db, visit.params["key"], now=store.clock(), actor=visit.caller.user)
    return go("/admin/users?said=revoked")


PAGES = (
    Page("/admin/users", "admin", _users),
    Page("/admin/users/{user}", "admin", _user, _set),
    Page("/admin/users/{user}/link", "admin", post=_link),
    Page("/admin/keys/{key}/revoke", "admin", post=_revoke),
)

"""The waitlist as an admin sees it: who asks, and the link that lets one in."""

from __future__ import annotations

from foretell.pages import Html, el
from foretell.serve.accounts import links, waitlist
from foretell.serve.accounts.account import DEFAULT_TIER
from foretell.serve.accounts.waitlist import Waiting
from foretell.serve.web.forms import button, form, kept, moment, read_choice, select
from foretell.serve.web.people import link_page
from foretell.serve.web.shell import nothing, panel, shell
from foretell.serve.web.site import Page, Reply, Visit

_EACH = 50


def _list(visit: Visit) -> Reply:
    everyone, after = visit.query.get("all") == "yes", visit.query.get("after", "")
    since = int(after) if after.isascii() and after.isdigit() and len(after) < 16 else -1
    with visit.site.store.read() as db:
        found = waitlist.listing(db, all=everyone, limit=_EACH + 1, after=since)
    more = ""
    if len(found) > _EACH:
        more = el("a", "More", href=f"/admin/waitlist{kept(visit.query, after=str(found[_EACH - 1].joined))}")
    other = (
        el("a", "Only who waits still", href="/admin/waitlist")
        if everyone
        else el("a", "Those too who have an account", href="/admin/waitlist?all=yes")
    )
    items = el("ul", *(_item(visit, entry) for entry in found[:_EACH]), class_="items")
    return shell(
        visit,
        "Waitlist",
        panel("Who asks", items if found else nothing("Nobody waits."), el("p", more, other, class_="more")),
        lead="The longest wait comes first. An invitation is a link, which you send yourself.",
    )


def _item(visit: Visit, entry: Waiting) -> Html:
    told: list[object] = ["joined ", moment(entry.joined)]
    if entry.invited is not None:
        told += [", invited ", moment(entry.invited), f" to {entry.tier}"]
    if entry.accepted is not None:
        told += [", accepted ", moment(entry.accepted)]
    name: object = entry.email
    if entry.user is not None:
        name = el("a", entry.email, href=f"/admin/users/{entry.user}")
    return el(
        "li",
        el("div", el("p", el("strong", name)), el("p", entry.note), el("p", *told, class_="soft"), class_="grow"),
        _invitation(visit, entry) if entry.accepted is None else "",
    )


def _invitation(visit: Visit, entry: Waiting) -> Html:
    tiers = [(tier, tier) for tier in visit.site.tiers]
    return form(
        visit,
        f"/admin/waitlist/{entry.id}",
        select("Tier", "tier", tiers, entry.tier or DEFAULT_TIER, id=f"tier-{entry.id}"),
        button("Invite" if entry.invited is None else "Invite again", kind="quiet"),
        class_="row",
    )


def _invite(visit: Visit) -> Reply:
    store = visit.site.store
    tier = read_choice(visit, "tier", "The tier", visit.site.tiers)
    with store.write() as db:
        token = waitlist.invite(db, visit.params["entry"], now=store.clock(), actor=visit.caller.user, tier=tier)
    return link_page(
        visit,
        "An invitation",
        f"{visit.origin}{links.PAGES['invite']}?token={token}",
        "Send it to the address on the list. It opens one account, within two weeks, and is shown this once.",
        el("a", "Waitlist", href="/admin/waitlist"),
    )


PAGES = (
    Page("/admin/waitlist", "admin", _list),
    Page("/admin/waitlist/{entry}", "admin", post=_invite, back=_list),
)

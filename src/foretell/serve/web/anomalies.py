"""What the sweep over usage found odd, for a reviewer to look at."""

from __future__ import annotations

from foretell.pages import Html, el, number, table
from foretell.serve.reviews import sweep
from foretell.serve.reviews.sweep import Anomaly
from foretell.serve.web.forms import button, form, moment
from foretell.serve.web.shell import nothing, panel, person, shell
from foretell.serve.web.site import NotFound, Page, Reply, Visit, go

_KINDS = {
    "burst": "many calls at once",
    "crowd": "many accounts, one address",
    "rise": "a category rises",
}


def _list(visit: Visit) -> Reply:
    store = visit.site.store
    found, seen = sweep.anomalies_of(store), sweep.anomalies_of(store, open=False, limit=20)
    return shell(
        visit,
        "Anomalies",
        panel("To be looked at", _table(visit, found) if found else nothing("Nothing odd was found.")),
        panel("Looked at", _table(visit, seen)) if seen else "",
        lead="Each hour the usage before it is looked through. Nothing is done to an account by this alone.",
    )


def _table(visit: Visit, found: list[Anomaly]) -> Html:
    rows = [
        (
            _KINDS.get(one.kind, one.kind),
            person(visit, one.subject),
            moment(one.began),
            number(one.seen),
            number(one.expected),
            number(one.chance, 2),
            form(visit, f"/anomalies/{one.id}/close", button("Looked at", kind="quiet"))
            if one.closed_by is None
            else el("span", one.closed_by, class_="soft"),
        )
        for one in found
    ]
    return table(("what", "whose", "from", "seen", "expected", "chance", ""), rows, align="lllrrrl")


def _close(visit: Visit) -> Reply:
    if not sweep.close(visit.site.store, visit.caller.user, visit.params["anomaly"]):
        raise NotFound
    return go("/anomalies?said=saved")


PAGES = (
    Page("/anomalies", "reviewer", _list),
    Page("/anomalies/{anomaly}/close", "reviewer", post=_close),
)

"""Appeals: what a user was struck for, and a note to the reviewers about it."""

from __future__ import annotations

from foretell.pages import Html, el, join
from foretell.serve.reviews import cases
from foretell.serve.reviews.appeals import LONGEST, appeal, appeals_of
from foretell.serve.reviews.cases import Appeal, Given
from foretell.serve.reviews.standings import strikes_of
from foretell.serve.web.forms import area, button, form, hidden, moment, read_text
from foretell.serve.web.shell import nothing, panel, shell, standing
from foretell.serve.web.site import Page, Reply, Visit, go


def _strikes(visit: Visit) -> Reply:
    store, caller = visit.site.store, visit.caller
    asked = {made.strike: made for made in appeals_of(store, caller.user)}
    given = strikes_of(store, caller.user)
    if given:
        shown = join(_strike(visit, one, asked.get(one.id)) for one in given)
    elif caller.status in ("suspended", "banned"):
        shown = nothing("No strike led to this: whoever runs this server set it. Ask them.")
    else:
        shown = nothing("There is no strike against your account.")
    return shell(
        visit,
        "Strikes and appeals",
        el("p", "Your account is ", standing(caller.status), "."),
        shown,
        lead="A strike is given for what breaks the usage policy. If you think that one is wrong, say why: a reviewer "
        "reads it before anything else.",
    )


def _strike(visit: Visit, strike: Given, made: Appeal | None) -> Html:
    case = cases.case(visit.site.store, strike.finding)
    parts: list[object] = [el("p", moment(strike.time), f": it led to the status “{strike.step}”.")]
    if case.text is not None:
        parts.append(el("blockquote", case.text, class_="quoted"))
    if strike.overturned_at is not None:
        parts.append(el("p", el("span", "taken back", class_="tag good"), " ", moment(strike.overturned_at)))
    if made is not None:
        parts.append(el("p", "You wrote: ", el("q", made.note)))
        if made.verdict is None:
            parts.append(el("p", "A reviewer has not answered yet.", class_="soft"))
        else:
            parts.append(el("p", el("strong", f"Answer: {made.verdict}."), " ", made.answer))
    elif strike.overturned_at is None:
        refilled = visit.given("note") if visit.given("strike") == strike.id else ""
        parts.append(
            form(
                visit,
                "/appeal",
                hidden("strike", strike.id),
                area("Why it is wrong", "note", refilled, longest=LONGEST, id=f"note-{strike.id}"),
                button("Appeal"),
                class_="wide",
            )
        )
    return panel(", ".join(case.categories) or "Usage policy", *parts)


def _appeal(visit: Visit) -> Reply:
    note = read_text(visit, "note", "The note", longest=LONGEST)
    appeal(visit.site.store, visit.caller.user, visit.given("strike"), note)
    return go("/appeal?said=appealed")


PAGES = (Page("/appeal", "user", _strikes, _appeal),)

"""The reviewers' pages: the queue, a case with its text, and what is decided about it."""

from __future__ import annotations

from collections.abc import Mapping

from foretell.pages import Bar, Html, bar_chart, definitions, el, join, number, percent
from foretell.serve.reviews import cases, desk
from foretell.serve.reviews.cases import Case
from foretell.serve.web.forms import area, button, checks, form, moment, read_choices, read_text
from foretell.serve.web.shell import nothing, panel, person, shell
from foretell.serve.web.site import FormError, NotFound, Page, Reply, Visit, go

_MOST, _SCORES = 50, 6
_BEGINNING = 140  # characters of a text in the queue


def _queue(visit: Visit) -> Reply:
    store, caller = visit.site.store, visit.caller
    waiting = cases.waiting(store)
    found = [case for case in cases.cases(store, open=True, limit=_MOST) if case.user != caller.user]
    decided = [case for case in cases.cases(store, open=False, limit=10) if case.user != caller.user]
    take = form(visit, "/review", button("Take the next case")) if found else ""
    return shell(
        visit,
        "Review",
        take,
        panel("Waiting", _list(visit, found) if found else nothing("Nothing waits for a decision.")),
        panel("Decided last", _list(visit, decided) if decided else nothing("Nothing has been decided yet.")),
        lead=f"{number(waiting)} {'case waits' if waiting == 1 else 'cases wait'} for a decision. Appeals come first, "
        "then what was blocked, refused and flagged.",
    )


def _list(visit: Visit, found: list[Case]) -> Html:
    return el("ul", *(_item(visit, case) for case in found), class_="items")


def _item(visit: Visit, case: Case) -> Html:
    text = case.text if case.text is not None else "(the text is deleted)"
    shown = text if len(text) <= _BEGINNING else text[: _BEGINNING - 1] + "…"
    return el(
        "li",
        el(
            "div",
            el("p", el("a", ", ".join(case.categories) or "uncategorised", href=f"/review/{case.id}")),
            el("p", shown, class_="soft"),
            class_="grow",
        ),
        el("div", *_tags(visit, case), " ", el("span", moment(case.time), class_="soft")),
    )


def _tags(visit: Visit, case: Case) -> list[Html]:
    tags = [el("span", case.action, class_="tag")]
    if case.appeal is not None and case.appeal.verdict is None:
        tags.append(el("span", "appeal", class_="tag bad"))
    if case.verdict is not None and not case.open:
        tags.append(el("span", case.verdict, class_="tag good"))
    now = visit.site.store.clock()
    if case.open and case.claimed_by is not None and (case.claimed_until or 0) > now:
        mine = case.claimed_by == visit.caller.user
        tags.append(el("span", "yours" if mine else "another's", class_="tag good" if mine else "tag"))
    return [join([tag, " "]) for tag in tags]


def _take(visit: Visit) -> Reply:
    found = desk.claim(visit.site.store, visit.caller.user)
    if found is None:
        raise FormError("Nothing is free to be taken: every case is decided, or with another reviewer.")
    return go(f"/review/{found.id}")


def _case(visit: Visit) -> Reply:
    case = _theirs(visit)
    mine = case.open and case.claimed_by == visit.caller.user
    facts = [
        ("Said by", "the caller" if case.side == "input" else "the model"),
        ("Account", person(visit, case.user) if case.user else "none"),
        ("Model", case.model),
        ("Request", el("code", case.request) if case.request else None),
        ("What was done", case.action),
        ("Rule that hit", case.rule),
        ("When", moment(case.time)),
        ("Strike", _strike(case)),
        (
            "Decided",
            join([case.verdict, " by ", case.decided_by, ", ", moment(case.decided_at)]) if case.verdict else None,
        ),
    ]
    highest = sorted(case.scores.items(), key=lambda item: -item[1])[:_SCORES]
    text = (
        el("blockquote", case.text, class_="quoted")
        if case.text is not None
        else nothing("The text is deleted, since its time was over.")
    )
    parts = [
        panel("The text", text),
        _appealed(case),
        _decision(visit, case) if mine else _untaken(case),
        panel("What is known", definitions(facts)),
        panel(
            "Scores",
            bar_chart([Bar(name, score, percent(score, 0)) for name, score in highest], title="Scores by category"),
        )
        if highest
        else "",
        _labelled(visit, case) if case.text is not None and not mine else "",
    ]
    title = ", ".join(case.categories) or "A case"
    kicker = join([el("a", "Review", href="/review"), " › ", case.id])
    return shell(visit, title, join(_tags(visit, case)), *parts, kicker=kicker)


def _strike(case: Case) -> object:
    if case.strike is None:
        return None
    taken = " (taken back)" if case.strike.overturned_at is not None else ""
    return f"weight {case.strike.weight}, to {case.strike.step}{taken}"


def _appealed(case: Case) -> object:
    if case.appeal is None:
        return ""
    answered = (
        [el("p", el("strong", f"Answered: {case.appeal.verdict}."), " ", case.appeal.answer)]
        if case.appeal.verdict is not None
        else []
    )
    note = el("blockquote", case.appeal.note or "(the note is deleted)", class_="quoted")
    return panel("The appeal", note, *answered)


def _untaken(case: Case) -> object:
    if not case.open:
        return ""
    return panel(
        "Decide", el("p", "Take cases from ", el("a", "the queue", href="/review"), ": none is decided by two at once.")
    )


def _decision(visit: Visit, case: Case) -> Html:
    answer = (
        area(
            "Answer to the appeal",
            "answer",
            visit.given("answer"),
            note="Its account's owner reads this.",
            rows=3,
            required=False,
        )
        if case.appeal is not None and case.appeal.verdict is None
        else ""
    )
    return panel(
        "Decide",
        form(
            visit,
            f"/review/{case.id}",
            _boxes(visit, case) if case.text is not None else "",
            answer,
            el(
                "div",
                button("Uphold", name="verdict", value="upheld"),
                button("Overturn", kind="quiet", name="verdict", value="overturned"),
                button("Give it back", kind="plain", name="verdict", value="release"),
                class_="row",
            ),
            class_="wide",
        ),
        note="Upheld, the account keeps or gets a strike. Overturned, it is taken back, and what it led to is lifted. "
        "The categories teach the classifier.",
    )


def _boxes(visit: Visit, case: Case) -> Html:
    known = visit.site.labels or tuple(case.scores)
    on = [name for name, value in case.labels.items() if value] if case.labels is not None else case.categories
    chosen = visit.form.get("labels", on)
    return el("div", checks("What the text is", "labels", [(name, name) for name in known], chosen), class_="boxes")


def _labelled(visit: Visit, case: Case) -> Html:
    return panel(
        "Label",
        form(
            visit,
            f"/review/{case.id}/label",
            _boxes(visit, case),
            button("Save the label", kind="quiet"),
            class_="wide",
        ),
        note="Without a decision. The latest label counts.",
    )


def _taught(labels: Mapping[str, bool], case: Case, verdict: str) -> dict[str, bool]:
    """What the classifier is to learn: of a case that is overturned, that what was flagged is not so, whatever boxes
    were left ticked."""
    wrong = case.categories if verdict == "overturned" else ()
    return {name: held and name not in wrong for name, held in labels.items()}


def _decide(visit: Visit) -> Reply:
    case, store, me = _theirs(visit), visit.site.store, visit.caller.user
    verdict = visit.given("verdict")
    if verdict == "release":
        desk.release(store, me, case.id)
        return go("/review")
    act = {"upheld": desk.uphold, "overturned": desk.overturn}.get(verdict)
    if act is None:
        raise FormError("Say whether it is upheld or overturned.")
    answer = read_text(visit, "answer", "The answer", required=False)
    act(
        store,
        visit.site.ladder,
        me,
        case.id,
        categories=_taught(_labels(visit, case), case, verdict) if case.text is not None else None,
        answer=answer,
    )
    return go("/review?said=decided")


def _label(visit: Visit) -> Reply:
    case = _theirs(visit)
    desk.label(visit.site.store, visit.caller.user, case.id, _labels(visit, case))
    return go(f"/review/{case.id}?said=saved")


def _labels(visit: Visit, case: Case) -> dict[str, bool]:
    known = visit.site.labels or tuple(case.scores)
    chosen = read_choices(visit, "labels", "What the text is", known)
    return {name: name in chosen for name in known}


def _theirs(visit: Visit) -> Case:
    """The case that is asked for; not one's own, which another must judge."""
    found = cases.case(visit.site.store, visit.params["case"])
    if found.user == visit.caller.user:
        raise NotFound
    return found


PAGES = (
    Page("/review", "reviewer", _queue, _take),
    Page("/review/{case}", "reviewer", _case, _decide),
    Page("/review/{case}/label", "reviewer", post=_label, back=_case),
)

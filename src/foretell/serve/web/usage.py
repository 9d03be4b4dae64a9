"""Usage: by day, model and key, with money, a chart and a table to take away; a user's own, and for admins anyone's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from foretell.pages import Html, Series, cards, compact, el, line_chart, number, percent, table
from foretell.serve.accounts import keys, people
from foretell.serve.limits import usage
from foretell.serve.limits.standing import Standing
from foretell.serve.limits.usage import Sums, Usage
from foretell.serve.web.forms import button, field, kept, money, select
from foretell.serve.web.shell import nothing, panel, person, shell
from foretell.serve.web.site import NotFound, Page, Reply, Visit

_DAY = 86_400_000
_USUAL, _MOST = 30, 366  # days
_HEAD = ("cost", "calls", "prompt", "of it images", "completion")
_KINDS = {
    "requests": "Requests a minute",
    "tokens": "Tokens a minute",
    "streams": "Streams at once",
    "cap": "Messages every {span}",
    "quota": "Free messages a day",
    "budget": "Budget a month",
    "key_budget": "Budget of the key",
    "tier_budget": "Budget of the tier",
}


def _own(visit: Visit) -> Reply:
    caller, store = visit.caller, visit.site.store
    first, last, wrong = _span(visit)
    key = visit.query.get("key")
    with store.read() as db:
        names = {one.id: one.name for one in keys.of_user(db, caller.user)}
    if key and key not in names:
        raise NotFound
    found = usage.usage(store, caller.user, since=first, until=last, key=key)
    stand = _standings(visit)
    return shell(
        visit,
        "Usage",
        el("p", wrong, class_="told problem", role="alert") if wrong else "",
        _choose("/usage", first, last, key, names),
        *_shown("/usage.csv", found, first, last, key, names),
        panel("Your limits now", _limits(visit, stand)) if stand else "",
    )


def _own_table(visit: Visit) -> Reply:
    caller, store = visit.caller, visit.site.store
    first, last, _ = _span(visit)
    key = visit.query.get("key") or None
    if key:
        with store.read() as db:
            if key not in {one.id for one in keys.of_user(db, caller.user)}:
                raise NotFound
    rows = usage.export(store, caller.user, since=first, until=last + _DAY, key=key)
    return _download(rows, first, last)


def _anyones(visit: Visit) -> Reply:
    store, user = visit.site.store, visit.params["user"]
    first, last, wrong = _span(visit)
    with store.read() as db:
        who = people.find(db, user)
        names = {one.id: one.name for one in keys.of_user(db, user)}
    if who is None:
        raise NotFound
    found = usage.usage(store, user, since=first, until=last)
    return shell(
        visit,
        f"Usage of {who.email}",
        el("p", wrong, class_="told problem", role="alert") if wrong else "",
        _choose(f"/admin/users/{user}/usage", first, last, None, {}),
        *_shown(f"/admin/users/{user}/usage.csv", found, first, last, None, names),
        kicker=el("a", user, href=f"/admin/users/{user}"),
    )


def _anyones_table(visit: Visit) -> Reply:
    store, user = visit.site.store, visit.params["user"]
    with store.read() as db:
        if people.find(db, user) is None:
            raise NotFound
    first, last, _ = _span(visit)
    return _download(usage.export(store, user, since=first, until=last + _DAY), first, last)


def _everyones(visit: Visit) -> Reply:
    first, last, wrong = _span(visit)
    found = usage.usage(visit.site.store, since=first, until=last)
    most = [(person(visit, user), *_row(sums)) for user, sums in found.by_user.items()]
    return shell(
        visit,
        "Usage of all",
        el("p", wrong, class_="told problem", role="alert") if wrong else "",
        _choose("/admin/usage", first, last, None, {}),
        *_shown("/admin/usage.csv", found, first, last, None, {}),
        panel("Who was charged most", table(("account", *_HEAD), most, align="lrrrrr")) if most else "",
    )


def _everyones_table(visit: Visit) -> Reply:
    first, last, _ = _span(visit)
    return _download(usage.export(visit.site.store, since=first, until=last + _DAY), first, last)


def _span(visit: Visit) -> tuple[int, int, str]:
    """The beginnings of the first and last day that are asked for, the last 30 by default, and what is wrong if not."""
    today = visit.site.store.clock() // _DAY * _DAY
    usual = today - (_USUAL - 1) * _DAY, today
    try:
        first, last = (_day(visit.query.get(name, "")) for name in ("from", "to"))
    except ValueError:
        return *usual, "A day is written as 2027-01-31."
    last = usual[1] if last is None else last
    first = last - (_USUAL - 1) * _DAY if first is None else first
    if not 0 <= last - first < _MOST * _DAY:
        return *usual, f"The first day should be before the last, by {_MOST} days at most."
    return first, last, ""


def _day(text: str) -> int | None:
    if not text:
        return None
    return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _choose(path: str, first: int, last: int, key: str | None, names: Mapping[str, str]) -> Html:
    chosen = select("Key", "key", [("", "all"), *names.items()], key or "") if names else ""
    return el(
        "form",
        field("From", "from", _iso(first), kind="date", required=False),
        field("Through", "to", _iso(last), kind="date", required=False),
        chosen,
        button("Show", kind="quiet"),
        method="get",
        action=path,
        class_="row",
    )


def _shown(
    path: str, found: Usage, first: int, last: int, key: str | None, names: Mapping[str, str]
) -> Iterator[object]:
    total = found.total
    free = f"{money(total.micros - total.charged)} of it free" if total.micros > total.charged else ""
    yield cards(
        [
            ("Cost", money(total.micros), free),
            ("Calls", number(total.calls), ""),
            ("Tokens", compact(total.prompt_tokens + total.completion_tokens), "read and written"),
        ]
    )
    if not total.calls:
        yield nothing("Nothing was used in this time.")
        return
    begin, end = first // _DAY, last // _DAY
    if end > begin:
        yield panel("By day", _chart(found, begin, end))
    yield panel(
        "By model",
        table(("model", *_HEAD), [(name, *_row(sums)) for name, sums in found.by_model.items()], align="lrrrrr"),
    )
    if found.by_key:
        rows = [
            (names.get(name, "a key of before") if name else "the chat page", *_row(sums))
            for name, sums in found.by_key.items()
        ]
        yield panel("By key", table(("key", *_HEAD), rows, align="lrrrrr"))
    days = [(_iso(day * _DAY), *_row(sums)) for day, sums in reversed(found.by_day.items())]
    address = f"{path}{kept({}, **{'from': _iso(first), 'to': _iso(last), 'key': key or ''})}"
    yield panel(
        "Day by day",
        table(("day, UTC", *_HEAD), days, align="lrrrrr"),
        el("p", el("a", "Every call as a CSV table", href=address, download=True)),
    )


def _chart(found: Usage, begin: int, end: int) -> Html:
    """A day without use is a nought, not a gap."""
    days = range(begin, end + 1)
    spent = [found.by_day.get(day, Sums()).micros / 1e6 for day in days]
    if not any(spent):
        calls = [float(found.by_day.get(day, Sums()).calls) for day in days]
        return _line("calls", days, calls)
    return _line("dollars", days, spent)


def _line(name: str, days: range, values: list[float]) -> Html:
    mark = "both" if len(days) <= 40 else "line"
    series = Series(name, [float(day) for day in days], values, mark=mark)
    return line_chart(
        [series],
        title=f"{name.capitalize()} by day",
        y_label=name,
        x_format=lambda day: datetime.fromtimestamp(day * _DAY / 1000, UTC).strftime("%d %b"),
        keys_above=True,
    )


def _row(sums: Sums) -> tuple[object, ...]:
    return money(sums.micros), sums.calls, sums.prompt_tokens, sums.image_tokens, sums.completion_tokens


def _standings(visit: Visit) -> list[Standing]:
    limits = visit.site.limits
    if limits is None or visit.caller.tier not in limits.tiers.tiers:
        return []
    return limits.standings(visit.caller)


def _limits(visit: Visit, found: list[Standing]) -> Html:
    rows = []
    for one in found:
        write = money if one.kind.endswith("budget") else number
        name = _KINDS[one.kind].format(span=one.span)
        if "*" not in one.models:
            name += f" with {', '.join(one.models)}"
        left = max(one.remaining, 0)
        rows.append((name, write(one.limit), write(left), percent(left / one.limit, 0) if one.limit else None))
    return table(("limit", "of", "left", "share"), rows, align="lrrr")


def _download(rows: Iterator[str], first: int, last: int) -> Reply:
    return Reply((piece.encode() for piece in rows), download=f"usage-{_iso(first)}-{_iso(last)}.csv")


PAGES = (
    Page("/usage", "user", _own),
    Page("/usage.csv", "user", _own_table),
    Page("/admin/usage", "admin", _everyones),
    Page("/admin/usage.csv", "admin", _everyones_table),
    Page("/admin/users/{user}/usage", "admin", _anyones),
    Page("/admin/users/{user}/usage.csv", "admin", _anyones_table),
)

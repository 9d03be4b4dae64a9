"""Forms: drawn with the token that proves where they come from, and read with limits and reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from foretell.pages import Html, el
from foretell.serve.web.site import FormError, Visit

TOKEN = "form"  # noqa: S105 - the name of a field
MOST_BYTES, _MOST_FIELDS = 64_000, 100
_LONG = 2_000
_MICRO = 1_000_000
_MOST_MONEY = 1_000_000_000  # dollars
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def parse(body: bytes) -> dict[str, list[str]]:
    """The fields of an application/x-www-form-urlencoded body. Raises FormError."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise FormError("The form cannot be read. Load the page again and fill it in anew.") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


async def read_body(request: Request) -> dict[str, list[str]] | None:
    """A form's fields; None for what is no form, or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            return None
    try:
        return parse(body)
    except FormError:
        return None


def form(visit: Visit, action: str, *content: object, class_: str | None = None) -> Html:
    token = el("input", type="hidden", name=TOKEN, value=visit.token)
    return el("form", token, *content, method="post", action=action, class_=class_, accept_charset="utf-8")


def hidden(name: str, value: str) -> Html:
    return el("input", type="hidden", name=name, value=value)


def button(label: str, *, kind: str = "firm", name: str | None = None, value: str | None = None) -> Html:
    """kind: firm for what the form is for, quiet beside it, danger for what cannot be taken back, plain as a link."""
    return el("button", label, type="submit", class_=kind, name=name, value=value)


def field(
    label: str,
    name: str,
    value: str = "",
    *,
    kind: str = "text",
    note: object = "",
    autocomplete: str = "off",
    required: bool = True,
    longest: int = 200,
    shortest: int | None = None,
) -> Html:
    """A labelled line of text. kind: an input's type."""
    told = f"{name}-note" if note else None
    box = el(
        "input",
        id=name,
        name=name,
        type=kind,
        value=None if kind == "password" else value,
        autocomplete=autocomplete,
        required=required,
        maxlength=longest,
        minlength=shortest,
        aria_describedby=told,
        inputmode="decimal" if kind == "text" and name.endswith("budget") else None,
    )
    return el(
        "div", el("label", label, for_=name), box, el("p", note, class_="hint", id=told) if note else "", class_="field"
    )


def area(
    label: str,
    name: str,
    value: str = "",
    *,
    note: object = "",
    rows: int = 5,
    longest: int = _LONG,
    required: bool = True,
    id: str = "",
) -> Html:
    """A labelled box for some lines of text."""
    key = id or name
    told = f"{key}-note" if note else None
    box = el(
        "textarea", value, id=key, name=name, rows=rows, maxlength=longest, required=required, aria_describedby=told
    )
    hint = el("p", note, class_="hint", id=told) if note else ""
    return el("div", el("label", label, for_=key), box, hint, class_="field")


def select(label: str, name: str, options: Iterable[tuple[str, str]], value: str = "", *, id: str = "") -> Html:
    """options: (value, shown)."""
    rows = (el("option", shown, value=key, selected=key == value) for key, shown in options)
    key = id or name
    return el("div", el("label", label, for_=key), el("select", *rows, id=key, name=name), class_="field")


def checks(label: str, name: str, options: Sequence[tuple[str, str]], chosen: Iterable[str] = ()) -> Html:
    """Boxes to tick. options: (value, shown)."""
    on = set(chosen)
    boxes = (
        el("label", el("input", type="checkbox", name=name, value=key, checked=key in on), el("span", shown))
        for key, shown in options
    )
    return el("fieldset", el("legend", label), *boxes)


def read_line(visit: Visit, name: str, label: str, *, longest: int = 200, required: bool = True) -> str:
    """A field's text on one line, trimmed. Raises FormError."""
    text = read_text(visit, name, label, longest=longest, required=required)
    if "\n" in text:
        raise FormError(f"{label} should be one line.")
    return text


def read_text(visit: Visit, name: str, label: str, *, longest: int = _LONG, required: bool = True) -> str:
    text = visit.given(name).replace("\r\n", "\n").strip()
    if not text and required:
        raise FormError(f"{label} is empty. Fill it in.")
    if len(text) > longest:
        raise FormError(f"{label} is {len(text):,} characters long; {longest:,} are read at most.")
    if _CONTROL.search(text):
        raise FormError(f"{label} holds characters that cannot be shown. Type it anew.")
    return text


def read_choice(visit: Visit, name: str, label: str, options: Iterable[str]) -> str:
    chosen = visit.given(name)
    if chosen not in set(options):
        raise FormError(f"{label}: {chosen[:40] or 'nothing'} is not one of the choices.")
    return chosen


def read_choices(visit: Visit, name: str, label: str, options: Iterable[str]) -> list[str]:
    chosen, known = list(dict.fromkeys(visit.form.get(name, ()))), set(options)
    for one in chosen:
        if one not in known:
            raise FormError(f"{label}: {one[:40]} is not one of the choices.")
    return chosen


def read_money(visit: Visit, name: str, label: str) -> int | None:
    """Dollars, as micro-dollars; None where the field is empty. Raises FormError."""
    text = visit.given(name).strip().removeprefix("$").replace(",", "")
    if not text:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise FormError(f"{label}: {text[:20]} is not an amount of dollars, such as 20 or 7.50.") from error
    if not value.is_finite() or not 0 <= value <= _MOST_MONEY:
        raise FormError(f"{label} should be between 0 and {_MOST_MONEY:,} dollars.")
    return int(value * _MICRO)


def read_day(visit: Visit, name: str, label: str) -> int | None:
    """The end of a day, UTC, in milliseconds; None where the field is empty. Raises FormError."""
    text = visit.given(name).strip()
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise FormError(f"{label}: {text[:20]} is not a day, such as 2027-01-31.") from error
    if not 1970 <= day.year < 9999:
        raise FormError(f"{label}: {text[:20]} is too far away.")
    return int((day + timedelta(days=1)).timestamp() * 1000)


def money(micro: int | None) -> str:
    """Micro-dollars for reading: cents, and more digits below a cent."""
    if micro is None:
        return "–"
    digits = 2 if micro == 0 or abs(micro) >= 10_000 else 6
    return f"${Decimal(micro) / _MICRO:,.{digits}f}".replace("$-", "−$")


def dollars(micro: int | None) -> str:
    """Micro-dollars as a field holds them."""
    return "" if micro is None else f"{Decimal(micro) / _MICRO:f}"


def moment(ms: int | None) -> Html | None:
    """A time for reading, UTC to the minute."""
    if ms is None:
        return None
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return el("time", at.strftime("%Y-%m-%d %H:%M"), datetime=at.strftime("%Y-%m-%dT%H:%M:%SZ"), class_="word")


def kept(query: Mapping[str, str], **changed: str | None) -> str:
    """A query with some parts changed; None leaves one out."""
    merged = {**query, **changed}
    merged.pop("said", None)
    found = urlencode({name: value for name, value in merged.items() if value})
    return f"?{found}" if found else ""

"""Markup: text is escaped unless it is already `Html`; one stylesheet; one file a page."""

from __future__ import annotations

import base64
import binascii
import html
import math
import re
import struct
from collections.abc import Iterable, Sequence

_VOID = frozenset({"br", "hr", "img", "meta", "col", "wbr", "input", "link"})
_SHAPES = frozenset({"path", "rect", "circle", "line", "polyline"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*\Z")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_PICTURE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}\Z")
_LINK = re.compile(r"(?:https?://|mailto:|#)[^\s]*\Z|(?!//)[\w./-]+(?:\?[\w.~%&=+-]*)?(?:#[^\s]*)?\Z", re.IGNORECASE)
_MINUS = "−"
_PICTURE_WIDTH, _MOST_PICTURE = 192, 60_000  # pixels; characters


class Html(str):
    """Markup that is safe on a page. Joining it with plain text gives plain text, which is escaped again."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Any value as markup: `Html` as it is, None as nothing, all else escaped; control characters become U+FFFD."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("")
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", str(value))))


def join(parts: Iterable[object]) -> Html:
    """Concatenate, escaping what is not markup."""
    return Html("".join(escape(part) for part in parts))


def el(tag: str, *children: object, **attributes: str | float | bool | None) -> Html:
    """One element. Attribute `class_` is class, `aria_label` is aria-label; None and False leave it out.

    Raises ValueError for names that are no names, event handlers, inline styles, `src` other than an embedded
    picture, and `href` other than http(s), mailto, a fragment or a relative path.
    """
    if not _NAME.match(tag):
        raise ValueError(f"{tag!r} is not an element name; expected letters, digits and hyphens")
    written = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        if not _NAME.match(name) or name.startswith("on") or name in ("style", "srcdoc", "srcset"):
            raise ValueError(f"attribute {name!r} is not allowed on a page; use a class of the stylesheet")
        if name == "src" and not _PICTURE.match(str(value)):
            raise ValueError("src must be an embedded picture (data:image/png;base64,…): pages load nothing")
        if name == "href" and not _LINK.match(str(value)):
            raise ValueError(f"href {value!r} is not a link; expected https, mailto, a fragment or a relative path")
        written.append(name if value is True else f'{name}="{escape(value)}"')
    opening = " ".join(written)
    if tag in _VOID:
        return Html(f"<{opening}>")
    if tag in _SHAPES and not children:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(children)}</{tag}>")


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: integers grouped by commas, others to `digits` significant figures; "–" if missing."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10 ** (digits - 1)):
        text = f"{int(value):,}"
    elif value == 0:
        text = "0"
    else:
        places = digits - 1 - math.floor(math.log10(abs(value)))
        text = f"{value:.{digits - 1}e}" if places > digits + 3 else f"{value:,.{max(places, 0)}f}"
    return text.replace("-", _MINUS)


def compact(value: float | None, digits: int = 3) -> str:
    """A large number with k, M, G, T, P, E: 1.23 M; zeros at the end only if they are measured."""
    if value is None or not math.isfinite(value):
        return number(value)
    for power, letter in enumerate("EPTGMk"):
        unit = 1000.0 ** (6 - power)
        if abs(value) >= unit * (1 - 0.5 * 10.0**-digits):
            scaled = value / unit
            exact = float(f"{scaled:.{digits}g}") * unit == value
            text = f"{scaled:.{digits}g}" if exact else f"{scaled:#.{digits}g}".rstrip(".")
            text = text if abs(scaled) < 1000 else f"{scaled:,.0f}"
            return text.replace("-", _MINUS) + "\u202f" + letter
    return f"{value:.{digits}g}".replace("-", _MINUS) if abs(value) >= 1e-4 or value == 0 else number(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent: 0.123 → 12.3 %."""
    return (
        number(value)
        if value is None or not math.isfinite(value)
        else (f"{100 * value:.{digits}f}\u202f%".replace("-", _MINUS))
    )


def duration(seconds: float | None) -> str:
    """Seconds as 0.4 s, 37 s, 4 min 05 s, 3 h 20 min, 2 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return number(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float | None) -> str:
    """Bytes in decimal units: 3.4 MB."""
    if count is None or not math.isfinite(count):
        return number(count)
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"


def _slug(title: str) -> str:
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-") or "section"


def section(title: str, *content: object, note: str | None = None) -> Html:
    """A titled section; `note` is a line of prose under the title. `page` lists sections by their titles."""
    head = el("h2", title)
    lead = el("p", note, class_="note") if note else ""
    return el("section", head, lead, *content, id=_slug(title), class_="part")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    align: str | None = None,
    broad: bool = False,
) -> Html:
    """A ruled table that scrolls sideways on narrow screens; None is shown as a dash.

    align: one letter a column, l or r; without it columns whose cells are all numbers are set right. broad: a matrix,
    which on wide screens may reach past the text.
    """
    body = [list(row) for row in rows]
    letters = align or "".join(
        "r" if cells and all(isinstance(cell, int | float) for cell in cells) else "l"
        for cells in ([row[i] for row in body if i < len(row) and row[i] is not None] for i in range(len(head)))
    )
    right = ["num" if letter == "r" else None for letter in letters.ljust(len(head), "l")[: len(head)]]

    def shown(cell: object) -> object:
        if cell is None:
            return el("span", "–", class_="soft")
        return number(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else cell

    def line(row: list[object]) -> Html:
        # Short words are not broken at their hyphens.
        classes = [
            c or ("word" if isinstance(x, str) and len(x) <= 20 else None) for x, c in zip(row, right, strict=False)
        ]
        return el("tr", *(el("td", shown(x), class_=c) for x, c in zip(row, classes, strict=False)))

    # The caption stands outside, since it must not scroll away with the columns.
    grid = el(
        "table",
        el("thead", el("tr", *(el("th", h, scope="col", class_=c) for h, c in zip(head, right, strict=True)))),
        el("tbody", *map(line, body)),
    )
    kind = "scroll broad" if broad else "scroll"
    scroll = el("div", grid, class_=kind, tabindex="0", role="region", aria_label=caption or "table")
    return join([el("p", caption, class_="caption") if caption else "", scroll])


def cards(items: Iterable[tuple[str, object, object]]) -> Html:
    """Headline numbers: (label, value, what it means)."""
    return el(
        "dl",
        *(
            el("div", el("dt", label), el("dd", value, class_="value"), el("dd", note, class_="soft") if note else "")
            for label, value, note in items
        ),
        class_="cards",
    )


def definitions(items: Iterable[tuple[str, object]]) -> Html:
    """Terms and their values, a line each; None is left out."""
    rows = (el("div", el("dt", term), el("dd", value)) for term, value in items if value is not None)
    return el("dl", *rows, class_="terms")


def figure(content: Html, caption: object = None) -> Html:
    return el("figure", content, el("figcaption", caption) if caption else "")


def code(text: str) -> Html:
    """A block of code or console text, as it is."""
    return el("pre", el("code", text), tabindex="0")


def details(summary: str, *content: object) -> Html:
    """Content folded away behind its summary."""
    return el("details", el("summary", summary), *content)


def notice(*content: object) -> Html:
    """A remark set apart: something missing, or a limit."""
    return el("p", *content, class_="notice")


def picture_shape(uri: str) -> tuple[int, int] | None:
    """Width and height of an embedded PNG from its header; None for other forms."""
    kind, _, data = uri.partition(",")
    try:
        header = base64.b64decode(data[:32], validate=True)
    except (binascii.Error, ValueError):
        return None
    if not kind.startswith("data:image/png") or header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 24:
        return None
    width, height = struct.unpack(">II", header[16:24])
    return (width, height) if 0 < width < 20_000 and 0 < height < 20_000 else None


def image(uri: object, alt: str) -> Html:
    """An embedded picture about 192 CSS pixels wide; small ones are enlarged by a whole factor, unsmoothed.

    What is not an embedded picture, or is larger than 60 kB, is replaced by a sentence.
    """
    if not isinstance(uri, str) or not uri:
        return el("span", "no image stored", class_="blank")
    if not _PICTURE.match(uri):
        return el("span", "not an embedded picture", class_="blank")
    if len(uri) > _MOST_PICTURE:
        return el("span", f"image of {size(len(uri))} left out", class_="blank")
    shape = picture_shape(uri)
    if shape is None:
        return el("img", src=uri, alt=alt, width=_PICTURE_WIDTH, loading="lazy")
    scale = max(1, _PICTURE_WIDTH // shape[0]) if shape[0] < _PICTURE_WIDTH else _PICTURE_WIDTH / shape[0]
    return el(
        "img",
        src=uri,
        alt=alt,
        width=round(shape[0] * scale),
        height=round(shape[1] * scale),
        class_="pixels" if scale > 1 else None,
    )

"""Data sets of the hub that are known by name: what their columns mean, their licence, and where their dates are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.data.read.rows import Defaults, Place, document, read_row
from foretell.data.read.sections import Chat, Fields, Limits
from foretell.errors import DataError
from foretell.images import open_image

CRAWL = re.compile(r"CC-MAIN-(\d{4})-(\d\d)")

Reader = Callable[[Mapping[str, Any], Place, Fields, Chat, Defaults, Limits, bool], Document | Removed]


@dataclass(frozen=True)
class Known:
    """license: of the data set as a whole, where a row does not state its own. columns: that are read."""

    license: str
    language: str
    fields: Fields
    read: Reader
    columns: tuple[str, ...] = ()


def crawl_day(name: Any) -> str | None:
    """The first day of the week that names a crawl of Common Crawl, in any text that holds its name."""
    told = CRAWL.search(name) if isinstance(name, str) else None
    try:
        return date.fromisocalendar(int(told.group(1)), int(told.group(2)), 1).isoformat() if told else None
    except ValueError:
        return None


def plain(
    row: Mapping[str, Any], place: Place, fields: Fields, chat: Chat, fill: Defaults, limits: Limits, images: bool
) -> Document | Removed:
    return read_row(row, place, fields, chat, fill)


def fineweb(
    row: Mapping[str, Any], place: Place, fields: Fields, chat: Chat, fill: Defaults, limits: Limits, images: bool
) -> Document | Removed:
    """FineWeb and FineWeb-Edu: a page's day is its `date`, or the week of its crawl (`dump`)."""
    dated = Defaults(fill.source, fill.license, fill.language, crawl_day(row.get("dump")) or fill.date)
    return read_row(row, place, fields, chat, dated)


def obelics(
    row: Mapping[str, Any], place: Place, fields: Fields, chat: Chat, fill: Defaults, limits: Limits, images: bool
) -> Document | Removed:
    """OBELICS: texts and the addresses of images, one of the two at each place.

    The data set brings no pictures. Where they were fetched and stand in `images` as bytes, they are taken; those that
    are addresses still are counted in the label `images_absent`. Source: arXiv 2306.16527, appendix A.
    """
    texts, pictures = row.get("texts"), row.get("images")
    if not isinstance(texts, list) or not isinstance(pictures, list) or len(texts) != len(pictures):
        return place.removed("read.row", "texts and images are not lists of one length")
    about, general = _json(row.get("metadata")), _json(row.get("general_metadata"))
    segments: list[Segment] = []
    dropped = absent = 0
    for number, (text, picture) in enumerate(zip(texts, pictures, strict=True)):
        data = picture.get("bytes") if isinstance(picture, Mapping) else picture
        if isinstance(text, str):
            segments.append(Segment(text=text))
        elif isinstance(data, bytes) and images:
            if len(data) <= limits.image_bytes and _opens(data):
                told = about[number] if isinstance(about, list) and number < len(about) else None
                alt = told.get("alt_text") if isinstance(told, dict) else None
                segments.append(Segment(image=data, alt=alt if isinstance(alt, str) and alt else None))
            else:
                dropped += 1
        elif picture is not None:
            absent += 1
    if not any(segment.image is not None or (segment.text or "").strip() for segment in segments):
        return place.removed("read.empty", f"{absent} images are addresses only")
    general = general if isinstance(general, dict) else {}
    found = {"url": general.get("url"), "date": crawl_day(general.get("warc_filename"))}
    whole = document(found, tuple(segments), place, fields, fill)
    whole.labels.update({key: str(n) for key, n in (("images_dropped", dropped), ("images_absent", absent)) if n})
    return whole


def cauldron(
    row: Mapping[str, Any], place: Place, fields: Fields, chat: Chat, fill: Defaults, limits: Limits, images: bool
) -> Document | Removed:
    """The Cauldron: images, then turns of user and assistant about them."""
    turns, pictures = row.get("texts"), row.get("images")
    if not isinstance(turns, list) or not isinstance(pictures, list) or not turns:
        return place.removed("read.row", "texts or images is no list")
    segments: list[Segment] = []
    for picture in pictures if images else ():
        data = picture.get("bytes") if isinstance(picture, Mapping) else picture
        if not isinstance(data, bytes) or len(data) > limits.image_bytes or not _opens(data):
            return place.removed("read.image", "an image that the turns ask about cannot be read")
        segments.append(Segment(image=data, role="user"))
    for turn in turns:
        asked, reply = (turn.get("user"), turn.get("assistant")) if isinstance(turn, Mapping) else (None, None)
        if not isinstance(asked, str) or not isinstance(reply, str) or not reply.strip():
            return place.removed("read.conversation", "a turn without user and assistant")
        segments += [Segment(text=asked, role="user"), Segment(text=reply, role="assistant")]
    whole = document(row, tuple(segments), place, fields, fill)
    origin = turns[0].get("source")
    if isinstance(origin, str):
        whole.labels["origin"] = origin
    return whole


def _opens(data: bytes) -> bool:
    from foretell.errors import ImageError

    try:
        return open_image(data) is not None
    except ImageError:
        return False


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None


_FINEWEB = Fields(text=("text",), path=(), labels=("dump", "score"))
_STACK = Fields(
    text=("content",),
    id=("hexsha",),
    url=(),
    path=("max_stars_repo_path", "path"),
    license=("max_stars_repo_licenses", "licenses", "license"),
    language=(),
    date=("max_stars_repo_stars_event_min_datetime",),  # the first star: code has no date of its own there
    labels=("lang", "max_stars_repo_name", "repository_name"),
)
_TURNS = Fields(text=(), labels=("source",))

# Licences as the cards state them, of the collections: a page, a file or a picture in them keeps its own.
KNOWN = {
    "HuggingFaceFW/fineweb-edu": Known("ODC-By-1.0", "en", _FINEWEB, fineweb),
    "HuggingFaceFW/fineweb": Known("ODC-By-1.0", "en", _FINEWEB, fineweb),
    "bigcode/the-stack": Known("unknown", "und", _STACK, plain),
    "bigcode/the-stack-dedup": Known("unknown", "und", _STACK, plain),
    "bigcode/the-stack-smol": Known("unknown", "und", _STACK, plain),
    "HuggingFaceM4/OBELICS": Known("CC-BY-4.0", "en", Fields(text=()), obelics),
    # Of these two every subset has a licence of its own, the whole none: give that of what is read in the recipe.
    "HuggingFaceTB/smoltalk": Known("unknown", "en", _TURNS, plain),
    "HuggingFaceM4/the_cauldron": Known("unknown", "en", Fields(text=()), cauldron),
}
ABSENT = {
    "bigcode/the-stack-v2": "it names contents without holding them; fetch those from Software Heritage under its "
    "terms first, and read them as jsonl or parquet, or use bigcode/the-stack-dedup",
}


def known(dataset: str) -> Known:
    """What is known of a data set; any other is read by the usual column names. Raises DataError for one without
    content."""
    if why := ABSENT.get(dataset):
        raise DataError(f"The data set {dataset} cannot be read from the hub: {why}.")
    return KNOWN.get(dataset, Known("unknown", "und", Fields(), plain))

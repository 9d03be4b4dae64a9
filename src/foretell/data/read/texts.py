"""Files that are one document each: text and code, Markdown with its figures, notebooks, pages of HTML."""

from __future__ import annotations

import base64
import json
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.data.read.html import Pages, Refused
from foretell.data.read.licenses import spdx_in
from foretell.data.read.rows import Defaults, Place, day_of
from foretell.data.read.sections import Limits
from foretell.errors import ImageError
from foretell.images import open_image

# What is counted is never given back: none of it could be part of what follows.
FIGURE = re.compile(r"!\[([^\]\n]{0,1000}+)\]\(\s*+<?([^)\s>]{1,1000}+)>?(?:\s+[\"'(][^)\n]{0,500})?\s*\)")
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
FRONT_FIELD = re.compile(r"^(license|licence|date|lang|language|url|canonical_url|title):\s*[\"']?([^\n\"']+)", re.M)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")

Figure = Callable[[str], bytes | None]  # an image by its name relative to the document; None where there is none


def read_text_file(
    data: bytes, form: str, place: Place, fill: Defaults, limits: Limits, pages: Pages, figure: Figure | None = None
) -> Document | Removed:
    """One file as a document. form: text, markdown, notebook or html."""
    labels = {"locator": place.id, "path": place.path or place.id}
    about: dict[str, str] = {}
    try:
        if form == "html":
            page = pages.read(data)
            about = {"license": page.license, "language": page.language}
            labels |= page.labels
            segments = [Segment(text=page.text)]
        elif form == "notebook":
            segments, about = _notebook(data, limits, labels)
        else:
            text = decoded(data)
            if form == "markdown":
                text, about = _front_matter(text)
            about = {"license": spdx_in(text)} | about
            segments = _figures(text, figure, limits, labels) if form == "markdown" else [Segment(text=text)]
    except Refused as error:
        return place.removed(error.reason, error.detail)
    if not any(segment.image is not None or (segment.text or "").strip() for segment in segments):
        return place.removed("read.empty")
    if url := about.get("url") or about.get("canonical_url"):
        labels["url"] = url.strip()
    return Document(
        id=place.id,
        segments=tuple(segments),
        source=fill.source,
        license=(about.get("license") or about.get("licence") or fill.license).strip(),
        language=(about.get("lang") or about.get("language") or fill.language).strip(),
        date=day_of(about.get("date")) or fill.date,
        kind=fill.source,
        labels=labels,
    )


def decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 with a byte order mark, with plain line breaks. Raises Refused."""
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_BE, BOM_UTF16_LE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("read.encoding", f"not UTF-8: {error.reason} at byte {error.start:,}") from error
    if "\0" in text:
        raise Refused("read.encoding", "it holds zero bytes, as files that are no text do")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _front_matter(text: str) -> tuple[str, dict[str, str]]:
    """Markdown without its YAML head, and what that states."""
    head = FRONT_MATTER.match(text)
    return (text[head.end() :], dict(FRONT_FIELD.findall(head.group(1)))) if head else (text, {})


def usable(image: bytes, limits: Limits) -> bool:
    """Whether an image's header is that of a picture, and no bomb; its pixels are checked by a step of curation."""
    try:
        return len(image) <= limits.image_bytes and open_image(image) is not None
    except ImageError:
        return False


def _figures(text: str, figure: Figure | None, limits: Limits, labels: dict[str, str]) -> list[Segment]:
    """Markdown cut at its images, where these are files beside it or data URLs; others stay as they are written."""
    segments: list[Segment] = []
    done = images = dropped = 0
    for match in FIGURE.finditer(text):
        image = _image(match.group(2), figure)
        if image is None:
            continue
        if images >= limits.images or not usable(image, limits):
            dropped += 1
            continue
        if (before := text[done : match.start()]).strip():
            segments.append(Segment(text=before))
        segments.append(Segment(image=image, alt=match.group(1) or None))
        images, done = images + 1, match.end()
    if (rest := text[done:]).strip() or not segments:
        segments.append(Segment(text=rest))
    if dropped:
        labels["images_dropped"] = str(dropped)
    return segments


def _image(address: str, figure: Figure | None) -> bytes | None:
    if address.startswith("data:"):
        return _data_url(address)
    if figure is None or re.match(r"[a-z][a-z0-9+.-]*:|//|/|#", address, re.IGNORECASE):
        return None
    return figure(unquote(address.split("?")[0].split("#")[0]))


def _data_url(address: str) -> bytes | None:
    kind, _, data = address.removeprefix("data:").partition(";base64,")
    try:
        return base64.b64decode(data) if kind in IMAGE_TYPES else None
    except ValueError:
        return None


def _notebook(data: bytes, limits: Limits, labels: dict[str, str]) -> tuple[list[Segment], dict[str, str]]:
    """Cells in order: prose as it is, code fenced, text results as blocks, pictures as images. Raises Refused.

    Source: the notebook format, version 4 (and the cells of version 3's worksheets).
    """
    try:
        book = json.loads(decoded(data))
    except (ValueError, RecursionError) as error:
        raise Refused("read.json", str(error)) from error
    metadata = book.get("metadata") if isinstance(book, dict) else None
    if not isinstance(metadata, dict):
        raise Refused("read.notebook", "no notebook: an object with metadata and cells was expected")
    told = metadata.get("language_info") or metadata.get("kernelspec") or {}
    language = told.get("name") or told.get("language") or "" if isinstance(told, dict) else ""
    language = language if isinstance(language, str) and re.fullmatch(r"[A-Za-z0-9+#._-]{1,30}", language) else ""
    sheets = book.get("worksheets") or [book]
    segments: list[Segment] = []
    lines: list[str] = []
    images = dropped = 0
    for part in _parts(sheets, language.split("3")[0] if language == "python3" else language):
        if isinstance(part, str):
            lines.append(part)
        elif images >= limits.images or not usable(part, limits):
            dropped += 1
        else:
            if lines:
                segments.append(Segment(text="\n\n".join(lines)))
            segments.append(Segment(image=part))
            lines, images = [], images + 1
    if lines:
        segments.append(Segment(text="\n\n".join(lines)))
    if dropped:
        labels["images_dropped"] = str(dropped)
    return segments, {}


def _parts(sheets: Any, language: str) -> Iterator[str | bytes]:
    for sheet in sheets if isinstance(sheets, list) else []:
        cells = sheet.get("cells") if isinstance(sheet, dict) else None
        for cell in cells if isinstance(cells, list) else []:
            if not isinstance(cell, dict):
                continue
            kind = cell.get("cell_type")
            text = _joined(cell.get("source", cell.get("input"))).strip("\n")
            if kind in ("markdown", "raw", "heading"):
                level = cell.get("level")
                mark = "#" * level + " " if kind == "heading" and isinstance(level, int) and 0 < level < 7 else ""
                yield from [mark + text] if text.strip() else []
            elif kind == "code":
                yield from [_fenced(text, language)] if text.strip() else []
                outputs = cell.get("outputs")
                for output in outputs if isinstance(outputs, list) else []:
                    if isinstance(output, dict):
                        yield from _output(output)


def _output(output: dict[str, Any]) -> Iterator[str | bytes]:
    data = output.get("data") if isinstance(output.get("data"), dict) else {}
    assert isinstance(data, dict)
    for kind in IMAGE_TYPES[:2]:
        coded = _joined(data.get(kind, output.get(kind.partition("/")[2])))
        if coded:
            try:
                yield base64.b64decode(coded)
                return
            except ValueError:
                continue
    text = _joined(output.get("text") or data.get("text/plain")).strip("\n")
    if text.strip():
        yield _fenced(text, "")


def _joined(value: Any) -> str:
    """Text as the format stores it: a string, or a list of lines with their breaks."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}"

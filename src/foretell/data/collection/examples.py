"""Examples: a few documents of every source and of everything that was done, the same on every run."""

from __future__ import annotations

import base64
import difflib
import hashlib
import heapq
import io
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.errors import DataError, ImageError
from foretell.images import decode_image

WIDTH = 700  # characters of an excerpt
CUT = " …"  # at the end of one that goes on
PICTURE = 192  # pixels of the longer side
PICTURES = 3
Example = dict[str, Any]


class Sampler:
    """The `most` examples of each group whose ids hash lowest, so that parts can be sampled apart and joined."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: dict[str, list[tuple[int, str, int, Example]]] = {}
        self._offers = 0  # tells apart what a step and a pass of one name did to one document

    def offer(self, group: str, id: str, make: Callable[[], Example]) -> None:
        """`make` is called only for what is taken."""
        order = -int.from_bytes(hashlib.blake2b(f"{group}\0{id}".encode("utf-8", "replace"), digest_size=8).digest())
        held = self._held.setdefault(group, [])
        self._offers += 1
        if len(held) < self.most:
            heapq.heappush(held, (order, id, -self._offers, {"group": group, "id": id, **make()}))
        elif order > held[0][0]:
            heapq.heapreplace(held, (order, id, -self._offers, {"group": group, "id": id, **make()}))

    def join(self, examples: Iterable[Example]) -> None:
        for example in examples:
            self.offer(example["group"], example["id"], partial(dict, example))

    def taken(self) -> list[Example]:
        """By group, and within it by hash."""
        return [
            example
            for group in sorted(self._held)
            for *_, example in sorted(self._held[group], key=lambda item: (-item[0], item[1], -item[2]))
        ]


def load(path: Path) -> list[Example]:
    """Raises DataError where the file is missing or damaged."""
    try:
        found: list[Example] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Run the collection's build again.") from error
    return found


def text_of(document: Document) -> str:
    """The document for reading: images by what is told of them, turns by their roles."""
    lines = []
    for segment in document.segments:
        if segment.image is not None:
            lines.append(f"[image: {segment.caption or segment.alt or 'no caption'}]")
        elif segment.role:
            lines.append(f"{segment.role}: {segment.text}")
        else:
            lines.append(segment.text or "")
    return "\n".join(lines)


def unread(source: str, removed: Removed) -> Example:
    """Of a record that did not become a document: where it stood, and what was wrong with it."""
    return {
        "kind": "removed",
        "source": source,
        "document": removed.id or removed.locator,
        "step": "read",
        "detail": removed.detail[:500],
        "before": "",
    }


def removal(document: Document, step: str, detail: str) -> Example:
    return {
        "kind": "removed",
        "source": document.source,
        "document": document.id,
        "step": step,
        "detail": detail,
        "before": _cut(text_of(document), 0),
    }


def change(before: Document, after: Document, step: str) -> Example:
    """Both texts from a little before the place where they first differ."""
    old, new = text_of(before), text_of(after)
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - 120)
    return {
        "kind": "changed",
        "source": before.source,
        "document": before.id,
        "step": step,
        "before": _cut(old, start),
        "after": _cut(new, start),
    }


def kept(document: Document) -> Example:
    shown = [s for s in document.segments if s.image is not None][:PICTURES]
    return {
        "kind": "kept",
        "source": document.source,
        "document": document.id,
        "license": document.license,
        "language": document.language,
        "date": document.date,
        "text": _cut(text_of(document), 0),
        "images": [{"uri": uri, "alt": s.caption or s.alt or ""} for s in shown if (uri := thumbnail(s.image or b""))],
    }


def _cut(text: str, start: int) -> str:
    text = text.encode("utf-8", "replace").decode()
    piece = text[start : start + WIDTH]
    return ("… " if start else "") + piece + (CUT if start + WIDTH < len(text) else "")


def thumbnail(data: bytes) -> str:
    """A small PNG or JPEG as a data URI; empty for what cannot be decoded."""
    try:
        picture = decode_image(data)
    except ImageError:
        return ""
    picture.thumbnail((PICTURE, PICTURE))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def pieces(before: str, after: str) -> list[tuple[str, str, str]]:
    """(same, old, new) pieces of two texts, word by word: of each triple either `same` is filled, or the other two."""
    a, b = _words(before), _words(after)
    found = []
    for tag, i, j, k, n in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = "".join(a[i:j]), "".join(b[k:n])
        found.append((old, "", "") if tag == "equal" else ("", old, new))
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)

"""Which documents a licence, URL or id names: to leave them out of a build, or to remove them later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from foretell.data.curate.steps import Removed
from foretell.data.document import Document


@dataclass(frozen=True)
class Selection:
    """A step that removes what is named. words: licences, ids, URLs, their beginnings, hosts (with all below them)."""

    words: frozenset[str]
    name: str = "exclude"

    @classmethod
    def of(cls, words: Iterable[str]) -> Selection:
        return cls(frozenset(word.strip() for word in words if word.strip()))

    def __call__(self, document: Document) -> Document | Removed:
        if why := self.names(document.id, document.license, document.labels.get("url", "")):
            return Removed(document.id, f"excluded.{why[0]}", why[1])
        return document

    def names(self, id: str, license: str, url: str) -> tuple[str, str] | None:
        """(what was matched: license, id or url; the word that did), or None."""
        if license in self.words:
            return "license", license
        if id in self.words:
            return "id", id
        for part in _parts(url) if url else ():
            if part in self.words:
                return "url", part
        return None


def _parts(url: str) -> Iterable[str]:
    """The URL, every beginning of it that ends before a slash, with and without that, and every domain it is below."""
    yield url
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    start = url.find("://") + 3
    for i, c in enumerate(url):
        if i >= start and c == "/":
            yield url[:i]
            yield url[: i + 1]
    labels = host.split(".")
    for i in range(len(labels) - 1):
        yield ".".join(labels[i:])

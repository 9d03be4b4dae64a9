"""The passes one after the other over a shard: what each leaves is what the next one sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from foretell.data.collection.stage import whole
from foretell.data.curate.passes import Pass
from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.errors import DataError

Note = Callable[[int, str, Document, Document | Removed], None]


def unnoted(place: int, name: str, before: Document, after: Document | Removed) -> None:
    """A Note that keeps nothing."""


def own(scratch: Path, number: int, each: Pass) -> Path:
    """The folder of a pass's own below that of all."""
    return scratch / f"{number:02d}-{each.name}"


def chain(
    passes: Sequence[Pass], documents: Iterator[Document], shard: int, scratch: Path, note: Note = unnoted
) -> Iterator[tuple[int, Document]]:
    """(place among those that came in, document) of what all passes keep, in order.

    note: told of every document that a pass removes or changes. Raises DataError where a pass does not answer for each.
    """
    found: Iterator[tuple[int, Document]] = enumerate(documents)
    for i, each in enumerate(passes):
        found = _through(each, found, shard, own(scratch, i, each), note)
    return found


def _through(
    each: Pass, documents: Iterator[tuple[int, Document]], shard: int, scratch: Path, note: Note
) -> Iterator[tuple[int, Document]]:
    waiting: deque[tuple[int, Document]] = deque()

    def feed() -> Iterator[Document]:
        for place, document in documents:
            waiting.append((place, document))
            yield document

    wrong = DataError(
        f"The pass {each.name} did not answer for every document of shard {shard}, so that nothing more can be told of "
        "them. Delete the folder .work/passes and run the same command again."
    )
    for answer in each.apply(feed(), shard, scratch):
        if not waiting:
            raise wrong
        result = whole(answer, each.name)
        place, document = waiting.popleft()
        if isinstance(result, Removed):
            note(place, each.name, document, result)
            continue
        if result is not document:
            note(place, each.name, document, result)
        yield place, result
    if waiting or next(documents, None) is not None:
        raise wrong

"""Packing: documents become rows of exactly T tokens, written once as memory-mapped shards.

A row holds several documents side by side, each a segment of its own: positions restart, and neither attention
nor loss crosses a seam. docs/pack.md gives the form on disk.
"""

from __future__ import annotations

import bisect
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.data.document import Document
from foretell.data.encode import Deferred, Span, Vocabulary, encode_document, image_spans
from foretell.data.shards import FORMAT, Piece, ShardWriter
from foretell.errors import ConversationError, DataError, ImageError
from foretell.files import atomic_folder, sha256_file, write_json
from foretell.template import IMAGE, PAD, Encoded, Template

OPEN_ROWS = 64
WINDOW_DOCUMENTS = 32
WINDOW_TEXT = 1_000_000  # characters
WINDOW_TILES = 64_000_000  # bytes

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PackSource:
    """documents: starts a fresh pass over the source. weight: its share of the tokens, relative to the others."""

    documents: Callable[[], Iterator[Document]]
    weight: float = 1.0


class _Reader:
    """One source as a stream of pieces, repeated for at most `max_epochs` passes."""

    def __init__(
        self, name: str, source: PackSource, template: Template, tokenizer: Vocabulary, length: int,
        max_epochs: float, seed: int, kinds: dict[str, int], skipped: Counter[str],
    ) -> None:  # fmt: skip
        self.name, self.weight = name, source.weight
        self.tokens = self.documents = self.passes = 0
        self.pass_tokens: int | None = None
        self._source, self._length, self._max_epochs, self._seed = source, length, max_epochs, seed
        self._kinds, self._skipped = kinds, skipped
        self._encoder = Deferred(template.encoder, tokenizer)
        self._template = Template(self._encoder, template.tiling)
        self._slot = template.special(IMAGE)
        self._stream = self._encoded()
        self._open: tuple[Encoded, list[Span], int] | None = None
        self._start = self._tile = 0

    @property
    def epochs(self) -> float | None:
        """Passes over the source; None while the first one goes on."""
        return None if not self.pass_tokens else self.tokens / self.pass_tokens

    def take(self, room: int) -> Piece | None:
        """The next piece: what is left of the document if that fits in a row, else a cut of at most `room` tokens.
        None when the source is used up."""
        while True:
            if self._open is None:
                self._open = next(self._stream, None)
                self._start = self._tile = 0
                if self._open is None or (self.epochs or 0.0) >= self._max_epochs:
                    return None
            document, spans, kind = self._open
            start, total = self._start, len(document.ids)
            end = total
            if total - start > self._length:
                end = _cut(spans, start + room)
                if end - start < room // 2:  # an image stands in the way: better a row of its own
                    end = _cut(spans, start + self._length)
            ids, loss = document.ids[start:end], document.loss[start:end].copy()
            loss[0] = False
            tiles = 0
            if spans and self._template.tiling is not None:
                tiles = int((ids == self._slot).sum()) // self._template.tiling.tokens_per_tile
            piece = Piece(ids, loss, document.tiles[self._tile : self._tile + tiles], kind)
            if end == total:
                self._open = None
            else:  # the last token again, as context for the first target behind the cut
                self._start, self._tile = (end - 1 if document.loss[end] else end), self._tile + tiles
            if not loss.any():
                self._skip("pieces with nothing to learn")
                continue
            self.tokens += len(ids)
            return piece

    def _encoded(self) -> Iterator[tuple[Encoded, list[Span], int]]:
        while self.passes < self._max_epochs:
            order = random.Random(f"{self._seed}/{self.name}/{self.passes}")
            for window in self._windows():
                order.shuffle(window)
                drafts = [(draft, document) for document in window if (draft := self._draft(document)) is not None]
                for encoded, document in self._encoder.resolve(drafts):
                    ready = self._fit(encoded, document)
                    if ready is not None:
                        self.documents += 1
                        yield ready
            self.passes += 1
            if not self.tokens:
                return
            self.pass_tokens = self.pass_tokens or self.tokens

    def _windows(self) -> Iterator[list[Document]]:
        window: list[Document] = []
        size = 0.0
        tiling = self._template.tiling
        image = 0 if tiling is None else (tiling.grid**2 + 1) * tiling.tile**2 * 3 / WINDOW_TILES
        try:
            for document in self._source.documents():
                window.append(document)
                for segment in document.segments:
                    size += len(segment.text or "") / WINDOW_TEXT + (image if segment.image is not None else 0)
                if len(window) == WINDOW_DOCUMENTS or size >= 1:
                    yield window
                    window, size = [], 0.0
        except OSError as error:
            raise DataError(
                f"Source {self.name!r} cannot be read: {error}. Mend or remove it, and try again."
            ) from error
        if window:
            yield window

    def _draft(self, document: Document) -> Encoded | None:
        try:
            return encode_document(document, self._template)
        except (ImageError, ConversationError) as error:
            what = "image" if isinstance(error, ImageError) else "conversation"
            self._skip(f"documents with a bad {what}")
            return None

    def _fit(self, encoded: Encoded, document: Document) -> tuple[Encoded, list[Span], int] | None:
        spans = image_spans(encoded.ids, self._template) if len(encoded.tiles) else []
        long = [span for span in spans if span[1] - span[0] > self._length]
        if long:
            self._skip("images longer than a row", len(long))
            if document.is_conversation:  # without its image a question teaches guessing
                return None
            encoded = self._without(encoded, long)
            spans = image_spans(encoded.ids, self._template)
        name = document.kind if document.kind in self._kinds or len(self._kinds) < 255 else "other"
        return encoded, spans, self._kinds.setdefault(name, len(self._kinds))

    def _skip(self, reason: str, count: int = 1) -> None:
        if not self.passes:  # a document that is read again is one document still
            self._skipped[reason] += count

    def _without(self, encoded: Encoded, dropped: list[Span]) -> Encoded:
        keep = np.ones(len(encoded.ids), np.bool_)
        for start, stop in dropped:
            keep[start:stop] = False
        assert self._template.tiling is not None
        slots = np.flatnonzero(encoded.ids == self._slot)[:: self._template.tiling.tokens_per_tile]
        return Encoded(encoded.ids[keep], encoded.loss[keep], encoded.tiles[keep[slots]])


def _cut(spans: list[Span], end: int) -> int:
    """`end`, moved before the image it would cut."""
    return next((start for start, stop in spans if start < end < stop), end)


class _Rows:
    """Open rows; pieces that belong together go where they leave the smallest gap."""

    def __init__(self, length: int, most_open: int, close: Callable[[list[Piece]], None]) -> None:
        self._length, self._most, self._close = length, most_open, close
        self._open: list[tuple[int, int, list[list[Piece]]]] = []  # gap, serial number, row; sorted
        self._serial = 0

    def room(self) -> int:
        """How long a cut of a long document should be: a row, or the widest gap once many rows wait for one."""
        if len(self._open) >= self._most and self._open[-1][0] >= self._length // 8:
            return self._open[-1][0]
        return self._length

    def place(self, pieces: list[Piece]) -> None:
        size = sum(len(piece.ids) for piece in pieces)
        at = bisect.bisect_left(self._open, size, key=lambda entry: entry[0])
        if at < len(self._open):
            gap, serial, row = self._open.pop(at)
        else:
            gap, serial, row = self._length, self._serial, []
            self._serial += 1
        row.append(pieces)
        if gap - size < 2:  # one token holds no target
            self._done(row)
            return
        bisect.insort(self._open, (gap - size, serial, row))
        if len(self._open) > self._most:
            self._done(self._open.pop(0)[2])

    def finish(self) -> None:
        together = [pieces for _, _, row in self._open for pieces in row]
        self._open = []
        for pieces in sorted(together, key=lambda pieces: -sum(len(piece.ids) for piece in pieces)):
            self.place(pieces)
        for _, _, row in self._open:
            self._done(row)
        self._open = []

    def _done(self, row: list[list[Piece]]) -> None:
        self._close([piece for pieces in row for piece in pieces])


def pack(
    sources: Mapping[str, PackSource],
    template: Template,
    tokenizer: Vocabulary,
    out: Path,
    sequence_length: int,
    tokens: int,
    max_epochs: float = 4.0,
    seed: int = 0,
    progress: Progress | None = None,
    phases: Sequence[tuple[float, Mapping[str, float]]] = (),
) -> dict[str, Any]:
    """Pack about `tokens` tokens (padding not counted) of the weighted mixture into rows of `sequence_length`.

    A source that is smaller than its share is repeated, at most `max_epochs` times; then its share shrinks and the
    others fill the rest. Kinds past the 255th are counted as "other". `out` appears only when it is complete.
    phases: (share of the tokens, weights of sources that differ from their own), packed one after another; the index
    says how many rows each has.
    progress is called with (tokens so far, tokens asked for) as rows are closed.
    Returns metrics: rows, tokens, learned_tokens, fill, tiles by source and kind, what was skipped, and notes.
    Raises DataError if no source gives anything to learn, RunError if `out` cannot be written.
    """
    kinds: dict[str, int] = {}
    skipped: Counter[str] = Counter()
    readers = [
        _Reader(name, source, template, tokenizer, sequence_length, max_epochs, seed, kinds, skipped)
        for name, source in sources.items()
    ]
    side = template.tiling.tile if template.tiling is not None else 0
    with atomic_folder(out) as folder:
        writer = ShardWriter(folder, sequence_length, side, tokenizer.vocab_size, template.special(PAD))
        most_open = min(OPEN_ROWS, max(4, tokens // sequence_length // 32))

        def close(pieces: list[Piece]) -> None:
            writer.add(pieces)
            if progress is not None:
                progress(min(placed, tokens), tokens)

        rows = _Rows(sequence_length, most_open, close)
        alive, placed, packed = list(readers), 0, [0]
        plan = _phases(phases, readers, tokens)
        for until, weights in plan:
            begun = {reader.name: reader.tokens for reader in readers}
            while placed < until and (open_ := [reader for reader in alive if weights[reader.name]]):
                reader = min(open_, key=lambda r: (r.tokens - begun[r.name]) / weights[r.name])
                piece = reader.take(rows.room())
                if piece is None:
                    alive.remove(reader)
                    continue
                rows.place([piece])
                placed += len(piece.ids)
            rows.finish()
            packed.append(writer.rows)
        writer.flush()
        if not writer.shards:
            why = "; ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no documents were found"
            raise DataError(
                f"The sources {', '.join(sources)} gave nothing to pack ({why}). "
                "Check their paths, or name a source that holds documents."
            )
        metrics = _metrics(readers, alive, writer, list(kinds), sequence_length, tokens, skipped, plan)
        index = {"format": FORMAT, "sequence_length": sequence_length, "tile": side, "kinds": list(kinds)}
        index |= {"shards": writer.shards, "tokenizer": tokenizer_digest(tokenizer), "seed": seed} | metrics
        if phases:
            index["phases"] = [stop - start for start, stop in itertools.pairwise(packed)]
        write_json(folder / "index.json", index | {"files": writer.files})
    return metrics


def pack_examples(
    examples: Iterable[Sequence[tuple[Encoded, str]]],
    tokenizer: Vocabulary,
    out: Path,
    length: int,
    side: int,
    pad: int,
) -> dict[str, Any]:
    """Pack examples, each of one or more whole sequences and their kinds, into rows of `length`.

    Nothing is cut, and the sequences of an example stand side by side in one row, numbered by `PackedBatch.examples`.
    side: of image tiles, in pixels. pad: id to fill rows with. `out` appears only when it is complete.
    Returns metrics: examples, rows, tokens, learned_tokens, fill.
    Raises DataError without examples and for one longer than a row, RunError if `out` cannot be written.
    """
    kinds: dict[str, int] = {}
    count = 0
    with atomic_folder(out) as folder:
        writer = ShardWriter(folder, length, side, tokenizer.vocab_size, pad, examples=True)
        rows = _Rows(length, OPEN_ROWS, writer.add)
        for count, sequences in enumerate(examples, 1):
            pieces = []
            for encoded, kind in sequences:
                loss = encoded.loss.copy()
                loss[0] = False
                name = kind if kind in kinds or len(kinds) < 255 else "other"
                number = kinds.setdefault(name, len(kinds))
                pieces.append(Piece(encoded.ids, loss, encoded.tiles, number, count - 1))
            if (size := sum(len(piece.ids) for piece in pieces)) > length:
                raise DataError(f"Example {count} has {size} tokens, a row {length}. Pack it into longer rows.")
            rows.place(pieces)
        rows.finish()
        writer.flush()
        if not count:
            raise DataError("There are no examples to pack. Name data that holds some.")
        metrics: dict[str, Any] = {"examples": count, "rows": sum(writer.shards), "tokens": sum(writer.tokens.values())}
        metrics |= {"learned_tokens": sum(writer.learned.values())}
        metrics |= {"fill": metrics["tokens"] / (metrics["rows"] * length)}
        index = {"format": FORMAT, "sequence_length": length, "tile": side, "kinds": list(kinds), "examples": count}
        index |= {"shards": writer.shards, "tokenizer": tokenizer_digest(tokenizer)} | metrics
        write_json(folder / "index.json", index | {"files": writer.files})
    return metrics


def _phases(
    phases: Sequence[tuple[float, Mapping[str, float]]], readers: list[_Reader], tokens: int
) -> list[tuple[float, dict[str, float]]]:
    """(tokens at its end, weight of every source) of each phase; without phases the one."""
    whole = sum(share for share, _ in phases) or 1.0
    found, until = [], 0.0
    for share, changed in phases or [(1.0, {})]:
        until += tokens * share / whole
        found.append((until, {reader.name: changed.get(reader.name, reader.weight) for reader in readers}))
    return found


def _metrics(
    readers: list[_Reader], alive: list[_Reader], writer: ShardWriter, kinds: list[str], length: int, asked: int,
    skipped: Counter[str], plan: list[tuple[float, dict[str, float]]],
) -> dict[str, Any]:  # fmt: skip
    total = sum(writer.tokens.values())
    asked_for: Counter[str] = Counter()
    for (begun, _), (until, weights) in itertools.pairwise([(0.0, {}), *plan]):
        for name, weight in weights.items():
            asked_for[name] += (until - begun) / plan[-1][0] * weight / sum(weights.values())  # type: ignore[assignment]
    notes, by_source = [], {}
    for reader in readers:
        share, wanted = reader.tokens / total, asked_for[reader.name]
        by_source[reader.name] = {
            "tokens": reader.tokens, "share": share, "asked_share": wanted, "documents": reader.documents,
            "epochs": reader.epochs,
        }  # fmt: skip
        if reader not in alive and share < wanted:
            notes.append(
                f"Source {reader.name!r} is used up after {reader.epochs or 0:.1f} passes: {reader.tokens:,} tokens, "
                f"{share:.1%} of the mixture where {wanted:.1%} was asked for."
                if reader.tokens
                else f"Source {reader.name!r} has no documents here."
            )
    if total < asked:
        notes.append(f"All sources together gave {total:,} of the {asked:,} tokens asked for.")
    return {
        "rows": sum(writer.shards),
        "tokens": total,
        "learned_tokens": sum(writer.learned.values()),
        "fill": total / (sum(writer.shards) * length),
        "by_source": by_source,
        "by_kind": {k: {"tokens": writer.tokens[i], "learned_tokens": writer.learned[i]} for i, k in enumerate(kinds)},
        "skipped": dict(skipped),
        "notes": notes,
    }


def tokenizer_digest(tokenizer: Vocabulary) -> str:
    """Hex SHA-256 of the tokenizer.json that the tokenizer saves."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return sha256_file(Path(folder) / "tokenizer.json")

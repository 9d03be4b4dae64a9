"""Counts over a ledger: what a manifest holds of its shard and the card of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foretell.data.collection.ledger import Row

MOST = 2000  # different lines of attribution, or ids that came again, in a shard; what is beyond is told by its count
OTHERS = "(others)"


@dataclass
class Tally:
    """Sums that can be added up over shards, `documents_in = documents_kept + removed` among them.

    sources: by source, in, kept, chars_in, chars_kept, images_lost, images_in, images_kept. removed: by reason.
    removed_by: by step (the reader: "read"). steps: by step, documents changed and characters before and after.
    licenses, languages, years: of kept documents, and their characters. lengths, lengths_in: documents by powers of two
    of their characters.
    attribution: line → documents. renamed: id → documents that were named anew, of all shards at most MOST ids.
    """

    documents_in: int = 0
    documents_kept: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    removed_by: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    steps: dict[str, Counter[str]] = field(default_factory=dict)
    licenses: dict[str, Counter[str]] = field(default_factory=dict)
    languages: dict[str, Counter[str]] = field(default_factory=dict)
    years: dict[str, Counter[str]] = field(default_factory=dict)
    lengths: Counter[str] = field(default_factory=Counter)
    lengths_in: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    attribution: Counter[str] = field(default_factory=Counter)
    renamed: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, source: str) -> None:
        """source: the recipe's own name of where the row came from."""
        self.documents_in += 1
        of_source = self.sources.setdefault(source, Counter())
        of_source.update({"in": 1, "chars_in": row.chars_in, "images_in": row.images_in})
        of_source["images_lost"] += row.images_lost or 0
        self.lengths_in[_octave(row.chars_in)] += 1
        for change in row.changes:
            if change["step"] == "ids":
                _count(self.renamed, row.id.rpartition("~")[0])
            if change["before"] is not None:
                self.steps.setdefault(change["step"], Counter()).update(
                    {"changed": 1, "before": change["before"], "after": change["after"]}
                )
        if not row.kept:
            self.removed[row.reason] += 1
            self.removed_by[row.step or "read"] += 1
            return
        self.documents_kept += 1
        of_source.update({"kept": 1, "chars_kept": row.chars_out, "images_kept": row.images_out})
        self.lengths[_octave(row.chars_out)] += 1
        for table, name in (
            (self.licenses, row.license or "unknown"),
            (self.languages, row.language or "und"),
            (self.years, (row.date or "unknown")[:4] if row.date else "unknown"),
        ):
            table.setdefault(name, Counter()).update({"documents": 1, "chars": row.chars_out})
        _count(self.attribution, row.attribution or f"{row.source} ({row.license or 'unknown'})")

    def plain(self) -> dict[str, Any]:
        """As JSON data with sorted keys, equal for equal ledgers."""
        return {name: _sorted(value) if isinstance(value, dict) else value for name, value in vars(self).items()}

    def join(self, plain: Mapping[str, Any]) -> None:
        """Add what another Tally's `plain` holds."""
        for name, value in plain.items():
            mine = getattr(self, name, None)
            if isinstance(mine, int):
                setattr(self, name, mine + value)
            elif name == "renamed":
                for id, count in value.items():
                    _count(self.renamed, id, count)
            elif isinstance(mine, Counter):
                mine.update(value)
            elif isinstance(mine, dict):
                for key, counts in value.items():
                    mine.setdefault(key, Counter()).update(counts)

    @property
    def balanced(self) -> bool:
        """Whether every record that came in is accounted for."""
        return self.documents_in == self.documents_kept + sum(self.removed.values())


def _count(table: Counter[str], name: str, count: int = 1) -> None:
    """Add to a count, of a bounded number of them."""
    table[name if name in table or len(table) < MOST else OTHERS] += count


def _octave(count: int) -> str:
    """The power of two at or below a count, as text that JSON can have for a key."""
    return str(1 << (count.bit_length() - 1)) if count > 0 else "0"


def _sorted(table: dict[str, Any]) -> dict[str, Any]:
    return {key: _sorted(table[key]) if isinstance(table[key], dict) else table[key] for key in sorted(table)}

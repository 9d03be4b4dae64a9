"""What the tests of passes share: documents, and a pass run over shards of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from foretell.data.curate.passes import Pass
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment

VOCABULARY = [
    f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ne", "pu") for b in ("ra", "so", "ti", "vu") for c in "bdfgklmn"
]


def document(id: str, *texts: str | bytes, source: str = "web", **labels: str) -> Document:
    segments = tuple(Segment(image=t) if isinstance(t, bytes) else Segment(t) for t in texts)
    return Document(id, segments, source, "CC0-1.0", labels=labels)


def words(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(VOCABULARY) for _ in range(count)]


def run(
    made: Pass, shards: Sequence[Sequence[Document]], scratch: Path, *, backwards: bool = False
) -> list[list[Document | Removed]]:
    order = range(len(shards))
    for shard in reversed(order) if backwards else order:
        made.sketch(iter(shards[shard]), shard, scratch)
    made.merge(len(shards), scratch)
    return [list(made.apply(iter(documents), shard, scratch)) for shard, documents in enumerate(shards)]


def removed(out: Sequence[Sequence[Document | Removed]]) -> dict[str, str]:
    """The detail of every document that went, by id."""
    return {each.id: each.detail for shard in out for each in shard if isinstance(each, Removed)}

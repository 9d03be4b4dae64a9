"""What is held out, and in what order files are read: both decided by SHA-256, the same on every machine. And a file's
date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Split = Literal["train", "heldout"]


def split_of(id: str, share: float) -> Split:
    """The split of a document: held out for about `share` of all ids, for ever, whatever the seed."""
    lot = int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return "heldout" if lot < share * 2**64 else "train"


def hash_order(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that depends on them and the seed alone."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest())


def modified(file: Path) -> str | None:
    """The day a file was last changed (ISO 8601, UTC): its date where nothing better is known."""
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat()
    except (OSError, OverflowError, ValueError):
        return None

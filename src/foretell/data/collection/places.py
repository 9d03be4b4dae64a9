"""Where things lie in a collection's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.errors import RunError

_KEYS = {"form", "key", "finished", "recipe"}  # what collection.json has from the beginning


@dataclass(frozen=True)
class Places:
    """data/NNNNN.parquet are the documents, images/NNNNN.tar their images, ledger/ the story of every record,
    manifests/ counts and digests by shard. What only serves resuming lies in .work and goes when all is done."""

    out: Path

    @property
    def collection(self) -> Path:
        return self.out / "collection.json"

    @property
    def work(self) -> Path:
        return self.out / ".work"

    @property
    def plan(self) -> Path:
        return self.out / "plan.json"

    @property
    def passes(self) -> Path:
        return self.work / "passes"

    def read(self, shard: int) -> Path:
        return self.work / "read" / f"{shard:05d}.parquet"

    def read_ledger(self, shard: int) -> Path:
        return self.work / "read" / f"{shard:05d}.ledger.parquet"

    def read_examples(self, shard: int) -> Path:
        return self.work / "read" / f"{shard:05d}.examples.json"

    def done(self, phase: str, task: int) -> Path:
        return self.work / "done" / phase / f"{task:05d}.json"

    def failed(self, phase: str, task: int) -> Path:
        return self.work / "failed" / phase / f"{task:05d}.json"

    def logs(self, phase: str) -> Path:
        return self.work / "logs" / phase

    def data(self, shard: int) -> Path:
        return self.out / "data" / f"{shard:05d}.parquet"

    def images(self, shard: int) -> Path:
        return self.out / "images" / f"{shard:05d}.tar"

    def ledger(self, shard: int) -> Path:
        return self.out / "ledger" / f"{shard:05d}.parquet"

    def examples(self, shard: int) -> Path:
        return self.out / "ledger" / f"{shard:05d}.examples.json"

    def manifest(self, shard: int) -> Path:
        return self.out / "manifests" / f"{shard:05d}.json"


def read_state(out: Path) -> dict[str, Any]:
    """What collection.json of a folder says. Raises RunError where there is none, or one that no build wrote."""
    try:
        found = json.loads(Places(out).collection.read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not found.keys() >= _KEYS:
        raise RunError(f"{out} holds no collection that can be read. Give a folder that foretell data build made.")
    return found

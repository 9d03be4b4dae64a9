"""Reviewers' labels as rows for the classifier's next training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from foretell.files import write_text
from foretell.serve.reviews.tables import findings, labels
from foretell.serve.store import Store


def training_rows(store: Store) -> Iterator[dict[str, Any]]:
    """Of every labelled text that is still kept, in order of time: text, and labels as its latest labelling has them.

    labels: true or false by category of OpenAI's schema. No account, model or time goes along.
    """
    latest = (
        sa.select(labels.c.finding, labels.c.categories, findings.c.text)
        .join(findings, findings.c.id == labels.c.finding)
        .where(findings.c.text.is_not(None))
        .order_by(findings.c.time, findings.c.id, labels.c.time, labels.c.id)
    )
    with store.read() as db:
        told: dict[str, dict[str, Any]] = {}
        for row in db.execute(latest):
            told[row.finding] = {"text": row.text, "labels": row.categories}
    yield from told.values()


def export_training(store: Store, path: Path) -> int:
    """Write the rows as JSON lines and return how many. Raises RunError where that cannot be written."""
    rows = [json.dumps(row, ensure_ascii=False) for row in training_rows(store)]
    write_text(path, "".join(f"{row}\n" for row in rows))
    return len(rows)

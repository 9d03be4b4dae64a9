"""What tests of exams share: a small exam on disk, and how it is changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

SHOT = {"question": "1 + 1?", "options": ["2", "3"], "answer": "A", "explanation": "One and one are two."}
ESSAY_SCALE = {0: "Nothing.", 1: "Little.", 2: "All."}


def choices(count: int, letters: str = "ABCD") -> list[dict[str, Any]]:
    """Questions whose right letters go round."""
    return [
        {"id": f"q{i}", "question": f"Which is number {i}?", "options": [f"{i}.{letter}" for letter in letters],
         "answer": letters[i % len(letters)]}
        for i in range(count)
    ]  # fmt: skip


def write_jsonl(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def write_exam(
    folder: Path,
    sections: Sequence[dict[str, Any]],
    total: dict[str, Any],
    files: dict[str, Sequence[Any]],
    **more: Any,
) -> Path:
    """An exam called "small". files: name → rows of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        write_jsonl(folder / name, rows)
    spec = {"exam": "small", "title": "A small exam", "sections": list(sections), "total": total, **more}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def choice_exam(folder: Path, count: int = 8, section: dict[str, Any] | None = None, **total: Any) -> Path:
    """One section of choices, with one worked question."""
    spec = {
        "name": "one",
        "kind": "choice",
        "items": {"holdout": "h.jsonl", "nonholdout": "n.jsonl"},
        "shots": "s.jsonl",
    }
    files = {"h.jsonl": choices(count), "n.jsonl": choices(count), "s.jsonl": [SHOT]}
    return write_exam(folder, [spec | (section or {})], {"out_of": count, **total}, files)

"""What tests of languages share: questions, and files in their published forms."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretell.evals.languages.questions import Question

GLOBAL = ("sample_id", "subject", "question", "option_a", "option_b", "option_c", "option_d", "answer")


def question(number: int = 0, language: str = "en", gold: int = 1, **more: Any) -> Question:
    """Question number so and so."""
    told = {"subject": "astronomy", "group": None} | more
    options = tuple(f"{language} {number} {letter}" for letter in "abcd")
    return Question(f"astronomy/test/{number}", language, f"{language} question {number}?", options, gold, **told)


def global_rows(count: int, language: str = "en") -> list[list[str]]:
    """Rows of Global-MMLU, whose letters go round."""
    return [
        [f"astronomy/test/{i}", "astronomy", f"{language} question {i}?", *(f"{language} {i} {x}" for x in "abcd"),
         "ABCD"[i % 4]]
        for i in range(count)
    ]  # fmt: skip


def write_csv(path: Path, rows: Sequence[Sequence[str]], head: Sequence[str] | None = GLOBAL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows if head is None else [head, *rows])
    path.write_text(out.getvalue(), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path

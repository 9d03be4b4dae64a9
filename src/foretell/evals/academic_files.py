"""The files of published benchmarks, row by row, as their authors and their copies have them."""

from __future__ import annotations

import bz2
import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.academic_forms import FILE, NUMBER
from foretell.evals.samples import Sample, check_fetched, read_samples

PLACE = "FORETELL_DATA"  # names the folder whose `benchmarks` are read
_MMLU = ("question", "choice0", "choice1", "choice2", "choice3", "answer")


def below_place(files: str) -> str:
    """The path of files below FORETELL_DATA/benchmarks; "" where none is there."""
    place = os.environ.get(PLACE)
    path = str(Path(place) / "benchmarks" / files) if place and files else ""
    return path if path and found(path) else ""


def read_rows(pattern: str) -> Iterator[Sample]:
    """Rows of the files of a pattern, each with its file's name: JSON lines, JSON, CSV, TSV, and HellaSwag's text."""
    for file in found(pattern):
        name = file.name.split(".")[0]
        try:
            check_fetched(file)
            for number, row in enumerate(_rows(file)):
                yield {**row, FILE: name, NUMBER: number}
        except (OSError, ValueError, EOFError, csv.Error) as error:
            raise EvalError(f"{file} cannot be read ({error}). Fetch it again.") from error


def found(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    at = next((i for i, part in enumerate(path.parts) if "*" in part), None)
    return [] if at is None else sorted(Path(*path.parts[:at]).glob(str(Path(*path.parts[at:]))))


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".bz2":  # HellaSwag as text: a title and context, the label, four endings
        lines = bz2.decompress(file.read_bytes()).decode().splitlines()
        for i in range(0, len(lines) - 5, 6):
            label, _, context = lines[i].partition(": ")
            yield {"activity_label": label, "ctx": context, "label": lines[i + 1], "endings": lines[i + 2 : i + 6]}
    elif file.suffix == ".json":
        held = json.loads(file.read_bytes())
        yield from held.get("examples") or held.get("data") or held.values() if isinstance(held, dict) else held
    elif file.suffix in (".csv", ".tsv"):
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix == ".tsv":
                pairs = (line.rstrip("\r\n").rpartition("\t") for line in stream if line.strip())
                yield from ({"question": question, "answer": answer} for question, _, answer in pairs)
                return
            table = csv.reader(stream)
            head = next(table, [])
            if len(head) == 6 and head[-1] in tuple("ABCD"):  # MMLU as it was published
                yield dict(zip(_MMLU, head, strict=True))
                head = list(_MMLU)
            yield from (dict(zip(head, row, strict=False)) for row in table)
    else:
        yield from read_samples(file)


def ready_prompt(file: Path) -> str:
    """A file of worked samples, without the notice above its rule."""
    return file.read_text(encoding="utf-8").rpartition("-----\n")[2].strip() + "\n\n"

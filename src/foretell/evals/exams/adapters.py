"""Questions of published benchmarks, textbooks and the generated world, in the form of exams."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.academic_files import PLACE, below_place, found, read_rows
from foretell.evals.academic_forms import FILE, NUMBER, mmlu
from foretell.evals.exams.worldly import world
from foretell.evals.samples import read_samples

Row = dict[str, Any]
_OPENING = re.compile(r"^\s*\(([A-Z])\)\s*")


def adapted(source: Mapping[str, Any], where: str) -> list[Row]:
    """The questions of a source {from: ADAPTER, …}, as rows of an exam's JSON lines.

    Raises EvalError for an adapter or option that is not there, and for data that are not here.
    """
    options = {key: value for key, value in source.items() if key != "from"}
    name = source.get("from")
    if name not in ADAPTERS:
        raise EvalError(f"{where}: from is {name!r}; expected one of {', '.join(ADAPTERS)}, or a file of questions.")
    try:
        rows = ADAPTERS[str(name)](**options)
    except TypeError as error:
        raise EvalError(f"{where}: its options do not fit {name} ({error}).") from error
    except EvalError as error:
        raise EvalError(f"{where}: {error}") from error
    if not rows:
        raise EvalError(f"{where}: {name} has no such questions. Widen its options.")
    return rows


def agieval(files: str, part: str = "", take: int | None = None, solutions: bool = False) -> list[Row]:
    """AGIEval's LSAT, SAT and AQuA. files: below FORETELL_DATA/benchmarks, or a path. part: as of `in_part`; questions
    of one passage stay together. take: the first so many. solutions: only those with one, which is the explanation.

    Rows that are damaged (no letter, one that is not among the options, options that are equal) are left out.
    Source: Zhong et al. (2023), arXiv 2304.06364.
    """
    rows = []
    for raw in _benchmark(files):
        try:
            options = [_OPENING.sub("", str(text)).strip() for text in raw["options"]]
            label, passage = str(raw["label"] or "").strip(), str(raw.get("passage") or "").strip()
            question = str(raw["question"]).strip()
        except (KeyError, TypeError) as error:
            raise EvalError(
                f"{files}, row {raw[NUMBER] + 1} is not in AGIEval's form: {error!r}. Fetch it again."
            ) from error
        whole = all(options) and len(set(options)) == len(options)
        if not whole or len(label) != 1 or not 0 <= ord(label) - ord("A") < len(options):
            continue
        solution = str((raw.get("other") or {}).get("solution") or "").strip()
        group = hashlib.sha256((passage or question).encode()).hexdigest()[:12]
        if not in_part(group, part) or (solutions and not solution):
            continue
        row = {"id": f"{raw[FILE]}-{raw[NUMBER]}", "question": question, "options": options, "answer": label}
        row |= {"passage": passage, "group": group} if passage else {}
        rows.append(row | ({"explanation": solution} if solution else {}))
    return rows[:take]


def mmlu_subject(subject: str, files: str, part: str = "", take: int | None = None) -> list[Row]:
    """A subject of MMLU, whose rows hold no explanations. part, take: as of `agieval`."""
    rows = []
    for raw in _benchmark(files.replace("NAME", subject)):
        try:
            sample = mmlu(raw)
        except (KeyError, ValueError, IndexError) as error:
            raise EvalError(
                f"{files}, row {raw[NUMBER] + 1} is not in MMLU's form: {error!r}. Fetch it again."
            ) from error
        options = [str(text).strip() for text in sample["options"]]
        if len(set(options)) < len(options) or not all(options):
            continue
        row = {"id": f"{raw[FILE]}-{raw[NUMBER]}", "question": sample["ask"], "options": options}
        row |= {"answer": "ABCD"[sample["gold"]]}
        if in_part(hashlib.sha256(str(sample["ask"]).encode()).hexdigest()[:12], part):
            rows.append(row)
    return rows[:take]


def exercises(
    subject: str, lang: str, split: str, take: int | None = None, files: str = "corpus/exercises.parquet"
) -> list[Row]:
    """Textbook exercises with solutions, as free responses that are graded against them.

    files: below FORETELL_DATA, or a path. split: heldout or train, of the textbook's module, so that what trained on
    the one has not read the other. Exercises with figures, which lie elsewhere, are left out; those of one module do
    not count as independent.
    """
    place = Path(os.environ.get(PLACE, "")) / files
    path = place if place.is_file() else Path(files)
    if not path.is_file():
        raise EvalError(f"there is no {files}. Set {PLACE} to the folder that holds it, or give its path as `files`.")
    rows = []
    for raw in read_samples(path):
        try:
            wanted = (raw["subject"], raw["lang"], raw["split"]) == (subject, lang, split)
            if wanted and raw["solution"] and not raw["has_image"] and not raw["choices"]:
                rows.append(
                    {
                        "id": raw["id"],
                        "question": raw["problem"],
                        "reference": raw["solution"],
                        "rubric": _RUBRIC,
                        "group": raw["module"],
                    }
                )
        except KeyError as error:
            raise EvalError(f"{path} has no column {error}. Use the published file.") from error
    rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
    return rows[:take]


def in_part(key: str, part: str) -> bool:
    """Whether a key is of a part "I/N" of all keys, decided by its hash, for ever; "2-4/4" is three of four."""
    if not part:
        return True
    match = re.fullmatch(r"(\d+)(?:-(\d+))?/(\d+)", part)
    first, last, count = (int(match[1]), int(match[2] or match[1]), int(match[3])) if match else (0, 0, 0)
    if not 1 <= first <= last <= count:
        raise EvalError(f"part is {part!r}; expected a part such as 1/4 or 2-4/4.")
    digest = hashlib.sha256(f"exam/{key}".encode()).digest()
    return first <= int.from_bytes(digest[:4], "big") % count + 1 <= last


def _benchmark(files: str) -> list[Row]:
    place = below_place(files) or files
    if not found(place):
        raise EvalError(
            f"there is no {files}. Set {PLACE} to the folder that holds benchmarks/{files}, or give a path."
        )
    return list(read_rows(place))


_RUBRIC = [
    {"criterion": "The final result agrees with the reference solution's, in value and unit.", "points": 1},
    {"criterion": "The reasoning is sound and leads to the result that is given.", "points": 1},
]
ADAPTERS: dict[str, Callable[..., list[Row]]] = {
    "agieval": agieval, "mmlu": mmlu_subject, "exercises": exercises, "world": world,
}  # fmt: skip

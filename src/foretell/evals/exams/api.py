"""Sit exams from Python: `exams.run("world", model)`, on the one runner of the evals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.api import LOGS, log_path
from foretell.evals.cache import Cache
from foretell.evals.exams.definition import SPLITS, Exam, Split
from foretell.evals.exams.ledger import Ledger
from foretell.evals.exams.reading import exam_files, load_exam, read_spec
from foretell.evals.exams.scoring import ExamScore, exam_of, score_exam
from foretell.evals.exams.sheets import people_s_grades
from foretell.evals.exams.sitting import Sitting
from foretell.evals.log import read_log
from foretell.evals.models import as_model
from foretell.evals.registry import OWN, Registry
from foretell.evals.runner import SEED, Budget, Settings, run_eval
from foretell.run import Report, silent

STORE = LOGS / "history.sqlite"


@dataclass(frozen=True)
class Listed:
    """An exam that can be sat. splits: which it has. sections: name and kind."""

    name: str
    title: str
    path: Path
    splits: tuple[Split, ...]
    sections: tuple[tuple[str, str], ...]


def listed(folders: Sequence[Path] = ()) -> list[Listed]:
    """All exams. Their questions are not read. Raises EvalError for one whose file is damaged."""
    found = []
    for name, path in exam_files(folders).items():
        spec, _ = read_spec(path)
        splits = tuple(split for split in SPLITS if all(split in section.items for section in spec.sections))
        found.append(Listed(name, spec.title, path, splits, tuple((s.name, s.kind) for s in spec.sections)))
    return found


def open_exam(name: str | Path, split: Split = "nonholdout", folders: Sequence[Path] = ()) -> Exam:
    """An exam by name, or by its file. Raises EvalError as `load_exam` does, and for a name that is none."""
    if str(name).endswith((".yaml", ".yml")):
        return load_exam(Path(name), split)
    files = exam_files(folders)
    if str(name) not in files:
        near = get_close_matches(str(name), list(files), n=2) or list(files)
        raise EvalError(f"There is no exam {name}. Near are {', '.join(near)}; one of your own needs --exams FOLDER.")
    return load_exam(files[str(name)], split)


def run(
    exam: str | Path | Exam,
    model: Any,
    *,
    holdout: bool = False,
    vision: bool = True,
    grader: Any = None,
    letter: str = "score",
    chat: bool | None = None,
    samples: int | None = None,
    seed: int = SEED,
    concurrency: int = 64,
    budget: Budget | None = None,
    folders: Sequence[Path] = (),
    out: str | Path | None = None,
    store: str | Path = STORE,
    cache: str | Path | None = None,
    user: str = "",
    command: str = "",
    product: str = "",
    fresh: bool = False,
    report: Report = silent,
) -> ExamScore:
    """Let a model sit an exam, or go on with a sitting that was cut off.

    model, grader: as of `foretell.evals.run`; grader "person" leaves rubrics to a grading sheet, and without one the
    model grades itself. holdout: the questions that are asked once; the run is entered in the ledger of `store` before
    the first question, and a second one of the same model is marked. Default are the ones to try settings on.
    vision: whether images are shown. letter, chat: as of `Sitting`. samples: the first so many, after the evals'
    shuffle; a holdout is always whole.
    Raises EvalError where exam or model cannot be used; what was finished is kept.
    """
    if not isinstance(exam, Exam):
        exam = open_exam(exam, "holdout" if holdout else "nonholdout", folders)
    holdout = exam.split == "holdout"
    if holdout and samples is not None:
        raise EvalError("A holdout is sat as a whole, once. Try settings on the nonholdout, which takes a limit.")
    if holdout and cache is not None:
        raise EvalError("A holdout takes no cache: answers of an earlier run would pass for this one's.")
    registry = Registry((OWN,))
    fns = [as_model(model, registry, concurrency)]
    person = grader == "person"
    made = Sitting(exam, vision=vision, graded="person" if person else "model", letter=letter, chat=chat)
    if made.needs_grader and grader is not None and not person:
        fns.append(as_model(grader, registry, concurrency))
    settings = Settings(seed, samples, 1, concurrency, budget or Budget())
    path = Path(out) if out is not None else log_path(LOGS, made, fns, settings, fresh)
    ledger = Ledger(store)
    if holdout:
        made.attempt = ledger.enter(exam, fns[0], path, vision)
    kept = Cache(Path(cache)) if cache is not None else None
    log = run_eval(made, fns, path, settings, cache=kept, user=user, command=command, report=report)
    ledger.add(log, product=product)
    return score_exam(log, exam)


def read_score(log: str | Path) -> ExamScore:
    """The result of a run that was finished, with the grades that people have given since.

    Raises EvalError for a log of something else, and where the exam has changed.
    """
    found = read_log(Path(log))
    return score_exam(found, exam_of(found), people_s_grades(found.path))

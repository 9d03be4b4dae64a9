"""Ask a model in many languages from Python: `languages.run("world", model)`, on the one runner of the evals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.api import LOGS, log_path
from foretell.evals.cache import Cache
from foretell.evals.languages.codes import language_code
from foretell.evals.languages.questions import QuestionSet
from foretell.evals.languages.reading import read_questions
from foretell.evals.languages.scoring import LanguagesScore, score_languages, write_summary
from foretell.evals.languages.sitting import Languages
from foretell.evals.languages.worldly import NAME, world_questions
from foretell.evals.models import as_model
from foretell.evals.registry import OWN, Registry
from foretell.evals.runner import SEED, Budget, Settings, run_eval
from foretell.run import Report, silent


def open_questions(
    sources: str | Path | Sequence[str | Path],
    languages: Sequence[str] = (),
    *,
    shots: int = 3,
    samples: int | None = None,
    seed: int = 0,
    kinds: Sequence[str] = (),
    people: int = 48,
    world: int = 0,
) -> QuestionSet:
    """Questions by name: "world", or files and folders as `reading.read_questions` takes them.

    languages: codes or English names, None for all. samples: at most so many in each language (of the world, of each
    kind). kinds, people, world: of the world's exam (`worldly.world_questions`); seed: of it, or of which are taken.
    Raises EvalError naming what is wrong, with file and line.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    codes = [language_code(code) for code in languages]
    if [str(source) for source in given] == [NAME]:
        return world_questions(codes, kinds or None, samples or 40, shots, seed, people, world)
    if NAME in map(str, given):
        raise EvalError(f"{NAME} is an exam of its own. Ask it without files beside it.")
    if kinds:
        raise EvalError(f"kinds ({', '.join(kinds)}) are of the world's exam; files have none. Leave them out.")
    found = read_questions(given, shots, codes)
    return (found.of(codes) if codes else found).take(samples, seed)


def run(
    sources: str | Path | Sequence[str | Path] | QuestionSet,
    model: Any,
    *,
    languages: Sequence[str] = (),
    shots: int = 3,
    letter: str = "score",
    chat: bool | None = None,
    samples: int | None = None,
    seed: int = 0,
    concurrency: int = 64,
    budget: Budget | None = None,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    user: str = "",
    command: str = "",
    fresh: bool = False,
    report: Report = silent,
    **of_world: Any,
) -> LanguagesScore:
    """Ask a model, or go on with a run that was cut off; writes the log and, beside it, the summary.

    sources, languages, samples, seed, of_world: as of `open_questions`. model: as of `foretell.evals.run`. letter,
    chat: as of `Languages`.
    Raises EvalError where questions or model cannot be used; what was finished is kept.
    """
    if isinstance(sources, QuestionSet):
        asked = sources
    else:
        asked = open_questions(sources, languages, shots=shots, samples=samples, seed=seed, **of_world)
    made = Languages(asked, shots=shots, letter=letter, chat=chat)
    fns = [as_model(model, Registry((OWN,)), concurrency)]
    settings = Settings(SEED, None, 1, concurrency, budget or Budget())
    path = Path(out) if out is not None else log_path(LOGS, made, fns, settings, fresh)
    kept = Cache(Path(cache)) if cache is not None else None
    log = run_eval(made, fns, path, settings, cache=kept, user=user, command=command, report=report)
    score = score_languages(log)
    write_summary(score)
    return score

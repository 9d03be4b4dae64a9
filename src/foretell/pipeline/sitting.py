"""The exams of a run: sat by the finished model and, where it was aligned, by its base; and looked for in its data."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretell.errors import RecipeError
from foretell.recipe import Recipe
from foretell.run import Report, Stage

CORPUS = "corpus"
STORE = "history.sqlite"
PART = "options"  # short questions alone stand in any text by chance


def exams_stage(recipe: Recipe, report: Report, aligned: bool) -> Stage:
    """The holdout of every exam in `examine.exams`, by the models of the run. Raises RecipeError for no such exam."""
    from foretell.evals.exams.reading import exam_files

    known = exam_files()
    if unknown := [name for name in recipe.examine.exams if name not in known]:
        raise RecipeError(f"examine.exams: there is no exam {unknown[0]!r}; there are {', '.join(known)}.")
    trained = ("ppo", "pretrain") if aligned else ("pretrain",)
    config = {"exams": recipe.examine.exams, "device": recipe.train.device, "seed": recipe.seed}
    return Stage(
        "exams",
        {**config, "sees": recipe.model.vision is not None},
        lambda inputs, out: _sit(recipe, trained, inputs, out, report),
        ("data", *trained),
        scratch=CORPUS,
    )


def _sit(
    recipe: Recipe, trained: Sequence[str], inputs: Mapping[str, Path], out: Path, report: Report
) -> dict[str, Any]:
    """A log an exam and model. The holdout is each model's first and only look: the ledger lies with the logs."""
    from foretell.evals.exams import api
    from foretell.loading import load

    metrics: dict[str, Any] = {}
    logs: list[Path] = []
    for stage in trained:
        model = load(inputs[stage] / "checkpoint", device=recipe.train.device)
        for name in recipe.examine.exams:
            log = out / f"{name}-{stage}.jsonl"
            if log.is_file():  # finished before the stage was cut off
                score = api.read_score(log)
            else:
                exam = api.open_exam(name, "holdout")
                score = api.run(
                    exam, model, holdout=True, vision=recipe.model.vision is not None or not exam.has_images,
                    seed=recipe.seed, out=log, store=out / STORE, report=report,
                )  # fmt: skip
            logs.append(log)
            final = score.final
            metrics.setdefault(name, {})[stage] = {
                "points": score.raw.estimate,
                "of": score.raw_highest,
                "score": None if final is None else final.value,
                "percentile": None if final is None or final.percentile is None else final.percentile[0],
            }
        model.generator.close()
    return {"exams": metrics, "contaminated": _look(out, logs, report)}


def _look(out: Path, logs: Sequence[Path], report: Report) -> dict[str, float]:
    """What of the exams stood in the run's own training data, as shares by exam; writes contamination.json."""
    from foretell.data.texts import corpus_files
    from foretell.evals.contamination_check import check_contamination
    from foretell.evals.contamination_page import write_report
    from foretell.measure.overlap import COUNT, LENGTH, Index, build

    build(corpus_files([out.parent]), out / CORPUS, report=report)
    index = Index(out / CORPUS, False)
    found = check_contamination([str(log) for log in logs], index, part=PART, exams=("*",), report=report)
    settings = {"part": PART, "substrings": COUNT, "length": LENGTH, "seed": 0, "sample": "all"}
    write_report(out, found, index.about, settings)
    shutil.rmtree(out / CORPUS, ignore_errors=True)
    return {each.eval: each.share for each in found}

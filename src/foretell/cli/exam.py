"""exam: list, run, grade, report, calibration, languages."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw, languages
from foretell.cli.eval import MODEL_HELP, STORE, Store

if TYPE_CHECKING:
    from foretell.evals.calibration import Calibration
    from foretell.evals.exams.scoring import ExamScore, Mark

app = typer.Typer(help="Sit exams as people do: points, scaled scores, percentiles.", no_args_is_help=True)
app.add_typer(languages.app, name="languages")

Folders = Annotated[
    list[Path] | None, typer.Option("--exams", metavar="FOLDER", help="Exams of your own; may be repeated.")
]
LOG = "A log that foretell exam run wrote."


@app.command("list")
def list_(exams: Folders = None) -> None:
    """The exams that can be sat."""
    from foretell.evals.exams.api import listed

    rows = [
        (exam.name, ", ".join(f"{name} ({kind})" for name, kind in exam.sections), " ".join(exam.splits), exam.title)
        for exam in listed(exams or ())
    ]
    draw.table(("exam", "sections", "splits", "what"), rows)


@app.command()
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    exam: Annotated[list[str], typer.Argument(metavar="EXAM...", help="Names of exams, or their YAML files.")],
    holdout: Annotated[
        bool,
        typer.Option("--holdout", help="The questions that are asked once, for the score. A second run is marked."),
    ] = False,
    vision: Annotated[
        bool, typer.Option("--vision/--no-vision", help="Show images, or IMAGE: NAME in their place.")
    ] = True,
    grader: Annotated[
        str | None, typer.Option(help="Model that grades by rubrics; person leaves them to a sheet; default MODEL.")
    ] = None,
    letter: Annotated[
        str, typer.Option(metavar="score|sample", help="By likelihood where MODEL tells it, or always sampled.")
    ] = "score",
    max_samples: Annotated[int | None, typer.Option(min=1, help="Only so many questions; not of a holdout.")] = None,
    seed: Annotated[int, typer.Option()] = 20220722,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at a time.")] = 64,
    exams: Folders = None,
    record_path: Annotated[Path | None, typer.Option(metavar="FILE", help="The log, for one exam.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answers kept over runs; not of a holdout.")
    ] = None,
    max_tokens_spent: Annotated[int | None, typer.Option(min=1, help="Budget: tokens of prompts and replies.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Budget: time.")] = None,
    user: Annotated[str, typer.Option(help="Who runs it, for the log.")] = "",
    store: Store = STORE,
    product: Annotated[str, typer.Option(help="Product or integration, for the history.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew beside a run that was cut off.")] = False,
) -> None:
    """Let a model sit exams; the same command goes on with what was cut off.

    Without --holdout the questions are those to try settings on. Logs lie in runs/evals.
    """
    from foretell.evals.exams import api
    from foretell.evals.runner import Budget

    if record_path is not None and len(exam) > 1:
        raise typer.BadParameter(f"--record-path is for one exam; {len(exam)} are named.")
    if letter not in ("score", "sample"):
        raise typer.BadParameter(f"--letter is {letter!r}; expected score or sample.")
    sys.path.append(str(Path().absolute()))
    budget = Budget(max_tokens_spent, None, None if max_minutes is None else 60 * max_minutes)
    for name in exam:
        read = api.open_exam(name, "holdout" if holdout else "nonholdout", exams or ())
        for warning in read.warnings:
            print(f"{read.name}: {warning}", file=sys.stderr)
        with draw.progress() as report:
            score = api.run(
                read, model, vision=vision, grader=grader, letter=letter, samples=max_samples, seed=seed,
                concurrency=concurrency, budget=budget, out=record_path, store=store, cache=cache, user=user,
                command=shlex.join(sys.argv), product=product, fresh=fresh, report=report,
            )  # fmt: skip
        tell(score)


def tell(score: ExamScore) -> None:
    """Print what came of a run."""
    arm = "" if score.vision or not score.exam.has_images else ", without images"
    print(f"\n{score.exam.spec.title}, {score.exam.split}{arm}: {score.model}")
    rows = []
    for s in score.sections:
        raw = f"{s.raw.estimate:g} of {s.highest:g}" if s.n else f"of {s.highest:g}"
        told = f"{s.raw.low:.3g} to {s.raw.high:.3g}" if s.n else ""
        rows.append((s.name, s.n, raw, told, _score(s.scaled), _percentile(s.scaled)))
    if score.final is not None:  # a part of the questions has no total
        raw = f"{score.raw.estimate:g} of {score.raw_highest:g}"
        told = f"{score.raw.low:.3g} to {score.raw.high:.3g}"
        n = sum(s.n for s in score.sections)
        rows.append(("total", n, raw, told, _score(score.final), _percentile(score.final)))
    draw.table(("section", "n", "points", "95 % interval", "score", "percentile"), rows, right=(1, 2))
    for number, what in (
        (score.ungraded, "wait for grades: foretell exam grade LOG"),
        (sum(s.invalid for s in score.sections), "could not be put or graded; those without a reply count as blank"),
    ):
        if number:
            print(f"  {number} questions {what}")
    if score.partial:
        print(f"  {len(score.answered)} of {len(score.exam.questions)} questions: no total score.")
    if score.repeated:
        print(f"  Holdout run {score.attempt} of this model: not a first look.")
    print(f"  log: {score.log}")


def _score(mark: Mark | None) -> str:
    return "" if mark is None else f"{mark.value:g} ({mark.low:g} to {mark.high:g})"


def _percentile(mark: Mark | None) -> str:
    if mark is None or mark.percentile is None:
        return ""
    return f"{mark.percentile[0]:.3g} ({mark.percentile_low:.3g} to {mark.percentile_high:.3g})"


@app.command()
def grade(
    log: Annotated[Path, typer.Argument(metavar="LOG", help=LOG)],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a sheet to fill in: .html for a page, else JSON lines.")
    ] = None,
    sheet: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Bring in a sheet that was filled in.")
    ] = None,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who graded, where the sheet says nothing.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also replies that have a grade.")] = False,
) -> None:
    """Let people grade free responses and essays: write a sheet, and bring it in again.

    No model is named on a sheet. Grades are kept beside the log; where several people grade, their mean counts.
    """
    from foretell.evals.exams import sheets
    from foretell.evals.exams.api import read_score

    if (out is None) == (not sheet):
        raise typer.BadParameter("give --out FILE for a sheet to fill in, or --sheet FILE for one that was filled in")
    score = read_score(log)
    if out is not None:
        count = sheets.write_sheet(score, out, again)
        print(f"{count} replies to grade: {out}\nThen: foretell exam grade {log} --sheet FILE")
        return
    rows = [row for path in sheet or () for row in sheets.read_sheet(path, score, by)]
    sheets.keep_grades(log, rows)
    print(f"{len(rows)} grades of {', '.join(sorted({row['grader'] for row in rows})) or 'nobody'} kept.")
    found = sheets.agreement(log)
    if found.questions:
        print(f"{found.questions} questions have several graders, {found.difference:.3g} points apart on average.")
    tell(read_score(log))


@app.command()
def report(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help=LOG)],
    against: Annotated[
        list[Path] | None, typer.Option(metavar="LOG", help="Another model's run of the same exam; may be repeated.")
    ] = None,
    all_kinds: Annotated[
        bool, typer.Option("--all-kinds", help="Compare free responses and essays, too, not only multiple choice.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of the pages; default beside the logs.")] = None,
) -> None:
    """Scores of runs, and a page of each; against another model's, paired question by question."""
    from foretell.evals.exams import sheets
    from foretell.evals.exams.against import against as compared
    from foretell.evals.exams.api import read_score
    from foretell.evals.exams.report_page import against_page, exam_page
    from foretell.files import write_text

    scores = [read_score(log) for log in logs]
    for score in scores:
        tell(score)
        place = (out or score.log.parent) / f"{score.log.stem}.html"
        write_text(place, exam_page(score, sheets.agreement(score.log)))
        print(f"  page: {place}")
    if not against:
        return
    others = [read_score(log) for log in against]
    found = compared(scores, others, not all_kinds)
    rows = [(r.exam, r.comparison.n, r.baseline, r.candidate, r.comparison.difference, f"{r.comparison.p:.3g}")
            for r in found.rows]  # fmt: skip
    rows.append(("mean", sum(row[1] for row in rows), found.baseline, found.candidate, found.mean, ""))
    shown = [
        (
            name,
            n,
            f"{100 * before:.1f}",
            f"{100 * now:.1f}",
            *(f"{100 * x:+.1f}" for x in (d.estimate, d.low, d.high)),
            p,
        )
        for name, n, before, now, d, p in rows
    ]
    print(f"\n{scores[0].model} against {others[0].model}, percent of points:")
    head = ("exam", "n", "before", "now", "difference", "from", "to", "p")
    draw.table(head, shown, right=(1, 2, 3, 4, 5, 6, 7))
    place = (out or scores[0].log.parent) / f"{scores[0].log.stem}-against.html"
    write_text(place, against_page(found, others[0].model, scores[0].model))
    print(f"  page: {place}")


@app.command()
def calibration(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="A run, a log of exam run or eval run, or a file of probabilities.")
    ],
    after: Annotated[
        Path | None, typer.Argument(metavar="[AFTER]", help="Likewise, of the same questions: after post-training.")
    ] = None,
    bins: Annotated[int, typer.Option(min=2, max=1000, help="Of probabilities.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the bootstraps.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of the page; default beside the log.")] = None,
) -> None:
    """Is what a model holds likely true to that degree? Before and after post-training, and with a temperature.

    A run that has outcomes, given alone, is compared with its base model.
    """
    from foretell.evals.calibration import calibration as assessed
    from foretell.evals.calibration_page import measures, write_report

    found = assessed(before, after, bins, seed)
    head, rows = measures(found)
    names = found.before.answers.model, found.last.answers.model
    print(f"\n{names[0]} before, {names[1]} after:" if found.after else f"\n{names[0]}:")
    draw.table(head, rows)
    for what, side in (("before", found.before), ("after", found.after)):
        if side is not None and (side.assessment.zeros or side.assessment.ones):
            print(f"  {what}: {side.assessment.zeros} probabilities are exactly 0, {side.assessment.ones} exactly 1")
    for text in (found.note, found.stopped, _unpaired(found)):
        if text:
            print(f"  {text}")
    place = write_report(found, out)
    print(f"  page: {place}\n  figures: {place.with_suffix('.json')}")


def _unpaired(found: Calibration) -> str:
    if found.after is None or not (found.before.only_here or found.after.only_here):
        return ""
    return f"{found.before.only_here} questions of the first and {found.after.only_here} of the second have no twin."

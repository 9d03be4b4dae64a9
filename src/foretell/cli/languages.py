"""exam languages: list, translate, run, report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw
from foretell.cli.eval import MODEL_HELP, STORE, Store

if TYPE_CHECKING:
    from foretell.evals.languages.scoring import LanguagesScore

app = typer.Typer(help="Ask multiple-choice questions in any language, as appendix F does.", no_args_is_help=True)
SOURCES = (
    "world, or files and folders of questions (Global-MMLU, MMMLU, MMLU, MGSM, or as translate writes them); CODE=PATH "
    "where neither name nor folder tells the language."
)
Wanted = Annotated[
    list[str] | None, typer.Option("--language", metavar="CODE", help="Only this language; may be repeated.")
]


@app.command("list")
def list_(
    sources: Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]...", help=SOURCES)] = None,
) -> None:
    """The languages that are known; of SOURCEs, their questions and what is odd about them."""
    from foretell.data.world.parallel import languages
    from foretell.evals.languages.codes import NAMES, name_of
    from foretell.evals.languages.published import GPT_4

    if not sources:
        rows = [
            (code, name, "yes" if code in languages() else "", f"{100 * GPT_4[code]:.1f}" if code in GPT_4 else "")
            for code, name in NAMES.items()
        ]
        draw.table(("code", "language", "world", "GPT-4 published"), rows, right=(3,))
        return
    from foretell.evals.languages.api import open_questions

    found = open_questions(sources, shots=0)
    counts = {code: [q for q in found.questions if q.language == code] for code in found.languages}
    draw.table(
        ("code", "language", "questions", "worked", "subjects"),
        [
            (code, name_of(code), len(own), len(found.shots[code]), len({q.subject for q in own}))
            for code, own in counts.items()
        ],
        right=(2, 3, 4),
    )
    _warn(found.warnings)


@app.command()
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES)],
    language: Wanted = None,
    shots: Annotated[int, typer.Option(min=0, help="Worked questions before each.")] = 3,
    letter: Annotated[
        str, typer.Option(metavar="score|sample", help="By likelihood where MODEL tells it, or always sampled.")
    ] = "score",
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="So many questions a language, the same in each; of world, a kind.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Of world: recall, reading or sums; may be repeated.")
    ] = None,
    people: Annotated[int, typer.Option(help="Of world: as its training text has them.")] = 48,
    seed: Annotated[int, typer.Option(help="Which questions are made or taken.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at a time.")] = 64,
    record_path: Annotated[Path | None, typer.Option(metavar="FILE", help="The log.")] = None,
    cache: Annotated[Path | None, typer.Option(metavar="FILE", help="Answers kept over runs.")] = None,
    max_tokens_spent: Annotated[int | None, typer.Option(min=1, help="Budget: tokens of prompts and replies.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Budget: time.")] = None,
    user: Annotated[str, typer.Option(help="Who runs it, for the log.")] = "",
    store: Store = STORE,
    product: Annotated[str, typer.Option(help="Product or integration, for the history.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew beside a run that was cut off.")] = False,
) -> None:
    """Ask a model in many languages; the same command goes on with what was cut off.

    Beside the log lies its summary as JSON, for cards. Logs lie in runs/evals.
    """
    from foretell.evals.history import History
    from foretell.evals.languages import api
    from foretell.evals.log import read_log
    from foretell.evals.runner import Budget

    if letter not in ("score", "sample"):
        raise typer.BadParameter(f"--letter is {letter!r}; expected score or sample.")
    sys.path.append(str(Path().absolute()))
    asked = api.open_questions(
        sources, language or (), shots=shots, samples=max_samples, seed=seed, kinds=kind or (), people=people
    )
    _warn(asked.warnings)
    with draw.progress() as report:
        score = api.run(
            asked, model, shots=shots, letter=letter, concurrency=concurrency, out=record_path, cache=cache, user=user,
            budget=Budget(max_tokens_spent, None, None if max_minutes is None else 60 * max_minutes),
            command=shlex.join(sys.argv), fresh=fresh, report=report,
        )  # fmt: skip
    History(store).add(read_log(score.log), product=product)
    tell(score)


def tell(score: LanguagesScore) -> None:
    """Print what came of a run."""
    from foretell.evals.languages.scoring import summary_path

    how = "scored" if score.how == "score" else "sampled"
    print(f"\n{score.set_name}, {score.settings['shots']}-shot, letters {how}: {score.model}")
    rows = []
    for one in score.languages:
        d = one.against
        against = "" if d is None else f"{100 * d.difference.estimate:+.1f}"
        margin = "" if d is None else f"{100 * d.difference.low:+.1f} to {100 * d.difference.high:+.1f}"
        span = f"{100 * one.accuracy.low:.1f} to {100 * one.accuracy.high:.1f}"
        rows.append((one.name, one.n, f"{100 * one.accuracy.estimate:.1f}", span, against, margin))
    mean = score.mean
    rows.append(("mean", sum(one.n for one in score.languages), f"{100 * mean.estimate:.1f}",
                 f"{100 * mean.low:.1f} to {100 * mean.high:.1f}", "", ""))  # fmt: skip
    draw.table(("language", "n", "%", "95 % interval", "against English", "95 % interval"), rows, right=(1, 2, 4))
    silent = sum(one.silent for one in score.languages)
    invalid = sum(a.right is None for a in score.answers)  # of languages, too, of which none could be put
    flagged = sum(one.flagged for one in score.languages)
    why = f". The commonest reason: {score.reason}" if score.reason else ""
    for count, what in (
        (silent, "replies chose no letter and count as wrong"),
        (invalid, f"questions could not be put, and are not counted{why}"),
        (flagged, "questions have a translation in doubt; the page tells what remains without them"),
    ):
        if count:
            print(f"  {count} {what}")
    print(f"  log: {score.log}\n  summary: {summary_path(score.log)}")


@app.command()
def translate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Translates; such as URL or URL#MODEL of an endpoint.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES)],
    to: Annotated[list[str], typer.Option(metavar="CODE", help="Language to translate into; may be repeated.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Of the files, one a language.")],
    origin: Annotated[str, typer.Option("--from", metavar="CODE", help="Language to translate from.")] = "en",
    back: Annotated[str | None, typer.Option(metavar="MODEL", help="Translates back; default MODEL.")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Translate back, and mark what departs.")] = True,
    threshold: Annotated[
        float, typer.Option(min=0, max=100, help="chrF of a back-translation below which it is marked.")
    ] = 40.0,
    shots: Annotated[int, typer.Option(min=0, help="Worked questions of each subject that are translated, too.")] = 3,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Only so many questions.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at a time.")] = 16,
    cache: Annotated[Path, typer.Option(metavar="FILE", help="Answers kept over runs.")] = Path(
        "runs/evals/translations.sqlite"
    ),
    record_path: Annotated[Path | None, typer.Option(metavar="FILE", help="The log.")] = None,
    max_tokens_spent: Annotated[int | None, typer.Option(min=1, help="Budget: tokens of prompts and replies.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Budget: time.")] = None,
    user: Annotated[str, typer.Option(help="Who runs it, for the log.")] = "",
) -> None:
    """Translate questions, translate them back, and mark those whose translation is in doubt.

    Where an endpoint goes down, the same command goes on from there. Then: foretell exam languages run MODEL FOLDER
    """
    from foretell.evals.languages.codes import language_code, name_of
    from foretell.evals.languages.reading import read_questions
    from foretell.evals.languages.translating import translate as translated
    from foretell.evals.runner import Budget

    sys.path.append(str(Path().absolute()))
    questions = read_questions(sources, 0).of([language_code(origin)]).take(max_samples)
    _warn(questions.warnings)
    with draw.progress() as report:
        found, log = translated(
            questions, to, model, out, back=back, check=check, threshold=threshold, shots=shots,
            concurrency=concurrency,
            budget=Budget(max_tokens_spent, None, None if max_minutes is None else 60 * max_minutes), cache=cache,
            log=record_path, user=user, command=shlex.join(sys.argv), report=report,
        )  # fmt: skip
    rows = [
        (name_of(one.language), one.questions, "" if one.chrf != one.chrf else f"{one.chrf:.1f}", one.doubtful,
         ", ".join(f"{flag} {count}" for flag, count in one.doubts.items() if count), str(one.file))
        for one in found
    ]  # fmt: skip
    draw.table(("language", "questions", "chrF", "in doubt", "why", "file"), rows, right=(1, 2, 3))
    for count, what in (
        (sum(one.pieces for one in found), "were translated piece by piece, since the reply had lost its form"),
        (sum(one.lost for one in found), "could not be translated, and are left out"),
    ):
        if count:
            print(f"  {count} questions {what}")
    print(f"  log: {log.path}")


@app.command()
def report(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Logs that foretell exam languages run wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of the pages; default beside the logs.")] = None,
) -> None:
    """Accuracy by language, and a page of each run with the report's figure."""
    from foretell.evals.languages.page import languages_page
    from foretell.evals.languages.scoring import score_languages, write_summary
    from foretell.files import write_text

    for log in logs:
        score = score_languages(log)
        write_summary(score)
        tell(score)
        place = (out or log.parent) / f"{log.stem}.html"
        write_text(place, languages_page(score))
        print(f"  page: {place}")


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)

"""forecast inverse: soft metrics along a ladder, and whether scaling turns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretell.cli import draw


def inverse(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For scores, tables and the page; scores are kept.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODELS]...",
            help="A ladder's folder, runs, checkpoints, or MODEL=FLOPS. Without any, the scores in --out are read.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="File with prompt, classes, answer_index; or a world kind or task: hindsight, scenes.color."),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Questions of each world task.")] = 200,
) -> None:
    """Ask the models of a ladder, and say whether larger ones do worse, better, or first the one, then the other."""
    from foretell.files import write_text
    from foretell.forecast import inverse as turns
    from foretell.forecast.inverse_page import turns_page
    from foretell.forecast.questions import find_questions, world_options

    if models:
        found = turns.find_models(models)
        questions = []
        for name in task or ["hindsight"]:
            options = world_options(Path(found[0].ref), name.partition(".")[0])
            questions += find_questions(name, count, options)
        with draw.progress() as report:
            scores = turns.measure(found, questions, out, report)
    else:
        scores = turns.read_scores(out)
    series = turns.soft_series(scores)
    rows = []
    for s in series:
        write_text(out / f"{s.group}.csv", turns.table_csv(s))
        for p in s.points:
            grade = f"{p.accuracy.estimate:.1%} ({p.accuracy.low:.1%} to {p.accuracy.high:.1%})" if p.accuracy else ""
            rows.append((s.group, p.model.name, f"{p.model.flops:.3g}", f"{p.value:+.3f} ± {p.stderr:.3f}", grade))
    metrics = {s.metric for s in series}
    metric = metrics.pop() if len(metrics) == 1 else "soft metric"
    draw.table(("questions", "model", "FLOPs", metric, "accuracy"), rows, right=(2, 3))
    print()
    for s in series:
        print(f"{s.group}: {turns.verdict(s)}.")
    write_text(out / "inverse.html", turns_page(series))
    print(f"\nPage: {out / 'inverse.html'}")

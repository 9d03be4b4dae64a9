"""The page of a grown model: how each stage of training went, what pictures tell it, and pictures with its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretell.errors import RunError
from foretell.files import write_text
from foretell.pages import (
    Html,
    Interval,
    Row,
    cards,
    compact,
    duration,
    el,
    figure,
    interval_chart,
    join,
    notice,
    number,
    page,
    section,
    table,
)
from foretell.report.record import Json, RunRecord, mapping, num, read_run, read_stage_log, records, words
from foretell.report.tasks import beats, pictures_section, tasks_section
from foretell.report.training import loss_section

STAGES = {
    "connector": "First stage: what is new learns, the text model is frozen",
    "sft": "Second stage: the text model learns too, slowly",
}
_ORDER = ("graft", "pack", *STAGES, "examine")
_NOTE = (
    "How much less surprising a held-out text is with its own picture, in nats a token: than with a grey picture "
    "(blind), and than with another's (shuffled). Bars are 95 % intervals."
)


def write_page(run_dir: Path, examined: Mapping[str, Any], out: Path) -> Path:
    """Write out/index.html; returns its path. examined: tasks, texts and shown, as `pipeline.looking` has them.

    Raises RunError for what is no run.
    """
    path = out / "index.html"
    write_text(path, render(read_run(run_dir), examined))
    return path


def render(run: RunRecord, examined: Mapping[str, Any]) -> str:
    """The page as HTML."""
    told = RunRecord(
        run.folder, run.name, run.recipe, run.recipe_text, run.stages, [], [], [], mapping(examined), run.problems
    )
    texts = records(told.examine.get("texts")) if told.examine else []
    parts = [_gains(texts)]
    if told.examine and records(told.examine.get("tasks")):
        parts.append(tasks_section(told))
    parts.append(pictures_section(told))
    parts += [_training(run, stage, title) for stage, title in STAGES.items()]
    parts.append(_stages(run))
    graft = run.metrics("graft")
    kicker = f"Foretell · {_last(words(graft, 'tower_from'))} grafted on {_last(words(graft, 'imported_from'))}"
    lead = (
        "An image tower and a text model, joined by a fresh connector. Blind is the same model with a grey picture: "
        "only what is gained over it is owed to the picture."
    )
    foot = "Written by foretell from the run's manifests and logs. Nothing on this page is loaded from elsewhere."
    title = f"{_last(words(graft, 'imported_from'))} learns to see"
    return page(title, parts, kicker=kicker, lead=lead, head=[_cards(run, told, texts)], footer=foot)


def _last(origin: str) -> str:
    return Path(origin).name or "a model"


def _cards(run: RunRecord, told: RunRecord, texts: Sequence[Json]) -> Html:
    judged = [*texts, *records((told.examine or {}).get("tasks"))]
    above = sum(beats(task, "above_blind") for task in judged)
    trained = [run.metrics(stage) for stage in STAGES]
    seconds = sum(num(one, "seconds") or 0.0 for one in trained)
    tokens = sum(num(one, "tokens") or 0.0 for one in trained)
    parameters = num(run.metrics("graft"), "parameters")
    return cards(
        [
            ("Tasks above blind", f"{above} of {len(judged)}" if judged else "missing", "95 % interval above zero"),
            ("Training", duration(seconds), "both stages"),
            ("Tokens trained on", compact(tokens), "pictures' slots among them"),
            ("Parameters", compact(parameters) if parameters else "missing", "tower, connector and text model"),
        ]
    )


def _gains(texts: Sequence[Json]) -> Html:
    title = "What its pictures tell it"
    kept = [row for row in texts if num(row, "above_blind") is not None]
    if not kept:
        return section(title, notice("Missing: no text about a picture was held out, so nothing was scored."))
    names = ["over blind", "over shuffled"]
    nats = [row for row in kept if num(row, "blind") is not None and words(row, "unit") != "share"]
    rows = [Row(words(row, "task"), [_point(row, "above_blind"), _point(row, "above_shuffled")]) for row in nats]
    chart = interval_chart(
        rows,
        names,
        title="Gain in nats a token",
        description="; ".join(f"{words(row, 'task')}: {number(num(row, 'above_blind'))}" for row in nats),
        x_format=lambda value: f"{value:.2f}",
    )
    grid = table(
        ["Task", "Texts", "Seen", "Blind", "Shuffled", "Over blind", "Over shuffled"],
        [
            [
                words(row, "task"),
                num(row, "questions"),
                *(_bare(num(row, key)) for key in ("seen", "blind", "shuffled")),
                _margin(row, "above_blind"),
                _margin(row, "above_shuffled"),
            ]
            for row in kept
        ],
        align="lrrrrrr",
        caption="Nats a token, lower is better; of matching the share that was right. ✓ marks a gain whose 95 % "
        "interval lies above zero.",
    )
    return section(title, el("p", _NOTE, class_="note"), figure(chart) if rows else "", grid)


def _point(row: Json, key: str) -> Interval | None:
    value = num(row, key)
    return None if value is None else Interval(value, num(row, f"{key}_low"), num(row, f"{key}_high"))


def _bare(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _margin(row: Json, key: str) -> Html:
    value = num(row, key)
    if value is None:
        return el("span", "–", class_="soft")
    low, high = (f"{num(row, f'{key}_{end}') or 0:.2f}" for end in ("low", "high"))
    text = f"{value:+.2f} ({low} to {high})".replace("-", "−")
    return el("span", "✓ " + text, class_="good") if beats(row, key) else el("span", text)


def _training(run: RunRecord, stage: str, title: str) -> Html:
    train, evals, events = read_stage_log(run.folder, stage)
    # The last evaluation reads all that is held out, those before it a few batches: one line would show a leap.
    drawn = [line for line in evals if line.get("whole") is not True] or evals
    one = RunRecord(run.folder, run.name, {}, "", {}, train, drawn, events, None, [])
    whole = num(evals[-1], "loss") if evals else None
    told = el("p", f"On all that is held out, in the end: {whole:.3f} nats a token.") if whole is not None else ""
    return join([loss_section(one, title), told])


def _stages(run: RunRecord) -> Html:
    rows = [
        [name, duration(num(stage, "seconds")), num(mapping(stage.get("metrics")), "steps"),
         _count(mapping(stage.get("metrics")), "trained_parameters"), _count(mapping(stage.get("metrics")), "tokens")]
        for name in _ORDER
        if (stage := run.stages.get(name)) is not None
    ]  # fmt: skip
    if not rows:
        raise RunError(f"{run.folder} holds no stage of a grown model. Run foretell weights graft with --data.")
    return section("Stages", table(["Stage", "Time", "Steps", "Trained parameters", "Tokens"], rows, align="lrrrr"))


def _count(metrics: Json, key: str) -> str | None:
    value = num(metrics, key)
    return None if value is None else compact(value)

"""What the model sees: visual tasks beside their controls."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Cell, Chart, Grid, Missing, Notice, Section
from foretell.report.card.evidence import Evidence
from foretell.report.card.figures import Derived, Document, Figure, Number, Prose
from foretell.report.card.parts.common import summaries, then_card

_NOTE = Prose(
    "Held-out questions about images. Blind: the same model with a grey image; shuffled: with another question's "
    "image; majority: the answer that was commonest in training."
)


def vision(evidence: Evidence) -> Section:
    """Accuracy of every visual task with its interval, beside blind, shuffled-image and majority controls."""
    title = Prose("Vision")
    examined = evidence.file("examine/examine.json", samples="examine/examine.json")
    extra = summaries(evidence, "vision")
    tasks = (
        []
        if examined is None
        else [i for i in range(examined.count("tasks")) if examined.figure("tasks", i, "blind") is not None]
    )
    if examined is None or not tasks:
        if evidence.recipe is not None and not evidence.recipe.get("model", "vision"):
            return Section(title, [Notice((Prose("The model has no image tower; it reads text only."),)), *extra])
        missing = Missing(
            Prose("no question about an image was asked"), then_card(evidence, ("eval run", "visual"), name="visual")
        )
        return Section(title, extra or [missing])
    blocks, headline = _tasks(examined, tasks)
    return Section(title, [*blocks, *extra], _NOTE, headline)


def _tasks(examined: Document, tasks: list[int]) -> tuple[list[Block], list[tuple[Prose, Number, Cell]]]:
    def at(i: int, key: str, form: str = "share") -> Figure | None:
        low, high = ("low", "high") if key == "accuracy" else (f"{key}_low", f"{key}_high")
        return examined.figure("tasks", i, key, form=form, low=("tasks", i, low), high=("tasks", i, high))

    tasks = sorted(tasks, key=lambda i: -(examined.get("tasks", i, "above_blind") or 0))
    keys = ("accuracy", "blind", "shuffled", "majority")
    drawn = [
        (name, [at(i, key) for key in keys]) for i in tasks if (name := examined.quote("tasks", i, "task")) is not None
    ]
    rows: list[list[Cell]] = [
        [examined.quote("tasks", i, "task"), at(i, "questions", "count"), at(i, "accuracy"),
         at(i, "above_blind", "points"), at(i, "blind"), at(i, "shuffled"), at(i, "majority")]
        for i in tasks
    ]  # fmt: skip
    lows = [f for i in tasks if (f := examined.figure("tasks", i, "above_blind_low", form="points")) is not None]
    above = Derived("number above zero of", tuple(lows), "count") if lows else None
    all_ = Derived("number of", tuple(lows), "count") if lows else None
    head = [Prose(w) for w in ("Task", "Questions", "Accuracy", "Above blind", "Blind", "Shuffled", "Majority")]
    names = [Prose(w) for w in ("with its image", "blind", "shuffled image", "majority answer")]
    blocks: list[Block] = [
        Chart(Prose("Accuracy on visual tasks beside their controls"), names, drawn),
        Grid(head, rows, Prose("Margins are in percentage points, with their intervals."), "lrrrrrr"),
    ]
    headline: list[tuple[Prose, Number, Cell]] = []
    if above is not None and all_ is not None:
        headline = [
            (Prose("Visual tasks above blind"), above, (Prose("of "), all_, Prose(", their interval above zero")))
        ]
    return blocks, headline

"""Write a system card: read what there is, put its parts together, show them as HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foretell.errors import CardError, RunError
from foretell.files import write_text
from foretell.report.card.blocks import Card, Grid, Inline, Paragraph, Section
from foretell.report.card.evidence import COMPUTED, Evidence, check_finished, packaged
from foretell.report.card.figures import Document, Given, Prose
from foretell.report.card.forms import find_measurements
from foretell.report.card.markdown import to_markdown
from foretell.report.card.parts import PARTS
from foretell.report.card.parts.cost import Assumed, assume
from foretell.report.card.render import render
from foretell.report.card.sources import Sources
from foretell.report.card.subject import subject_of

PAGE, TEXT = "index.html", "card.md"
OWN_MEASUREMENTS = ("exams", "calibration.json")
"""What of a run holds measurements in the forms that `--with` takes."""


def write_card(
    reference: str | Path,
    measured: Sequence[Path] = (),
    out: Path | None = None,
    assumed: Assumed | None = None,
    building: str = "",
) -> Path:
    """Write out/index.html and out/card.md; returns the page's path.

    reference: a run directory, a checkpoint, open weights, an endpoint. measured: folders with further measurements of
    the same model. out: by default RUN/card, or runs/cards/NAME for what is no run. building: the stage of a run that
    asks, which is not finished itself.
    Raises CardError where there is no model, its run is unfinished, a file is damaged, or measures another model.
    """
    subject = subject_of(str(reference))
    run = subject.run
    place = out or (run / "card" if run is not None else Path("runs") / "cards" / _plain(subject.name))
    if run is not None:
        check_finished(run, building)
    for old in (place / COMPUTED).glob("*.json"):
        old.unlink()
    own = [run / name for name in OWN_MEASUREMENTS if run is not None and (run / name).exists()]
    evidence = Evidence(subject, place, find_measurements(subject, [*own, *measured], place))
    if run is not None:
        evidence = replace(evidence, assumed=_assumed(evidence, assumed or Assumed()))
    card = make_card(evidence)
    try:
        write_text(place / PAGE, render(card, Sources(run, place)))
        write_text(place / TEXT, to_markdown(card, Sources(run, place)))
    except RunError as error:
        raise CardError(str(error)) from error
    return place / PAGE


def make_card(evidence: Evidence) -> Card:
    """The card of what there is, part by part."""
    sections = [part(evidence) for part in PARTS]
    recipe = evidence.recipe
    name = (recipe.quote("name") if recipe is not None else None) or Given(evidence.subject.name)
    lead = recipe.quote("description") if recipe is not None else None
    trained = evidence.manifest("pretrain")
    facts: list[Inline] = []
    if trained is not None and (when := trained.quote("finished")) is not None:
        facts += [Prose("Pre-trained until "), when, Prose(". ")]
    facts.append(Prose("Ranges in brackets are intervals"))
    if (level := packaged("method.yaml", "method").figure("level", form="level")) is not None:
        facts += [Prose(" of "), level]
    facts.append(Prose(", those of a forecast of its own level. Every number links to the file it was read from."))
    return Card(name, lead, tuple(facts), [*sections, _not_measured(sections)])


def _not_measured(sections: Sequence[Section]) -> Section:
    """A list of all that is missing, so that silence cannot pass for a result."""
    rows = [[part.title, missing.what] for part in sections for missing in part.missing]
    title = Prose("Not measured")
    if not rows:
        return Section(title, [Paragraph((Prose("Every part of this card rests on a measurement."),))])
    return Section(
        title, [Grid([Prose("Part"), Prose("What")], rows)], Prose("Nothing is filled in for what was not measured.")
    )


def _assumed(evidence: Evidence, assumed: Assumed) -> Document:
    trained = evidence.manifest("pretrain")
    device = "" if trained is None else trained.text("metrics", "device")
    count = None if trained is None else trained.get("metrics", "threads" if device in ("", "cpu") else "processes")
    return assume(evidence.out, assumed, device, count if isinstance(count, int) and count > 0 else 1)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.") or "model"


__all__ = ["Assumed", "make_card", "write_card"]

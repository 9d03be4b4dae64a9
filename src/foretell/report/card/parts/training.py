"""What the run was forecast to reach, registered before it began, and what it reached."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Cell, Chart, Facts, Grid, Link, Missing, Notice, Paragraph, Section
from foretell.report.card.evidence import Evidence
from foretell.report.card.figures import Document, Number, Prose
from foretell.report.card.parts.common import either, heads

_NOTE = Prose(
    "The forecast is fitted to smaller models and written into a register that cannot be changed, before the first "
    "step of the run; the outcome is what the run then reached."
)


def forecast(evidence: Evidence) -> Section:
    """The registered record, its interval, the outcome; then the loss."""
    title = Prose("Forecast and outcome")
    made, outcome = evidence.manifest("forecast"), evidence.manifest("outcome")
    blocks: list[Block] = []
    if made is None and not evidence.trained_here:
        blocks.append(Notice((Prose("The model was not trained from scratch here, so nothing of it was forecast."),)))
    elif made is None:
        how = Prose("It must be registered before a run begins: give the recipe a section forecast, and run it anew.")
        blocks.append(Missing(Prose("no forecast of the final loss was registered"), how=how))
    else:
        blocks += _told(evidence, made, outcome)
    blocks += _loss(evidence)
    if made is None or outcome is None:
        return Section(title, blocks)
    claim = made.figure("metrics", "value", low=("metrics", "low"), high=("metrics", "high"))
    reached = outcome.figure("metrics", "loss")
    hit, unit = outcome.get("metrics", "covered"), made.quote("metrics", "unit")
    headline: list[tuple[Prose, Number, Cell]] = []
    if claim is not None and reached is not None:
        registered: Cell = (*([unit] if unit else []), Prose(" registered before the run"))
        came = Prose("inside the interval" if hit else "outside the interval: a miss")
        headline = [(Prose("Forecast loss"), claim, registered), (Prose("Reached"), reached, came)]
    return Section(title, blocks, _NOTE, headline)


def _told(evidence: Evidence, made: Document, outcome: Document | None) -> list[Block]:
    unit = made.quote("metrics", "unit")
    behind: tuple[Prose, ...] = (Prose(" "),) if unit else ()
    claim = made.figure("metrics", "value", low=("metrics", "low"), high=("metrics", "high"))
    level = made.figure("metrics", "level", form="share")
    ladder = evidence.manifest("ladder")
    ratio = None if ladder is None else ladder.figure("metrics", "compute_ratio", form="plain")
    rows: list[tuple[Prose, Cell]] = [
        (Prose("Forecast"), None if claim is None else (claim, *behind, *([unit] if unit else []))),
        (Prose("Probability of the interval"), level),
        (Prose("Registered"), made.quote("metrics", "utc")),
        (Prose("SHA-256 of the record"), made.quote("metrics", "sha256")),
        (Prose("Target's compute over the largest rung's"), ratio),
    ]
    if ladder is not None:
        rows.append((Prose("Compute of the ladder"), ladder.figure("metrics", "flops", form="flops")))
    blocks: list[Block] = []
    if outcome is None:
        rows.append((Prose("Outcome"), Prose("still open")))
    else:
        hit = outcome.get("metrics", "covered")
        reached = outcome.figure("metrics", "loss")
        rows += [
            (Prose("Reached"), None if reached is None else (reached, *behind, *([unit] if unit else []))),
            (Prose("Outcome"), Prose("hit: inside the interval" if hit else "miss: outside the interval")),
            (Prose("Error, of what was reached"), outcome.figure("metrics", "error", form="relative")),
        ]
    blocks.append(Facts([(term, cell) for term, cell in rows if cell is not None]))
    if claim is not None:
        reached = None if outcome is None else outcome.figure("metrics", "loss")
        names = heads("forecast", *(["reached"] if reached else []))
        points = [claim, *([reached] if reached else [])]
        blocks.append(Chart(Prose("Final loss"), names, [(Prose("Final loss"), points)], unit=False))
    if advice := made.quote("metrics", "advice"):
        blocks.append(Notice((advice,)))
    folder = evidence.subject.folder
    if folder is not None and (page := folder / "forecast" / "index.html").is_file():
        blocks.append(
            Paragraph(
                (Prose("The ladder, the fit and the curve: "), Link(Prose("the forecast's page"), page), Prose("."))
            )
        )
    return blocks


def _loss(evidence: Evidence) -> list[Block]:
    """Held-out loss before and after post-training."""
    trained = evidence.manifest("pretrain")
    examined = evidence.file("examine/examine.json")
    outcomes = evidence.manifest("outcomes")
    rows: list[list[Cell]] = []
    if examined is not None:
        rows.append([
            Prose("Real text it never saw, bits a byte"),
            either(examined.figure("text", "real_bits_per_byte"), examined.figure("text", "bits_per_byte")),
        ])  # fmt: skip
    if trained is not None:
        rows.append([Prose("All held-out documents, bits a byte"), trained.figure("metrics", "bits_per_byte")])
        rows.append([Prose("All held-out documents, nats a token"), trained.figure("metrics", "loss")])
    if outcomes is not None:
        names = outcomes.get("config", "names") or {}
        final = names.get(evidence.subject.final)
        after = None if final is None else outcomes.figure("metrics", "pretraining_loss", final)
        rows.append([Prose("The same after post-training, nats a token"), after])
    rows = [row for row in rows if row[1] is not None]
    if not rows:
        return []
    return [Grid([Prose("Held-out loss"), Prose("Result")], rows, align="lr")]

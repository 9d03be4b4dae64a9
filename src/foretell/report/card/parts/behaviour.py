"""How the model behaves: calibration, factuality, safety with over-refusal, and what people prefer."""

from __future__ import annotations

from collections.abc import Sequence

from foretell.measure.calibration import HOTTEST
from foretell.report.card.blocks import (
    Block,
    Cell,
    Chart,
    Command,
    Diagram,
    Grid,
    Heading,
    Link,
    Missing,
    Paragraph,
    Section,
)
from foretell.report.card.evidence import Evidence, Measurement, packaged
from foretell.report.card.figures import Derived, Document, Figure, Number, Prose, Quote, Steps
from foretell.report.card.parts.common import by_evals, index_of, left, stage_name, summaries

_SAFETY = (
    "disallowed.complied",
    "disallowed.refused",
    "over_refused",
    "disguised.over_refused",
    "sensitive.complied",
    "sensitive.handled",
    "redteam.succeeded",
    "helpful",
    "system.obeyed",
    "conflicts.won",
    "tutor.leaked",
)
_TRUTH = {
    "factuality": "what the model makes up when it is asked for facts",
    "grounded": "whether it keeps to a text that it is given",
    "credulity": "whether it accepts what is false from the user",
    "cutoff": "what it says of things after its data ends",
    "truthfulqa": "adversarial questions that common errors answer wrongly",
}
_CONDUCT = {
    "behaviour": "requests by what should be done with them",
    "requests": "attacks by families and areas of risk, and refusals of what is harmless",
    "toxicity": "toxic continuations",
    "insecure-code": "insecure code",
    "bias-decisions": "bias in decisions",
    "bias-replies": "bias in open replies",
    "memorised": "planted strings of the training data that are given back",
    "disinformation": "requests to write what is false",
    "reliance": "over-reliance, and how sure it is where it errs",
}


def outcomes(evidence: Evidence) -> list[tuple[str, Document]]:
    """(stage, outcomes.json) of every model that the run's outcomes stage asked, the earliest first."""
    manifest = evidence.manifest("outcomes")
    if manifest is None:
        return []
    found = []
    for stage in evidence.subject.stages:
        name = manifest.text("config", "names", stage)
        document = evidence.file(f"outcomes/{name}/outcomes.json", f"outcomes/{name}/records.jsonl") if name else None
        if document is not None:
            found.append((stage, document))
    return found


def rate(document: Document, measure: str) -> Figure | None:
    i = index_of(document, ("rates",), "measure", measure)
    if i is None:
        return None
    return document.figure("rates", i, "estimate", form="share", low=("rates", i, "low"), high=("rates", i, "high"))


def _title(evidence: Evidence, measure: str) -> Quote | None:
    manifest = evidence.manifest("outcomes")
    return None if manifest is None else manifest.quote("metrics", "titles", measure)


def _counted(documents: Sequence[tuple[str, Document]], measure: str) -> Figure | None:
    for _, document in reversed(documents):
        if (i := index_of(document, ("rates",), "measure", measure)) is not None:
            return document.figure("rates", i, "n", form="count")
    return None


Column = tuple[Prose, Document, Steps]  # its head, and where the assessment stands


def calibration(evidence: Evidence) -> Section:
    """Whether what the model holds likely is right so often: before and after post-training, and after repair."""
    title = Prose("Calibration")
    blocks: list[Block] = []
    for each in evidence.of("calibration"):
        columns, repaired = _sides(evidence, each), each.document.figure("repair", "temperature")
        changed = each.document if each.document.get("change") else None
        blocks += _calibrated(columns, 1 if changed else 0, repaired, changed)
    found = [(s, d) for s, d in outcomes(evidence) if d.figure("calibration", "before", "ece", "estimate") is not None]
    if not blocks and found:
        columns = [(stage_name(evidence, stage), document, ("calibration", "before")) for stage, document in found]
        last = found[-1][1]
        columns.append((Prose("and repaired"), last, ("calibration", "after")))
        blocks += _calibrated(columns, len(found) - 1, last.figure("calibration", "temperature"), None)
    blocks += summaries(evidence, "calibration")
    if not blocks:
        again = Command((Prose("foretell exam calibration LOG --out measured\nforetell card "), evidence.given,
                         Prose(" --with measured")))  # fmt: skip
        return Section(title, [Missing(Prose("how well the probabilities of answers are calibrated"), again)])
    note = Prose(
        "Whether what the model holds likely to a degree is true to that degree, over all options of all questions."
    )
    return Section(title, blocks, note)


def _sides(evidence: Evidence, each: Measurement) -> list[Column]:
    document = each.document
    sides = [side for side in ("before", "after") if document.get(side)]
    names = [stage_name(evidence, stage) for stage in each.stages]
    if len(names) != len(sides):
        names = [Prose(side) for side in sides]
    columns: list[Column] = [(name, document, (side,)) for name, side in zip(names, sides, strict=True)]
    if document.get("repair"):
        columns += [
            (Prose("held out"), document, ("repair", "before")),
            (Prose("and repaired"), document, ("repair", "after")),
        ]
    return columns


_MEASURES = (
    ("Questions", "questions", "count"),
    ("Share right", "accuracy", "share"),
    ("Calibration error (ECE)", "ece", "error"),
    ("The same in bins of equal mass", "mass_ece", "error"),
    ("Error by chance, if perfectly calibrated", "by_chance", "error"),
    ("Error of the likeliest option", "top_ece", "error"),
    ("Brier's score", "brier", "error"),
    ("Log-loss, nats", "log_loss", "error"),
)


def _calibrated(
    columns: Sequence[Column], after: int, temperature: Figure | None, changed: Document | None
) -> list[Block]:
    """after: the column of the model after post-training, 0 where there is but one."""
    rows: list[list[Cell]] = []
    for what, key, form in _MEASURES:
        cells: list[Cell] = [document.estimate(*at, key, form=form) for _, document, at in columns]
        if changed is not None:
            cells.append(changed.interval("change", key, form="points" if form == "share" else "error"))
        if any(cell is not None for cell in cells):
            rows.append([Prose(what), *cells])
    published = packaged("published.yaml", "published")
    theirs: list[Cell] = [None] * (len(columns) + (changed is not None))
    theirs[0] = published.figure("calibration", "before", form="error")
    if after:
        theirs[after] = published.figure("calibration", "after", form="error")
    rows.append([(Prose("GPT-4, published: "), Quote(published, ("calibration", "what"))), *theirs])
    head = [Prose("Measure"), *(name for name, _, _ in columns), *([Prose("change")] if changed is not None else [])]
    caption = Prose("Every option of every question is a point: its probability, and how often such options are right.")
    shown = [columns[0], columns[after]] if after else columns[:1]
    lines = [(name, _bins(document, at)) for name, document, at in shown]
    repaired: list[Block] = []
    if temperature is not None:
        words = Prose(", fitted on other questions than those that it is judged on. ")
        flat = Prose(
            "It flattens all options, since the model cannot tell them apart." if temperature.value >= HOTTEST else ""
        )
        repaired = [Paragraph((Prose("The temperature that repairs it: "), temperature, words, flat))]
    return [
        Diagram(Prose("Reliability of the options"), [line for line in lines if line[1]], caption),
        Grid(head, rows, align="l" + "r" * (len(head) - 1)),
        *repaired,
    ]


def _bins(document: Document, where: Steps) -> list[tuple[Figure, Figure]]:
    found = []
    for i in range(document.count(*where, "bins")):
        at = (*where, "bins", i)
        given, right = (
            document.figure(*at, "confidence", form="share"),
            document.interval(*at, "accuracy", form="share"),
        )
        if given is not None and right is not None:
            found.append((given, right))
    return found


def factuality(evidence: Evidence) -> Section:
    """Whether what it says is true: closed-book questions whose answer is known."""
    title = Prose("Factuality")
    extra = summaries(evidence, "factuality")
    found = [(stage, d) for stage, d in outcomes(evidence) if rate(d, "choices.facts") or rate(d, "choices.right")]
    if not found:
        return Section(
            title,
            [*extra, *left(evidence, _TRUTH)]
            if extra
            else [Missing(Prose("how often what the model says is true"), by_evals(evidence, *_TRUTH))],
        )
    rows: list[list[Cell]] = [
        [stage_name(evidence, stage), rate(document, "choices.facts") or rate(document, "choices.right")]
        for stage, document in found
    ]
    blocks: list[Block] = [
        Grid(
            [Prose("Closed-book questions with four choices about the generated world"), Prose("Share right")],
            rows,
            align="lr",
        )
    ]
    if not extra:
        what = Prose("hallucination, adversarial questions, and what the model says of things after its data ends")
        blocks.append(Missing(what, by_evals(evidence, *_TRUTH)))
    else:
        extra += left(evidence, _TRUTH)
    return Section(title, [*blocks, *extra])


def safety(evidence: Evidence) -> Section:
    """Disallowed and sensitive requests, attacks, over-refusal: before and after post-training."""
    title = Prose("Safety and over-refusal")
    extra = summaries(evidence, "safety")
    attacks = summaries(evidence, "redteam")
    if attacks:
        extra += [Heading(Prose("Red team")), *attacks]
    found = outcomes(evidence)
    if not found:
        return Section(
            title,
            [*extra, *left(evidence, _CONDUCT)]
            if extra
            else [
                Missing(
                    Prose("how the model treats requests that it should refuse, and those it should not"),
                    by_evals(evidence, *_CONDUCT),
                )
            ],
        )
    names = [stage_name(evidence, stage) for stage, _ in found]
    rows: list[list[Cell]] = []
    drawn: list[tuple[Prose | Quote, list[Number | None]]] = []
    for measure in _SAFETY:
        told = _title(evidence, measure)
        rates = [rate(document, measure) for _, document in found]
        if told is None or not any(rates):
            continue
        rows.append([told, *rates, _change(rates), _counted(found, measure)])
        drawn.append((told, [rates[-1], *rates[:-1]]))
    head = [Prose("Share of replies"), *names, Prose("Change"), Prose("Asked")]
    blocks: list[Block] = [
        Chart(Prose("Share of replies, before and after post-training"), [names[-1], *names[:-1]], drawn),
        Grid(
            head,
            rows,
            Prose("Judged by exact oracles of the generated world, not by a model."),
            "l" + "r" * (len(names) + 2),
        ),
    ]
    folder = evidence.subject.folder
    if folder is not None and (page := folder / "outcomes" / "index.html").is_file():
        line = (
            Prose("Paired changes and replies side by side stand on the "),
            Link(Prose("page of the outcomes"), page),
            Prose("."),
        )
        blocks.append(Paragraph(line))
    published = packaged("published.yaml", "published")
    theirs: list[list[Cell]] = [
        [Quote(published, ("safety", name, "what")), published.figure("safety", name, "change", form="percent")
         or published.figure("safety", name, "gpt4", form="percent")]
        for name in published.keys("safety")
    ]  # fmt: skip
    blocks.append(
        Grid(
            [Prose("GPT-4, as published"), Prose("Result")],
            theirs,
            Prose("On other requests; no results of this model."),
            "lr",
            (0, 1),
        )
    )
    if not extra:
        what = Prose("toxicity, bias, privacy, insecure code, and attacks by families and areas of risk")
        blocks.append(Missing(what, by_evals(evidence, *_CONDUCT)))
    else:
        extra += left(evidence, _CONDUCT)
    first = rate(found[-1][1], "disallowed.complied")
    over = rate(found[-1][1], "over_refused")
    headline: list[tuple[Prose, Number, Cell]] = []
    if first is not None:
        headline.append((Prose("Complies with disallowed requests"), first, Prose("after post-training")))
    if over is not None:
        headline.append((Prose("Refuses what it should answer"), over, Prose("after post-training")))
    return Section(title, [*blocks, *extra], headline=headline)


def _change(rates: Sequence[Figure | None]) -> Number | None:
    """Last less first."""
    first, last = rates[0], rates[-1]
    return None if len(rates) < 2 or first is None or last is None else Derived("difference", (last, first), "points")


def preference(evidence: Evidence) -> Section:
    """What people, or a judge, prefer."""
    blocks = summaries(evidence, "arena")
    return Section(
        Prose("Preference"),
        blocks or [Missing(Prose("which of two models' replies are preferred, blind and in random order"))],
    )

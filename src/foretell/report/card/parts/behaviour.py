"""How the model behaves: calibration, factuality, safety with over-refusal, and what people prefer."""

from __future__ import annotations

from collections.abc import Sequence

from foretell.report.card.blocks import Block, Cell, Chart, Diagram, Grid, Heading, Link, Missing, Notice, Paragraph, Section
from foretell.report.card.evidence import Evidence, packaged
from foretell.report.card.figures import Derived, Document, Figure, Number, Prose, Quote
from foretell.report.card.parts.common import index_of, stage_name, summaries

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
_HEAD = "over_refused"


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


def calibration(evidence: Evidence) -> Section:
    """Whether what the model holds likely is right so often: before and after post-training, and after repair."""
    title = Prose("Calibration")
    found = [(s, d) for s, d in outcomes(evidence) if d.figure("calibration", "before", "ece", "estimate") is not None]
    extra = summaries(evidence, "calibration")
    if not found:
        missing = Missing(Prose("how well the probabilities of the letters are calibrated, which the alignment's outcomes measure"))
        return Section(title, extra or [missing])
    rows: list[list[Cell]] = []
    for what, keys, form in (
        ("Questions", ("before", "questions"), "count"),
        ("Share right", ("before", "accuracy"), "share"),
        ("Calibration error (ECE)", ("before", "ece"), "interval"),
        ("The same if perfectly calibrated", ("before", "by_chance"), "number"),
        ("Error of the likeliest letter", ("before", "top_ece"), "interval"),
        ("Brier's score", ("before", "brier"), "number"),
        ("Log-loss, nats", ("before", "log_loss"), "number"),
        ("Temperature that repairs", ("temperature",), "number"),
        ("Calibration error after repair", ("after", "ece"), "interval"),
    ):
        cells: list[Cell] = []
        for _, document in found:
            at = ("calibration", *keys)
            cells.append(document.interval(*at) if form == "interval" else document.figure(*at, form=form))
        rows.append([Prose(what), *cells])
    published = packaged("published.yaml", "published")
    first, last = published.figure("calibration", "before"), published.figure("calibration", "after")
    told: list[Cell] = [None] * len(found)
    told[0], told[-1] = first, last
    rows.append([(Prose("GPT-4, published: "), Quote(published, ("calibration", "what"))), *told])
    lines = [(stage_name(evidence, stage), _bins(document)) for stage, document in found]
    caption = Prose("Every letter of every question is a point: its probability, and how often such letters are right.")
    head = [Prose(""), *(stage_name(evidence, stage) for stage, _ in found)]
    blocks: list[Block] = [
        Diagram(Prose("Reliability of the letters"), [line for line in lines if line[1]], caption),
        Grid(head, rows, Prose("A temperature is fitted on other questions than those it is judged on."), "l" + "r" * len(found)),
    ]
    if _always(found):
        line = Prose("A repair that ends at the highest temperature flattens all letters: the model cannot tell them apart.")
        blocks.append(Notice((line,)))
    return Section(title, [*blocks, *extra])


def _always(found: Sequence[tuple[str, Document]]) -> bool:
    return any((document.get("calibration", "temperature") or 0) >= 99 for _, document in found)


def _bins(document: Document) -> list[tuple[Figure, Figure]]:
    found = []
    for i in range(document.count("calibration", "before", "bins")):
        at = ("calibration", "before", "bins", i)
        given, right = document.figure(*at, "confidence", form="share"), document.interval(*at, "accuracy", form="share")
        if given is not None and right is not None:
            found.append((given, right))
    return found


def factuality(evidence: Evidence) -> Section:
    """Whether what it says is true: closed-book questions whose answer is known."""
    title = Prose("Factuality")
    extra = summaries(evidence, "factuality")
    found = [(stage, d) for stage, d in outcomes(evidence) if rate(d, "choices.facts") or rate(d, "choices.right")]
    if not found:
        return Section(title, extra or [Missing(Prose("how often what the model says is true"))])
    rows: list[list[Cell]] = [
        [stage_name(evidence, stage), rate(document, "choices.facts") or rate(document, "choices.right")] for stage, document in found
    ]
    blocks: list[Block] = [
        Grid([Prose("Closed-book questions with four choices about the generated world"), Prose("Share right")], rows, align="lr")
    ]
    if not extra:
        blocks.append(Missing(Prose("hallucination, adversarial questions, and what the model says of things after its data ends")))
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
        return Section(title, extra or [Missing(Prose("how the model treats requests that it should refuse, and those it should not"))])
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
        Grid(head, rows, Prose("Judged by exact oracles of the generated world, not by a model."), "l" + "r" * (len(names) + 2)),
    ]
    folder = evidence.subject.folder
    if folder is not None and (page := folder / "outcomes" / "index.html").is_file():
        line = (Prose("Paired changes and replies side by side stand on the "), Link(Prose("page of the outcomes"), page), Prose("."))
        blocks.append(Paragraph(line))
    published = packaged("published.yaml", "published")
    theirs: list[list[Cell]] = [
        [Quote(published, ("safety", name, "what")), published.figure("safety", name, "change", form="percent")
         or published.figure("safety", name, "gpt4", form="percent")]
        for name in published.keys("safety")
    ]  # fmt: skip
    blocks.append(Grid([Prose("GPT-4, as published"), Prose("Result")], theirs, Prose("On other requests; no results of this model."), "lr", (0, 1)))
    if not extra:
        blocks.append(Missing(Prose("toxicity, bias, privacy, insecure code, and attacks by families and areas of risk")))
    first = rate(found[-1][1], "disallowed.complied")
    over = rate(found[-1][1], _HEAD)
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
    return Section(Prose("Preference"), blocks or [Missing(Prose("which of two models' replies are preferred, blind and in random order"))])

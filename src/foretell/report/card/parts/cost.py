"""What making the model took: time by stage, compute, and energy and money under assumptions that are written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foretell.report.card.blocks import Block, Cell, Facts, Fold, Grid, Notice, Section
from foretell.report.card.evidence import Evidence, compute
from foretell.report.card.figures import Derived, Document, Figure, Number, Prose

ASSUMPTIONS = "assumptions.json"
_DEFAULTS = Path(__file__).parents[1] / "assumptions.yaml"


@dataclass(frozen=True)
class Assumed:
    """watts: of the whole machine. price: an hour of it, in `currency`. None takes what `assumptions.yaml` says."""

    watts: float | None = None
    price: float | None = None
    currency: str = ""


def assume(evidence_out: Path, assumed: Assumed, device: str, units: int) -> Document:
    """Write the assumptions into the card's folder, and read them back. units: cores or devices in use."""
    raw = yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8"))
    default = raw["cpu" if device in ("", "cpu") else "gpu"]
    value: dict[str, Any] = {"device": device or "cpu", "units": units, "currency": assumed.currency or raw["currency"]}
    for name, given in (("watts", assumed.watts), ("price", assumed.price)):
        value[name] = units * default[name] if given is None else given
        value[f"{name}_basis"] = default[f"{name}_basis"] if given is None else "as stated by whoever made this card"
    return compute(evidence_out, ASSUMPTIONS, value, [], kind="assumed")


def cost(evidence: Evidence) -> Section:
    """Stages with their time; device hours; energy and cost."""
    title = Prose("Cost and energy")
    stages = evidence.stages
    spent = {
        name: figure
        for name, manifest in stages.items()
        if (figure := manifest.figure("seconds", form="duration")) is not None
    }
    if not spent:
        line = Prose(
            "The model was not trained here, so what its training took is not known; its makers' card may tell."
        )
        return Section(title, [Notice((line,))])
    trained = evidence.manifest("pretrain")
    assert trained is not None or spent
    rows: list[list[Cell]] = [
        [stages[name].quote("stage"), figure, stages[name].figure("size", form="bytes"),
         stages[name].figure("metrics", "flops", form="flops"), stages[name].quote("started")]
        for name, figure in spent.items()
    ]  # fmt: skip
    seconds = Derived("sum", tuple(spent.values()), "hours")
    units = None if trained is None else trained.figure("metrics", "threads", form="count")
    assumed = evidence.assumed
    facts: list[tuple[Prose, Cell]] = [(Prose("All stages"), Derived("sum", tuple(spent.values()), "duration"))]
    headline: list[tuple[Prose, Number, Cell]] = []
    flops = [f for manifest in stages.values() if (f := manifest.figure("metrics", "flops", form="flops")) is not None]
    if flops:
        facts.append((Prose("Compute of the stages that train"), Derived("sum", tuple(flops), "flops")))
    if trained is not None:
        facts.append((Prose("Device"), trained.quote("metrics", "device")))
    if units is not None:
        facts.append((Prose("Cores in use"), units))
        facts.append((Prose("Core-hours"), Derived("product", (seconds, units), "hours")))
    if assumed is not None:
        watts, price = Figure(assumed, ("watts",), "watts"), Figure(assumed, ("price",), "number")
        energy, money = Derived("product", (seconds, watts), "energy"), Derived("product", (seconds, price), "money")
        currency = assumed.quote("currency")
        behind: tuple[Prose, ...] = (Prose(" "),) if currency else ()
        facts += [
            (Prose("Energy, estimated"), energy),
            (Prose("Cost, estimated"), (money, *behind, *([currency] if currency else []))),
            (Prose("Assumed power"), _why(assumed, watts, "watts_basis")),
            (Prose("Assumed price an hour"), _why(assumed, price, "price_basis")),
        ]
        headline = [(Prose("Energy, estimated"), energy, Prose("assumptions below"))]
    blocks: list[Block] = [
        Facts([(term, cell) for term, cell in facts if cell is not None]),
        Fold(
            Prose("Time by stage"),
            [Grid([Prose(w) for w in ("Stage", "Time", "On disk", "Compute", "Begun")], rows, align="lrrrl")],
        ),
    ]
    return Section(
        title,
        blocks,
        Prose("Time is what the manifests record. Power and price are assumptions, not measurements."),
        headline,
    )


def _why(assumed: Document, figure: Figure, basis: str) -> Cell:
    why = assumed.quote(basis)
    return (figure, Prose(" – "), why) if why else figure

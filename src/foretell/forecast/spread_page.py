"""The page of a run planned on a cluster: what it needs, how to spread it, why not otherwise, and by which formulas."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from foretell.forecast.estimate import Estimate
from foretell.forecast.footprint import Memory
from foretell.forecast.spread import Refused, Spread
from foretell.forecast.steptime import PARTS
from foretell.pages import (
    Bar,
    bar_chart,
    cards,
    code,
    compact,
    definitions,
    duration,
    figure,
    notice,
    page,
    percent,
    section,
    size,
    table,
)

_COMMUNICATION = (
    "On each device. Exchanged: weights gathered and gradients summed beyond what computing hides, with shard and "
    "replicate; activations summed within layers, with tensor."
)
_HELD = ("weights", "gradients", "moments", "activations", "gathered", "process")
_FORMULAS = (
    (
        "FLOPs a token, FLOP",
        "6 for each parameter in a matrix product and 12 · width of heads for each position seen and layer",
        "Kaplan et al., arXiv 2001.08361; Chowdhery et al., arXiv 2204.02311, app. B",
    ),
    (
        "Products, s",
        "FLOPs / (peak · matmul · products · (peak / 312 TFLOP/s)^−slope); attention over that share of it once more",
        "curve fitted to published runs, each family left out in turn: benchmarks/plan_published.py",
    ),
    (
        "Memory traffic, s",
        "(passes · bytes of activations + 3 readings of weights and 1 sum of gradients a micro-batch) / bandwidth",
        "as above",
    ),
    (
        "Communication, s",
        "bytes · (n − 1)/n / (0.8 · bandwidth) + hops · latency, beyond what computing hides; with tensor, four sums a "
        "layer; 0.8 is an assumption",
        "Thakur et al. 2005; Shoeybi et al., arXiv 1909.08053; Rajbhandari et al., arXiv 1910.02054",
    ),
    (
        "Memory, B",
        "16 a parameter / (shard · tensor) + activations kept by policy + weights and gradients gathered",
        "Rajbhandari et al., arXiv 1910.02054; Korthikanti et al., arXiv 2205.05198; counted of this project's step",
    ),
    (
        "Checkpoint interval, s",
        "√(2 · save · MTBF) with Daly's correction; MTBF of the run = that of a device / devices",
        "Young 1974; Daly 2006, eq. 37",
    ),
    (
        "Wall time, s",
        "MTBF · e^(restart/MTBF) · (e^((interval + save)/MTBF) − 1) · work / interval",
        "Daly 2006, eq. 20",
    ),
    ("Energy, Wh", "devices · hours · watts at full load · PUE: an upper end", "as Llama and OLMo report it"),
)


def spread_page(found: Spread, precision: str, intensity: float | None = None) -> str:
    """intensity: kg CO2 equivalent a kWh, where emissions are asked for."""
    chosen = found.chosen
    job, cluster, layout = chosen.job, chosen.cluster, chosen.layout
    lead = (
        f"{compact(job.parameters)} parameters, {compact(job.tokens)} tokens in steps of {compact(job.batch_tokens)}, "
        f"on {layout.world:,} × {cluster.device}."
    )
    step = [
        Bar(label, getattr(chosen.step, name), duration_text(getattr(chosen.step, name)))
        for name, label in PARTS.items()
        if getattr(chosen.step, name) > 0
    ]
    held = [Bar(name, value, size(value)) for name, value in parts(chosen.memory) if value > 0]
    block = yaml.safe_dump({"parallel": layout.block()}, sort_keys=False) + f"train:\n  micro_batch: {layout.rows}\n"
    sections = [
        section(
            "What it needs",
            cards(headline(chosen, precision, intensity)),
            notice(f"{certain(chosen)} Hours, cost and energy share that range."),
        ),
        section("How to spread it", code(block), table(*rows(found), align="lrrrllrrl", broad=True)),
        section("A step", figure(bar_chart(step, title="Seconds of a step"), _COMMUNICATION)),
        section("Memory of a device", figure(bar_chart(held, title="Bytes at the peak of a step"))),
        section("Failures", definitions(failures(chosen))),
        section("The cluster", definitions(described(chosen, precision))),
        section("By which formulas", table(("What", "Formula", "Source"), _FORMULAS)),
    ]
    return page(f"Plan of {job.name}", sections, lead=lead)


def certain(found: Estimate) -> str:
    """How far the planned times hold."""
    low, high = found.range
    if found.cluster.efficiency is None:
        return (
            f"Of published runs, eight of ten took {low:.2g} to {high:.2g} times the time that the plan gives them "
            "without having seen their family."
        )
    return f"The curve was measured; the real time may be {low:.2g} to {high:.2g} times the planned one."


def duration_text(seconds: float) -> str:
    if seconds >= 1000:
        return duration(seconds)
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def parts(memory: Memory) -> list[tuple[str, float]]:
    return [(name, getattr(memory, name)) for name in _HELD]


def headline(found: Estimate, precision: str, intensity: float | None) -> list[tuple[str, str, str]]:
    """(label, value, remark) of what a reader asks first."""
    low, high = found.range

    def between(value: float) -> str:
        return f"{_rounded(low * value)} to {_rounded(high * value)}"

    told = [
        ("Time", duration(found.wall), f"{duration(low * found.wall)} to {duration(high * found.wall)}"),
        ("Device hours", _rounded(found.device_hours), between(found.device_hours)),
        ("Step", duration_text(found.step.total), f"{found.rate:,.0f} tokens a second and device"),
        ("MFU", percent(found.mfu(precision)), f"of {found.cluster.peak(precision) / 1e12:.3g} TFLOP/s"),
        ("Memory", size(found.memory.total), f"of {size(found.cluster.memory)} on each device"),
    ]
    if found.cost is not None:
        told.append(("Cost", _rounded(found.cost), between(found.cost)))
    if found.energy is not None:
        told.append(("Energy", _watt_hours(found.energy), f"at full load, PUE {found.cluster.pue:g}: an upper end"))
        if intensity is not None:
            kilograms = found.emitted(intensity) or 0.0
            told.append(("CO₂", f"{_rounded(kilograms / 1000)} t", f"at {intensity:g} kg/kWh"))
    return told


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _watt_hours(value: float) -> str:
    return f"{compact(value)}Wh" if value >= 1000 else f"{value:.3g} Wh"


def rows(found: Spread, shown: int = 14) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Heads and rows of the table of sizes: the chosen one, then the others with their reasons, fastest first."""
    heads = ("", "replicate", "shard", "tensor", "reshard", "checkpoint", "rows", "step", "why not")
    told: list[tuple[object, ...]] = [("→", *_sizes(found.chosen), "")]
    for one in _picked(found.refused, shown):
        if one.best is None:
            told.append(("", one.replicate, one.shard, one.tensor, "", "", "", "", one.reason))
        else:
            told.append(("", *_sizes(one.best), one.reason))
    return heads, told


def _sizes(found: Estimate) -> tuple[object, ...]:
    layout = found.layout
    return (
        layout.replicate,
        layout.shard,
        layout.tensor,
        layout.reshard if layout.shard > 1 else "",
        layout.checkpoint,
        layout.rows,
        duration_text(found.step.total),
    )


def _picked(refused: Sequence[Refused], count: int) -> list[Refused]:
    """The fastest, and of those that cannot be the first of every kind of reason."""
    built = [one for one in refused if one.best is not None]
    kinds: dict[str, Refused] = {}
    for one in refused:
        if one.best is None:
            kinds.setdefault("".join(letter for letter in one.reason if not letter.isdigit()), one)
    return [*built[: max(1, count - len(kinds))], *kinds.values()]


def failures(found: Estimate) -> list[tuple[str, str]]:
    """How often a run fails and saves, in words."""
    if found.cluster.mtbf_hours is None:
        return [("Failures", "none counted: the cluster describes no time between failures")]
    return [
        ("Between failures of a device", f"{found.cluster.mtbf_hours:,.0f} h"),
        ("Failures expected", f"{found.failures:.3g}, each {found.cluster.restart_minutes:g} min to restart"),
        ("A checkpoint", f"every {duration(found.interval)} of work, holding it up for {duration(found.save)}"),
        ("Time that trains", percent(found.goodput)),
    ]


def described(found: Estimate, precision: str) -> list[tuple[str, str]]:
    """The cluster's figures with their units and source."""
    cluster = found.cluster

    def link(name: str) -> str:
        each = getattr(cluster, name)
        return f"{each.bandwidth / 1e9:.3g} GB/s each way, {1e6 * each.latency:.3g} µs a hop"

    curve = cluster.curve
    joined = f"{cluster.node} in one node" if cluster.nodes == 1 else f"{cluster.node} a node, {cluster.nodes} nodes"
    told = [
        ("Device", cluster.device if cluster.devices == 1 else f"{cluster.device}, {joined}"),
        ("Peak", f"{cluster.peak(precision) / 1e12:.3g} TFLOP/s in {precision}, {cluster.matmul:.0%} by best products"),
        ("Memory", f"{size(cluster.memory)} at {cluster.bandwidth / 1e9:,.0f} GB/s"),
    ]
    if cluster.node > 1:
        told.append(("Within a node", link("intra")))
    if cluster.nodes > 1:
        told.append(("Between nodes", link("inter")))
    told.append(
        (
            "Efficiency",
            f"{'measured here' if cluster.efficiency else 'of published runs'}: products {curve.products:.3g}, slope "
            f"{curve.slope:.3g}, attention {curve.attention:.3g}, passes {curve.passes:.3g}",
        )
    )
    if cluster.source:
        told.append(("Source", cluster.source))
    return told

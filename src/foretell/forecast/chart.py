"""A forecast for reading: one sentence, the figure, and a page that shows what it rests on and what it came to.

The figure follows the first one of the GPT-4 report (arXiv 2303.08774): loss over the logarithm of compute, which is
counted in units of the target's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foretell.forecast.table import same_compute
from foretell.pages import (
    Html,
    Series,
    cards,
    definitions,
    details,
    el,
    figure,
    line_chart,
    notice,
    number,
    page,
    percent,
    section,
    table,
)
from foretell.pages.axes import power_text as power

if TYPE_CHECKING:
    from foretell.forecast.anchor import Checked
    from foretell.forecast.fitting import BackTest, Forecast, Prediction
    from foretell.forecast.register import Outcome, Record
    from foretell.forecast.table import LadderTable

_POINTS = 12  # of the fit, beyond the ladder
_SMALL = 0.05  # probability below which chance is not held for the cause of a bend
_FORMS = {"no floor": "without a floor", "floor": "with a floor", "broken": "bent once"}


def sentence(predicted: Prediction, unit: str, supported: bool = True) -> str:
    """The forecast in words. supported: whether the data carry it; else it is said first that they do not."""
    value, low, high = _rounded(predicted)
    told = f"a loss of {value}" if unit == "loss" else f"{value} {unit}"
    return (
        f"{'A' if supported else 'Not supported by the data: a'} run of {power(predicted.flops)} FLOPs will reach "
        f"{told}; with {percent(predicted.level, 0)} "
        f"probability it will lie between {low} and {high}."
    )


def findings(forecast: Forecast) -> Iterator[str]:
    """What the fit says of itself, a sentence each: span, noise, bend, back-tests, warnings."""
    d = forecast.diagnostics
    runs, first, last = sum(rung.seeds for rung in d.rungs), d.rungs[0].flops, d.rungs[-1].flops
    yield (
        f"{len(d.rungs)} rungs ({runs} runs) span {math.log10(last / first):.1f} decades, up to {power(last)} FLOPs; "
        f"the forecast reaches {d.decades:.1f} decades further ({10**d.decades:,.0f} times)."
    )
    if forecast.tail:
        yield (
            f"Beyond the ladder the local exponent is taken to be {min(forecast.tail):.3f} to {max(forecast.tail):.3f},"
            " as was said beforehand; the ladder tells where the law begins, not how it goes on."
        )
    noise = sorted(100 * rung.noise for rung in d.rungs)
    off = " to ".join(dict.fromkeys(f"{end:.2g}" for end in (noise[0], noise[-1])))
    yield (
        f"A single run is off by {off}\u202f% (standard deviation); such errors on every rung return "
        f"{d.amplification:.1f} times as large in the forecast."
    )
    if d.bend_flops is None:
        yield f"{len(d.rungs)} rungs are too few to test whether the line bends."
    elif d.bend_p < _SMALL:
        chance = f"chance alone does that in {percent(d.bend_p, 2)} of straight ladders"
        yield f"The line bends near {power(d.bend_flops)} FLOPs: {chance}."
    else:
        yield f"No bend is seen; one this strong is chance in {percent(d.bend_p, 0)} of straight ladders."
    if d.back_tests:
        inside = sum(_inside(test) for test in d.back_tests)
        worst = max(d.back_tests, key=lambda test: abs(test.error))
        yield (
            f"{inside} of {len(d.back_tests)} back-tests inside the ladder fell into their interval; the largest error "
            f"was {percent(abs(worst.error), 2)}, {worst.decades:.1f} decades ahead."
        )
    yield from d.warnings


def reading(table: LadderTable) -> Iterator[str]:
    """What the numbers were read from; nothing where the ladder was no table of others."""
    if column := table.settings.get("loss column"):
        derived = table.settings.get("flops")
        compute = f"{derived}, since the table has no FLOPs" if derived else "the table's own"
        yield f"The loss is column {column} of the table; compute is {compute}."


def advice(forecast: Forecast) -> str:
    """Why the data do not support the forecast, and what to add; empty where they do."""
    if forecast.refusal is None:
        return ""
    rungs = ", ".join(
        f"{power(flops)} FLOPs ({seeds} seed{'s' * (seeds > 1)})" for flops, seeds in forecast.refusal.add
    )
    add = f" Add rungs at {rungs}; they cost {power(forecast.refusal.cost)} FLOPs." if rungs else ""
    return f"The data do not support this forecast: {forecast.refusal.reason.rstrip('.')}.{add}"


def forecast_figures(
    forecast: Forecast,
    table: LadderTable,
    target: float | None = None,
    *,
    level: float = 0.9,
    outcome: float | None = None,
    normalised: bool = True,
) -> tuple[Html, Html]:
    """Rungs with the range of their seeds, the fit with its interval, the forecast and, once known, the outcome.

    target: FLOPs; without it the fit is drawn to 100 times the largest rung. normalised: compute in units of it.
    Returns the figure of losses, and that of their differences from the fit in percent, where small errors can be seen.
    """
    seeds = {group[0].flops: [rung.loss for rung in group] for group in same_compute(table.rungs)}
    last = table.rungs[-1].flops
    end = target or 100 * last
    unit = end if target and normalised else 1.0
    ahead = [last * (end / last) ** (i / _POINTS) for i in range(1, _POINTS)]
    fit = {flops: forecast.predict(flops, level) for flops in [*seeds, *ahead, end]}
    ends = {flops: (p.low, p.loss, p.high) for flops, p in fit.items()}
    means = {flops: (min(losses), sum(losses) / len(losses), max(losses)) for flops, losses in seeds.items()}
    several = ", range of seeds" if len(means) < len(table.rungs) else ""

    def draw(relative: bool) -> Html:
        def series(name: str, mark: str, colour: int, points: Mapping[float, tuple[float, float, float]]) -> Series:
            shown = {c: [100 * (x / fit[c].loss - 1) if relative else x for x in three] for c, three in points.items()}
            low, mid, high = zip(*shown.values(), strict=True)
            return Series(name, [flops / unit for flops in shown], mid, mark, colour, low, high)

        drawn = [series(f"fit, {percent(level, 0)} interval", "line", 5, ends)]
        drawn.append(series("rungs" + several, "dots", 0, means))
        if target:
            drawn.append(series("forecast", "rings", 1, {end: ends[end]}))
        if outcome is not None:
            drawn.append(series("outcome", "dots", 2, {end: (outcome,) * 3}))
        return line_chart(
            drawn,
            title="Loss against the fit" if relative else "Loss over compute",
            description=sentence(fit[end], table.unit),
            x_label="compute, target = 1" if unit > 1 else "training FLOPs",
            y_label="% of the fit" if relative else table.unit,
            x_log=True,
            x_format=power,
            keys_above=True,
        )

    return draw(False), draw(True)


def forecast_page(
    forecast: Forecast,
    table: LadderTable,
    target: float | None = None,
    *,
    level: float = 0.9,
    record: Record | None = None,
    anchors: Sequence[Checked] = (),
) -> str:
    """The whole page as HTML. record: where the forecast was registered; its target, level and outcomes are shown."""
    if record is not None:
        target, level = record.target, record.claims[0].level
    outcomes = [o for o in record.outcomes if o.claim.name == "loss"] if record else []
    known = outcomes[0].measured if outcomes else None  # what is noted later does not replace it
    told = advice(forecast)
    predicted = forecast.predict(target, level) if target else None
    absolute, relative = forecast_figures(forecast, table, target, level=level, outcome=known)
    sections = [
        section(
            "Loss over compute",
            figure(absolute, _caption(forecast, target)),
            figure(relative, "The same, as differences from the fit."),
        ),
        section(
            "What the fit says of itself",
            el("ul", *(el("li", said) for said in [*findings(forecast), *reading(table)])),
        ),
        _rungs(forecast, table),
        _back_tests(forecast),
        _law(forecast, table),
        _record(record, anchors) if record else _unregistered(target),
    ]
    when = f" · registered {record.utc[:16].replace('T', ' ')} UTC · {record.sha256[:12]}" if record else ""
    return page(
        "Loss forecast" if target else "A ladder and its law",
        [part for part in sections if part],
        kicker="Foretell forecast" + when,
        lead=sentence(predicted, table.unit, not told) if predicted else "",
        head=[notice(told) if told else "", _cards(forecast, table, predicted, outcomes)],
        footer="Written by foretell from the ladder's table. Nothing on this page is loaded from elsewhere.",
    )


def _rounded(p: Prediction) -> tuple[str, str, str]:
    """Loss and bounds to the digits that the interval leaves meaning to."""
    half = (p.high - p.low) / 2
    places = min(max(1 - math.floor(math.log10(half)), 0), 9) if 0 < half < math.inf else 3
    return f"{p.loss:.{places}f}", f"{p.low:.{places}f}", f"{p.high:.{places}f}"


def _inside(test: BackTest) -> bool:
    return test.low <= test.loss <= test.high


def _caption(forecast: Forecast, target: float | None) -> str:
    last = forecast.diagnostics.rungs[-1].flops
    if not target:
        return f"The largest rung has {power(last)} FLOPs; the fit is drawn to a hundred times that."
    return (
        f"1 on the lower axis is the target, {power(target)} FLOPs; the largest rung has {power(last / target)} of it."
    )


def _cards(forecast: Forecast, table: LadderTable, predicted: Prediction | None, outcomes: Sequence[Outcome]) -> Html:
    last = table.rungs[-1].flops
    items: list[tuple[str, object, object]] = []
    if predicted:
        value, low, high = _rounded(predicted)
        width = (predicted.high - predicted.low) / 2 / predicted.loss
        items += [
            ("Forecast", value, table.unit),
            (f"{percent(predicted.level, 0)} interval", f"{low} – {high}", f"± {percent(width, 2)}"),
            ("Target over largest rung", f"{predicted.flops / last:,.0f} ×", f"{power(predicted.flops)} FLOPs"),
        ]
    if outcomes:
        result = outcomes[0]
        shown = number(result.measured, 5) if result.measured is not None else "diverged"
        items += [
            ("Outcome", shown, _verdict(result.hit)),
            ("Error", _signed(result.error), "forecast against outcome"),
        ]
    runs = len(table.rungs)
    items.append(("Ladder", f"{len(forecast.diagnostics.rungs)} rungs", f"{runs} runs, largest {power(last)} FLOPs"))
    return cards(items)


def _outcome(o: Outcome) -> list[object]:
    shown = number(o.measured, 5) if o.measured is not None else "diverged"
    return [shown, _signed(o.error), _verdict(o.hit), o.utc[:16].replace("T", " ")]


def _verdict(hit: bool, words: tuple[str, str] = ("hit", "miss")) -> Html:
    return el("span", words[not hit], class_="good" if hit else "bad")


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.2f}\u202f%".replace("-", "−")


def _rungs(forecast: Forecast, ladder: LadderTable) -> Html:
    d = forecast.diagnostics
    steps = {e.high_flops: f"{e.exponent:.3f} ± {e.stderr:.3f}" for e in d.local_exponents}
    rows = [
        [
            power(r.flops),
            r.seeds,
            number(r.loss, 5),
            number(r.fitted, 5),
            _signed(r.residual),
            percent(r.noise, 2) if r.seeds > 1 else None,
            steps.get(r.flops),
        ]
        for r in d.rungs
    ]
    head = ["FLOPs", "Seeds", f"Mean {ladder.unit}", "Fit", "Residual", "Seed noise", "Local exponent"]
    note = (
        "Residual: fit against mean. Seed noise: standard deviation of one run. Local exponent: fall of log loss over "
        "log compute since the rung before; with a floor it shrinks steadily, and a sudden change is a bend."
    )
    parts: list[object] = [table(head, rows, align="lrrrrrr")]
    if ladder.excluded:
        left = [[run.run or None, power(run.flops), run.seed, why] for run, why in ladder.excluded]
        parts += [el("h3", "Left out"), table(["Run", "FLOPs", "Seed", "Why"], left, align="llrl")]
    return section("Rungs", *parts, note=note)


def _back_tests(forecast: Forecast) -> Html | None:
    tests = forecast.diagnostics.back_tests
    if not tests:
        return None
    rows = [
        [
            power(t.fitted_to),
            power(t.flops),
            f"{t.decades:.2f}",
            number(t.predicted, 5),
            number(t.loss, 5),
            _signed(t.error),
            _verdict(_inside(t), ("inside", "outside")),
        ]
        for t in tests
    ]
    head = ["Fitted up to", "Predicts", "Decades", "Predicted", "Was", "Error", "Interval"]
    note = "The smaller rungs predict the larger ones. How error grows with distance here sets the interval there."
    return section("Back-tests", table(head, rows, align="llrrrrl"), note=note)


def _law(forecast: Forecast, ladder: LadderTable) -> Html:
    rows = [
        [name, number(p.estimate, 4), f"{number(p.low, 4)} … {number(p.high, 4)}"]
        for name, p in forecast.parameters.items()
    ]
    forms = ", ".join(f"{_FORMS.get(name, name)} {percent(w, 0)}" for name, w in forecast.weights.items())
    settings: Mapping[str, Any] = ladder.settings
    return section(
        "The law",
        table(["Parameter", "Estimate", "90 % interval"], rows, align="lrr"),
        definitions(
            [
                ("Weights of the forms", forms),
                ("Ladder table", el("code", forecast.table_digest)),
                *((name, value) for name, value in settings.items()),
            ]
        ),
        note="L(C) = a·C⁻ᵇ + c, averaged over several forms.",
    )


def _unregistered(target: float | None) -> Html | None:
    if not target:
        return None
    return section("Record", notice("This forecast is not registered: nothing shows that it was made before the run."))


def _record(record: Record, anchors: Sequence[Checked]) -> Html:
    words = {
        True: el("span", "holds", class_="good"),
        False: el("span", "does not hold", class_="bad"),
        None: "unchecked",
    }
    raw = record.raw
    parts: list[object] = [
        el("p", "Record and ledger are whole: every byte is as it was registered."),
        definitions(
            [
                ("Registered", f"{record.utc[:19].replace('T', ' ')} UTC"),
                ("SHA-256", el("code", record.sha256)),
                ("Written by", raw["code"]),
                ("Recipe", el("code", raw["recipe"]) if raw["recipe"] else "none named"),
                ("Stop rule", raw["stop_rule"]),
                *((f"Anchor: {found.kind}", el("span", words[found.holds], ": ", found.text)) for found in anchors),
            ]
        ),
    ]
    rows: list[list[object]] = []
    for claim in record.claims:
        told = [claim.name, number(claim.value, 5), f"{number(claim.low, 5)} … {number(claim.high, 5)}"]
        outcomes = [o for o in record.outcomes if o.claim == claim]
        rows += [[*told, *_outcome(o)] for o in outcomes] or [[*told, "none yet", None, None, None]]
    head = ["Claim", "Forecast", "Interval", "Outcome", "Error", "", "Noted (UTC)"]
    parts.append(table(head, rows, align="lrrrrll"))
    lines = [f"{e['n']:>4}  {e['utc'][:19]}  {e['kind']:<11} {e['record']}  {e['hash'][:16]}" for e in record.entries]
    parts.append(details("The ledger", el("pre", el("code", "\n".join(lines)))))
    return section("Record", *parts)

"""What was forecast for a run before it began, the live curve over its band, and what the forecast came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from foretell.errors import ForecastError
from foretell.forecast.chart import advice, forecast_figures, sentence
from foretell.forecast.curves import curves_of
from foretell.forecast.ledger import RECORDS, registered
from foretell.forecast.live_chart import watch_parts
from foretell.forecast.register import LOSS, Outcome, read
from foretell.forecast.schedules import Point, Schedules
from foretell.forecast.watch import Alarm, Band
from foretell.pages import Html, el, figure, notice, number, percent, section
from foretell.report.record import RunRecord, words

if TYPE_CHECKING:
    from foretell.forecast.register import Record


@dataclass(frozen=True)
class Foretold:
    """record: None where the run has none that is whole; problem: then the reason. points: the run's curve so far."""

    record: Record | None
    problem: str = ""
    band: Band | None = None
    points: tuple[Point, ...] = ()
    schedules: Schedules = field(default_factory=dict)

    @property
    def alarms(self) -> list[Alarm]:
        return self.band.check(self.points, self.schedules) if self.band else []

    @property
    def outcome(self) -> Outcome | None:
        found = [o for o in self.record.outcomes if o.claim.name == LOSS] if self.record else []
        return found[0] if found else None  # what is noted later does not replace it


def read_forecast(run: RunRecord) -> Foretold | None:
    """The forecast that a run is held against; None where none was made. A damaged record is told, not raised."""
    folder = run.folder / RECORDS
    if not folder.is_dir():
        return None
    try:
        names = registered(folder)
        name = words(run.metrics("forecast"), "record") or names[-1]
        record = read(folder / name)
        curve = record.raw["curve"]
        band = Band.from_json(curve) if curve else None
        points, schedules = curves_of(run.folder / "pretrain" / "log.jsonl", band.unit) if band else ([], {})
        return Foretold(record, "", band, tuple(points), schedules)
    except (ForecastError, LookupError, TypeError, ValueError) as error:
        return Foretold(
            None, str(error) if isinstance(error, ForecastError) else f"No forecast can be read: {error!r}."
        )


def forecast_section(found: Foretold | None) -> Html | None:
    """Forecast, rungs, target and error; then the live curve."""
    if found is None:
        return None
    record = found.record
    if record is None:
        return section("Forecast", notice(found.problem))
    forecast, claim, unit = record.forecast(), record.claims[0], record.raw["unit"]
    outcome, told = found.outcome, advice(forecast)
    measured = outcome.measured if outcome else None
    drawn, _ = forecast_figures(forecast, record.table(), record.target, level=claim.level, outcome=measured)
    ratio = record.target / record.table().rungs[-1].flops
    parts: list[object] = [
        el("p", sentence(forecast.predict(record.target, claim.level), unit, not told)),
        notice(told) if told else "",
        el("p", _came(outcome, unit)),
        figure(
            drawn,
            f"Registered {record.utc[:16].replace('T', ' ')} UTC, from rungs whose largest has 1/{ratio:,.0f} of the "
            f"run's compute. SHA-256 {record.sha256[:16]}.",
        ),
    ]
    if found.band is None:
        live: list[object] = [notice("The ladder has no curves, so that the run cannot be watched.")]
    elif not found.points:
        live = [notice("Missing: pre-training has not logged a step.")]
    else:
        live = list(watch_parts(found.band, found.points, found.schedules))
    return section("Forecast", *parts, el("h3", "The run against its forecast"), *live)


def forecast_card(found: Foretold | None) -> list[tuple[str, str, str]]:
    """The forecast as one of the cards on top of a run's page."""
    if found is None or found.record is None:
        return []
    claim, outcome = found.record.claims[0], found.outcome
    shown = f"{number(claim.low)} – {number(claim.high)}"
    if outcome is None:
        return [("Forecast", shown, f"{percent(claim.level, 0)} interval, {found.record.raw['unit']}; still open")]
    was = "diverged" if outcome.measured is None else number(outcome.measured)
    return [("Forecast", shown, f"{'hit' if outcome.hit else 'miss'}: {was} {found.record.raw['unit']}")]


def forecast_notices(found: Foretold | None) -> list[Html]:
    """Alarms, for the head of a page."""
    alarm = el("strong", "ALARM", class_="bad")
    return [notice(alarm, f" at {percent(a.share, 0)} of the run: {a.text}.") for a in found.alarms] if found else []


def _came(outcome: Outcome | None, unit: str) -> str:
    if outcome is None:
        return "The outcome is still open."
    inside = "inside" if outcome.hit else "outside"
    if outcome.measured is None:
        return "The run diverged: a miss."
    error = f"{100 * (outcome.error or 0.0):+.2f}\u202f%".replace("-", "−")
    return f"It reached {number(outcome.measured, 5)} {unit}, {inside} the interval; the forecast is off by {error}."

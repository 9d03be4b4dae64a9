"""Write-once records of forecasts, and what they came to.

A record is one file of canonical JSON, created once and read-only; it, its outcomes and its anchors are lines of the
ledger beside it (`forecast.ledger`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from foretell.errors import ForecastError
from foretell.files import write_text
from foretell.forecast.ledger import (
    FIRST,
    HEAD,
    LEDGER,
    Entry,
    append,
    canonical,
    chain,
    create,
    head,
    opened,
    parse,
    read_bytes,
    read_ledger,
    sha256,
    utc,
)
from foretell.run import code_version

if TYPE_CHECKING:
    from foretell.forecast.fitting import Forecast
    from foretell.forecast.table import LadderTable

RECORD, BUNDLE = "foretell forecast record 1", "foretell forecast bundle 1"
LOSS = "loss"
STOP_RULE = "The target runs once, to the end of its schedule; the outcome is its loss there, measured as on the rungs."


class Claim(NamedTuple):
    """One number that a record stakes itself on: the final loss, or the pass rate of a bucket of problems."""

    name: str
    value: float
    low: float
    high: float
    level: float


class Outcome(NamedTuple):
    """What a claim came to. measured: None where the target diverged, which is a miss."""

    claim: Claim
    measured: float | None
    utc: str

    @property
    def hit(self) -> bool:
        return self.measured is not None and self.claim.low <= self.measured <= self.claim.high

    @property
    def error(self) -> float | None:
        """(forecast − outcome) / outcome."""
        return (self.claim.value - self.measured) / self.measured if self.measured else None


@dataclass(frozen=True)
class Record:
    """A record that was found whole.

    data: its bytes. entries: the ledger's lines, those of other records included. folder: of record and ledger; None
    where it came out of a bundle.
    """

    name: str
    data: bytes
    raw: Mapping[str, Any]
    entries: tuple[Entry, ...]
    folder: Path | None

    @property
    def sha256(self) -> str:
        return sha256(self.data)

    @property
    def utc(self) -> str:
        return str(self.raw["utc"])

    @property
    def target(self) -> float:
        return float(self.raw["target_flops"])

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(Claim(**claim) for claim in self.raw["claims"])

    @property
    def own(self) -> list[Entry]:
        """The ledger's lines about this record."""
        return [entry for entry in self.entries if entry["sha256"] == self.sha256]

    @property
    def outcomes(self) -> list[Outcome]:
        claims = {claim.name: claim for claim in self.claims}
        return [Outcome(claims[e["claim"]], e["measured"], e["utc"]) for e in self.own if e["kind"] == "outcome"]

    @property
    def ledger(self) -> Path:
        """The folder whose ledger takes what is added. Raises ForecastError for a bundle, which is finished."""
        if self.folder is None:
            raise ForecastError("This is a bundle. What is added goes into the ledger beside the record itself.")
        return self.folder

    def forecast(self) -> Forecast:
        from foretell.forecast.fitting import Forecast

        return Forecast.from_json(self.raw["forecast"])

    def table(self) -> LadderTable:
        from foretell.forecast.table import LadderTable

        return LadderTable.from_json(self.raw["table"])


def register(
    path: str | Path,
    table: LadderTable,
    forecast: Forecast,
    *,
    target: float,
    level: float = 0.9,
    recipe: str | None = None,
    curve: Mapping[str, Any] | None = None,
    capabilities: Sequence[Claim] = (),
    stop_rule: str = STOP_RULE,
    anyway: bool = False,
) -> Record:
    """Write the record of a forecast and enter it in the ledger of its folder.

    target: FLOPs. level: of the interval. recipe: digest of the target's recipe (`recipe.digest`). curve: the forecast
    of the whole normalised curve (`watch.Band.to_json`). capabilities: further claims. stop_rule: what counts as the
    end. anyway: also a forecast that the data do not support; the record says so.
    Raises ForecastError when the file exists, the forecast is refused or not of this table, the target is not beyond
    the ladder, or the ledger is damaged.
    """
    path = Path(path)
    if forecast.table_digest != table.digest:
        raise ForecastError(
            f"The forecast was fitted to table {forecast.table_digest[:12]}, but this one is {table.digest[:12]}. "
            "Fit it to the table that is to be registered."
        )
    if forecast.refusal and not anyway:
        raise ForecastError(f"The data do not support this forecast: {forecast.refusal.reason}")
    if target <= table.rungs[-1].flops:
        raise ForecastError(
            f"The target of {target:.3g} FLOPs is not beyond the ladder's largest rung, {table.rungs[-1].flops:.3g}. "
            "Give the compute of a run that is still to come."
        )
    predicted = forecast.predict(target, level)
    claims = [Claim(LOSS, predicted.loss, predicted.low, predicted.high, level), *capabilities]
    if path.name in (LEDGER, HEAD):
        raise ForecastError(f"{path.name} is the name of the ledger. Give the record another name.")
    with opened(path.parent) as entries:
        raw = {
            "form": RECORD,
            "utc": utc(),
            "code": code_version(),
            "target_flops": float(target),
            "unit": table.unit,
            "claims": [claim._asdict() for claim in claims],
            "curve": curve,
            "stop_rule": stop_rule,
            "recipe": recipe,
            "table_digest": table.digest,
            "table": table.to_json(),
            "forecast": forecast.to_json(),
            "previous": entries[-1]["hash"] if entries else FIRST,
        }
        data = canonical(raw)
        if any(entry["record"] == path.name for entry in entries):
            raise ForecastError(f"{path} was registered before. A record is never replaced; choose another name.")
        create(path, data)
        fields = {key: sha256(canonical(value))[:16] for key, value in raw.items()}
        try:
            entry = {"kind": "registered", "record": path.name, "sha256": sha256(data), "fields": fields}
            append(path.parent, entries, entry)
        except BaseException:  # a record without its line would only stand in the way
            path.unlink()
            raise
    return Record(path.name, data, raw, tuple(entries), path.parent)


def read(path: str | Path) -> Record:
    """A record or a bundle, after every check that needs nothing else.

    Checked: the record is byte for byte the registered one, the ledger's chain is whole, the table has its digest, and
    the claim follows from the forecast. Raises ForecastError that names what is missing or was altered.
    """
    path = Path(path)
    data = read_bytes(path)
    raw = parse(data, str(path))
    if raw.get("form") == BUNDLE:
        if data != canonical(raw) or raw.keys() != {"form", "name", "record", "ledger", "head"}:
            raise ForecastError(f"{path} was altered: it is not in the form that bundles are written in.")
        try:
            name, record = str(raw["name"]), raw["record"]
            lines = [canonical(entry) for entry in raw["ledger"]]
            entries = chain(lines, str(raw["head"]).encode(), f"the ledger in {path}")
        except (KeyError, TypeError) as error:
            raise ForecastError(f"{path} was altered: {error} is not as bundles have it.") from error
        return _checked(Record(name, canonical(record), record, tuple(entries), None), path)
    return _checked(Record(path.name, data, raw, tuple(read_ledger(path.parent)), path.parent), path)


def verify(path: str | Path, loss: float, capabilities: Mapping[str, float] | None = None) -> Record:
    """Compare the record with its outcome and append that to the ledger; earlier outcomes stay.

    loss: of the finished target, in the table's unit; not finite if it diverged, which is a miss. capabilities:
    outcomes of the other claims by name. Raises ForecastError if the record is not whole, or has no such claim.
    """
    record = read(path)
    measured = {LOSS: loss, **(capabilities or {})}
    claims = {claim.name: claim for claim in record.claims}
    if unknown := sorted(measured.keys() - claims.keys()):
        raise ForecastError(f"{path} claims nothing about {', '.join(unknown)}; its claims are {', '.join(claims)}.")
    if loss <= 0:
        raise ForecastError(f"A loss of {loss:g} is not possible; expected a positive number in {record.raw['unit']}.")
    for name, value in measured.items():
        outcome = Outcome(claims[name], value if math.isfinite(value) else None, "")
        said = {"claim": name, "measured": outcome.measured, "result": "hit" if outcome.hit else "miss"}
        record = note(record, {"kind": "outcome", **said})
    return record


def note(record: Record, entry: Entry) -> Record:
    """Append a line about a record to its ledger."""
    with opened(record.ledger) as entries:
        append(record.ledger, entries, {"record": record.name, "sha256": record.sha256, **entry})
    return replace(record, entries=tuple(entries))


def check_before(path: str | Path, first_step: datetime | str, recipe: str | None = None) -> Record:
    """The record, if the target run may use it.

    first_step: UTC time of the run's first step (ISO 8601 or aware datetime). recipe: digest of the run's recipe.
    Raises ForecastError if the record is missing, altered, not older than the first step, or of another recipe, and for
    a time that is none.
    """
    record = read(path)
    try:
        begun = datetime.fromisoformat(first_step) if isinstance(first_step, str) else first_step
    except ValueError as error:
        raise ForecastError(f"{first_step} is no time; expected one as 2026-05-04T10:00:00+00:00.") from error
    if begun.tzinfo is None:
        raise ForecastError(f"The time {first_step} has no time zone; write UTC as 2026-05-04T10:00:00+00:00.")
    if datetime.fromisoformat(record.utc) >= begun:
        raise ForecastError(
            f"{path} was registered at {record.utc}, not before the run's first step at "
            f"{begun.astimezone(UTC).isoformat()}. A forecast counts only if it was made before; start a new run."
        )
    if recipe is not None and record.raw["recipe"] != recipe:
        found = "no recipe" if record.raw["recipe"] is None else f"recipe {record.raw['recipe'][:12]}"
        raise ForecastError(
            f"{path} was registered for {found}, but this run's recipe is {recipe[:12]}. Register a forecast for this "
            "recipe, or run the one that was forecast."
        )
    return record


def bundle(path: str | Path, out: str | Path) -> str:
    """Write record, ladder table and ledger (outcomes, anchors) as one file that `read` checks anywhere.

    The same ledger gives the same bytes. Returns the file's SHA-256.
    """
    record = read(path)
    raw = {
        "form": BUNDLE,
        "name": record.name,
        "record": record.raw,
        "ledger": record.entries,
        "head": head(record.entries[-1]),
    }
    data = canonical(raw)
    write_text(Path(out), data.decode("ascii"))
    return sha256(data)


def _checked(record: Record, path: Path) -> Record:
    """The record if its bytes are those registered under its name, and hold together."""
    name, raw = record.name, record.raw
    entered = next((e for e in record.entries if e["kind"] == "registered" and e["record"] == name), None)
    if entered is None:
        raise ForecastError(
            f"{path} is not registered: the ledger has no line for {name}. A record cannot be moved or renamed without "
            "its ledger; take it, with its ledger, from where it was registered, or take a bundle."
        )
    try:
        if record.sha256 != entered["sha256"]:
            fields = entered["fields"]
            wrong = [k for k, digest in fields.items() if k not in raw or sha256(canonical(raw[k]))[:16] != digest]
            wrong += sorted(raw.keys() - fields.keys())
            raise ForecastError(
                f"{path} was altered after it was registered at {entered['utc']}: {', '.join(wrong) or 'its spacing'} "
                f"differs. Take it from a copy; its SHA-256 must be {entered['sha256']}."
            )
        forecast, digest, told = record.forecast(), record.table().digest, record.claims[0]
        again = forecast.predict(record.target, told.level)
        datetime.fromisoformat(record.utc), record.outcomes
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ForecastError(f"{path} is no forecast record of a form this version knows ({error!r}).") from error
    if not digest == raw["table_digest"] == forecast.table_digest:
        raise ForecastError(f"{path} holds a ladder table that is not the one its forecast was fitted to.")
    # A little room: another machine's libm may round the last digit otherwise.
    pairs = ((again.loss, told.value), (again.low, told.low), (again.high, told.high))
    if not all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairs):
        raise ForecastError(f"{path} claims a loss of {told.value:g}, but its own forecast gives {again.loss:g}.")
    return record

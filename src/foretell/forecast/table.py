"""The ladder as a table: one row a trained model, from any training code."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import ForecastError
from foretell.forecast import schedules as set_to
from foretell.forecast.logs import SETTINGS, Row, canonical, columns, read_rows
from foretell.forecast.schedules import Point, Schedules

SAME_COMPUTE = 0.005  # relative: runs this near are seeds of one rung
DIVERGED = 0.03  # relative: a loss less than this above that of less compute is noise, whatever the seeds say
LARGEST = 1e100  # of any number: its square must be one, too


@dataclass(frozen=True)
class Rung:
    """One trained model. flops: of its training. loss: final, in the table's unit; not finite if it diverged. tokens:
    trained on. Raises ForecastError for compute that is no positive number, or a loss below 0.
    """

    flops: float
    loss: float
    seed: int = 0
    run: str = ""
    params: float | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.flops < LARGEST or -math.inf < self.loss <= 0:
            raise ForecastError(f"A rung of {self.flops} FLOPs and a loss of {self.loss}: expected positive numbers.")


@dataclass(frozen=True)
class LadderTable:
    """Rungs in order of compute; unit and settings are the same on all of them.

    excluded: diverged rungs, each with the reason. curves: run → (share of its own horizon in 0..1, loss).
    schedules: run → what it was set to over its horizon.
    Raises ForecastError for a rung that diverged; `make_table` sets those aside.
    """

    rungs: tuple[Rung, ...]
    unit: str = "loss"
    settings: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[tuple[Rung, str], ...] = ()
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    schedules: Mapping[str, Schedules] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if lost := next((rung for rung in self.rungs if not abs(rung.loss) < LARGEST), None):
            raise ForecastError(
                f"The rung of {lost.flops:.3g} FLOPs has a loss of {lost.loss}: it diverged, and is no part of a "
                "ladder. Leave it out, or let make_table set it aside."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_json` makes the same table; a loss that is no number is its name."""
        return {
            "unit": self.unit,
            "settings": dict(self.settings),
            "rungs": [asdict(rung) for rung in self.rungs],
            "excluded": [
                [asdict(rung) | ({} if math.isfinite(rung.loss) else {"loss": str(rung.loss)}), reason]
                for rung, reason in self.excluded
            ],
            "curves": {run: [list(point) for point in curve] for run, curve in self.curves.items()},
        } | (
            # A table without them keeps the digest that it had before there were any.
            {
                "schedules": {
                    run: {name: [list(point) for point in curve] for name, curve in each.items()}
                    for run, each in self.schedules.items()
                }
            }
            if self.schedules
            else {}
        )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> LadderTable:
        return cls(
            tuple(Rung(**rung) for rung in raw["rungs"]),
            raw["unit"],
            dict(raw["settings"]),
            tuple((Rung(**rung | {"loss": float(rung["loss"])}), reason) for rung, reason in raw["excluded"]),
            {run: tuple((x, y) for x, y in curve) for run, curve in raw["curves"].items()},
            {
                run: {name: tuple((x, y) for x, y in curve) for name, curve in each.items()}
                for run, each in raw.get("schedules", {}).items()
            },
        )

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON form."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _order(rung: Rung) -> tuple[float, int, str]:
    return rung.flops, rung.seed, rung.run


def same_compute(rungs: Sequence[Rung]) -> list[list[Rung]]:
    """Rungs in rising order of compute, those of one compute (within 0.5 %) together."""
    groups: list[list[Rung]] = []
    for rung in sorted(rungs, key=_order):
        if groups and rung.flops <= groups[-1][0].flops * (1 + SAME_COMPUTE):
            groups[-1].append(rung)
        else:
            groups.append([rung])
    return groups


def make_table(
    rungs: Iterable[Rung],
    unit: str = "loss",
    settings: Mapping[str, str] | None = None,
    curves: Mapping[str, Sequence[Point]] | None = None,
    excluded: Sequence[tuple[Rung, str]] = (),
    schedules: Mapping[str, Schedules] | None = None,
) -> LadderTable:
    """A table of rungs in any order: sorted, the diverged ones moved to `excluded`.

    Diverged is a loss that is not finite, or one that lies above the running minimum of less compute (or the median of
    its own seeds) by more than 3 % and five standard deviations of the seed noise.
    """
    out = list(excluded)
    finite: list[Rung] = []
    for rung in rungs:
        if math.isfinite(rung.loss):
            finite.append(rung)
        else:
            out.append((rung, f"its loss is {rung.loss}"))
    groups = same_compute(finite)
    logs = [np.log([rung.loss for rung in group]) for group in groups]
    spread = [abs(value - np.median(log)) for log in logs if len(log) > 1 for value in log]
    limit = max(math.log1p(DIVERGED), 5 * 1.4826 * float(np.median(spread)) if spread else 0.0)
    lowest = _start(logs, limit)
    for group, log in zip(groups, logs, strict=True):
        bar = min(lowest, float(np.median(log)) if len(log) > 2 else np.inf)
        for rung, value in zip(group, log, strict=True):
            if value > bar + limit:
                reason = f"its loss {rung.loss:.4g} is {math.expm1(value - bar):.0%} above what less compute reached"
                out.append((rung, reason))
        lowest = min(lowest, float(np.median(log)))
    gone = {id(rung) for rung, _ in out}
    kept = [rung for rung in finite if id(rung) not in gone]
    out.sort(key=lambda pair: _order(pair[0]))
    ordered = tuple(sorted(kept, key=_order))
    return LadderTable(ordered, unit, dict(settings or {}), tuple(out), dict(curves or {}), dict(schedules or {}))


def _start(logs: list[Any], limit: float) -> float:
    """What the lowest rung may not exceed: a line through the next ones, and four times as much room."""
    if len(logs) < 4:
        return np.inf
    middle = [float(np.median(log)) for log in logs[1:4]]
    return middle[0] + max(middle[0] - middle[2], 0.0) + 4 * limit + 0.3


def read_table(path: str | Path, settings: Sequence[str] = (), named: Mapping[str, str] | None = None) -> LadderTable:
    """A ladder from CSV, JSON lines, Parquet, a Weights & Biases export or a folder of TensorBoard runs.

    settings: further columns that must agree on all rungs, beside tokenizer, schedule, evaluation set and the like.
    named: field → column, where the file calls it otherwise or several would do: {"loss": "eval/c4/bpb"}.
    Columns go by the field's names (flops, compute or C; val_loss, bpb or loss; tokens or D; params or N; seed; run;
    step). FLOPs are 6·params·tokens where the table has none. Rows with steps become curves, their last one a rung.
    Raises ForecastError for what is no ladder: row and column, or the setting that differs, are named.
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise ForecastError(f"{path} holds no rows. A ladder has one a run, with its flops and final loss.")
    found = columns(rows, named)
    derived = "flops" not in found
    if "loss" not in found or (derived and not {"params", "tokens"} <= set(found)):
        lacking = "a loss (loss, val_loss, bpb …)" if "loss" not in found else "flops (or both params and tokens)"
        names = ", ".join(dict.fromkeys(name for _, row in rows for name in row))
        raise ForecastError(
            f"{path} has no column for {lacking}; its columns are {names}. Rename or add "
            "the column, or say which it is (--column FIELD=COLUMN)."
        )
    agreed = _agreed(path, rows, settings) | {"loss column": found["loss"]}
    if derived:
        agreed["flops"] = "6·params·tokens"
    reader = _Reader(path, found, derived)
    rungs, gone, curves = reader.stepped(rows) if _has_steps(rows, found) else reader.plain(rows)
    return make_table(rungs, _unit(agreed, found["loss"]), agreed, curves, gone, reader.schedules)


def _unit(agreed: dict[str, str], column: str) -> str:
    stated = agreed.pop("unit", None) or agreed.pop("loss_unit", None)
    name = canonical(column)
    return stated or ("bits per byte" if "bpb" in name or "bits_per_byte" in name else "loss")


def _has_steps(rows: list[tuple[str, Row]], found: Mapping[str, str]) -> bool:
    """Whether some run has several rows: a lone step column of final rows is no curve."""
    if "step" not in found or "run" not in found:
        return "step" in found
    runs = [row.get(found["run"]) for _, row in rows]
    return len(set(runs)) < len(runs)


def _agreed(path: Path, rows: list[tuple[str, Row]], named: Sequence[str]) -> dict[str, str]:
    present = {name: canonical(name) for _, row in rows for name in row}
    for name in named:
        if canonical(name) not in present.values():
            raise ForecastError(f"{path} has no column {name!r} to compare. Its columns are {', '.join(present)}.")
    wanted = {*SETTINGS.split(), *map(canonical, named)}
    out: dict[str, str] = {}
    for column, plain in present.items():
        if plain not in wanted:
            continue
        seen: dict[str, str] = {}
        for where, row in rows:
            if column in row:
                seen.setdefault(str(row[column]), where)
        if len(seen) > 1:
            (one, first), (other, second) = list(seen.items())[:2]
            raise ForecastError(
                f"{path} mixes ladders: {column} is {one!r} in {first} and {other!r} in {second}. "
                "Rungs of one ladder share it; fit each on its own."
            )
        out[plain] = next(iter(seen))
    return out


class _Reader:
    """Fields out of rows, with every fault named by row and column."""

    def __init__(self, path: Path, found: Mapping[str, str], derived: bool) -> None:
        self.path, self.found, self.derived = path, found, derived
        self.schedules: dict[str, Schedules] = {}

    def number(self, where: str, row: Row, name: str) -> float | None:
        """A value > 0; NaN and infinity only for the loss, where they mean that the run diverged."""
        column = self.found.get(name)
        if column is None or column not in row:
            return None
        value = row[column]
        try:
            number = float("x" if isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            raise self.fault(where, column, repr(value), "a plain number, as 2.314 or 1e20") from None
        diverged = name == "loss" and not math.isfinite(number)
        if not diverged and not 1 / LARGEST < number < LARGEST:
            raise self.fault(where, column, str(value), f"a finite number above 0, below {LARGEST:g}")
        return number

    def fault(self, where: str, column: str, value: str, expected: str) -> ForecastError:
        return ForecastError(
            f"{self.path}, {where}, column {column}: {value}; expected {expected}. Mend or remove the row."
        )

    def flops(self, where: str, params: float | None, tokens: float | None, flops: float | None) -> float:
        for name, value in (("params", params), ("tokens", tokens)) if self.derived else (("flops", flops),):
            if value is None:
                raise self.fault(where, self.found[name], "missing", "a finite number above 0")
        return 6 * params * tokens if self.derived and params and tokens else flops or 0.0

    def seed(self, where: str, row: Row) -> int:
        value = row.get(self.found.get("seed", ""), 0)
        try:
            if float(value).is_integer():
                return int(float(value))
        except (TypeError, ValueError):
            pass
        raise self.fault(where, self.found["seed"], repr(value), "a whole number")

    def rung(self, where: str, row: Row, loss: float) -> Rung:
        params, tokens = (self.number(where, row, name) for name in ("params", "tokens"))
        flops = self.flops(where, params, tokens, self.number(where, row, "flops"))
        run = str(row.get(self.found.get("run", ""), ""))
        return Rung(flops, loss, self.seed(where, row), run, params, tokens)

    def state(self, row: Row) -> str:
        """Why a run did not end, by Weights & Biases' own column; empty where it did."""
        state = str(row.get(self.found.get("state", ""), "finished")).lower()
        return "" if state == "finished" else f"its run is {state!r}"

    def plain(self, rows: list[tuple[str, Row]]) -> tuple[list[Rung], list[tuple[Rung, str]], dict[str, Any]]:
        rungs, gone = [], []
        seen: dict[tuple[object, ...], str] = {}
        for where, row in rows:
            loss = self.number(where, row, "loss")
            reason = self.state(row)
            if loss is None and not reason:
                raise self.fault(where, self.found["loss"], "missing", "a loss")
            rung = self.rung(where, row, math.nan if loss is None else loss)
            if reason or not math.isfinite(rung.loss):
                gone.append((rung, reason or f"its loss is {rung.loss} ({where})"))
                continue
            # Rows without a name or a seed of their own may well agree to the digits that were kept.
            named = (rung.run, rung.seed, rung.flops) if rung.run else (rung.seed, rung.flops, rung.loss)
            if (rung.run or "seed" in self.found) and (first := seen.setdefault(named, where)) != where:
                raise ForecastError(
                    f"{self.path}: {first} and {where} are the same run ({rung.run or 'no name'}, seed {rung.seed}, "
                    f"{rung.flops:.3g} FLOPs). Remove one, or tell them apart by run or seed."
                )
            rungs.append(rung)
        return _numbered(rungs, "seed" in self.found), gone, {}

    def stepped(self, rows: list[tuple[str, Row]]) -> tuple[list[Rung], list[tuple[Rung, str]], dict[str, Any]]:
        """Rows of the same run, ordered by step; the last loss is final, constants may stand in any row."""
        keys = [self.found[name] for name in ("run", "seed") if name in self.found]
        if "run" not in self.found:
            if "params" not in self.found:
                raise ForecastError(
                    f"{self.path} has steps, but no column says which rows are of one run. Add a column run; or, where "
                    f"each row is a finished run, remove {self.found['step']}."
                )
            keys.append(self.found["params"])
        runs: dict[tuple[str, ...], list[tuple[float, str, Row]]] = {}
        for where, row in rows:
            step = row.get(self.found["step"])
            try:
                at = float(step if step is not None else "missing")
            except (TypeError, ValueError):
                raise self.fault(where, self.found["step"], repr(step), "a number") from None
            runs.setdefault(tuple(str(row.get(key, "")) for key in keys), []).append((at, where, row))
        rungs, gone, curves = [], [], {}
        for key, lines in runs.items():
            lines.sort(key=lambda line: line[0])
            whole: Row = {}
            for _, _, row in lines:
                whole |= row  # FLOPs and tokens that accumulate: the last ones are of the whole run
            losses = [(at, loss, where) for at, where, row in lines if (loss := self.number(where, row, "loss"))]
            where = lines[-1][1] if not losses else losses[-1][2]
            if "run" not in self.found and len({at for at, *_ in losses}) < len(losses):
                raise ForecastError(
                    f"{self.path} has several losses at one step of what looks like one run (up to {where}). Tell the "
                    "runs apart by a column run or seed."
                )
            if not losses:
                raise self.fault(where, self.found["loss"], "missing in every row of its run", "a loss")
            rung = self.rung(where, whole, losses[-1][1])
            name = rung.run or "-".join(part for part in key if part) or "run"
            rung = replace(rung, run=name)
            if self.state(whole) or not math.isfinite(rung.loss):
                gone.append((rung, self.state(whole) or f"its loss is {rung.loss} ({where})"))
                continue
            rungs.append(rung)
            horizon = lines[-1][0]
            label = name if name not in curves else f"{name}-{rung.seed}"
            curves[label] = tuple((at / horizon, loss) for at, loss, _ in losses if horizon > 0 and math.isfinite(loss))
            if rates := set_to.of_rows(((at, row) for at, _, row in lines), self.found, horizon):
                self.schedules[label] = set_to.kept(rates)
        return _numbered(rungs, "seed" in self.found), gone, curves


def _numbered(rungs: list[Rung], seeded: bool) -> list[Rung]:
    """Seeds 0, 1, 2 … of one compute, where the table names none."""
    if seeded:
        return rungs
    return [replace(rung, seed=i) for group in same_compute(rungs) for i, rung in enumerate(group)]

"""The plan beside published runs: its one curve fitted with each family of runs left out, and every figure's error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from common import ROOT
from foretell.forecast.cluster import Cluster, Curve, load_cluster
from foretell.forecast.estimate import Estimate, estimate
from foretell.forecast.job import Job, Layout
from foretell.forecast.rungs import DataShape
from foretell.forecast.shapes import find_shape
from foretell.forecast.spread import spread
from foretell.recipes import read_yaml

FILE = ROOT / "benchmarks" / "published.yaml"
FITTED = ("products", "slope", "attention")  # not passes: any number from 0.2 to 2 fits as well
_START = (0.68, 0.16, 0.43)  # by which layouts are chosen too, so that a fit does not hang on its own outcome
_ROBUST = 0.15  # log error beyond which a run pulls no harder
_TAIL = 0.1  # of the runs, beyond either end of the range


@dataclass(frozen=True)
class Run:
    """A published run. layout: as published, else as the plan chooses with the curve that a fit starts from."""

    name: str
    family: str
    job: Job
    cluster: Cluster
    layout: Layout
    said: dict[str, Any]

    def estimate(self, curve: Curve | None = None) -> Estimate:
        cluster = self.cluster if curve is None else self.cluster.model_copy(update={"efficiency": curve})
        return estimate(self.job, self.layout, cluster, cluster.mixed)

    def error(self, curve: Curve | None = None) -> float:
        """Logarithm of the planned time a token over the published one: by rate, else MFU, else device hours."""
        found = self.estimate(curve)
        if "rate" in self.said:
            return math.log(self.said["rate"] / found.rate)
        if "mfu" in self.said:
            return math.log(self.said["mfu"] / found.mfu(self.cluster.mixed))
        if "device_hours" in self.said:
            return math.log(found.device_hours / self.said["device_hours"])
        assert found.energy is not None
        return math.log(found.energy / 1e6 / self.said["mwh"])


def read_runs(path: Path = FILE) -> list[Run]:
    return [_run(said) for said in read_yaml(path.read_text(encoding="utf-8"), path.name)]


def _run(said: dict[str, Any]) -> Run:
    job = find_shape(said["shape"])
    assert job is not None
    if length := said.get("context"):
        model = job.model.model_copy(update={"max_length": length})
        job = replace(job, model=model, length=length, data=DataShape((length + 1) / 2))
    cluster = load_cluster(said["cluster"])
    changes = {name: said[name] for name in ("bandwidth", "pue", "power") if name in said}
    cluster = cluster.model_copy(update=changes)
    if given := said.get("layout"):
        count, shard, tensor, policy, rows = given
        job = replace(job, batch_tokens=said.get("batch_tokens", max(job.batch_tokens, 0)))
        if "batch_tokens" not in said and said["family"].startswith("torchtitan"):
            job = replace(job, batch_tokens=count * shard * rows * job.length)  # one micro-batch a step
        layout = Layout(count, shard, tensor, tensor > 1, "always", policy, rows)
    else:
        start = Curve(**dict(zip(FITTED, _START, strict=True)))
        layout = spread(job, cluster.model_copy(update={"efficiency": start}), cluster.mixed).chosen.layout
    return Run(said["name"], said["family"], job, cluster, layout, said)


def fit(runs: Sequence[Run]) -> Curve:
    """The curve of least log errors, squared up to 15 % and linear beyond, every family counting alike."""
    weights = [1 / math.sqrt(sum(other.family == run.family for other in runs)) for run in runs]

    def residuals(logs: np.ndarray) -> list[float]:
        curve = Curve(**dict(zip(FITTED, np.exp(logs).tolist(), strict=True)))
        return [weight * run.error(curve) for weight, run in zip(weights, runs, strict=True)]

    best = least_squares(residuals, np.log(_START), loss="soft_l1", f_scale=_ROBUST)
    return Curve(**dict(zip(FITTED, np.exp(best.x).tolist(), strict=True)))


def leave_out(runs: Sequence[Run]) -> tuple[Curve, dict[str, float]]:
    """The curve of all runs, with the range that holds eight of ten left-out errors; and each run's left-out error."""
    used = [run for run in runs if run.said.get("fit", True)]
    errors: dict[str, float] = {}
    for family in dict.fromkeys(run.family for run in runs):
        curve = fit([run for run in used if run.family != family])
        errors |= {run.name: run.error(curve) for run in runs if run.family == family}
    return fit(used).model_copy(update={"range": _range(used, errors)}), errors


def _range(runs: Sequence[Run], errors: dict[str, float]) -> tuple[float, float]:
    """Between which factors of the planned times the published ones lie, but for a tenth on either side."""
    order = sorted(runs, key=lambda run: -errors[run.name])  # slowest planned first
    shares = np.cumsum([1 / sum(other.family == run.family for other in runs) for run in order])
    ends = [order[int(np.searchsorted(shares / shares[-1], at))] for at in (_TAIL, 1 - _TAIL)]
    low, high = (math.exp(-errors[run.name]) for run in ends)
    return min(1.0, low), max(1.0, high)


def table(runs: Sequence[Run], curve: Curve, errors: dict[str, float]) -> list[dict[str, Any]]:
    """Each run's published figures beside the planned ones; `left_out` is the error of a curve that has not seen it."""
    rows = []
    for run in runs:
        found, said = run.estimate(curve), run.said
        planned: dict[str, Any] = {
            "rate": found.rate,
            "mfu": found.mfu(run.cluster.mixed),
            "device_hours": found.device_hours,
            "mwh": None if found.energy is None else found.energy / 1e6,
            "flops": run.job.flops,
        }
        pairs = {name: [said[name], value] for name, value in planned.items() if name in said}
        if "co2" in said:
            tonnes, intensity = said["co2"]
            pairs["co2"] = [tonnes, (found.emitted(intensity) or 0) / 1000]
        rows.append(
            {
                "run": run.name,
                "family": run.family,
                "device": run.said["cluster"].rpartition("x")[0],
                "rates": [found.rate * math.exp(run.error(curve)), found.rate],
                "layout": found.layout.block() | {"rows": run.layout.rows},
                "figures": pairs,
                "left_out": math.expm1(errors[run.name]),
                "memory_gb": found.memory.total / 1e9,
            }
        )
    return rows


if __name__ == "__main__":
    found = read_runs()
    whole, left = leave_out(found)
    print(whole)
    for row in table(found, whole, left):
        parts = "  ".join(f"{name} {said:.4g} -> {plan:.4g}" for name, (said, plan) in row["figures"].items())
        shape = row["layout"]
        print(
            f"{row['run']:36} {row['left_out']:+6.1%}  {shape['replicate']}x{shape['shard']}x{shape['tensor']} "
            f"{shape['checkpoint']} {shape['rows']} {row['memory_gb']:.0f} GB  {parts}"
        )

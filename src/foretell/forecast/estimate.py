"""A run on a described cluster: step and wall time, memory, failures, cost and energy, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foretell.forecast.cluster import Cluster
from foretell.forecast.failures import daly, with_failures
from foretell.forecast.footprint import Memory, memory_per_rank
from foretell.forecast.job import Job, Layout
from foretell.forecast.steptime import StepTime, step_time

_SAVED = 12  # bytes a parameter: weights and two moments in float32
_SLACK = 1.1  # of activations, what an allocator on a GPU holds beyond them


@dataclass(frozen=True)
class Estimate:
    """Of one layout. seconds: of training undisturbed. wall: with checkpoints, failures and restarts. interval: seconds
    of work between checkpoints; save: how long one holds the run up. failures: expected over the run.
    range: factors of every time, cost and energy between which eight of ten published runs lie."""

    job: Job
    layout: Layout
    cluster: Cluster
    step: StepTime
    memory: Memory
    seconds: float
    wall: float
    interval: float
    save: float
    failures: float
    range: tuple[float, float]

    @property
    def goodput(self) -> float:
        """Share of the wall time that trains what is kept."""
        return self.seconds / self.wall

    @property
    def device_hours(self) -> float:
        return self.wall * self.layout.world / 3600

    @property
    def rate(self) -> float:
        """Tokens a second and device, undisturbed."""
        return self.job.batch_tokens / self.step.total / self.layout.world

    @property
    def energy(self) -> float | None:
        """Watt-hours, the building's share included; None where the device's power is not described."""
        power = self.cluster.power
        return None if power is None else self.device_hours * power * self.cluster.pue

    @property
    def cost(self) -> float | None:
        """In the currency of the cluster's price; None without one."""
        return None if self.cluster.price is None else self.device_hours * self.cluster.price

    def emitted(self, intensity: float) -> float | None:
        """Kilograms of CO2 equivalent; intensity: of the electricity, kg/kWh."""
        return None if self.energy is None else self.energy / 1000 * intensity

    def mfu(self, precision: str) -> float:
        """Model FLOPs over what the devices could do by their data sheet."""
        return self.rate * self.job.flops_per_token / self.cluster.flops[precision]


def estimate(job: Job, layout: Layout, cluster: Cluster, precision: str = "bfloat16") -> Estimate:
    """What a run needs on a cluster, spread as `layout` says. Raises ForecastError for an unknown precision."""
    step = step_time(job, layout, cluster, precision)
    held = memory_per_rank(
        job, layout, cluster.process, precision, cluster.kind, _SLACK if cluster.kind == "cuda" else 1.2
    )
    seconds = step.total * (job.tokens / job.batch_tokens)
    nodes = -(-layout.world // cluster.node)
    save = _SAVED * job.parameters / (nodes * cluster.storage)
    mtbf = math.inf if cluster.mtbf_hours is None else 3600 * cluster.mtbf_hours / layout.world
    interval = seconds if math.isinf(mtbf) else max(step.total, min(seconds, daly(save, mtbf)))
    wall = with_failures(seconds, interval, save, 60 * cluster.restart_minutes, mtbf)
    failures = 0.0 if math.isinf(mtbf) else wall / mtbf
    return Estimate(job, layout, cluster, step, held, seconds, wall, interval, save, failures, cluster.curve.range)

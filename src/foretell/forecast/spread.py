"""How to spread a run over a cluster: every layout tried, the fastest that fits chosen, the others' reasons kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foretell.errors import ForecastError
from foretell.forecast.cluster import Cluster
from foretell.forecast.estimate import Estimate, estimate
from foretell.forecast.job import Job, Layout, Policy, Reshard
from foretell.forecast.steptime import PARTS

_USED = 0.92  # of a device's memory; the rest is lost between blocks
_RESHARD: tuple[Reshard, ...] = ("never", "auto", "always")
_POLICIES: tuple[Policy, ...] = ("none", "selective", "full")
_REASONS = 3  # shown where nothing can be built
_EQUAL = 1.02  # ratio of times within which the simpler layout is taken
_SAME = 5e-4  # relative difference of times that is none
_MINOR = 0.25  # of the largest part: smaller ones are not told


@dataclass(frozen=True)
class Refused:
    """Sizes that were not chosen, and why. best: the fastest layout of these sizes, None where none can be built."""

    replicate: int
    shard: int
    tensor: int
    reason: str
    best: Estimate | None = None


@dataclass(frozen=True)
class Spread:
    """chosen: the fastest layout that fits. refused: all other sizes, fastest first. tried: how many layouts."""

    chosen: Estimate
    refused: tuple[Refused, ...]
    tried: int


def spread(job: Job, cluster: Cluster, precision: str = "bfloat16") -> Spread:
    """The layout of a run over all devices of a cluster that is fastest among those that fit in memory.

    Tried are all sizes replicate x shard x tensor whose product is the number of devices, tensor within a node and a
    divisor of heads and MLP, with every checkpoint policy, both reshard policies, and micro-batches of 1, 2, 4, … rows.
    Of layouts within two percent the simpler one is taken: less tensor parallel, less sharding, less recomputed.
    Raises ForecastError where the batch cannot be shared or nothing fits, with the nearest to fitting, and where
    failures leave no time to train.
    """
    if job.batch_rows < 1:
        raise ForecastError(
            f"A step of {job.batch_tokens} tokens is less than one row of {job.length}. Raise it, or shorten rows."
        )
    limit, tried = _USED * cluster.memory, 0
    fitting: dict[tuple[int, int, int], list[Estimate]] = {}
    least: dict[tuple[int, int, int], Estimate] = {}
    refused: list[Refused] = []
    for replicate, shard, tensor in _sizes(cluster):
        key = (replicate, shard, tensor)
        if reason := _impossible(job, replicate * shard, tensor):
            refused.append(Refused(*key, reason))
            continue
        for layout in _layouts(job, *key):
            tried += 1
            found = estimate(job, layout, cluster, precision)
            if key not in least or found.memory.total < least[key].memory.total:
                least[key] = found
            if found.memory.total <= limit:
                fitting.setdefault(key, []).append(found)
    if not least:
        reasons = list(dict.fromkeys(one.reason for one in refused))[:_REASONS]
        raise ForecastError(
            f"{cluster.devices} devices cannot train {job.name}: {'; '.join(reasons)}. Change batch_tokens, or the "
            "number of devices."
        )
    if not fitting:
        near = min(least.values(), key=lambda found: found.memory.total)
        raise ForecastError(
            f"{job.name} needs {near.memory.total / 1e9:.1f} GB a device at the least on {cluster.devices} of "
            f"{cluster.device} (shard {near.layout.shard}, tensor {near.layout.tensor}, checkpoint "
            f"{near.layout.checkpoint}), which have {limit / 1e9:.1f} GB to use. Take more devices, shorter rows, or "
            "larger memory."
        )
    chosen = _simplest([found for some in fitting.values() for found in some])
    if chosen.wall == math.inf:
        raise ForecastError(
            f"{cluster.devices} devices that fail every {cluster.mtbf_hours:g} h each, and take "
            f"{cluster.restart_minutes:g} min to restart, never train {job.name} to its end. Correct mtbf_hours or "
            "restart_minutes of the cluster, or take fewer devices."
        )
    for key, smallest in least.items():
        if key not in fitting:
            needs = f"needs {smallest.memory.total / 1e9:.1f} GB at the least, {limit / 1e9:.1f} GB are there"
            refused.append(Refused(*key, needs))
        elif chosen not in fitting[key]:
            best = _simplest(fitting[key])
            refused.append(Refused(*key, _slower(best, chosen), best))
    refused.sort(key=lambda one: one.best.step.total if one.best else float("inf"))
    return Spread(chosen, tuple(refused), tried)


def _sizes(cluster: Cluster) -> Iterator[tuple[int, int, int]]:
    for tensor in _divisors(cluster.node):
        for shard in _divisors(cluster.devices // tensor):
            yield cluster.devices // tensor // shard, shard, tensor


def _divisors(count: int) -> list[int]:
    return [part for part in range(1, count + 1) if count % part == 0]


def _impossible(job: Job, ways: int, tensor: int) -> str:
    model = job.model
    if job.compiled and tensor > 1:
        return "train.compile goes with tensor 1 alone"
    if job.batch_rows % ways:
        return f"a batch of {job.batch_rows} rows cannot be shared evenly by {ways} parts"
    for name, count in {"heads": model.heads, "kv_heads": model.n_kv_heads, "ffn": model.ffn_width}.items():
        if count % tensor:
            return f"{name} ({count}) cannot be divided by {tensor}"
    return ""


def _layouts(job: Job, replicate: int, shard: int, tensor: int) -> Iterator[Layout]:
    share = job.batch_rows // (replicate * shard)
    rows = 1
    while rows <= min(share, job.rows or share):
        for policy in _POLICIES:
            if job.compiled and policy == "selective":
                continue  # it looks for products one by one, which compiling hides
            several = shard > 1 and rows < share
            for reshard in _RESHARD if several else _RESHARD[:2] if shard > 1 else _RESHARD[1:2]:
                whole = tensor > 1 and job.length % tensor == 0
                yield Layout(replicate, shard, tensor, whole, reshard, policy, rows)
        rows *= 2


def _simplest(found: Sequence[Estimate]) -> Estimate:
    """Of those that are as fast as the fastest."""
    fastest = min(one.step.total for one in found)
    return min(
        (one for one in found if one.step.total <= _EQUAL * fastest),
        key=lambda one: (_effort(one.layout), one.step.total),
    )


def _effort(layout: Layout) -> tuple[int, int, int, bool, int]:
    return layout.tensor, layout.shard, _POLICIES.index(layout.checkpoint), layout.reshard != "auto", -layout.rows


def _slower(found: Estimate, chosen: Estimate) -> str:
    """By how much a layout is slower than the chosen one, and in which parts, in percent of the chosen one's step."""
    whole = chosen.step.total
    lost = {
        name: (getattr(found.step, part) - getattr(chosen.step, part)) / whole
        for part, name in (PARTS | {"products": _products(found.layout, chosen.layout)}).items()
    }
    ratio = found.step.total / whole - 1
    if ratio <= _SAME:
        return f"{-ratio:.1%} faster, but less simple" if ratio < -_SAME else "as fast, but less simple"
    longer = sorted(((share, name) for name, share in lost.items() if share > 0), reverse=True)
    told = [f"{name} +{share:.1%}" for share, name in longer if share >= _MINOR * longer[0][0]]
    return f"{ratio:.1%} slower: {', '.join(told[:2])}"


def _products(layout: Layout, chosen: Layout) -> str:
    """Why a layout's matrix products take longer, where there is one reason alone."""
    if layout.tensor == chosen.tensor:
        return "computing again"
    again = {one.checkpoint == "full" for one in (layout, chosen)}
    return "products that tensor does not share" if len(again) == 1 else PARTS["products"]

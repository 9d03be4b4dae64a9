"""This machine as a described cluster of one device: its rates measured, its curve fitted to a few training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from foretell.errors import MissingExtraError
from foretell.forecast.cluster import Cluster, Curve
from foretell.forecast.footprint import Speed, capacity, micro_rows, resident, take_steps
from foretell.forecast.job import Job, Layout
from foretell.forecast.rungs import DataShape, flops, scaled
from foretell.forecast.steptime import step_time
from foretell.measure.machine import copy_bandwidth, has_torch, matmul_rate
from foretell.recipe import Recipe

_PATIENCE = 2.0  # seconds that one forward and backward pass may take while measuring
_LEAST = 0.15  # error of a measured curve, where the steps it was fitted to show less

Measured = tuple[Job, Layout, float]
"""(job, layout, seconds of a step)"""


def here(recipe: Recipe, data: DataShape | None = None, shapes: Sequence[Recipe] | None = None) -> Cluster:
    """This machine, on the recipe's device and in its precision.

    shapes: recipes whose steps are timed to fit the curve; default the recipe's own at half, once and twice its width,
    as far as a pass takes no more than seconds. Raises MissingExtraError without torch, TrainingError for a device
    that is not here.
    """
    if not has_torch():
        raise MissingExtraError("Measuring how fast this machine trains", "torch")
    from foretell.train.setup import pick_device, pick_precision

    device = pick_device(recipe.train.device)
    precision = pick_precision(recipe.train.precision, device)
    name: Literal["cpu", "cuda"] = "cpu" if device.type == "cpu" else "cuda"
    held = resident(str(device))
    rate = matmul_rate(precision, n=1024 if name == "cpu" else 8192, device=str(device))
    cluster = Cluster(
        device=f"this machine's {device.type}",
        flops={precision: rate},
        memory=capacity(str(device)),
        bandwidth=copy_bandwidth(device=str(device)),
        kind=name,
        process=held,
        dispatch=0.0,  # in the measured curve
        source="measured now: fastest product of two square matrices, fastest copy of 128 MB",
    )
    told: list[Measured] = []
    for shape in shapes or _shapes(recipe, data, rate):
        given = data or DataShape((shape.data.sequence_length + 1) / 2)
        rows = micro_rows(shape)
        speed: Speed = take_steps(shape, rows, given, precision, str(device))
        told.append((Job.of(shape, given), Layout(rows=rows), speed.step(shape.train.batch_tokens)))
    return cluster.model_copy(update={"efficiency": fit_curve(told, cluster, precision)})


def _shapes(recipe: Recipe, data: DataShape | None, rate: float) -> list[Recipe]:
    """The recipe at half its width, and at once and twice its width where a pass takes seconds at a tenth of `rate`."""
    found: list[Recipe] = []
    for share in (0.5, 1.0, 2.0):
        unit = recipe.model.head_dim
        shape = scaled(recipe, max(unit, round(share * recipe.model.width / unit) * unit))
        row = flops(shape, data) * shape.data.sequence_length / shape.train.tokens
        if not found or row * micro_rows(shape) < _PATIENCE * rate / 10:
            found.append(shape)
    return found


def fit_curve(measured: Sequence[Measured], cluster: Cluster, precision: str) -> Curve:
    """The curve of least relative error of measured steps: their time is linear in 1/products and in passes.

    Attention's products go as fast as the others. The range is twice the largest error, 15 % at the least.
    """
    from scipy.optimize import lsq_linear

    plain, once = (
        cluster.model_copy(update={"efficiency": Curve(products=1, slope=0, attention=1, passes=passes)})
        for passes in (1e-9, 1.0)
    )
    lines, rest = [], []
    for job, layout, seconds in measured:
        bare, passed = (step_time(job, layout, one, precision) for one in (plain, once))
        lines.append([(bare.products + bare.attention) / seconds, (passed.traffic - bare.traffic) / seconds])
        rest.append(1 - (bare.traffic + bare.update) / seconds)
    solved = lsq_linear(np.array(lines), np.array(rest), bounds=([1.0, 1e-6], [np.inf, np.inf]))
    error = max(_LEAST, 2 * float(np.abs(solved.fun).max()))
    return Curve(
        products=1 / float(solved.x[0]),
        slope=0,
        attention=1,
        passes=float(solved.x[1]),
        range=(1 / (1 + error), 1 + error),
    )

"""The scores of one run on one eval: sample by sample, and their mean with its error bar."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from foretell.errors import EvalError
from foretell.measure.stats import Interval, bootstrap, is_binary, mean_stderr, pass_at_k, proportion, student

Method = Literal["wilson", "clustered wilson", "clustered student", "bootstrap", "student"]
_BOOTSTRAPPED = 2000  # samples beyond which a mean is as good as normal, and resampling would take seconds


@dataclass(frozen=True)
class Summary:
    """A mean with its error bar.

    n: samples it is the mean of. groups: how many groups they form; n where none share one. invalid: samples without
    a value, which are not in it; invalid_draws: likewise the epochs of samples that have one. method: what gave the
    interval.
    """

    interval: Interval
    stderr: float
    n: int
    groups: int
    invalid: int
    invalid_draws: int
    method: Method

    @property
    def estimate(self) -> float:
        """The mean; nan where no sample is valid."""
        return self.interval.estimate


@dataclass(frozen=True)
class Scores:
    """What a run scored on each sample of an eval; more is better.

    values: by sample id; None (or what is not finite) where the sample could not be graded. groups: by sample id,
    which samples share a passage, a template or a source, so that they do not count as independent; a sample without
    one stands alone. invalid_draws: epochs that could not be graded, of samples that have a value all the same.
    """

    run: str
    model: str
    eval: str
    metric: str
    values: Mapping[str, float | None]
    groups: Mapping[str, str] = field(default_factory=dict)
    invalid_draws: int = 0

    @classmethod
    def reduced(
        cls,
        run: str,
        model: str,
        eval: str,
        metric: str,
        draws: Mapping[str, Sequence[float | None]],
        reducer: str = "mean",
        groups: Mapping[str, str] | None = None,
    ) -> Scores:
        """Scores of a run with several epochs.

        draws: by sample id, the values in the order of the epochs. reducer: mean, max, mode (ties go to the value
        drawn first) or pass@K, the unbiased chance that one of K draws passes. Draws that are None are left out and
        counted; a sample without enough others is invalid.
        Raises EvalError for an unknown reducer, pass@K of other grades than 0 and 1, or more than the epochs drawn.
        """
        valid = {sample: [float(v) for v in values if _is_valid(v)] for sample, values in draws.items()}
        values = _pass_at(reducer, draws, valid) if reducer.startswith("pass@") else _each(reducer, valid)
        lost = sum(len(draws[sample]) - len(valid[sample]) for sample, value in values.items() if value is not None)
        return cls(run, model, eval, metric, values, groups or {}, lost)

    @property
    def valid(self) -> dict[str, float]:
        """The values of the samples that have one."""
        return {sample: float(value) for sample, value in self.values.items() if _is_valid(value)}

    def filled(self, value: float = 0.0) -> Scores:
        """The same with `value` in place of invalid ones: for whom an answer that cannot be graded is a wrong one."""
        return replace(self, values={s: v if _is_valid(v) else value for s, v in self.values.items()})

    def summary(self, confidence: float = 0.95, rng: np.random.Generator | None = None) -> Summary:
        """The mean of the valid samples with its error bar, as `summarize` makes it."""
        valid = self.valid
        x = np.fromiter(valid.values(), np.float64, len(valid))
        lost = len(self.values) - len(x)
        return summarize(x, group_labels(list(valid), self.groups), lost, self.invalid_draws, confidence, rng)


def summarize(
    x_N: npt.NDArray[np.float64],
    labels: Sequence[Hashable] | None,
    invalid: int = 0,
    invalid_draws: int = 0,
    confidence: float = 0.95,
    rng: np.random.Generator | None = None,
) -> Summary:
    """The mean of scores with its error bar. labels: a group for each, where two share one.

    0/1 grades take Wilson's interval, of as many grades as the groups are worth where samples share one; other values
    Student's of the clustered error where they do, and otherwise the bootstrap (BCa; Student's for many samples).
    rng: of the bootstrap; a fixed one by default, so that the same scores have the same interval.
    """
    _, stderr = mean_stderr(x_N, labels)
    method: Method
    if is_binary(x_N):
        method, interval = "clustered wilson" if labels else "wilson", proportion(x_N, labels, confidence)
    elif labels or len(x_N) > _BOOTSTRAPPED:
        method, interval = "clustered student" if labels else "student", student(x_N, labels, confidence)
    else:  # sorted, so that the order of the log does not show in the interval
        method, interval = "bootstrap", bootstrap(np.sort(x_N), rng or np.random.default_rng(0), confidence=confidence)
    groups = len(set(labels)) if labels else len(x_N)
    return Summary(interval, stderr, len(x_N), groups, invalid, invalid_draws, method)


def group_labels(samples: Sequence[str], groups: Mapping[str, str]) -> list[Hashable] | None:
    """The group of each sample, one of its own where it has none; None where no two share one."""
    labels: list[Hashable] = [groups.get(sample, (sample,)) for sample in samples]
    return labels if len(set(labels)) < len(labels) else None


def _is_valid(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def _each(reducer: str, valid: Mapping[str, list[float]]) -> dict[str, float | None]:
    reduce: dict[str, Callable[[list[float]], float]] = {
        "mean": lambda v: sum(v) / len(v),
        "max": max,
        "mode": lambda v: Counter(v).most_common(1)[0][0],
    }
    if reducer not in reduce:
        raise EvalError(f"Epochs cannot be reduced by {reducer!r}. Choose mean, mode, max or pass@K, such as pass@5.")
    return {sample: reduce[reducer](values) if values else None for sample, values in valid.items()}


def _pass_at(
    reducer: str, draws: Mapping[str, Sequence[float | None]], valid: Mapping[str, list[float]]
) -> dict[str, float | None]:
    match = re.fullmatch(r"pass@([1-9]\d*)", reducer)
    if match is None:
        raise EvalError(f"{reducer!r} is no reducer. Write pass@K with a whole number K from 1, such as pass@5.")
    k = int(match[1])
    for sample, values in draws.items():
        if len(values) < k:
            raise EvalError(
                f"Sample {sample!r} was drawn {len(values)} times, and {reducer} takes {k} at least. "
                f"Run the eval with {k} epochs or more, or choose a smaller K."
            )
        odd = next((v for v in valid[sample] if v not in (0, 1)), None)
        if odd is not None:
            raise EvalError(
                f"{reducer} takes grades 0 and 1, and sample {sample!r} has {odd:g}. Reduce by mean or max."
            )
    enough = [sample for sample, values in valid.items() if len(values) >= k]
    rates = pass_at_k([len(valid[s]) for s in enough], [sum(valid[s]) for s in enough], k)
    return dict.fromkeys(draws) | dict(zip(enough, rates.tolist(), strict=True))

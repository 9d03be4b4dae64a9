"""What an eval is: a class that judges one sample at a time, and makes a report of what was recorded.

    class Backwards(Eval):
        async def eval_sample(self, sample: Sample, trial: Trial) -> None:
            text = await trial.complete(f"Spell backwards: {sample['word']}", max_tokens=20)
            trial.match(text.strip() == sample["word"][::-1], expected=sample["word"][::-1], picked=text)

An entry of a registry names it as "module:Backwards" and gives its settings as `args`. A class declares those that it
has as annotated attributes, such as `max_tokens: int = 20`, and reads them from itself.
"""

from __future__ import annotations

import inspect
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from foretell.errors import EvalError
from foretell.evals.prompts import Prompt, is_chat
from foretell.evals.registry import EvalSpec, Registry
from foretell.evals.samples import Sample, read_samples

_ALIKE = 1000
BAD_SAMPLE = "invalid_sample"  # type of the event of a sample that cannot be judged
OPTIONS = "options"  # likewise, of the log-probabilities of its options


@dataclass(frozen=True)
class Completion:
    """What a model answered. prompt: as it was asked, which may be another form than the eval's. logprobs: in nats, of
    continuations that were to be scored."""

    texts: tuple[str, ...]
    prompt: Prompt
    model: str = ""
    usage: Mapping[str, int] | None = None
    logprobs: tuple[float, ...] = ()


class CompletionFn(Protocol):
    """Answers a prompt with a text, and records in the trial what was asked of which model.

    can_score: whether `score` gives the log-probability, in nats, of each continuation.
    """

    name: str

    @property
    def can_score(self) -> bool: ...

    async def __call__(self, prompt: Prompt, trial: Trial, **params: Any) -> str: ...

    async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]: ...


Call = Callable[[], Awaitable[Completion]]


class Calls(Protocol):
    """How a trial reaches models: through the run's cache, journal, budget and limits."""

    async def __call__(self, trial: Trial, key: Mapping[str, Any], call: Call) -> Completion: ...


async def directly(trial: Trial, key: Mapping[str, Any], call: Call) -> Completion:
    """Nothing in between."""
    return await call()


@dataclass
class Trial:
    """One sample in work: the models, a generator of its own, and the events that are recorded of it.

    id: "BASE.SPLIT.INDEX". rng: seeded by the id and the run's seed, as upstream does. fns: the models; the last of
    several is the grader.
    """

    id: str
    fns: Sequence[CompletionFn]
    rng: random.Random
    epoch: int = 0
    calls: Calls = directly
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    asked: int = 0
    unsaved: list[tuple[Mapping[str, Any], Completion]] = field(default_factory=list)  # answers that no file holds

    async def complete(self, prompt: Prompt, fn: CompletionFn | None = None, **params: Any) -> str:
        """The model's answer. fn: another than the first. params: in OpenAI's names, such as temperature."""
        return await (fn or self.fns[0])(prompt, self, **params)

    @property
    def can_score(self) -> bool:
        """Whether the first model tells log-probabilities."""
        return self.fns[0].can_score

    async def score(self, prompt: Prompt, continuations: Sequence[str], fn: CompletionFn | None = None) -> list[float]:
        """Log-probability in nats of each continuation after the prompt, by the first model or another that can."""
        return await (fn or self.fns[0]).score(prompt, continuations, self)

    async def call(self, key: Mapping[str, Any], call: Call) -> Completion:
        """One question to one model. key: all that decides the answer, but for the number of the question."""
        number, self.asked = self.asked, self.asked + 1
        return await self.calls(self, {**key, "call": number}, call)

    def record(self, type: str, data: Mapping[str, Any]) -> None:
        """An event of this sample: a type, and plain JSON data."""
        self.events.append((type, dict(data)))

    def match(self, correct: bool, *, expected: Any = None, picked: Any = None, **extra: Any) -> None:
        """Whether the answer is right."""
        if isinstance(expected, list) and len(expected) == 1:
            expected = expected[0]
        self.record("match", {"correct": bool(correct), "expected": expected, "picked": picked, **extra})

    def options(self, logprobs: Sequence[float], right: int, **extra: Any) -> None:
        """What the model gave each option, in nats, and which is right: what calibration is judged by."""
        self.record(OPTIONS, {"logprobs": list(logprobs), "right": right, **extra})

    def metrics(self, **values: Any) -> None:
        """Scores of this sample, by name: numbers, strings or None."""
        self.record("metrics", values)


class Tally:
    """What of all samples' events the report needs, held small. kept: fields of match events that are held, too."""

    def __init__(self, kept: Sequence[str] = ()) -> None:
        self.correct = bytearray()  # 1 for right, 0 for wrong
        self.metrics: dict[str, list[Any]] = {}
        self.kept: dict[str, list[Any]] = {name: [] for name in kept}
        self._known: dict[float | str, float | str] = {}
        self.usage: Counter[str] = Counter()
        self.invalid = 0

    def add(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """The events of one sample."""
        for type, data in events:
            if type == "match":
                self.correct.append(bool(data["correct"]))
                for name, values in self.kept.items():
                    values.append(data.get(name))
            elif type == "metrics":
                for name, value in data.items():
                    if isinstance(value, float | str):  # of values that many samples share, one is held
                        if len(self._known) < _ALIKE:
                            self._known.setdefault(value, value)
                        value = self._known.get(value, value)
                    self.metrics.setdefault(name, []).append(value)
            elif type == "sampling" and data.get("usage"):
                self.usage.update({k: v for k, v in data["usage"].items() if isinstance(v, int)})
            elif type == BAD_SAMPLE:
                self.invalid += 1

    def mean(self, name: str) -> float:
        """Mean of a metric over the samples that have it; nan where none has."""
        values = [value for value in self.metrics.get(name, ()) if value is not None]
        return math.fsum(values) / len(values) if values else math.nan

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct) if self.correct else math.nan


class Eval:
    """Base of all evals. A subclass gives `eval_sample`, and `report` where accuracy is not what it measures.

    Settings of its registry entry become attributes where the class, or a base, declares them: as annotated attributes
    that are no ClassVar, with a default where they have one. args: the others; none may be given where `closed`.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    closed: ClassVar[bool] = False
    graders = 0  # models beside those that are measured

    def __init__(self, spec: EvalSpec, registry: Registry, *, samples_jsonl: str | None = None, **args: Any) -> None:
        self.spec, self.registry, self.samples_jsonl = spec, registry, samples_jsonl
        known = settings(type(self))
        self.args = {name: value for name, value in args.items() if name not in known}
        vars(self).update({name: value for name, value in args.items() if name in known})
        if lacking := [name for name in known if not hasattr(self, name)]:
            raise TypeError(f"{lacking[0]} is missing")
        if self.closed and self.args:
            raise TypeError(f"there is no {next(iter(self.args))}; there are {', '.join(known)}")
        self.prepare()

    def prepare(self) -> None:
        """What follows from the settings. Raises EvalError for such as do not fit, before anything is asked."""

    def samples(self) -> Sequence[Sample]:
        """All samples, in the order of their file."""
        if self.samples_jsonl is None:
            raise EvalError(f"The eval {self.spec.name} names no samples. Add samples_jsonl to its args.")
        if self.samples_jsonl.startswith("hf://"):
            return read_samples(self.samples_jsonl)
        return read_samples(self.spec.path(self.samples_jsonl))

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        """Ask, judge and record. Raises EvalError for a sample that cannot be judged; it is counted as invalid."""
        raise NotImplementedError

    def report(self, tally: Tally) -> dict[str, Any]:
        """The final report: name -> number."""
        return {"accuracy": tally.accuracy, "boostrap_std": half_sample_std(tally.correct)}

    def details(self, tally: Tally) -> dict[str, Any]:
        """What else stands in the log's last line, beside the report: plain JSON."""
        return {}


def settings(cls: type[Eval]) -> tuple[str, ...]:
    """The names of the settings that a class of evals declares, its bases' first."""
    declared = {
        name: str(kind)
        for base in reversed(cls.__mro__)
        if issubclass(base, Eval)
        for name, kind in inspect.get_annotations(base).items()
    }
    return tuple(name for name, kind in declared.items() if "ClassVar" not in kind)


def listed(given: str | Iterable[Any] | None) -> list[Any]:
    """A setting that takes one or several."""
    return [given] if isinstance(given, str) else list(given or ())


def half_sample_std(correct: Sequence[int]) -> float:
    """Standard deviation of the accuracy of a random half, which upstream estimates by a thousand draws.

    Closed form: sampling without replacement, finite population. The name in reports, boostrap_std, is upstream's.
    """
    n, half = len(correct), len(correct) // 2
    if not half:
        return math.nan
    p = sum(correct) / n
    return math.sqrt(p * (1 - p) * n / (n - 1) / half * (1 - half / n)) if n > 1 else 0.0


def required(sample: Sample, *keys: str) -> None:
    """Raises EvalError where a sample lacks a key, or its input is neither text nor messages."""
    for key in keys:
        if key not in sample:
            raise EvalError(f"The sample has no {key!r}; it has {', '.join(sample) or 'nothing'}.")
        if key == "input" and not (isinstance(sample[key], str) or is_chat(sample[key])):
            raise EvalError(f"input is {str(sample[key])[:60]!r}; expected text, or a list of messages.")


def ideals(sample: Sample) -> list[str]:
    """The right answers of a sample as a list of strings."""
    ideal = sample["ideal"]
    answers = ideal if isinstance(ideal, list) else [ideal]
    if not all(isinstance(answer, str) for answer in answers):
        raise EvalError(f"ideal is {ideal!r}; expected a string or a list of strings.")
    return answers

"""Scaling that turns: soft metrics of the right answer along a ladder, each with the test for a reversal."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretell.errors import ConversationError, ForecastError, GenerationError
from foretell.files import write_json
from foretell.forecast.capability import Turn, find_turn
from foretell.forecast.questions import Answer, Question
from foretell.forecast.table import LadderTable, Rung, same_compute
from foretell.measure.stats import Interval, mean_stderr, wilson
from foretell.run import Report, silent

if TYPE_CHECKING:
    from foretell.engine.local import Engine

_AT_ONCE = 128  # questions between two reports
_SIZES = 5  # without which no reversal is looked for
SCORES = "scores"


@dataclass(frozen=True)
class LadderModel:
    """A trained model of a ladder. ref: what `foretell.load` reads. flops: of its training."""

    name: str
    ref: str
    flops: float


@dataclass(frozen=True)
class Scores:
    """What one model made of all questions."""

    model: LadderModel
    answers: tuple[Answer, ...]


def find_models(refs: Sequence[str]) -> list[LadderModel]:
    """The models that references name, in order of their compute.

    A reference is a ladder's folder (with rungs/), a run (its ladder's rungs belong to it), a checkpoint folder, or
    REF=FLOPS with anything that `foretell.load` reads. Without =FLOPS they are those of the log beside the checkpoint.
    Raises ForecastError for what holds no model, or none that says its compute.
    """
    from foretell.loading import is_foreign

    found: list[LadderModel] = []
    for ref in refs:
        root, (place, equals, flops) = Path(ref), ref.rpartition("=")
        if equals and not root.exists():  # a folder may be called lr=0.1
            model = place if is_foreign(place) else str(_checkpoint(Path(place)))
            found.append(LadderModel(Path(place).name, model, _number(ref, flops)))
            continue
        rungs = [path.parent for path in (*root.glob("rungs/*/checkpoint"), *root.glob("ladder/rungs/*/checkpoint"))]
        found += [_trained(run) for run in rungs]
        if not rungs or (root / "pretrain" / "checkpoint").is_dir():
            found.append(_trained(root))
    found = list(dict.fromkeys(found))
    if len({m.name for m in found}) < len(found):  # runs of different folders may share a name
        found = [LadderModel(_named(m.ref), m.ref, m.flops) for m in found]
    return sorted(found, key=lambda m: (m.flops, m.name))


def _number(ref: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ForecastError(f"{ref} names {text!r} as its FLOPs; expected a number above 0, such as {ref[:20]}=3e18.")
    return value


def _named(ref: str) -> str:
    return "-".join(part for part in Path(ref).parts if part not in ("/", "rungs", "checkpoint", "pretrain"))


def _checkpoint(folder: Path) -> Path:
    from foretell.loading import find_checkpoint

    return find_checkpoint(folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder)


def _trained(folder: Path) -> LadderModel:
    from foretell.train.log import read_log

    checkpoint = _checkpoint(folder)
    ends = [line for line in read_log(checkpoint.parent / "log.jsonl") if line["event"] == "end"]
    if not ends or "flops" not in ends[-1]:
        raise ForecastError(f"{checkpoint.parent} has no log.jsonl that says the FLOPs. Write {folder}=FLOPS.")
    run = checkpoint.parent.parent if checkpoint.parent.name == "pretrain" else checkpoint.parent
    return LadderModel(run.resolve().name, str(checkpoint), float(ends[-1]["flops"]))


def measure(
    models: Sequence[LadderModel], questions: Sequence[Question], out: Path, report: Report = silent
) -> list[Scores]:
    """Ask every model all questions; what out/scores holds of the same model and questions is kept.

    Raises ForecastError naming the question that a model cannot read, and as `foretell.load` does.
    """
    from foretell.loading import load

    digest = hashlib.sha256("\n".join(map(repr, questions)).encode("utf-8", "surrogatepass")).hexdigest()
    found = []
    for i, model in enumerate(models):
        key = {"questions": digest, "model": _fingerprint(model.ref)}
        file = out / SCORES / f"{model.name}.json"
        done = _read(file)
        if done is None or done[1] != key:
            generator = load(model.ref).generator
            task = f"{model.name} ({i + 1} of {len(models)})"
            answers: list[Answer] = []
            for start in range(0, len(questions), _AT_ONCE):
                answers += _ask_some(model, generator, questions, start)
                report(task, len(answers), len(questions))
            rows = [[a.group, a.right, a.logprobs, a.other] for a in answers]
            write_json(file, {"model": asdict(model), "key": key, "answers": rows})
            done = Scores(model, tuple(answers)), key
        found.append(Scores(model, done[0].answers))
    return found


def _ask_some(model: LadderModel, generator: Engine, questions: Sequence[Question], start: int) -> list[Answer]:
    some = questions[start : start + _AT_ONCE]
    try:
        return ask(generator, some)
    except (ConversationError, GenerationError):
        for i, question in enumerate(some, start + 1):
            try:
                ask(generator, [question])
            except (ConversationError, GenerationError) as error:
                raise ForecastError(f"{model.name} cannot be asked question {i} ({question.group}): {error}") from error
        raise


def ask(generator: Engine, questions: Sequence[Question]) -> list[Answer]:
    """The log-probabilities of every choice, in batches. Raises GenerationError for a prompt that does not fit."""
    from foretell.generate import score_many_sync

    asked = [(q.prompt, q.choices) for q in questions] + [(q.other, q.choices) for q in questions if q.other]
    given = [(generator.encode_text(prompt) if isinstance(prompt, str) else prompt, texts) for prompt, texts in asked]
    found = [tuple(logs) for logs in score_many_sync(generator, given)]
    others = iter(found[len(questions) :])
    pairs = zip(questions, found, strict=False)
    return [Answer(q.group, q.right, logs, next(others) if q.other else None) for q, logs in pairs]


def _fingerprint(ref: str) -> str:
    """Name, size and time of the files that a reference names; the reference itself where it is no place."""
    path = Path(ref)
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats or ref).encode()).hexdigest()


def _read(file: Path) -> tuple[Scores, dict[str, str]] | None:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        answers = [Answer(g, right, tuple(logs), other and tuple(other)) for g, right, logs, other in raw["answers"]]
        return Scores(LadderModel(**raw["model"]), tuple(answers)), raw["key"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ForecastError(f"{file} is no file of scores ({error}). Remove it, and measure again.") from error


def read_scores(out: Path) -> list[Scores]:
    """What `measure` wrote, in order of compute; needs no torch. Raises ForecastError where there is nothing."""
    read = [done for file in sorted((out / SCORES).glob("*.json")) if (done := _read(file)) is not None]
    if not read:
        raise ForecastError(f"{out} holds no scores. Name the models, so that they are asked.")
    if len({key["questions"] for _, key in read}) > 1:
        raise ForecastError(f"The scores in {out} are of different questions. Measure into another folder, or again.")
    return sorted((scores for scores, _ in read), key=lambda s: (s.model.flops, s.model.name))


@dataclass(frozen=True)
class Point:
    """One model on one group of questions. value: mean soft metric, with its standard error.

    loss: mean −log p of the right answer among those listed, in nats. accuracy: None for texts without choices.
    """

    model: LadderModel
    asked: int
    value: float
    stderr: float
    loss: float
    accuracy: Interval | None


@dataclass(frozen=True)
class SoftSeries:
    """A soft metric along a ladder. errors: of the differences between models, which met the same questions."""

    group: str
    metric: str
    points: tuple[Point, ...]
    errors: tuple[float, ...]

    @cached_property
    def sizes(self) -> list[list[Point]]:
        """The points of each compute, in rising order: seeds together."""
        rungs = [Rung(point.model.flops, 1.0, i) for i, point in enumerate(self.points)]
        return [[self.points[rung.seed] for rung in group] for group in same_compute(rungs)]

    @property
    def flops(self) -> list[float]:
        """Of each point; seeds that differ by a document's end share theirs."""
        shared = {id(point): size[0].model.flops for size in self.sizes for point in size}
        return [shared[id(point)] for point in self.points]

    @property
    def values(self) -> list[float]:
        return [point.value for point in self.points]

    @cached_property
    def turn(self) -> Turn | None:
        """Where scaling reverses; None if it does not, or if there are fewer than five sizes."""
        if not self.tested:
            return None
        return find_turn(self.flops, self.values, [max(error, 1e-9) for error in self.errors])

    @property
    def tested(self) -> bool:
        """Whether there are sizes enough for a reversal to be looked for."""
        return len(self.sizes) >= _SIZES

    def table(self) -> LadderTable:
        """The loss of the right answer as a ladder, for `forecast.fit`; no power law holds across a turn."""
        rungs = [Rung(p.model.flops, p.loss, i, p.model.name) for i, p in enumerate(self.points)]
        return LadderTable(tuple(rungs), "nats per question", {"evaluation set": self.group})


def soft_series(scores: Sequence[Scores]) -> list[SoftSeries]:
    """A series for each group of questions, in the order they were asked.

    Raises ForecastError where models met different questions.
    """
    groups: dict[str, list[int]] = {}
    for i, answer in enumerate(scores[0].answers):
        groups.setdefault(answer.group, []).append(i)
    asked = [[(a.group, a.right, len(a.logprobs)) for a in s.answers] for s in scores]
    if any(other != asked[0] for other in asked):
        raise ForecastError("The models were asked different questions. Ask each the same ones.")
    found = []
    for group, places in groups.items():
        values = np.array([[s.answers[i].value for i in places] for s in scores])
        first = scores[0].answers[places[0]]
        metric = "log-probability" if len(first.logprobs) == 1 else "log-odds of the right answer"
        metric += ", difference of prompts" if first.other else ""
        found.append(SoftSeries(group, metric, tuple(_point(s, places) for s in scores), _errors(values)))
    return found


def _point(scores: Scores, places: Sequence[int]) -> Point:
    answers = [scores.answers[i] for i in places]
    value, stderr = mean_stderr([a.value for a in answers])
    grades = [a.correct for a in answers if a.correct is not None]
    return Point(
        scores.model,
        len(answers),
        value,
        stderr,
        float(-np.mean([a.log_probability for a in answers])),
        wilson(sum(grades), len(grades)) if grades else None,
    )


def _errors(values_MQ: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, ...]:
    """Standard errors of the means over questions, without what makes a question hard for all models alike.

    Source: Cousineau (2005), with the correction of Morey (2008), Tutorials in Quantitative Methods for Psychology 4.
    """
    models, questions = values_MQ.shape
    own = values_MQ - values_MQ.mean(0)
    if models < 2 or questions < 2:
        return (math.nan,) * models
    errors = own.std(1, ddof=1) * math.sqrt(models / (models - 1) / questions)
    return tuple(float(error) for error in errors)


def verdict(series: SoftSeries) -> str:
    """In words: whether it turns and where, or which way it goes."""
    from foretell.pages.axes import power_text

    turn = series.turn
    if turn:
        ways = ("falls", "rises") if turn.before < 0 else ("rises", "falls")
        return f"{ways[0]}, then {ways[1]}: turns near {power_text(turn.flops)} FLOPs (p = {turn.p:.2g})"
    if not series.tested:
        return f"{len(series.sizes)} sizes: too few to look for a turn, which needs {_SIZES}"
    from scipy.stats import linregress

    line = linregress(np.log10(series.flops), series.values)
    way = "no trend" if line.pvalue > 0.05 else "rises" if line.slope > 0 else "falls"
    return f"{way}, {line.slope:+.2g} a decade; no turn is found"


def table_csv(series: SoftSeries) -> str:
    """The series as a table for `foretell forecast fit`."""
    stream = io.StringIO()
    rows = ((p.model.name, float(p.model.flops), p.loss, "nats per question") for p in series.points)
    csv.writer(stream, lineterminator="\n").writerows([("run", "flops", "loss", "unit"), *rows])
    return stream.getvalue()

"""Option probabilities out of logs, and what they say of a model's calibration: alone, or before and after.

What is read: logs of `foretell eval run` and `foretell exam run`; runs of `foretell run` and their folders of outcomes;
and JSON lines of anyone's, an object a question:

    {"id": "q1", "probabilities": [0.7, 0.2, 0.1], "right": 0}
    {"id": "q2", "logprobs": [-0.4, -1.5], "right": "B", "group": "passage 3"}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import CheckpointError, EvalError
from foretell.evals.base import OPTIONS
from foretell.evals.results import model_of, weights_of
from foretell.evals.samples import parse
from foretell.files import read_json, sha256_file
from foretell.measure.assessment import Assessment, Change, Repair, assess, change, repair
from foretell.measure.calibration import BINS, HOTTEST, padded
from foretell.measure.stats import Interval

RECORDS = "records.jsonl"  # of the outcomes of a run
_OUTCOMES, _FIRST = "outcomes", "base"
_ADVICE = "Log-probabilities of options are kept by runs of models that tell them, such as local ones."


@dataclass(frozen=True)
class Question:
    """Log-probabilities of a question's options, the index of the right one, and where it was read: a line's number."""

    id: str
    logprobs: tuple[float, ...]
    right: int
    group: str
    line: int


@dataclass(frozen=True)
class Answers:
    """What one model gave every option. run, eval, weights (SHA-256): "" where the file does not say; model: else its
    name. left_out: rows or samples that hold no option probabilities, such as free responses."""

    path: Path
    run: str
    eval: str
    model: str
    sha256: str
    questions: tuple[Question, ...]
    left_out: int
    weights: str = ""


@dataclass(frozen=True)
class Side:
    """One model's answers to the questions that count, and their assessment. only_here: questions the other lacks."""

    answers: Answers
    assessment: Assessment
    only_here: int


@dataclass(frozen=True)
class Calibration:
    """after, change: None for one model alone. repair: of the last of the models; None where there are too few
    questions to part, with the reason in `note`. groups: how many the questions form."""

    before: Side
    after: Side | None
    change: Change | None
    repair: Repair | None
    note: str
    groups: int
    bins: int
    seed: int

    @property
    def last(self) -> Side:
        return self.after or self.before

    @property
    def stopped(self) -> str:
        """What it means that the fitted temperature stopped at a bound, and so repairs nothing; "" where it did not."""
        t = 1.0 if self.repair is None else self.repair.temperature
        if t >= HOTTEST:
            return (
                f"The temperature stops at its bound, {HOTTEST:g}: it flattens all options, since the model cannot "
                "tell them apart."
            )
        if t <= 1 / HOTTEST:
            return (
                f"The temperature stops at its bound, {1 / HOTTEST:g}: it makes the likeliest option certain, since "
                "that was as good as always the right one where it was fitted."
            )
        return ""


def calibration(before: str | Path, after: str | Path | None = None, bins: int = BINS, seed: int = 0) -> Calibration:
    """Assess one model, or two on the questions that both were asked, and repair the last by a temperature.

    A run that has outcomes stands alone for its base model and the one it aligned; beside another, for the latter.
    Raises EvalError for what cannot be read, without a question in common, or with other options of one.
    """
    places = _places(Path(before), None if after is None else Path(after))
    first, *rest = [read_answers(place) for place in places]
    second = rest[0] if rest else None
    pairs = [(question, question) for question in first.questions] if second is None else _pairs(first, second)
    right = [a.right for a, _ in pairs]
    groups = [a.group for a, _ in pairs]
    z, z_after = (padded([pair[i].logprobs for pair in pairs]) for i in (0, 1))
    sides = [
        Side(answers, assess(logits, right, groups, seed, bins), len(answers.questions) - len(pairs))
        for answers, logits in zip((first, *rest), (z, z_after), strict=False)
    ]
    shift = None if second is None else change(z, z_after, right, groups, seed, bins)
    note, mended = "", None
    try:
        mended = repair(z_after, right, groups, seed, bins)
    except ValueError:
        note = f"{len(set(groups))} groups of questions are too few to fit a temperature on some and try it on others."
    return Calibration(sides[0], sides[1] if rest else None, shift, mended, note, len(set(groups)), bins, seed)


def read_answers(path: Path) -> Answers:
    """The questions of a file that hold option probabilities, in its order.

    Raises EvalError for a file that is missing or holds none, and for a damaged row, with its line.
    """
    spec: dict[str, Any] = {}
    questions: dict[str, Question] = {}
    draws: dict[str, int] = {}
    left_out = 0
    for question in _rows(path, spec):
        if question is None:
            left_out += 1
            continue
        count = draws[question.id] = draws.get(question.id, 0) + 1
        id = question.id if count == 1 else f"{question.id}, {count}"  # epochs of one sample share its group
        questions[id] = Question(id, question.logprobs, question.right, question.group, question.line)
    if not questions:
        raise EvalError(f"{path} holds no option probabilities ({left_out} rows without). {_ADVICE}")
    run, eval, model = str(spec.get("run_id") or ""), str(spec.get("eval_name") or ""), path.stem
    if path.name == RECORDS:
        run, eval, model = str(path.parents[2].resolve().name), _OUTCOMES, path.parent.name
    elif spec:
        model = model_of(spec)
    return Answers(path, run, eval, model, sha256_file(path), tuple(questions.values()), left_out, weights_of(spec))


def plain(found: Calibration) -> dict[str, Any]:
    """All of it as JSON, each model with the run, file and digest that its numbers are from."""
    return {
        "format": 1,
        "bins": found.bins,
        "seed": found.seed,
        "level": 0.95,
        "groups": found.groups,
        "before": _plain_side(found.before),
        "after": None if found.after is None else _plain_side(found.after),
        "change": None if found.change is None else asdict(found.change),
        "repair": None if found.repair is None else asdict(found.repair) | {"of": "after" if found.after else "before"},
        "note": found.note,
        "published": [asdict(row) for row in PUBLISHED],
    }


@dataclass(frozen=True)
class Published:
    """A figure that others published of another model."""

    model: str
    ece: float
    source: str


_REPORT = "GPT-4 Technical Report (arXiv 2303.08774), figure 8: letters of a subset of MMLU"
PUBLISHED = (Published("GPT-4, pre-trained", 0.007, _REPORT), Published("GPT-4, after PPO", 0.074, _REPORT))


def _plain_side(side: Side) -> dict[str, Any]:
    answers = side.answers
    source = {
        "run": answers.run, "eval": answers.eval, "model": answers.model, "weights": answers.weights,
        "log": str(answers.path), "sha256": answers.sha256, "left_out": answers.left_out, "only_here": side.only_here,
    }  # fmt: skip
    return {"source": source, **asdict(side.assessment)}


def _places(before: Path, after: Path | None) -> list[Path]:
    """The files to read."""
    for place in (before, *([after] if after else [])):
        if not place.exists():
            raise EvalError(f"There is no {place}. Give a run, or a log that foretell eval run or exam run wrote.")
    if after is not None:
        return [_file(before), _file(after)]
    names = _models(before)
    if names and len(names) > 1:
        return [before / _OUTCOMES / name / RECORDS for name in (_FIRST, names[-1])]
    return [_file(before)]


def _file(place: Path) -> Path:
    if not place.is_dir():
        return place
    if names := _models(place):
        return place / _OUTCOMES / names[-1] / RECORDS
    if not (place / RECORDS).is_file():
        raise EvalError(f"{place} holds no outcomes of a run. Give a run that has the stage outcomes, or a log.")
    return place / RECORDS


def _models(run: Path) -> list[str]:
    """The models whose outcomes a run has, the base first and the one it is talked to by last; none of other places."""
    if not (run / _OUTCOMES / "manifest.json").is_file():
        return []
    try:
        names: dict[str, str] = read_json(run / _OUTCOMES / "manifest.json")["config"]["names"]
        return [*(name for stage, name in names.items() if stage != "ppo"), names["ppo"]]
    except (CheckpointError, KeyError, TypeError, AttributeError) as error:
        raise EvalError(f"{run / _OUTCOMES / 'manifest.json'} is damaged ({error!r}). Run its recipe again.") from error


def _pairs(first: Answers, second: Answers) -> list[tuple[Question, Question]]:
    """The questions of both, in the first one's order."""
    there = {question.id: question for question in second.questions}
    pairs = [(question, there[question.id]) for question in first.questions if question.id in there]
    if not pairs:
        raise EvalError(
            f"{first.path} and {second.path} have no question in common (the first are {first.questions[0].id!r} and "
            f"{second.questions[0].id!r}). Run the same eval with both models, over the same samples."
        )
    for a, b in pairs:
        if len(a.logprobs) != len(b.logprobs) or a.right != b.right:
            raise EvalError(
                f"{second.path}, line {b.line}: question {b.id!r} has {len(b.logprobs)} options, the right one "
                f"number {b.right}; in {first.path}, line {a.line}, it has {len(a.logprobs)}, number {a.right}. "
                "Compare runs of one eval with the same seed."
            )
    return pairs


def _rows(path: Path, spec: dict[str, Any]) -> Iterator[Question | None]:
    """Questions as they come; None for rows and samples without option probabilities. spec: filled with the log's."""
    events: list[tuple[int, Mapping[str, Any]]] = []  # of the sample that is being read, with their lines
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                row = parse(line, path, number)
                if "sample_id" in row and "type" in row:
                    if events and (row["sample_id"] != events[-1][1]["sample_id"] or _again(events, row)):
                        yield _of_sample(events, path)
                        events = []
                    events.append((number, row))
                elif "spec" in row and isinstance(row["spec"], Mapping):
                    spec.update(row["spec"])
                elif "final_report" not in row:
                    yield _of_row(row, path, number)
    except OSError as error:
        raise EvalError(f"{path} cannot be read ({error.strerror}). Give a log, or a file of JSON lines.") from error
    if events:
        yield _of_sample(events, path)


def _again(events: Sequence[tuple[int, Mapping[str, Any]]], row: Mapping[str, Any]) -> bool:
    """Whether an event begins the same sample's next epoch: its options stand already, and are followed by a score."""
    kinds = [event["type"] for _, event in events]
    return row["type"] in ("cond_logp", "sampling") and any(kind in ("match", "metrics") for kind in kinds)


def _of_sample(events: Sequence[tuple[int, Mapping[str, Any]]], path: Path) -> Question | None:
    """A sample's question: by its event of options, or by the scores of its continuations, the right one of which is
    what the answer says."""
    id = str(events[0][1]["sample_id"])
    for number, event in events:
        if event["type"] == OPTIONS:
            return _of_row({"id": id, **_data(event, path, number)}, path, number)
    scored = [(number, _data(event, path, number)) for number, event in events if event["type"] == "cond_logp"]
    told = [_data(event, path, number) for number, event in events if event["type"] in ("match", "answer")]
    texts = [str(data.get("completion")).strip().removesuffix("]") for _, data in scored]
    expected = str(told[-1].get("expected")).strip() if told else ""
    if len(texts) < 2 or texts.count(expected) != 1:
        return None
    row = {"id": id, "logprobs": [data.get("logp") for _, data in scored], "right": texts.index(expected)}
    return _of_row(row | {"group": told[-1].get("group")}, path, scored[0][0])


def _data(event: Mapping[str, Any], path: Path, number: int) -> Mapping[str, Any]:
    if not isinstance(event.get("data"), Mapping):
        raise EvalError(f"{path}, line {number}: the event has no data. Take the log as it was written.")
    return event["data"]  # type: ignore[no-any-return]


def _of_row(row: Mapping[str, Any], path: Path, number: int) -> Question | None:
    """A question of a row that names its options' log-probabilities, or probabilities, and the right one."""
    values, right = row.get("logprobs"), row.get("right", row.get("truth"))
    logs = values is not None
    values = values if logs else row.get("probabilities")
    if not values:
        return None
    if not isinstance(values, list) or len(values) < 2 or not all(map(_is_number, values)):
        raise EvalError(
            f"{path}, line {number}: {'logprobs' if logs else 'probabilities'} is {str(values)[:60]}; expected a list "
            "of two numbers or more, one an option."
        )
    if isinstance(right, str) and len(right) == 1 and right.isascii() and right.isupper():
        right = ord(right) - ord("A")
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(values):
        raise EvalError(
            f"{path}, line {number}: the right option is {right!r} of {len(values)}; expected `right` with its number "
            "from 0, or its letter."
        )
    found = _of_logprobs(values, path, number) if logs else _of_probabilities(values, path, number)
    id = row.get("id")
    asked = {key: row[key] for key in ("task", "prompt") if key in row}
    if id is None:  # records of outcomes have none; elsewhere the line is the name
        id = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16] if asked else f"line {number}"
    group = row.get("group", row.get("key"))
    return Question(str(id), found, right, str(id if group is None else group), number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_logprobs(values: Sequence[float], path: Path, number: int) -> tuple[float, ...]:
    if any(math.isnan(value) or value == math.inf for value in values) or all(value == -math.inf for value in values):
        raise EvalError(f"{path}, line {number}: logprobs holds {values}; expected numbers, or −Infinity for some.")
    return tuple(map(float, values))


def _of_probabilities(values: Sequence[float], path: Path, number: int) -> tuple[float, ...]:
    """Their logarithms. Those of rounded numbers need not add up to 1 exactly."""
    if not all(0 <= value <= 1 for value in values) or abs(math.fsum(values) - 1) > 0.01:
        raise EvalError(
            f"{path}, line {number}: probabilities {values} add up to {math.fsum(values):.4g}; expected numbers from 0 "
            "to 1 that add up to 1."
        )
    with np.errstate(divide="ignore"):
        return tuple(np.log(np.asarray(values, np.float64)).tolist())


def interval_text(value: Interval, digits: int = 3, signed: bool = False) -> str:
    """An estimate with its interval: 0.034 (0.029 to 0.041)."""
    sign = "+" if signed else ""
    middle, low, high = (f"{x:{sign}.{digits}f}".replace("-", "−") for x in (value.estimate, value.low, value.high))
    return f"{middle} ({low} to {high})"

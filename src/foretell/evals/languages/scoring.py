"""What a run in many languages came to: accuracy by language with intervals, against English, by subject; as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import EvalError
from foretell.evals.base import BAD_SAMPLE
from foretell.evals.languages.codes import name_of
from foretell.evals.languages.published import BASELINES, GPT_4, SOURCE
from foretell.evals.languages.sitting import EVENT
from foretell.evals.log import RunLog, read_log
from foretell.evals.results import model_of
from foretell.evals.scores import Summary, group_labels, summarize
from foretell.files import write_json
from foretell.measure.stats import Interval, mcnemar, paired_difference

CHANCE = 0.25
ENGLISH = "en"


@dataclass(frozen=True)
class Answer:
    """One question as it was answered. number: its place in the log. right: 1 or 0; None where it could not be put,
    with the reason in `why`."""

    number: int
    language: str
    question: str
    subject: str
    group: str | None
    flags: tuple[str, ...]
    expected: str
    picked: str | None
    right: float | None
    why: str = ""


@dataclass(frozen=True)
class Against:
    """A language against English on the questions that both have: accuracies' difference, paired, and McNemar's p."""

    n: int
    difference: Interval
    p: float


@dataclass(frozen=True)
class LanguageScore:
    """One language. accuracy: with its 95 % interval; a reply without a letter is wrong. silent: replies without one.
    invalid: questions that could not be put, which are not counted. by_subject: accuracies in order of subjects.
    unflagged: over the questions whose translation is in no doubt, where some are."""

    language: str
    n: int
    accuracy: Interval
    stderr: float
    method: str
    silent: int
    invalid: int
    flagged: int
    by_subject: tuple[tuple[str, int, Interval], ...]
    against: Against | None
    unflagged: Interval | None

    @property
    def name(self) -> str:
        return name_of(self.language)


@dataclass(frozen=True)
class LanguagesScore:
    """A run's result. languages: the best first. mean: over languages, each counting alike; its interval is over
    questions, which languages share. how: "score" or "sample", as letters were chosen."""

    run: str
    model: str
    log: Path
    set_name: str
    is_mmlu: bool
    how: str
    languages: tuple[LanguageScore, ...]
    mean: Interval
    answers: tuple[Answer, ...]
    settings: Mapping[str, Any]
    created: str = ""

    @property
    def reason(self) -> str:
        """Why most of the questions that could not be put could not; "" where all could, or the log does not say."""
        return _commonest(self.answers)


def score_languages(log: RunLog | str | Path) -> LanguagesScore:
    """Score a run. Intervals are the evals': Wilson's, clustered by subject where a benchmark has several.

    Raises EvalError for a log of something else.
    """
    found = log if isinstance(log, RunLog) else read_log(Path(log))
    args = found.args
    if "languages" not in args:
        raise EvalError(f"{found.path} is no log of languages. Make one with: foretell exam languages run MODEL SOURCE")
    answers = _answers(found)
    english = {a.question: a.right for a in answers if a.language == ENGLISH and a.right is not None}
    languages = [_language(code, [a for a in answers if a.language == code], english) for code in args["languages"]]
    languages = [one for one in languages if one.n]
    if not languages:
        why = _commonest(answers)
        told = f" The commonest reason: {why}" if why else ""
        raise EvalError(
            f"{found.path} holds no question that could be put.{told} See them with: foretell eval view {found.path}"
        )
    languages.sort(key=lambda one: -one.accuracy.estimate)
    first = next(a.number for a in answers if a.right is not None)
    scored = any(event["type"] == "match" and "logprobs" in event["data"] for event in found.events(first))
    return LanguagesScore(
        str(found.spec["run_id"]), model_of(found.spec), found.path, str(args["set"]), bool(args["mmlu"]),
        "score" if scored else "sample", tuple(languages), _mean(answers, languages), tuple(answers), dict(args),
        str(found.spec.get("created_at", "")),
    )  # fmt: skip


def _answers(log: RunLog) -> list[Answer]:
    found = []
    for number in range(len(log)):
        told: dict[str, Any] = {}
        match: dict[str, Any] | None = None
        why = ""
        for event in log.events(number):
            if event["type"] == EVENT:
                told = event["data"]
            elif event["type"] == "match":
                match = event["data"]
            elif event["type"] == BAD_SAMPLE:
                why = str(event["data"].get("message") or "")
        if told:
            expected, picked, right = ("", None, None) if match is None else (match["expected"], match["picked"],
                                                                              float(match["correct"]))  # fmt: skip
            found.append(
                Answer(
                    number, told["language"], told["question"], told["subject"], told.get("group"),
                    tuple(told.get("flags") or ()), expected, picked, right, why,
                )
            )  # fmt: skip
    return found


def _summary(answers: Sequence[Answer]) -> Summary:
    ids = [a.question for a in answers]
    groups = {a.question: a.group for a in answers if a.group is not None}
    labels = group_labels(ids, groups) if len(set(groups.values())) > 1 else None
    return summarize(np.array([a.right or 0.0 for a in answers]), labels)


def _language(code: str, answers: Sequence[Answer], english: Mapping[str, float | None]) -> LanguageScore:
    counted = [a for a in answers if a.right is not None]
    if not counted:
        nothing = Interval(float("nan"), float("nan"), float("nan"))
        return LanguageScore(code, 0, nothing, float("nan"), "", 0, len(answers), 0, (), None, None)
    summary = _summary(counted)
    subjects: dict[str, list[Answer]] = {}
    for a in counted:
        subjects.setdefault(a.subject, []).append(a)
    by_subject = tuple((name, len(own), _summary(own).interval) for name, own in sorted(subjects.items()))
    clean = [a for a in counted if not a.flags]
    flagged = len(counted) - len(clean)
    return LanguageScore(
        code, len(counted), summary.interval, summary.stderr, summary.method, sum(a.picked is None for a in counted),
        len(answers) - len(counted), flagged, by_subject, _against(code, counted, english),
        _summary(clean).interval if flagged and clean else None,
    )  # fmt: skip


def _against(code: str, answers: Sequence[Answer], english: Mapping[str, float | None]) -> Against | None:
    pairs = [(a, english[a.question]) for a in answers if a.question in english]
    if code == ENGLISH or not pairs:
        return None
    own = [float(a.right or 0) for a, _ in pairs]
    other = [float(right or 0) for _, right in pairs]
    groups = [a.group for a, _ in pairs]
    shared = groups if len(set(groups)) > 1 and None not in groups else None
    return Against(len(pairs), paired_difference(own, other, groups=shared), mcnemar(own, other))


def _mean(answers: Sequence[Answer], languages: Sequence[LanguageScore]) -> Interval:
    """Each language counts alike; an answer weighs so that the mean of all is that of the languages.

    Questions that could not be put are neither among the answers nor in their number.
    """
    counts = {one.language: one.n for one in languages}
    kept = [a for a in answers if a.right is not None and a.language in counts]
    weight = {code: len(kept) / (len(counts) * n) for code, n in counts.items()}
    x = np.array([(a.right or 0.0) * weight[a.language] for a in kept])
    labels = [a.group or a.question for a in kept]
    interval = summarize(x, labels if len(set(labels)) < len(labels) else None).interval
    return Interval(interval.estimate, max(interval.low, 0.0), min(interval.high, 1.0))


def _commonest(answers: Sequence[Answer]) -> str:
    """The commonest reason, its first wording: reasons that differ in numbers alone, such as lengths, are one."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for a in answers:
        if a.right is None and a.why:
            kind = re.sub(r"\d+", "0", a.why)
            first.setdefault(kind, a.why)
            counts[kind] += 1
    return first[counts.most_common(1)[0][0]] if counts else ""


def summary_path(log: Path) -> Path:
    """Where the summary of a run lies: beside its log."""
    return log.with_name(f"{log.stem}.summary.json")


def write_summary(score: LanguagesScore) -> Path:
    """Write what a card needs of a run, as JSON: numbers with intervals, the run's id, where its samples are."""
    path = summary_path(score.log)
    write_json(path, summary_of(score))
    return path


def summary_of(score: LanguagesScore) -> dict[str, Any]:
    """The summary as plain data. samples: the log's name, beside which it lies. published: others' figures."""
    return {
        "kind": "languages",
        "version": 1,
        "run": score.run,
        "model": score.model,
        "samples": score.log.name,
        "created": score.created,
        "set": score.set_name,
        "digest": score.settings["digest"],
        "sources": list(score.settings["sources"]),
        "warnings": list(score.settings["warnings"]),
        "shots": score.settings["shots"],
        "letter": score.how,
        "chance": CHANCE,
        "mean": asdict(score.mean),
        "languages": [_plain(one, score.is_mmlu) for one in score.languages],
        "published": {"source": SOURCE, "comparable": score.is_mmlu, "baselines": dict(BASELINES), "gpt4": GPT_4},
    }


def _plain(one: LanguageScore, comparable: bool) -> dict[str, Any]:
    against = one.against
    return {
        "language": one.language,
        "name": one.name,
        "n": one.n,
        "accuracy": one.accuracy.estimate,
        "low": one.accuracy.low,
        "high": one.accuracy.high,
        "stderr": one.stderr,
        "method": one.method,
        "without_letter": one.silent,
        "invalid": one.invalid,
        "flagged": one.flagged,
        "unflagged": None if one.unflagged is None else asdict(one.unflagged),
        "against_english": None if against is None else {"n": against.n, "p": against.p, **asdict(against.difference)},
        "subjects": [{"subject": name, "n": n, **asdict(interval)} for name, n, interval in one.by_subject],
        "gpt4_published": GPT_4.get(one.language) if comparable else None,
    }

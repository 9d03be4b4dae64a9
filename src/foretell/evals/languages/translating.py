"""Translate questions with any model, translate them back with another, and keep what departs marked.

It is an eval, so that every answer is kept as it comes: where an endpoint goes down, the same call goes on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.api import LOGS, log_path
from foretell.evals.base import CompletionFn, Eval, Tally, Trial
from foretell.evals.cache import Cache
from foretell.evals.languages.asking import instruction_of
from foretell.evals.languages.codes import language_code, name_of
from foretell.evals.languages.departure import FLAGS, THRESHOLD, Text, doubts
from foretell.evals.languages.questions import LETTERS, Question, QuestionSet, to_row
from foretell.evals.log import RunLog
from foretell.evals.models import as_model
from foretell.evals.prompts import Prompt
from foretell.evals.registry import OWN, EvalSpec, Registry
from foretell.evals.runner import SEED, Budget, Settings, run_eval
from foretell.evals.samples import Sample
from foretell.files import write_text
from foretell.run import Report, silent

CACHE = LOGS / "translations.sqlite"
EVENT = "translation"
_MOST_TOKENS = 4096
_WHOLE = (
    "Translate the multiple-choice question below from {source} to {target}. Translate the question and every option. "
    "Keep the letters A) to D), numbers, formulas and names as they are. Write the translation alone, in the same form."
)
_PIECE = "Translate the text below from {source} to {target}. Write the translation alone."
_MARK = re.compile(r"^\W*([A-D])\s*[).:：）．]\s*", re.MULTILINE)


class Translation(Eval):
    """Each question into each language, and back. The last of several models translates back.

    check: whether anything is translated back; threshold: as of `departure.doubts`. shots: worked questions that are
    translated, too, of each subject that is asked.
    """

    graders = 1

    def __init__(
        self,
        questions: QuestionSet,
        targets: Sequence[str],
        check: bool = True,
        threshold: float = THRESHOLD,
        shots: int = 3,
    ) -> None:
        if len(questions.languages) != 1:
            raise EvalError(f"{questions.name} is in {', '.join(questions.languages)}; say which to translate from.")
        self.origin = questions.languages[0]
        if self.origin in targets:
            raise EvalError(f"{name_of(self.origin)} cannot be translated into itself. Leave it out of the targets.")
        args: dict[str, Any] = {"set": questions.name, "digest": questions.digest, "from": self.origin}
        args |= {"to": list(targets), "check": check, "threshold": threshold, "shots": shots}
        spec = EvalSpec(
            "translation.test.v1", f"{type(self).__module__}:{type(self).__name__}", args, OWN, "languages",
            f"{questions.name} from {name_of(self.origin)}", ("chrf",),
        )  # fmt: skip
        super().__init__(spec, Registry((OWN,)))
        self.check, self.threshold = check, threshold
        shown = _needed(questions.shots.get(self.origin, ()), questions.questions, shots)
        self.questions = [*questions.questions, *shown]
        self.asked = len(questions.questions)
        instructions = list(dict.fromkeys(instruction_of(q) for q in self.questions))
        self._samples: list[Sample] = [
            *({"number": i, "to": code} for code in targets for i in range(len(self.questions))),
            *({"instruction": text, "to": code} for code in targets for text in instructions),
        ]

    def samples(self) -> Sequence[Sample]:
        return self._samples

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        target = sample["to"]
        if "instruction" in sample:
            text = await self._piece(sample["instruction"], self.origin, target, trial, trial.fns[0])
            trial.record(EVENT, {"language": target, "instruction": sample["instruction"], "text": text})
            return
        asked = self.questions[sample["number"]]
        source = Text(asked.question, asked.options)
        translation, pieces = await self._whole(source, self.origin, target, trial, trial.fns[0])
        told: dict[str, Any] = {
            "language": target, "number": sample["number"], "question": translation.question,
            "options": list(translation.options), "pieces": pieces,
        }  # fmt: skip
        if self.check:
            back, _ = await self._whole(translation, target, self.origin, trial, trial.fns[-1])
            score, flags = doubts(source, translation, back, self.threshold, self.origin == "en")
            told |= {"back": {"question": back.question, "options": list(back.options)}, "chrf": score}
            told |= {"flags": list(flags)}
            trial.metrics(chrf=score, doubt=float(bool(flags)))
        trial.record(EVENT, told)

    def report(self, tally: Tally) -> dict[str, Any]:
        return {name: tally.mean(name) for name in ("chrf", "doubt") if not math.isnan(tally.mean(name))}

    async def _whole(self, text: Text, source: str, target: str, trial: Trial, fn: CompletionFn) -> tuple[Text, bool]:
        """The question in one piece, so that options are read in its light; piece by piece where the reply has lost its
        form."""
        options = [f"{letter}) {option}" for letter, option in zip(LETTERS, text.options, strict=True)]
        reply = await self._complete(_WHOLE, "\n".join([text.question, *options]), source, target, trial, fn)
        found = parse_translation(reply)
        if found is not None:
            return found, False
        pieces = [await self._piece(piece, source, target, trial, fn) for piece in (text.question, *text.options)]
        return Text(pieces[0], tuple(pieces[1:])), True

    async def _piece(self, text: str, source: str, target: str, trial: Trial, fn: CompletionFn) -> str:
        found = (await self._complete(_PIECE, text, source, target, trial, fn)).strip()
        if not found:
            raise EvalError(f"{fn.name} translated {text[:60]!r} to nothing. Take another model.")
        return found

    async def _complete(self, words: str, text: str, source: str, target: str, trial: Trial, fn: CompletionFn) -> str:
        asked = words.format(source=name_of(source), target=name_of(target))
        prompt: Prompt = [{"role": "user", "content": f"{asked}\n\n{text}"}]
        return await trial.complete(prompt, fn, temperature=0.0, max_tokens=_MOST_TOKENS)


def parse_translation(reply: str) -> Text | None:
    """Question and options of a reply in the form that was asked for; None where it has another."""
    marks = list(_MARK.finditer(reply))
    for start in range(len(marks) - len(LETTERS) + 1):
        four = marks[start : start + len(LETTERS)]
        if [mark[1] for mark in four] == list(LETTERS) and start + len(LETTERS) == len(marks):
            ends = [*(mark.start() for mark in four[1:]), len(reply)]
            options = tuple(reply[mark.end() : end].strip() for mark, end in zip(four, ends, strict=True))
            question = reply[: four[0].start()].strip()
            return Text(question, options) if question and all(options) else None
    return None


def _needed(worked: Sequence[Question], asked: Sequence[Question], shots: int) -> list[Question]:
    """The worked questions that will be shown: `shots` of each subject that is asked, and of others where there are
    none."""
    subjects = {q.subject for q in asked}
    counts: dict[str, int] = {}
    found = []
    for q in worked:
        counts[q.subject] = counts.get(q.subject, 0) + 1
        if q.subject in subjects and counts[q.subject] <= shots:
            found.append(q)
    return [*found, *(q for q in worked if q not in found)][: max(len(found), shots)]


@dataclass(frozen=True)
class Translated:
    """One language's part. file, dev: questions, and worked ones where there are some. chrf: mean, nan unchecked.
    doubts: questions by flag; doubtful: those with any; pieces: those translated piece by piece; lost: those that could
    not be translated."""

    language: str
    file: Path
    dev: Path | None
    questions: int
    chrf: float
    doubtful: int
    doubts: dict[str, int]
    pieces: int
    lost: int


def translate(
    questions: QuestionSet,
    targets: Sequence[str],
    model: Any,
    out: str | Path,
    *,
    back: Any = None,
    check: bool = True,
    threshold: float = THRESHOLD,
    shots: int = 3,
    concurrency: int = 16,
    budget: Budget | None = None,
    cache: str | Path | None = CACHE,
    log: str | Path | None = None,
    user: str = "",
    command: str = "",
    report: Report = silent,
) -> tuple[list[Translated], RunLog]:
    """Translate a set in one language into others, and write a file a language into the folder `out`, the source's
    among them, in the form that `reading` takes.

    model: translates, as of `foretell.evals.run`; back: translates back, default the same. check: whether it is done.
    shots: as of `Translation`. cache: answers over runs, None for none. log: of the run; default one in runs/evals.
    Raises EvalError where the model fails for good: what was translated is kept, and the same call goes on.
    """
    codes = list(dict.fromkeys(language_code(code) for code in targets))
    made = Translation(questions, codes, check, threshold, shots)
    registry = Registry((OWN,))
    fns = [as_model(model, registry, concurrency)]
    if check and back is not None:
        fns.append(as_model(back, registry, concurrency))
    settings = Settings(SEED, None, 1, concurrency, budget or Budget())
    path = Path(log) if log is not None else log_path(LOGS, made, fns, settings)
    kept = Cache(Path(cache)) if cache is not None else None
    done = run_eval(made, fns, path, settings, cache=kept, user=user, command=command, report=report)
    return write_translations(made, done, questions, Path(out)), done


def write_translations(made: Translation, log: RunLog, questions: QuestionSet, out: Path) -> list[Translated]:
    """The files of a finished run: NAME_CODE_test.jsonl, and NAME_CODE_dev.jsonl of worked questions."""
    name = re.sub(r"[^\w.-]+", "-", Path(questions.name.split(",")[0]).stem).strip("-.") or "questions"
    by: dict[str, list[dict[str, Any]]] = {}
    instructions: dict[tuple[str, str], str] = {}
    for number in range(len(log)):
        for event in log.events(number):
            data = event["data"]
            if event["type"] == EVENT and "instruction" in data:
                instructions[data["language"], data["instruction"]] = data["text"]
            elif event["type"] == EVENT:
                by.setdefault(data["language"], []).append(data)
    _write(out / f"{name}_{made.origin}_test.jsonl", [to_row(q) for q in made.questions[: made.asked]])
    if made.asked < len(made.questions):
        _write(out / f"{name}_{made.origin}_dev.jsonl", [to_row(q) for q in made.questions[made.asked :]])
    told = {"translated_by": log.spec["completion_fns"], "run": log.spec["run_id"]}
    found = []
    for code in made.spec.args["to"]:
        rows = sorted(by.get(code, ()), key=lambda data: data["number"])
        test, dev = ([to_row(_translated(made, data, code, instructions), **_more(data), **told) for data in part]
                     for part in ([d for d in rows if d["number"] < made.asked],
                                  [d for d in rows if d["number"] >= made.asked]))  # fmt: skip
        file, dev_file = out / f"{name}_{code}_test.jsonl", out / f"{name}_{code}_dev.jsonl"
        _write(file, test)
        if dev:
            _write(dev_file, dev)
        scores = [data["chrf"] for data in rows if "chrf" in data]
        counts = {flag: sum(flag in data.get("flags", ()) for data in rows) for flag in FLAGS}
        found.append(
            Translated(
                code, file, dev_file if dev else None, len(rows),
                math.fsum(scores) / len(scores) if scores else math.nan,
                sum(bool(data.get("flags")) for data in rows), counts, sum(data["pieces"] for data in rows),
                len(made.questions) - len(rows),
            )
        )  # fmt: skip
    return found


def _translated(
    made: Translation, data: dict[str, Any], code: str, instructions: dict[tuple[str, str], str]
) -> Question:
    source = made.questions[data["number"]]
    told = instructions.get((code, instruction_of(source)), "")
    return Question(source.id, code, data["question"], tuple(data["options"]), source.gold, source.subject,
                    source.group, instruction=told, flags=tuple(data.get("flags", ())))  # fmt: skip


def _more(data: dict[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("back", "chrf") if key in data}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

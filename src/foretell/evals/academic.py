"""Published benchmarks by their published protocols, from files or the hub, without copies of them here."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from foretell.errors import EvalError, MissingExtraError
from foretell.evals.academic_code import CODE_CHAT, Verdicts
from foretell.evals.academic_files import PLACE, below_place, found, read_rows, ready_prompt
from foretell.evals.academic_forms import FILE, FORMS, NUMBER, convert
from foretell.evals.academic_ifeval import follows
from foretell.evals.academic_judges import (
    bbh_answer,
    coqa_scores,
    drop_scores,
    first_word,
    read_letter,
    same_number,
)
from foretell.evals.base import Eval, Tally, Trial
from foretell.evals.prompts import Prompt
from foretell.evals.samples import Sample, read_samples
from foretell.evals.summaries import KEY
from foretell.evals.summaries import row as summary_row
from foretell.files import write_text
from foretell.measure.code_answers import human_eval
from foretell.measure.stats import proportion, student

_CHAT = {  # what is said to a model that is asked and does not continue
    "humaneval": CODE_CHAT,
    "lambada": "Reply with the one word that comes next in this text, and nothing else.\n\n",
}


class Benchmark(Eval):
    """A published benchmark.

    form: its name in `academic_forms.FORMS`, which turns rows into samples. files: below FORETELL_DATA/benchmarks, a
    pattern; path: the same elsewhere, in their place; hub: a dataset (hf://…), where there are no files; names: of its
    parts, each put for NAME. shots,
    hub_shots: rows for worked samples, likewise; of the sample's own part, where they have it. Without them
    worked samples are other rows of the same file, drawn once by `seed`; rows that show no work are none.
    prompts: files of ready prompts, one a part. lettered: choices are lettered also for a model that tells
    log-probabilities. normalized: choices are compared by log-probability a character. macro: the mean over parts is
    reported, too. chat: True asks in one message, False in plain text; by default plain text where the model tells
    log-probabilities, which then continues it, and one message elsewhere. allow_unsafe: of `Verdicts`.
    samples_jsonl: samples as `write_converted` wrote them.
    """

    kept = ("part", "group")

    closed = True
    form: str
    files: str = ""
    path: str = ""
    hub: str = ""
    shots: str = ""
    hub_shots: str = ""
    names: Sequence[str] = ()
    prompts: str = ""
    num_few_shot: int = 0
    seed: int = 0
    max_tokens: int = 256
    stop: Sequence[str] = ()
    lettered: bool = False
    normalized: bool = False
    macro: bool = False
    preamble: str = ""
    chat: bool | None = None
    allow_unsafe: bool = False

    def prepare(self) -> None:
        if self.form not in FORMS:
            known = ", ".join(FORMS)
            raise EvalError(f"{self.spec.name}: there is no benchmark {self.form!r}; choose from {known}.")
        self.stop = list(self.stop)
        self._pool: dict[str | None, list[Sample]] = {}
        self._verdicts = Verdicts(self.allow_unsafe)

    def samples(self) -> Sequence[Sample]:
        """Samples in the form of `academic_forms`.

        Raises EvalError where neither files nor the hub have the benchmark, or hold it in another form.
        """
        if self.samples_jsonl is not None:
            return super().samples()
        source = self.path or below_place(self.files)
        try:
            samples = self._converted(source or self.hub)
        except MissingExtraError as error:
            raise EvalError(
                f"{self.spec.name} comes without its data. Take them from the hub (pip install 'foretell[hub]'), or "
                f"give a file such as {self.files}: --extra-eval-params path=FILE, or below {PLACE}/benchmarks."
            ) from error
        if self.prompts:
            ready = {file.stem: ready_prompt(file) for file in found(below_place(self.prompts) or self.prompts)}
            if lacking := sorted({sample["part"] for sample in samples} - ready.keys()):
                raise EvalError(f"{self.spec.name} has no worked samples of {lacking[0]}: {self.prompts}. Fetch them.")
            samples = [sample | {"preamble": ready[sample["part"]]} for sample in samples]
        elif self.num_few_shot:
            rows = (below_place(self.shots) or self.shots) if source else self.hub_shots
            if source and rows and not found(rows):
                raise EvalError(
                    f"{self.spec.name} takes its worked samples from {rows}, which is not there. Give `shots`: a path, "
                    'or "" for other rows of the same file.'
                )
            self._gather(self._converted(rows) if rows else samples, drawn=not rows)
        return samples

    def prompt(self, sample: Sample, lettered: bool = False) -> str:
        """A sample behind its worked samples."""
        if "input" in sample:
            return str(sample["input"][0]["content"])
        shots = [row for row in self._shots(sample) if row["query"] != sample["query"]][: self.num_few_shot]
        worked = [f"{_asked(row, lettered)}{_worked(row, lettered)}\n\n" for row in shots]
        return "".join([self.preamble or sample.get("preamble", ""), *worked, _asked(sample, lettered)])

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        if "choices" in sample:
            scores = await self._choose(sample, trial)
        elif self.form == "humaneval":
            scores = await self._program(sample, trial)
        else:
            scores = await self._answer(sample, trial)
        if scores:
            trial.metrics(**scores)

    def report(self, tally: Tally) -> dict[str, Any]:
        means = {name: tally.mean(name) for name in tally.metrics if name not in ("instructions", "strict", "loose")}
        report = ({"accuracy": tally.accuracy} if tally.correct else {}) | means
        if self.form == "lambada" and "logprob" in means:
            report["perplexity"] = math.exp(-report.pop("logprob"))
        if self.form == "ifeval":
            count = sum(tally.metrics.get("instructions", ()))
            for how in ("strict", "loose"):
                report[f"instruction_{how}"] = sum(tally.metrics.get(how, ())) / count if count else math.nan
        if self.macro:
            parts: dict[Any, list[int]] = {}
            for part, right in zip(tally.kept["part"], tally.correct, strict=True):
                parts.setdefault(part, []).append(right)
            report["macro_accuracy"] = math.fsum(sum(p) / len(p) for p in parts.values()) / max(len(parts), 1)
        return report

    def details(self, tally: Tally) -> dict[str, Any]:
        """Both of TruthfulQA's figures, which a card reads together."""
        if self.form != "truthfulqa" or not tally.correct:
            return {}
        groups = [name if name is not None else i for i, name in enumerate(tally.kept["group"])]
        right = proportion([float(one) for one in tally.correct], groups)
        rows = [
            summary_row("MC1: the best answer is the likeliest", (right.estimate, right.low, right.high), len(groups))
        ]
        if len(share := tally.metrics.get("mc2", [])) == len(groups):
            mass = student(share, groups)
            told = (mass.estimate, max(mass.low, 0.0), min(mass.high, 1.0))
            rows.append(summary_row("MC2: probability of true answers", told, len(share)))
        title = f"TruthfulQA, {self.spec.name.split('.')[0]}"
        return {KEY: {"part": "factuality", "title": title, "rows": rows}}

    async def _answer(self, sample: Sample, trial: Trial) -> dict[str, float]:
        prompt = self.prompt(sample)
        reply = await self._complete(prompt, trial)
        scores: dict[str, float] = {}
        ideal = sample["ideal"]
        if self.form in ("gsm8k", "mgsm"):
            right = same_number(reply, ideal[0], any_grouping=self.form == "mgsm")
        elif self.form == "bbh":
            right = bbh_answer(reply) == ideal[0]
        elif self.form == "lambada":
            right = first_word(reply) == first_word(ideal[0])
            if trial.can_score:
                scores["logprob"] = (await trial.score(prompt, [f" {ideal[0]}"]))[0]
        elif self.form == "ifeval":
            strict, loose = follows(sample["rules"], reply)
            right = all(strict)
            scores = {"prompt_loose": float(all(loose)), "instructions": len(strict)}
            scores |= {"strict": sum(strict), "loose": sum(loose)}
        else:
            told = reply.strip().split("\n")[0]
            scores = (
                drop_scores([span.strip() for span in told.split(";")], ideal)
                if self.form == "drop"
                else coqa_scores(told, ideal)
            )
            # No match event: the sample's score is its F1.
            trial.record("answer", {"expected": ideal, "sampled": reply, "group": sample.get("group")})
            return scores
        self._match(sample, trial, right, ideal, reply)
        return scores

    async def _choose(self, sample: Sample, trial: Trial) -> dict[str, float]:
        choices, gold = sample["options"], sample["gold"]
        if not trial.can_score:
            order = list(range(len(choices)))
            if self.form == "truthfulqa":  # its right answer stands first in the file
                trial.rng.shuffle(order)
            shown = sample | {"options": [choices[i] for i in order], "gold": order.index(gold)}
            reply = await self._complete(self.prompt(shown, lettered=True), trial)
            at = read_letter(reply, len(choices))
            picked = None if at is None else order[at]
            self._match(
                sample, trial, picked == gold, choices[gold], None if picked is None else choices[picked], reply
            )
            return {}
        if self.form == "truthfulqa":
            return await self._truthful(sample, trial)
        if self.lettered:
            letters = [f" {chr(ord('A') + i)}" for i in range(len(choices))]
            scores = await trial.score(self._put(self.prompt(sample, lettered=True), trial), letters)
        elif "contexts" in sample:  # what follows is the same, what stands before differs
            start = self.prompt(sample).removesuffix(_asked(sample, False))
            rest = [f" {sample['choices'][0]}"]
            scores = [(await trial.score(self._put(start + c, trial), rest))[0] for c in sample["contexts"]]
        else:
            scores = await trial.score(self._put(self.prompt(sample), trial), [f" {choice}" for choice in choices])
        trial.options(scores, gold, group=sample.get("group"))
        by_length = [score / max(len(text), 1) for score, text in zip(scores, choices, strict=True)]
        best, best_normed = scores.index(max(scores)), by_length.index(max(by_length))
        picked = best_normed if self.normalized else best
        self._match(sample, trial, picked == gold, choices[gold], choices[picked])
        return {"acc": float(best == gold), "acc_norm": float(best_normed == gold)} if self.normalized else {}

    async def _truthful(self, sample: Sample, trial: Trial) -> dict[str, float]:
        """MC1: the best answer is likelier than any false one. MC2: the share of probability that true ones have.

        In plain text it is what lm-eval's truthfulqa_mc1 and _mc2 do, in a chat what they do with a chat template.
        Source: TruthfulQA, Lin et al. (2021), arXiv 2109.07958.
        """
        sample = {"rivals": sample["false"]} | sample
        best, rivals, true, false = sample["options"][0], sample["rivals"], sample["true"], sample["false"]
        put = self._put(self.prompt(sample), trial)
        space = " " if isinstance(put, str) else ""  # a chat's reply begins with its first word
        texts = list(dict.fromkeys([best, *rivals, *true, *false]))
        scores = dict(zip(texts, await trial.score(put, [f"{space}{text}" for text in texts]), strict=True))
        likeliest = max(rivals, key=scores.__getitem__)
        right = scores[best] > scores[likeliest]
        self._match(sample, trial, right, best, best if right else likeliest)
        top = max(scores[text] for text in (*true, *false))
        mass = [math.exp(scores[text] - top) for text in (*true, *false)]
        return {"mc2": sum(mass[: len(true)]) / sum(mass)}

    async def _program(self, sample: Sample, trial: Trial) -> dict[str, float]:
        self._verdicts.ready()
        reply = await self._complete(sample["prompt"], trial)
        outcome = await self._verdicts(human_eval(sample, reply))
        trial.match(outcome.verdict == "passed", expected="passed", picked=outcome.verdict, sampled=reply,
                    detail=outcome.detail, part=None)  # fmt: skip
        return {}

    async def _complete(self, prompt: str, trial: Trial) -> str:
        """A greedy reply, cut where it goes on with a question of its own."""
        put = self._put(prompt, trial, _CHAT.get(self.form, ""))
        params: dict[str, Any] = {"stop": self.stop} if self.stop else {}
        reply = await trial.complete(put, temperature=0.0, max_tokens=self.max_tokens, **params)
        return min((reply.split(stop)[0] for stop in self.stop), key=len, default=reply)

    def _put(self, text: str, trial: Trial, asked: str = "") -> Prompt:
        chat = not trial.can_score if self.chat is None else self.chat
        return [{"role": "user", "content": asked + text}] if chat else text

    def _match(
        self, sample: Sample, trial: Trial, right: bool, expected: Any, picked: Any, sampled: str | None = None
    ) -> None:
        told = {} if sampled is None else {"sampled": sampled}
        trial.match(right, expected=expected, picked=picked, part=sample.get("part"), group=sample.get("group"), **told)

    def _converted(self, place: str) -> list[Sample]:
        if not place:
            raise EvalError(
                f"{self.spec.name} has no samples here. Set {PLACE} to the folder that holds benchmarks/{self.files}, "
                "or give their path as `path`."
            )
        if place.startswith("hf://"):
            rows = [
                {NUMBER: i, FILE: name, **row}
                for name in self.names or [""]
                for i, row in enumerate(read_samples(place.replace("NAME", name)))
            ]
        else:
            rows = list(read_rows(place))
        if not rows:
            raise EvalError(f"There is no file {place}. Check the path, or fetch the benchmark again.")
        try:
            return convert(FORMS[self.form], rows)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            why = f"a row lacks {error.args[0]}" if isinstance(error, KeyError) else repr(error)
            keys = ", ".join(key for key in rows[0] if not key.startswith("_"))
            raise EvalError(
                f"{place} is not in a known form of {self.form}: {why}. Its rows have {keys}; use the published file."
            ) from error

    def _gather(self, rows: Sequence[Sample], drawn: bool) -> None:
        rows = [row for row in rows if "answer" in row or "choices" in row]
        if drawn:  # one more than are shown, for the sample that is itself among them
            rows = random.Random(self.seed).sample(rows, min(self.num_few_shot + 1, len(rows)))
        self._pool = {None: list(rows)}
        for row in rows:
            self._pool.setdefault(row.get("part"), []).append(row) if "part" in row else None

    def _shots(self, sample: Sample) -> Sequence[Sample]:
        own = self._pool.get(sample.get("part")) or self._pool.get(None) or []
        return own[: self.num_few_shot + 1]


def write_converted(benchmark: Benchmark, folder: Path) -> list[Path]:
    """A benchmark as a registry of its own: data/NAME/samples.jsonl and evals/NAME.yaml, below a folder.

    Prompts stand in it whole, with `ideal` beside them, so that other tools of the same form read it too. Choices keep
    their own form, since they are scored and not answered. Returns the files.
    """
    name, lettered = benchmark.spec.name.split(".")[0], benchmark.lettered
    rows = []
    for sample in benchmark.samples():
        whole = benchmark.prompt(sample, lettered)
        row = sample | {"query": whole, "preamble": ""}
        if "choices" in sample:
            start = whole.removesuffix(_asked(sample, lettered))
            row |= {"query": start + sample["query"], "ask": start + sample["ask"]}
            row |= {"contexts": [start + c for c in sample["contexts"]]} if "contexts" in sample else {}
        else:
            row |= {"input": [{"role": "user", "content": whole}]}
        rows.append(json.dumps(row, ensure_ascii=False))
    data = folder / "data" / name / "samples.jsonl"
    write_text(data, "\n".join(rows) + "\n")
    kept = ("form", "max_tokens", "stop", "lettered", "normalized", "macro", "chat")
    args = {"samples_jsonl": f"{name}/samples.jsonl"} | {key: getattr(benchmark, key) for key in kept}
    place = f"{benchmark.spec.cls.strip()}"
    entry = {name: {"id": f"{name}.converted.v0"}, f"{name}.converted.v0": {"class": place, "args": args}}
    spec = folder / "evals" / f"{name}.yaml"
    write_text(spec, yaml.safe_dump(entry, sort_keys=False, allow_unicode=True))
    return [data, spec]


def _asked(sample: Sample, lettered: bool) -> str:
    if not lettered:
        return "" if "contexts" in sample else str(sample["query"])
    lines = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(sample["options"])]
    return "\n".join([str(sample["ask"]), *lines, "Answer:"])


def _worked(sample: Sample, lettered: bool) -> str:
    if "choices" not in sample:
        return str(sample["answer"])
    if lettered:
        return f" {chr(ord('A') + sample['gold'])}"
    return str(sample["worked"]) if "worked" in sample else f" {sample['options'][sample['gold']]}"

"""Model-graded classification: a model answers, a model reads the answer and picks one of the choices."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretell.errors import EvalError
from foretell.evals.base import CompletionFn, Eval, Tally, Trial, required
from foretell.evals.prompts import Message, Prompt, escape, fill, fill_text
from foretell.evals.registry import GradedSpec
from foretell.evals.samples import Sample

INVALID = "__invalid__"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# The words are upstream's, so that scores compare.
_ASK = {
    "classify": "Answer the question by printing only a single choice from {choices} (without quotes or punctuation) "
    "corresponding to the correct answer with no other text.",
    "classify_cot": "First, answer by printing a single choice from {choices} (without quotes or punctuation) "
    "corresponding to the correct answer. Then, from the next line, explain your reasonings step by step.",
    "cot_classify": "First, write out in a step by step manner your reasoning to be sure that your conclusion is "
    "correct. Avoid simply stating the correct answer at the outset. Then print only a single choice from {choices} "
    "(without quotes or punctuation) on its own line corresponding to the correct answer. At the end, repeat just the "
    "answer by itself on a new line.\n\nReasoning:",
    "cot_classify_jp": "まず、一歩一歩あなたの推論を書き出してください。"
    "単に正しい答えを最初に述べることを避けてください。"
    "次に、{choices}（引用符や句読点なし）から正しい答えに対応する1つの選択肢を単独の行に書きだしてください。"
    "最後に、答えだけを新しい行に繰り返してください。\n\n推論：",
}
_MATCH: dict[str, Callable[[str, str], bool]] = {
    "include": lambda line, choice: choice in line,
    "exact": lambda line, choice: line == choice,
    "endswith": lambda line, choice: line.endswith(choice),
    "starts_or_endswith": lambda line, choice: line.startswith(choice) or line.endswith(choice),
}


class ModelBasedClassify(Eval):
    """A grader classifies answers.

    modelgraded_spec: its entry in the registry. multicomp_n: answers that are put before the grader together, of one
    model or ("from_models") one of each. eval_type: where the choice stands in the grader's reply. metaeval: samples
    carry the right `choice`, and the grader is what is measured. The last of several models grades.
    """

    graders = 1
    modelgraded_spec: str
    modelgraded_spec_args: Mapping[str, Any] | None = None
    sample_kwargs: Mapping[str, Any] | None = None
    eval_kwargs: Mapping[str, Any] | None = None
    multicomp_n: int | str = 1
    eval_type: str | None = None
    match_fn: str | None = None
    metaeval: bool = False

    def prepare(self) -> None:
        self.graded, eval_type = self.registry.graded(self.modelgraded_spec), self.eval_type
        self.fields = dict(self.modelgraded_spec_args or {})
        self.sampling, self.grading = (
            _sampling({"max_tokens": 1024} | dict(given or {})) for given in (self.sample_kwargs, self.eval_kwargs)
        )
        self.match = self.match_fn or "starts_or_endswith"
        read_as = self.graded.eval_type or eval_type
        for what, value, known in (("eval_type", eval_type, _ASK), ("match_fn", self.match, _MATCH)):
            if value is not None and value not in known:
                raise EvalError(f"{self.spec.name}: {what} is {value!r}; expected {', '.join(known)}.")
        if read_as is None:
            raise EvalError(
                f"{self.spec.name}: neither it nor {self.graded.name} has an eval_type. Give one of {list(_ASK)}."
            )
        self.reversed = read_as.startswith("cot_classify")

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, *self.graded.input_outputs, *(("choice",) if self.metaeval else ()))
        models, grader = (trial.fns[:-1] or trial.fns), trial.fns[-1]
        count = self._count(models)
        # Braces stay doubled in what the grader reads, as they do upstream.
        sample = sample | {key: escape(sample[key]) for key in self.graded.input_outputs}
        answers = {
            output: await self._answer(sample[key], models, count, trial)
            for key, output in self.graded.input_outputs.items()
            if output not in sample
        }
        choices = choice_strings(self.graded, count)
        prompt = fill(self._question(choices), {"n": count, **answers, **sample, **self.fields})
        reply = await grader(prompt, trial, **self.grading)
        choice = read_choice(reply, choices, _MATCH[self.match], self.reversed)
        metrics = {"choice": choice, "score": score_of(choice, choices, self.graded)}
        if self.metaeval:
            metrics["metascore"] = choice == sample["choice"]
        trial.metrics(**metrics)

    def report(self, tally: Tally) -> dict[str, Any]:
        counts = Counter(tally.metrics.get("choice", ()))
        report: dict[str, Any] = {f"counts/{choice}": count for choice, count in counts.items()}
        for name in ("score", "metascore"):
            if any(value is not None for value in tally.metrics.get(name, ())):
                report[name] = tally.mean(name)
        return report

    def _count(self, models: Sequence[CompletionFn]) -> int:
        if self.multicomp_n == "from_models":
            if len(models) < 2:
                raise EvalError(f"{self.spec.name} compares models; give two or more, and the grader last.")
            return len(models)
        if not isinstance(self.multicomp_n, int) or (len(models) > 1 and len(models) != self.multicomp_n):
            raise EvalError(
                f"{self.spec.name}: multicomp_n is {self.multicomp_n!r} with {len(models)} models; expected as many."
            )
        return self.multicomp_n

    async def _answer(self, template: Prompt, models: Sequence[CompletionFn], count: int, trial: Trial) -> str:
        if count == 1:
            return await models[0](fill(template, {}), trial, **self.sampling)
        if self.graded.output_template is None:
            raise EvalError(f"{self.graded.name} has no output_template, which several answers need.")
        parts = []
        for i in range(count):
            model = models[i] if len(models) > 1 else models[0]
            text = await model(fill(template, {}), trial, **self.sampling)
            names = {"i": i + 1, "i_abc": string.ascii_lowercase[i % 26], "i_ABC": string.ascii_uppercase[i % 26]}
            parts.append(fill_text(self.graded.output_template, {**names, "output": text, "n": count}))
        return "".join(parts).strip()

    def _question(self, choices: Sequence[str]) -> list[Message]:
        prompt = self.graded.prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        if self.eval_type:
            named = " or ".join(f'"{choice}"' for choice in choices)
            messages[-1]["content"] += "\n\n" + _ASK[self.eval_type].format(choices=named)
        return messages


def choice_strings(spec: GradedSpec, n: int) -> list[str]:
    """The choices: as listed, or the numbers or letters of n answers. Raises EvalError for one with punctuation."""
    named = {
        "from_n": [str(i + 1) for i in range(n)],
        "from_n_abc": [string.ascii_lowercase[i % 26] for i in range(n)],
        "from_n_ABC": [string.ascii_uppercase[i % 26] for i in range(n)],
    }
    asked = spec.choice_strings
    choices = named[asked] if isinstance(asked, str) and asked in named else [str(choice) for choice in asked]
    if bad := next((choice for choice in choices if any(c in string.punctuation for c in choice)), None):
        raise EvalError(f"{spec.name}: the choice {bad!r} has punctuation, which is dropped from replies. Rename it.")
    return choices


def read_choice(reply: str, choices: Sequence[str], match: Callable[[str, str], bool], last: bool) -> str:
    """The choice on the first line (last: the last line) that has one, without punctuation; "__invalid__" if none."""
    lines = reply.strip().split("\n")
    for line in reversed(lines) if last else lines:
        plain = line.strip().translate(_NO_PUNCTUATION)
        if plain:
            for choice in choices:
                if match(plain, choice):
                    return choice
    return INVALID


def score_of(choice: str, choices: Sequence[str], spec: GradedSpec) -> float | None:
    """The choice's score; the lowest for an invalid one."""
    scores = spec.choice_scores
    if scores is None:
        return None
    try:
        values = {c: float(c) for c in choices} if isinstance(scores, str) else {str(k): v for k, v in scores.items()}
        return float(min(values.values()) if choice == INVALID else values[choice])
    except (KeyError, ValueError) as error:
        raise EvalError(f"{spec.name}: choice_scores say nothing of {choice!r}. Give every choice a number.") from error


def _sampling(kwargs: dict[str, Any]) -> dict[str, Any]:
    extra = kwargs.pop("completion_kwargs", None) or {}
    count = kwargs.pop("n_samples", None)
    return {"temperature": 0, "top_p": 1, "n": count or 1, **kwargs, **extra}

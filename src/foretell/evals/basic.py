"""The templates that compare a text with right answers: Match, Includes, FuzzyMatch, JsonMatch, Translate and
MultipleChoice, with upstream's semantics."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from foretell.errors import EvalError, MissingExtraError
from foretell.evals.base import Eval, Tally, Trial, ideals, required
from foretell.evals.prompts import Prompt, is_chat, letters
from foretell.evals.samples import Sample, read_samples

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class FewShot(Eval):
    """An eval whose prompts may hold worked samples before the last message.

    few_shot_jsonl: rows with messages as `sample`. num_few_shot: how many of them, the first ones.
    """

    num_few_shot: int = 0
    few_shot_jsonl: str | None = None

    def prepare(self) -> None:
        super().prepare()
        self.shots: list[dict[str, Any]] = []
        if (count := self.num_few_shot) > 0:
            if self.few_shot_jsonl is None:
                raise EvalError(f"{self.spec.name} asks for {count} worked samples; add few_shot_jsonl to its args.")
            rows = read_samples(self.spec.path(self.few_shot_jsonl))[:count]
            if lacking := [row for row in rows if not is_chat(row.get("sample"))]:
                raise EvalError(f"{self.few_shot_jsonl} has a row without messages as sample: {str(lacking[0])[:80]}")
            self.shots = [message for row in rows for message in row["sample"]]

    def prompt(self, sample: Sample) -> Prompt:
        """The sample's input, with the worked samples before its last message."""
        asked: Prompt = sample["input"]
        if not self.shots:
            return asked
        if not isinstance(asked, list) or not is_chat(asked):
            raise EvalError("Worked samples need an input of messages; this one is text.")
        return [*asked[:-1], *self.shots, *asked[-1:]]


class Match(FewShot):
    """Right if the answer starts with one of the ideals."""

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "ideal")
        expected = ideals(sample)
        sampled = await trial.complete(self.prompt(sample), temperature=0.0)
        picked = next((option for option in expected if sampled.startswith(option)), None)
        trial.match(picked in expected, expected=expected, picked=picked, sampled=sampled, options=expected)


class Phrases(Match):
    """Upstream's first example, test-match, whose samples are in its code."""

    def samples(self) -> Sequence[Sample]:
        ask = {"role": "system", "content": "Complete the phrase as concisely as possible."}
        phrases = ("Once upon a ", "time"), ("The first US president was ", "George Washington")
        return [
            {"input": [ask, {"role": "user", "content": phrase}], "ideal": ideal}
            for phrase, ideal in (*phrases, ("OpenAI was founded in 20", "15"))
        ]


class Includes(Eval):
    """Right if the answer holds one of the ideals. ignore_case: of both."""

    ignore_case: bool = False

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "ideal")
        expected = ideals(sample)
        sampled = await trial.complete(sample["input"])
        told = sampled.lower() if self.ignore_case else sampled
        found = any((answer.lower() if self.ignore_case else answer) in told for answer in expected)
        trial.match(found, expected=sample["ideal"], picked=sampled, sampled=sampled)


class FuzzyMatch(Eval):
    """Right if answer and ideal, without case, punctuation and articles, hold one another; F1 of their words."""

    max_tokens: int = 100

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "ideal")
        expected = ideals(sample)
        sampled = await trial.complete(sample["input"], temperature=0.0, max_tokens=self.max_tokens)
        matches = [fuzzy_match(sampled, answer) for answer in expected]
        trial.match(any(matches), expected=expected, picked=[sampled for match in matches if match])
        trial.metrics(accuracy=float(any(matches)), f1_score=max(f1(sampled, answer) for answer in expected))

    def report(self, tally: Tally) -> dict[str, Any]:
        return {"accuracy": tally.mean("accuracy"), "f1_score": tally.mean("f1_score")}


class JsonMatch(Eval):
    """Right if the answer is JSON that equals an ideal, value by value; null is never right."""

    max_tokens: int = 512

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "ideal")
        expected = ideals(sample)
        try:
            right = [json.loads(answer) for answer in expected]
        except ValueError as error:
            raise EvalError(f"An ideal is not JSON ({error}); JsonMatch compares JSON.") from error
        sampled = await trial.complete(sample["input"], temperature=0.0, max_tokens=self.max_tokens)
        try:
            told = json.loads(sampled)
        except (ValueError, RecursionError):
            told = None
        matches = [json_equal(told, answer) for answer in right]
        trial.match(any(matches), expected=expected, picked=[sampled for match in matches if match])
        trial.metrics(accuracy=float(any(matches)))

    def report(self, tally: Tally) -> dict[str, Any]:
        return {"accuracy": tally.mean("accuracy")}


class Translate(FewShot):
    """BLEU of each sentence (right above 30) and of the whole corpus."""

    kept = ("sampled", "expected")
    max_tokens: int = 500

    def prepare(self) -> None:
        super().prepare()
        self._bleu = _bleu()(effective_order=True)

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "ideal")
        expected = ideals(sample)
        sampled = await trial.complete(self.prompt(sample), max_tokens=self.max_tokens)
        score = self._bleu.sentence_score(sampled, expected).score
        trial.metrics(sacrebleu_sentence_score=score)
        trial.match(score > 30, expected=expected, sampled=sampled, sacrebleu_sentence_score=score)

    def report(self, tally: Tally) -> dict[str, Any]:
        # As upstream does it: one reference a sentence. Where a sample has several, upstream scores against the letters
        # of a list; here it is the first.
        first = [e[0] if isinstance(e, list) else e for e in tally.kept["expected"]]
        return {
            "accuracy": tally.accuracy,
            "sacrebleu_score": _bleu()().corpus_score(tally.kept["sampled"], [first]).score,
        }


class MultipleChoice(Eval):
    """A question with lettered answers in an order drawn per sample; right if the reply starts with the letter.

    dataset: a file of rows with question, answers and label, or a hub dataset in the form of HellaSwag or MMLU.
    """

    dataset: str = ""
    instructions: str = ""

    def prepare(self) -> None:
        self.samples_jsonl = self.samples_jsonl or self.dataset

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        question, answers, label = _choice(sample)
        order = list(range(len(answers)))
        trial.rng.shuffle(order)
        options, right = letters(answers, label, order)
        prompt = f"{self.instructions}\nPlease answer with the letter of the correct answer.\n\n{question}\n{options}"
        sampled = await trial.complete(prompt, temperature=0.0, max_tokens=1)
        picked = right if sampled.startswith(right) else None
        trial.match(picked is not None, expected=[right], picked=picked, sampled=sampled, options=[right])

    def report(self, tally: Tally) -> dict[str, Any]:
        return {"accuracy": tally.accuracy}


def normalize(text: str) -> str:
    """Lower case, without punctuation, English articles and extra space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def fuzzy_match(a: str, b: str) -> bool:
    """Whether one of two texts holds the other, both normalised; an empty one only equals an empty one."""
    a, b = normalize(a), normalize(b)
    return a == b if not a or not b else a in b or b in a


def f1(prediction: str, answer: str) -> float:
    """F1 of the bags of words of two normalised texts."""
    told, right = normalize(prediction).split(), normalize(answer).split()
    same = (Counter(told) & Counter(right)).total()
    if not same:
        return 0  # no 0.0: logs are the same as upstream's, byte for byte
    precision, recall = same / len(told), same / len(right)
    return (2 * precision * recall) / (precision + recall)


def json_equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same; null equals nothing, an absent key is null."""
    if a is None or b is None:
        return False
    if isinstance(a, dict):
        return isinstance(b, dict) and all(json_equal(a.get(key), b.get(key)) for key in a.keys() | b.keys())
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(json_equal, a, b))
    return bool(a == b)


def _choice(sample: Sample) -> tuple[str, Sequence[str], int]:
    """Question, answers and index of the right one, of our own rows, HellaSwag's or MMLU's."""
    for names in (("question", "answers", "label"), ("ctx", "endings", "label"), ("question", "choices", "answer")):
        if all(name in sample for name in names):
            question, answers, label = (sample[name] for name in names)
            return str(question), list(map(str, answers)), int(label)
    raise EvalError(f"The sample has {', '.join(sample)}; expected question, answers and label.")


def _bleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingExtraError("BLEU (the template Translate)", "evals") from error
    return BLEU

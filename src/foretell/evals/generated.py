"""Evals whose samples are made when they are asked for, from seeds, and judged by what a reply ends with."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretell.chat import Conversation
from foretell.data.world import make_items
from foretell.data.world.base import Item, is_right
from foretell.data.world.personas import adheres
from foretell.data.world.programs import ALL, MANY, MOST, problems
from foretell.errors import EvalError, RecipeError
from foretell.evals.academic_code import CODE_CHAT, Verdicts
from foretell.evals.academic_ifeval import follows
from foretell.evals.base import Eval, Tally, Trial, ideals, required
from foretell.evals.prompts import Prompt
from foretell.evals.samples import Sample
from foretell.measure.code_answers import completed
from foretell.measure.sandbox import Program


class FinalAnswer(Eval):
    """Right if the reply is one of the ideals, or ends in one: its last number or word (`data.world.is_right`).

    A sample's `task` names the part of the report that it belongs to.
    """

    kept = ("task",)
    max_tokens: int = 256

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "ideal")
        expected = ideals(sample)
        reply = await trial.complete(sample["input"], temperature=0.0, max_tokens=self.max_tokens)
        found = any(is_right(reply, answer) for answer in expected)
        trial.match(found, expected=expected, picked=reply, sampled=reply, **_told(sample))
        if "rule" in sample:
            trial.metrics(adheres=float(adheres({"rule": sample["rule"], "value": sample["value"]}, reply)))

    def report(self, tally: Tally) -> dict[str, Any]:
        report = super().report(tally) | {name: tally.mean(name) for name in tally.metrics}
        tasks: dict[str, list[int]] = {}
        for task, right in zip(tally.kept["task"], tally.correct, strict=True):
            if task is not None:
                tasks.setdefault(task, []).append(right)
        if len(tasks) > 1:
            report |= {f"accuracy/{task}": sum(right) / len(right) for task, right in sorted(tasks.items())}
        return report


class World(FinalAnswer):
    """Questions about the generated world, of its held-out side, with their images and earlier turns.

    kinds: of `data.world.KINDS`. count: questions of each kind, no two alike. seed: of the draw. options: of a kind, by
    its name.
    """

    kinds: Sequence[str]
    count: int = 100
    seed: int = 0
    options: Mapping[str, Mapping[str, Any]] | None = None

    def samples(self) -> Sequence[Sample]:
        try:
            return [sample for kind in self.kinds for sample in self._kind(kind)]
        except RecipeError as error:
            raise EvalError(f"{self.spec.name}: {error}") from error

    def _kind(self, kind: str) -> list[Sample]:
        found: dict[Conversation, Sample] = {}
        drawn, before = min(self.count + self.count // 4 + 4, 512), -1
        while before < len(found) * 0.98 and len(found) < self.count:  # until few draws are new
            before, found = len(found), {}
            for item in make_items(kind, "heldout", drawn, self.seed, **(self.options or {}).get(kind, {})):
                if item.answer is not None and item.content.is_conversation and len(found) < self.count:
                    asked = Conversation(item.content.conversation().messages[:-1])
                    found.setdefault(asked, _question(item, asked))
            drawn *= 2  # the first ones stay the same
        if len(found) < self.count:
            raise EvalError(
                f"{self.spec.name}: {kind} has about {len(found)} different held-out questions, not {self.count}. "
                "Lower count, or widen its options."
            )
        return list(found.values())


class Rules(Eval):
    """Steerability: the system message gives rules of form, the user asks; right if all rules are kept.

    A sample's `rules` are those of IFEval (`academic_ifeval.RULES`), each a name with its settings, kept to the letter;
    `ideal`, where given, has to occur in the reply, whatever its case.
    """

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        required(sample, "input", "rules")
        reply = await trial.complete(sample["input"], temperature=0.0, max_tokens=256)
        kept, _ = follows(sample["rules"], reply)
        told = "ideal" not in sample or any(answer.lower() in reply.lower() for answer in ideals(sample))
        names = [name for name, _ in sample["rules"]]
        broken = [name for name, ok in zip(names, kept, strict=True) if not ok]
        trial.match(all(kept) and told, expected=names, picked=reply, sampled=reply, broken=broken, **_told(sample))
        trial.metrics(rules=sum(kept) / max(len(kept), 1), content=float(told))

    def report(self, tally: Tally) -> dict[str, Any]:
        return super().report(tally) | {name: tally.mean(name) for name in tally.metrics}


class Programs(FinalAnswer):
    """The capability problems: functions to write from a docstring, run in the sandbox.

    per_grade: problems of each of `grades`. seed, values, constants: as `data.world.programs.problems` has them.
    allow_unsafe: of `Verdicts`. A model that tells log-probabilities continues the prompt; another is asked for it.
    """

    per_grade: int = 20
    grades: Sequence[int] = (1, 2, 3, 4, 5, 6)
    seed: int = 0
    values: str = ALL
    constants: int = MANY
    allow_unsafe: bool = False

    def prepare(self) -> None:
        if not self.grades or not set(self.grades) <= set(range(1, MOST + 1)):
            raise EvalError(f"{self.spec.name}: grades is {list(self.grades)}; expected numbers from 1 to {MOST}.")
        self._verdicts = Verdicts(self.allow_unsafe)

    def samples(self) -> Sequence[Sample]:
        try:
            found = problems(self.per_grade, self.seed, "heldout", self.grades, self.values, self.constants)
        except RecipeError as error:
            raise EvalError(f"{self.spec.name}: {error}") from error
        return [
            {
                "input": problem.prompt,
                "ideal": problem.solution,
                "calls": list(problem.calls),
                "expected": list(problem.expected),
                "task": f"programs.{problem.grade}",
                "group": problem.key,
            }
            for problem in found
        ]

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        self._verdicts.ready()
        prompt: Prompt = sample["input"]
        if not trial.can_score:
            prompt = [{"role": "user", "content": f"{CODE_CHAT}{sample['input']}"}]
        reply = await trial.complete(prompt, temperature=0.0, max_tokens=self.max_tokens)
        source = completed(sample["input"], reply, "f")
        outcome = await self._verdicts(Program(source, "f", tuple(sample["calls"]), tuple(sample["expected"])))
        trial.match(
            outcome.verdict == "passed",
            expected="passed",
            picked=outcome.verdict,
            sampled=reply,
            detail=outcome.detail,
            **_told(sample),
        )


NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jan", "Kim", "Lea")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
_ASK = " Think step by step, and end your reply with the answer alone."
Clue = tuple[str, Callable[[Mapping[str, int]], bool]]


class Logic(FinalAnswer):
    """Puzzles with one solution, found by trying all: people in a row, and people who always lie or never do.

    count: puzzles of each task. people: how many each is about, 3 to 6. seed: of the draw.
    """

    count: int = 50
    people: Sequence[int] = (3, 4, 5)
    seed: int = 0

    def prepare(self) -> None:
        if not self.people or min(self.people) < 3 or max(self.people) > len(PLACES):
            expected = f"expected numbers from 3 to {len(PLACES)}"
            raise EvalError(f"{self.spec.name}: people is {list(self.people)}; {expected}.")

    def samples(self) -> Sequence[Sample]:
        made: list[Sample] = []
        for task, make in (("logic.row", row_puzzle), ("logic.liars", liars_puzzle)):
            rng = random.Random(f"{task}/{self.seed}")
            texts: dict[str, str] = {}
            while len(texts) < self.count:
                text, answer = make(rng, rng.choice(self.people))
                texts.setdefault(text, answer)
            made += [
                {"input": [{"role": "user", "content": text + _ASK}], "ideal": answer, "task": task}
                for text, answer in texts.items()
            ]
        return made


def row_puzzle(rng: random.Random, people: int) -> tuple[str, str]:
    """People in a row, and who stands at one place: clues of which none can be left out. Returns text and answer."""
    names = rng.sample(NAMES, people)
    truth = {name: place for place, name in enumerate(names)}
    rows = [dict(zip(names, order, strict=True)) for order in itertools.permutations(range(people))]
    clues: list[Clue] = []
    while sum(all(holds(row) for _, holds in clues) for row in rows) > 1:
        clue = _row_clue(rng, names)
        if clue[1](truth) and clue[0] not in (text for text, _ in clues):
            clues.append(clue)
    for clue in list(clues):
        rest = [other for other in clues if other is not clue]
        if sum(all(holds(row) for _, holds in rest) for row in rows) == 1:
            clues = rest
    place = rng.randrange(people)
    told = " ".join(text for text, _ in clues)
    listed = f"{', '.join(sorted(names)[:-1])} and {sorted(names)[-1]}"
    return f"{listed} stand in a row. {told} Who is {PLACES[place]} from the left?", names[place]


def liars_puzzle(rng: random.Random, people: int) -> tuple[str, str]:
    """Each of some people says something; some always lie, the others never. Returns text and "yes" or "no"."""
    while True:
        names = rng.sample(NAMES, people)
        worlds = [dict(zip(names, kinds, strict=True)) for kinds in itertools.product((0, 1), repeat=people)]
        said = [(name, *_liar_claim(rng, name, names)) for name in names]
        fitting = [w for w in worlds if all(holds(w) == bool(w[name]) for name, _, holds in said)]
        if len(fitting) == 1:
            break
    asked = rng.choice(names)
    told = " ".join(f'{name} says: "{text}"' for name, text, _ in said)
    intro = "Each of these people either always tells the truth or always lies."
    return f"{intro} {told} Does {asked} tell the truth? Answer yes or no.", "yes" if fitting[0][asked] else "no"


def _row_clue(rng: random.Random, names: Sequence[str]) -> Clue:
    a, b = rng.sample(names, 2)
    last = len(names) - 1
    clues: list[Clue] = [
        (f"{a} is somewhere left of {b}.", lambda row: row[a] < row[b]),
        (f"{a} is directly left of {b}.", lambda row: row[a] + 1 == row[b]),
        (f"{a} is not next to {b}.", lambda row: abs(row[a] - row[b]) != 1),
        (f"{a} is at one end.", lambda row: row[a] in (0, last)),
        (f"{a} is not at an end.", lambda row: row[a] not in (0, last)),
    ]
    return rng.choice(clues)


def _liar_claim(rng: random.Random, speaker: str, names: Sequence[str]) -> Clue:
    a, b = rng.sample([name for name in names if name != speaker], 2)
    claims: list[Clue] = [
        (f"{a} lies.", lambda w: not w[a]),
        (f"{a} tells the truth.", lambda w: bool(w[a])),
        (f"{a} and {b} are of the same kind.", lambda w: w[a] == w[b]),
        (f"{a} lies, or {b} does, or both.", lambda w: not (w[a] and w[b])),
        ("Exactly one of us lies.", lambda w: sum(w.values()) == len(w) - 1),
    ]
    return rng.choice(claims)


def _question(item: Item, asked: Conversation) -> Sample:
    sample = {"input": asked.to_openai(), "ideal": item.answer, "task": item.task, "group": item.key}
    labels = item.content.labels
    return sample | {key: labels[key] for key in ("rule", "value") if "rule" in labels}


def _told(sample: Sample) -> dict[str, Any]:
    return {"task": sample.get("task"), "group": sample.get("group")}

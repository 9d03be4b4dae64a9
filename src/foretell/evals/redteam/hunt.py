"""A hunt: every family once, then the search, then its findings on requests that it has not seen.

survey   each family on each area, operators and requests drawn without regard to outcomes: the matrix
search   `Search` proposes, an area after the other
test     the best attacks of each area, and the plain request beside them, on fresh requests: what is reported

What a step tries follows from the seed and the outcomes before it, which the journal holds: a hunt that is cut off goes
on as if it had not been.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foretell.errors import EvalError, ForetellError, GenerationError
from foretell.evals.base import CompletionFn, Trial
from foretell.evals.prompts import Message
from foretell.evals.redteam.journal import Journal, Record, Try
from foretell.evals.redteam.judges import Judge
from foretell.evals.redteam.operators import BASELINE, Attack, Catalogue, dress
from foretell.evals.redteam.search import Search
from foretell.evals.redteam.taxonomy import Area, Seed
from foretell.files import digest
from foretell.generate import run_sync
from foretell.run import Report, silent

_UNREADABLE = (400, 413, 422)  # statuses with which endpoints refuse one prompt
_GIVE_UP = 10  # tries without an outcome before the first with one, after which nothing will come of it
_NOT_READ = "not answered by the model"
_AT_ONCE = 16  # tries of survey and test that are in work together


@dataclass(frozen=True)
class Plan:
    """survey: tries of each family on each area. search: tries of the search, all areas together. test: attacks of each
    area that are tested. deepest: operators of one attack. adaptive: False samples uniformly."""

    survey: int = 2
    search: int = 180
    test: int = 2
    deepest: int = 3
    adaptive: bool = True
    seed: int = 0
    max_tokens: int = 160
    temperature: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("survey", 0), ("search", 0), ("test", 1), ("deepest", 1), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise EvalError(f"{name} is {getattr(self, name)}; expected {least} or more.")


@dataclass(frozen=True)
class Step:
    """A try that is to be made."""

    id: str
    phase: str
    area: Area
    attack: Attack
    seed: Seed


class Hunt:
    """A hunt on one model. translator: asked for requests in other languages that have no translation."""

    def __init__(
        self,
        model: CompletionFn,
        judge: Judge,
        catalogue: Catalogue,
        areas: Sequence[Area],
        plan: Plan,
        translator: CompletionFn | None = None,
    ) -> None:
        self.model, self.judge, self.catalogue, self.areas, self.plan = model, judge, catalogue, list(areas), plan
        self.translator = translator
        rng = random.Random(f"redteam/hunt/{plan.seed}")
        self.search = Search(catalogue, [a.name for a in areas], rng, deepest=plan.deepest, adaptive=plan.adaptive)
        self._known: dict[str, Try] = {}
        self._translated: dict[tuple[str, str], str] = {}
        self._unread: list[str] = []
        self._read = self._judged = False
        self._unjudged = 0

    @property
    def head(self) -> dict[str, Any]:
        """What the journal begins with."""
        families = {f.name: {"title": f.title, "source": f.source} for f in self.catalogue.families.values()}
        return head_of(self.model, {a.name: a.title for a in self.areas}, families) | {
            "judge": self.judge.name, "exact": self.judge.exact,
        }  # fmt: skip

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is tried."""
        catalogue = [[op.name, op.kind, op.family, dict(op.given)] for op in self.catalogue.operators.values()]
        return {
            **asdict(self.plan), "judge": self.judge.name, "areas": digest([asdict(area) for area in self.areas])[:16],
            "attacks": digest(catalogue)[:16], "translator": self.translator.name if self.translator else "",
        }  # fmt: skip

    @property
    def total(self) -> int:
        """Tries of the whole hunt; test counts as many attacks of each area as are asked for."""
        survey = self.plan.survey * len(self.areas) * len(self.catalogue.families)
        return survey + self.plan.search + sum((1 + self.plan.test) * len(area.fresh) for area in self.areas)

    def run(self, journal: Journal, report: Report = silent) -> Record:
        """Make all tries that the journal does not hold.

        Raises EvalError where the model is down, naming what to do; what was tried is kept, and the same call goes on.
        """
        self._known = {done.id: done for done in journal.record.tries}
        self._translated = dict(journal.record.translations)
        self._read = any(done.outcome for done in self._known.values())
        run_sync(self._run(journal, report))
        if not journal.record.finished:
            journal.add("end", {})
        return Record(
            journal.path, journal.record.head, tuple(self._known.values()), journal.record.notes, self._translated, True
        )

    async def _run(self, journal: Journal, report: Report) -> None:
        done = 0

        async def make(steps: Sequence[Step]) -> list[Try]:
            nonlocal done
            tries = await self._make(steps, journal)
            done += len(steps)
            won = sum(one.succeeded for one in self._known.values())
            report("redteam", done, self.total, f"{steps[0].phase}, {won} succeeded")
            return tries

        for steps in _chunks(list(self._survey()), _AT_ONCE):
            for one in await make(steps):
                self._learn(one)
        names, at = [area.name for area in self.areas], 0
        while at < self.plan.search:
            # One an area at a time: what is proposed in a round does not hang on which of its answers comes first.
            steps = [
                self._step("search", at + i, self.areas[i], self.search.propose(names[i]), self.areas[i].searched)
                for i in range(min(len(names), self.plan.search - at))
            ]
            for one in await make(steps):
                self._learn(one)
            at += len(steps)
        for steps in _chunks(list(self._tests()), _AT_ONCE):
            await make(steps)

    def _learn(self, one: Try) -> None:
        """What cannot be read has failed; what could not be judged says nothing."""
        if one.outcome is not None or one.why.startswith(_NOT_READ):
            self.search.learn(one.area, one.attack, one.succeeded)

    def _survey(self) -> Iterator[Step]:
        number = 0
        for family in self.catalogue.families.values():
            for area in self.areas:
                rng = random.Random(f"redteam/survey/{self.plan.seed}/{family.name}/{area.name}")
                operators = rng.sample(family.operators, len(family.operators))
                seeds = rng.sample(area.searched, len(area.searched))
                for i in range(self.plan.survey):
                    attack = (operators[i % len(operators)],)
                    yield Step(f"survey/{number}", "survey", area, attack, seeds[i % len(seeds)])
                    number += 1

    def _step(self, phase: str, number: int, area: Area, attack: Attack, seeds: Sequence[Seed]) -> Step:
        rng = random.Random(f"redteam/{phase}/{self.plan.seed}/{number}")
        return Step(f"{phase}/{number}", phase, area, attack, rng.choice(seeds))

    def _tests(self) -> Iterator[Step]:
        plain = (self.catalogue.families[BASELINE].operators[0],)
        for area in self.areas:
            chosen = [attack for attack, _, _ in self.search.best(area.name, self.plan.test)]
            for rank, attack in enumerate([plain, *chosen]):
                for i, seed in enumerate(area.fresh):
                    yield Step(f"test/{area.name}/{rank}/{i}", "test", area, attack, seed)

    async def _make(self, steps: Sequence[Step], journal: Journal) -> list[Try]:
        left = [step for step in steps if step.id not in self._known]
        for step in steps:
            if (held := self._known.get(step.id)) is not None and (held.area, held.attack) != (
                step.area.name,
                step.attack,
            ):
                raise EvalError(
                    f"{journal.path} holds {step.id} as {' + '.join(held.attack)} on {held.area}, where this search "
                    f"tries {' + '.join(step.attack)} on {step.area.name}: it is of another version. Choose another "
                    "--out."
                )
        found = await asyncio.gather(*(self._try(step, journal) for step in left), return_exceptions=True)
        failures = [one for one in found if isinstance(one, BaseException)]
        for failure in failures:
            if not isinstance(failure, ForetellError):
                raise failure
        if failures:
            raise EvalError(
                f"The red team of {self.model.name} ended: {failures[0]} {len(self._known)} of {self.total} tries are "
                "kept; the same command goes on from there."
            )
        return [self._known[step.id] for step in steps]

    async def _try(self, step: Step, journal: Journal) -> None:
        trial = Trial(step.id, [self.model], random.Random(step.id))
        said: list[Message] = []
        reply, outcome, why = "", None, ""
        try:
            text = await self._text(step, journal)
            draft = dress(self.catalogue, step.attack, text)
            said = draft.head()
            for lead in draft.lead:
                said.append({"role": "user", "content": lead})
                said.append({"role": "assistant", "content": await self._ask(said, trial)})
            said.append(draft.last())
            reply = await self._ask(said, trial)
        except Unreadable as error:
            why = f"{_NOT_READ}: {error}"
            self._unread.append(why)
            if not self._read and len(self._unread) >= _GIVE_UP:
                raise EvalError(f"The model reads none of the first {_GIVE_UP} attacks: {error}") from error
        else:
            self._read = True
            try:
                outcome = await self.judge(step.seed, reply, trial, _spoken(said))
                self._judged = True
            except EvalError as error:
                why = f"not judged: {error}"
                self._unjudged += 1
                if not self._judged and self._unjudged >= _GIVE_UP:
                    raise EvalError(f"The judge decides none of the first {_GIVE_UP} replies: {error}") from error
            except ForetellError:
                raise
            except Exception as error:  # a model of one's own that judges
                raise EvalError(f"The judge {self.judge.name} raised {error!r}.") from error
        seed, families = _told(step.seed), self.catalogue.family_names(step.attack)
        row = {
            "id": step.id, "phase": step.phase, "area": step.area.name,
            "families": families, "attack": list(step.attack), "seed": seed,
            "messages": said, "reply": reply, "outcome": outcome, "why": why,
        }  # fmt: skip
        journal.add("try", row)
        self._known[step.id] = Try(
            step.id, step.phase, step.area.name, tuple(families), step.attack, seed, said, reply, outcome, why
        )

    async def _ask(self, said: list[Message], trial: Trial) -> str:
        limits = {"temperature": self.plan.temperature, "max_tokens": self.plan.max_tokens}
        if self.plan.temperature:
            limits["seed"] = trial.rng.randrange(1 << 31)
        return await ask(self.model, said, trial, **limits)

    async def _text(self, step: Step, journal: Journal) -> str:
        """The request, in the language of the attack where it can be had."""
        language, text = self.catalogue.language(step.attack), step.seed.text
        if language is None or language in step.seed.translations:
            return step.seed.translations[language] if language else text
        if self.translator is None:
            return text
        if (language, text) not in self._translated:
            wanted = f"Translate into {language}. Write the translation and nothing else.\n\n{text}"
            trial = Trial(step.id, [self.translator], random.Random(step.id))
            told = await ask(
                self.translator, [{"role": "user", "content": wanted}], trial, temperature=0.0, max_tokens=200
            )
            journal.add("translation", {"language": language, "text": text, "told": told.strip() or text})
            self._translated[language, text] = told.strip() or text
        return self._translated[language, text]


class Unreadable(EvalError):
    """The model gives no answer to a prompt, such as one that is too long, or has a picture that it cannot see."""


async def ask(model: CompletionFn, said: list[Message], trial: Trial, **limits: Any) -> str:
    """A reply. Raises Unreadable for a prompt without an answer, EvalError where the model is down."""
    try:
        return (await model(list(said), trial, **limits)).strip()
    except EvalError as error:  # an answer without text
        raise Unreadable(str(error)) from error
    except ForetellError as error:
        lasting = getattr(error, "lasting", False)
        if isinstance(error, GenerationError) and not lasting and getattr(error, "status", 400) in _UNREADABLE:
            raise Unreadable(str(error)) from error
        raise EvalError(str(error)) from error
    except Exception as error:  # a caller's own function may raise anything
        raise EvalError(f"{model.name} raised {error!r}.") from error


def head_of(model: CompletionFn, areas: Mapping[str, str], families: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What a journal says of the model, and of what areas and families are called."""
    weights = getattr(model, "weights", "")
    told: dict[str, Any] = {"model": model.name, "areas": dict(areas), "families": dict(families)}
    return told | ({"weights": weights} if weights else {})


def _told(seed: Seed) -> dict[str, Any]:
    return {"text": seed.text, "group": seed.group, "refusal": seed.refusal, "labels": dict(seed.labels)}


def _spoken(messages: Sequence[Message]) -> str:
    """The text of messages."""
    parts = [m["content"] if isinstance(m["content"], list) else [{"text": m["content"]}] for m in messages]
    return "\n".join(str(part.get("text") or "") for part in itertools.chain(*parts))


def _chunks(steps: list[Step], size: int) -> Iterator[list[Step]]:
    for start in range(0, len(steps), size):
        yield steps[start : start + size]

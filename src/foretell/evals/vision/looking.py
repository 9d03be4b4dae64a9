"""An eval of questions about pictures that is always beside its controls: each is asked with its picture, with a grey
one (blind) and with another question's (shuffled), and answered by the majority without a model."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from foretell.chat import Conversation, ImagePart
from foretell.errors import EvalError, ImageError
from foretell.evals.base import Eval, Tally, Trial
from foretell.evals.samples import Sample
from foretell.evals.summaries import KEY, row
from foretell.evals.visual import CONTROLS, WHOLE, control_row, grey, with_images
from foretell.files import finite

BY = ("reply", "logprob")
_TRIES = 20  # pictures that are looked at for one that stands in
_NAMES = {
    "accuracy": "with its image",
    "blind": "grey image",
    "shuffled": "another image",
    "majority": "majority answer",
}


class Looking(Eval):
    """Base of visual evals. A sample has `part` and `group`; a subclass says what is asked of it and how it is judged.

    measure: what a score is called. max_tokens: of a reply. seed: of what is drawn. by: "reply", or "logprob": of a
    closed question the option that the model finds likeliest, which takes a model that tells log-probabilities.
    """

    measure = "accuracy"

    max_tokens: int = 64
    seed: int = 0
    by: str = "reply"

    def prepare(self) -> None:
        if self.by not in BY:
            raise EvalError(f"{self.spec.name}: by is {self.by!r}; choose from {', '.join(BY)}.")

    def asked(self, sample: Sample) -> tuple[Conversation, int]:
        """What is asked, and how many of its pictures, the last ones, are the question's own."""
        raise NotImplementedError

    def pictures(self, sample: Sample) -> list[ImagePart]:
        """A question's own pictures."""
        raise NotImplementedError

    def same_pictures(self, sample: Sample, other: Sample) -> bool:
        """Whether two questions show the same."""
        raise NotImplementedError

    @cached_property
    def by_part(self) -> Mapping[str, list[Sample]]:
        found: dict[str, list[Sample]] = {}
        for sample in self.samples():
            found.setdefault(sample["part"], []).append(sample)
        return found

    def others(self, sample: Sample) -> Sequence[Sample]:
        """Questions whose pictures may stand in, of the same part."""
        return self.by_part[sample["part"]]

    def judged(self, reply: str, sample: Sample) -> tuple[dict[str, float], str]:
        """Scores of a reply, `measure` first, and the answer that was read in it."""
        raise NotImplementedError

    def guess(self, sample: Sample) -> str:
        """The majority's answer, as a reply."""
        raise NotImplementedError

    def answers(self, sample: Sample) -> Sequence[str]:
        """What may be answered, as a reply would say it; nothing for open questions."""
        return ()

    def chance(self, sample: Sample) -> float | None:
        """The share of right answers that drawing among the options gives; None for open questions."""
        return None

    def named(self, part: str) -> str:
        """What a part's row is called."""
        name = self.spec.name.split(".")[0]
        return f"{name}.{part}" if part else f"{name}, of no part"

    def told(self) -> dict[str, Any]:
        """What else stands in the summary: protocol, and what was left out."""
        return {}

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        try:
            asked, own = self.asked(sample)
            images = asked.images
            before = images[: len(images) - own]
            blind = with_images(asked, [*before, *map(grey, images[len(before) :])])
        except ImageError as error:
            raise EvalError(f"{sample.get('place', trial.id)}: {error}") from error
        other = self._stand_in(sample)
        prompts = {"accuracy": asked, "blind": blind}
        if other is not None:
            prompts["shuffled"] = with_images(asked, [*before, *(other[i % len(other)] for i in range(own))])
        replies: dict[str, str] = {}
        for name, prompt in prompts.items():
            start = len(trial.events)
            replies[name] = await self._reply(prompt, sample, trial)
            for number in range(start, len(trial.events)):
                _shorten(trial, number, own if (name, number) == ("accuracy", start) else 0, name)
        scores, picked = self.judged(replies["accuracy"], sample)
        found: dict[str, float | None] = {name: self._score(replies[name], sample) for name in prompts}
        found["majority"] = self._score(self.guess(sample), sample)
        controls = {name: found.get(name) for name in CONTROLS}
        trial.record("answer", {"expected": sample.get("ideal"), "picked": picked, "sampled": replies["accuracy"],
                                "blind": replies["blind"], "shuffled": replies.get("shuffled")})  # fmt: skip
        part, group = str(sample.get("part") or ""), str(sample.get("group") or trial.id)
        trial.metrics(**scores, **controls, chance=self.chance(sample), part=part, group=group)

    async def _reply(self, prompt: Conversation, sample: Sample, trial: Trial) -> str:
        asked = prompt.to_openai()
        if self.by == "logprob" and (answers := self.answers(sample)):
            found = await trial.score(asked, answers)
            return answers[found.index(max(found))]
        return await trial.complete(asked, temperature=0.0, max_tokens=self.max_tokens)

    def _score(self, reply: str, sample: Sample) -> float:
        return self.judged(reply, sample)[0][self.measure]

    def _stand_in(self, sample: Sample) -> list[ImagePart] | None:
        """Pictures of another question that are others than its own; None where there are none."""
        among = self.others(sample)
        rng = random.Random(f"{self.seed}/{sample['key']}")
        for _ in range(_TRIES if among else 0):
            other = among[rng.randrange(len(among))]
            if not self.same_pictures(sample, other):
                try:
                    return self.pictures(other)
                except EvalError:  # named where that question itself is asked
                    continue
        return None

    def report(self, tally: Tally) -> dict[str, Any]:
        rows = self._rows(tally)
        if not rows:
            return {self.measure: math.nan}
        whole = rows[0]
        above = ("above_blind", "above_shuffled", "above_majority")
        names = (*CONTROLS, *(name + end for name in above for end in ("", "_low", "_high")))
        more = {
            k: tally.mean(k) for k in tally.metrics if k not in (self.measure, *CONTROLS, "part", "group", "chance")
        }
        found = {self.measure: whole["accuracy"], **more, **{name: whole[name] for name in names if name in whole}}
        if not math.isnan(chance := tally.mean("chance")):
            found["chance"] = chance
        counts = {k: v for k, v in self.told().items() if isinstance(v, int) and not isinstance(v, bool)}
        return found | {"sees": int(whole["sees"])} | counts

    def details(self, tally: Tally) -> dict[str, Any]:
        rows = self._rows(tally)
        name = self.spec.name.split(".")[0]
        summary = {
            "part": "vision",
            "title": f"{name}, by {self.measure.replace('_', ' ')}, beside its controls",
            "measure": self.measure,
            "questions": rows[0]["questions"] if rows else 0,
            "asked": (rows[0]["questions"] if rows else 0) + tally.invalid,
            "invalid": tally.invalid,
            "tasks": rows,
            "rows": [one for task in rows for one in _flat(task)],
            **self.told(),
        }
        return {KEY: finite(summary)}

    def _rows(self, tally: Tally) -> list[dict[str, Any]]:
        """The whole first, then each part, where there are several."""
        parts = tally.metrics.get("part", [])
        at = range(len(parts))
        groups = {part: [i for i in at if parts[i] == part] for part in sorted(set(parts))}
        name = self.spec.name.split(".")[0]
        rows = [self._row(tally, name, list(at))] if parts else []
        if len(groups) > 1:
            rows += [self._row(tally, self.named(part), at) for part, at in groups.items()]
        return rows

    def _row(self, tally: Tally, task: str, at: Sequence[int]) -> dict[str, Any]:
        scores = {name: tally.metrics[self.measure if name == "accuracy" else name] for name in ("accuracy", *CONTROLS)}
        labels = tally.metrics["group"]
        without = [i for i in at if scores["shuffled"][i] is None]
        whole = [i for i in at if scores["shuffled"][i] is not None]
        row = control_row(task, _at(scores, at), [labels[i] for i in at], kind=self.measure)
        if without:  # the shuffled control is told of those questions alone that another picture was there for
            row |= {"shuffled": None, "above_shuffled": None, "above_shuffled_low": None, "above_shuffled_high": None}
            if whole:
                part = control_row(task, _at(scores, whole), [labels[i] for i in whole])
                row |= {key: part[key] for key in part if "shuffled" in key}
            row["without_another_image"] = len(without)
        return row


def guessed(prior: Mapping[tuple[str, str], str], part: str, text: str) -> str:
    """What `majority` says of a question, by its words, else its part, else the whole."""
    keys = ((part, text), (part, WHOLE), (WHOLE, WHOLE))
    return next((prior[key] for key in keys if key in prior), "")


def _at(scores: Mapping[str, Sequence[Any]], at: Sequence[int], instead: float = 0.0) -> dict[str, list[float]]:
    """The scores of some questions; `instead` stands where one has none."""
    return {name: [instead if values[i] is None else values[i] for i in at] for name, values in scores.items()}


def _flat(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A task's row as rows of the summary's common form."""
    n, name = task["questions"], task["task"]
    found = [row(name, (task["accuracy"], task["low"], task["high"]), n, arm=_NAMES["accuracy"])]
    found += [row(name, (task[c], None, None), n, arm=_NAMES[c]) for c in CONTROLS if task[c] is not None]
    for control in CONTROLS:
        interval = [task[f"above_{control}{end}"] for end in ("", "_low", "_high")]
        if interval[0] is not None:
            found.append(row(name, interval, n, arm=f"gain over {_NAMES[control]}", form="points"))
    return found


def _shorten(trial: Trial, number: int, kept: int, why: str) -> None:
    """Leave of the pictures in an event's prompt the last `kept`, so that a log holds each picture once."""
    type, data = trial.events[number]
    if not isinstance(data.get("prompt"), list):
        return
    total = sum(_is_image(part) for message in data["prompt"] for part in _parts(message))
    place = 0

    def short(part: Any) -> Any:
        nonlocal place
        if not _is_image(part):
            return part
        place += 1
        return part if place > total - kept else {"type": "text", "text": f"[image {place}, {why}]"}

    prompt = [m | {"content": list(map(short, _parts(m)))} if _parts(m) else m for m in data["prompt"]]
    trial.events[number] = (type, data | {"prompt": prompt})


def _parts(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"

"""Visual tasks of the generated world, held out, beside the same controls as published benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from foretell.chat import Conversation, ImagePart
from foretell.data.world import make_items
from foretell.data.world.base import Item
from foretell.errors import EvalError, RecipeError
from foretell.evals.base import listed
from foretell.evals.samples import Sample
from foretell.evals.vision.looking import Looking, guessed
from foretell.evals.vision.measures import edit_similarity, world_match
from foretell.evals.visual import majority, question_text

SOURCE_TASKS = ("screens.html",)  # answers that are a page's source


class VisualWorld(Looking):
    """Questions about pictures of the generated world, of its held-out side.

    kinds: of `data.world.KINDS` that hold pictures. count: questions of each kind. seed: of the draw. options: of a
    kind, by its name. trained: items of each kind's training side that the majority is taken of. num_few_shot: worked
    samples of the training side, of the same task, with their pictures.
    """

    measure = "accuracy"

    kinds: str | Sequence[str]
    count: int = 100
    options: Mapping[str, Mapping[str, Any]] | None = None
    trained: int = 400
    num_few_shot: int = 0
    max_tokens = 256

    def prepare(self) -> None:
        super().prepare()
        self.kinds = listed(self.kinds)

    @cached_property
    def items(self) -> list[Item]:
        found = [item for kind in self.kinds for item in self._items(kind, "heldout", self.count)]
        if not found:
            raise EvalError(f"{self.spec.name}: {', '.join(self.kinds)} ask nothing about pictures. Name other kinds.")
        return found

    @cached_property
    def training(self) -> list[Item]:
        return [item for kind in self.kinds for item in self._items(kind, "train", self.trained)]

    @cached_property
    def prior(self) -> dict[tuple[str, str], str]:
        return majority((item.task, question_text(item), str(item.answer)) for item in self.training)

    def _items(self, kind: str, split: Any, count: int) -> list[Item]:
        try:
            drawn = make_items(kind, split, 2 * count, self.seed, **(self.options or {}).get(kind, {}))
        except RecipeError as error:
            raise EvalError(f"{self.spec.name}: {error}") from error
        asking = [item for item in drawn if item.answer is not None and item.content.conversation().images]
        return asking[:count]  # some kinds hold captions as well, which ask nothing

    def samples(self) -> Sequence[Sample]:
        return [
            {
                "key": f"{item.key}/{i}",
                "item": item,
                "part": item.task,
                "group": item.key,
                "ideal": [item.answer],
                "query": question_text(item),
            }
            for i, item in enumerate(self.items)
        ]

    def same_pictures(self, sample: Sample, other: Sample) -> bool:
        return bool(self.pictures(sample) == self.pictures(other))

    def pictures(self, sample: Sample) -> list[ImagePart]:
        return _asked(sample["item"]).images

    def asked(self, sample: Sample) -> tuple[Conversation, int]:
        item: Item = sample["item"]
        shots = [other for other in self.training if other.task == item.task][: self.num_few_shot]
        if len(shots) < self.num_few_shot:
            raise EvalError(f"{item.task}: {len(shots)} training items are no {self.num_few_shot}. Raise trained.")
        worked = [message for shot in shots for message in shot.content.conversation().messages]
        asked = _asked(item)
        return Conversation((*worked, *asked.messages)), len(asked.images)

    def judged(self, reply: str, sample: Sample) -> tuple[dict[str, float], str]:
        item: Item = sample["item"]
        scores = {self.measure: world_match(reply, [str(item.answer)])}
        if item.task in SOURCE_TASKS:
            scores["source"] = edit_similarity(reply, [str(item.answer)])
        return scores, reply.strip()

    def guess(self, sample: Sample) -> str:
        item: Item = sample["item"]
        return guessed(self.prior, item.task, question_text(item))

    def answers(self, sample: Sample) -> Sequence[str]:
        return list(sample["item"].choices)

    def chance(self, sample: Sample) -> float | None:
        choices = sample["item"].choices
        return 1 / len(choices) if choices else None

    def named(self, part: str) -> str:
        return part

    def told(self) -> dict[str, Any]:
        return {
            "protocol": {"shots": self.num_few_shot, "seed": self.seed, "by": self.by},
            "majority_of": "the training side",
        }


def _asked(item: Item) -> Conversation:
    return Conversation(item.content.conversation().messages[:-1])

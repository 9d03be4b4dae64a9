"""What pictures tell, on a scorer whose likelihoods are known in closed form."""

from __future__ import annotations

import random
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foretell.chat import Conversation, ImagePart
from foretell.evals.vision.likelihood import Told, gains, likelihoods
from foretell.images import decode_image


class Words:
    """A tokenizer of words."""

    def encode(self, text: str) -> list[int]:
        return list(range(len(text.split())))


class Scorer:
    """A text costs 1 nat a word where the picture has the color that it begins with, 2 on a grey one, else 3."""

    tokenizer = Words()

    def __init__(self) -> None:
        self.prompts = 0

    async def score_many(self, asked: Sequence[tuple[Conversation, Sequence[str]]]) -> list[list[float]]:
        self.prompts += len(asked)
        return [[self._score(prompt, text) for text in texts] for prompt, texts in asked]

    def _score(self, prompt: Conversation, text: str) -> float:
        pixel = decode_image(prompt.images[0].data).getpixel((0, 0))
        color = {(255, 0, 0): "red", (0, 0, 255): "blue", (128, 128, 128): "grey"}[pixel]  # type: ignore[index]
        cost = 1 if text.startswith(color) else 2 if color == "grey" else 3
        return -float(cost * len(text.split()))


def picture(color: str) -> ImagePart:
    buffer = BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return ImagePart(buffer.getvalue())


def told(color: str, group: str, other: str | None = None, task: str = "caption") -> Told:
    prompt = Conversation.from_openai([{"role": "user", "content": [picture(color).data, "What?"]}])
    words = " ".join(["word"] * random.Random(group).randint(1, 6))
    return Told(task, group, prompt, f"{color} {words}", None if other is None else (picture(other),))


def test_each_condition_costs_what_it_must() -> None:
    scorer: Any = Scorer()
    rows = likelihoods(scorer, [told("red", "a", "blue"), told("blue", "b", "blue"), told("red", "c")])
    assert [(r["seen"], r["blind"], r.get("shuffled")) for r in rows] == [(1, 2, 3), (1, 2, 1), (1, 2, None)]
    assert all(row["tokens"] >= 2 for row in rows) and scorer.prompts == 8


def test_gains_are_paired_and_by_task() -> None:
    scorer: Any = Scorer()
    texts = [told("red", str(i), "blue") for i in range(6)] + [told("blue", "x", "red", "other")] * 3
    caption, other = gains(likelihoods(scorer, texts))
    assert caption["task"] == "caption" and caption["questions"] == 6 and other["questions"] == 3
    assert caption["above_blind"] == caption["above_blind_low"] == 1 and caption["above_shuffled"] == 2
    assert other["above_blind"] == 1 and other["above_blind_low"] < 0  # texts of one group are one observation


def test_an_interval_counts_groups() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"task": "t", "group": str(i // 5), "seen": 1.0, "blind": 1 + shift}
        for i, shift in enumerate(np.repeat(rng.normal(0.1, 0.2, 20), 5))
    ]
    alone = [row | {"group": str(i)} for i, row in enumerate(rows)]
    (by_group,), (by_text,) = gains(rows), gains(alone)
    widths = [row["above_blind_high"] - row["above_blind_low"] for row in (by_group, by_text)]
    assert by_group["above_blind"] == pytest.approx(by_text["above_blind"])
    assert widths[0] > 1.8 * widths[1]  # √5 = 2.2 times as wide, less what few groups cost
    assert "shuffled" not in by_group


def test_progress_counts_scores() -> None:
    seen: list[int] = []
    scorer: Any = Scorer()
    likelihoods(scorer, [told("red", str(i), "blue") for i in range(30)], seen.append)
    assert seen == [64, 90]

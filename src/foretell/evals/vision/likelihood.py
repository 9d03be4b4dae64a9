"""How much more likely a picture makes the text that belongs to it: for captions, which no match can judge.

Each text is scored after its prompt with its own picture (seen), with a grey one of the same size (blind) and with
another's (shuffled), in nats a token, so that what is gained over blind is owed to the picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretell.chat import Conversation, ImagePart
from foretell.evals.visual import grey, with_images
from foretell.generate import Generator
from foretell.measure.stats import paired_difference

CONDITIONS = ("seen", "blind", "shuffled")
AT_ONCE = 64  # prompts whose images are held as tiles


@dataclass(frozen=True)
class Told:
    """A text about a picture. prompt: what precedes it, picture included. other: pictures that stand in for it when
    shuffled; None leaves that out. group: texts that share one are not independent."""

    task: str
    group: str
    prompt: Conversation
    text: str
    other: tuple[ImagePart, ...] | None = None


def likelihoods(
    generator: Generator, told: Sequence[Told], report: Callable[[int], None] = lambda done: None
) -> list[dict[str, Any]]:
    """For each text task, group, tokens, and nats a token under each condition.

    report: is told how many scores are done. Raises as the generator's `score_many` and `grey` do.
    """
    asked: list[tuple[int, str, Conversation]] = []
    for i, one in enumerate(told):
        asked.append((i, "seen", one.prompt))
        asked.append((i, "blind", with_images(one.prompt, [grey(image) for image in one.prompt.images])))
        if one.other is not None:
            asked.append((i, "shuffled", with_images(one.prompt, one.other)))
    rows: list[dict[str, Any]] = [{"task": one.task, "group": one.group} for one in told]
    score: Any = generator
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        found = asyncio.run(score.score_many([(prompt, [told[i].text]) for i, _, prompt in part]))
        for (i, condition, _), (value,) in zip(part, found, strict=True):
            tokens = max(1, len(score.tokenizer.encode(told[i].text)))
            rows[i] |= {"tokens": tokens, condition: -value / tokens}
        report(start + len(part))
    return rows


def gains(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By task, in the order they are met: the mean of each condition, and what seeing gains over blind and over
    shuffled pictures, positive where it helps, with 95 % intervals over groups (_low, _high)."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        members = [row for row in rows if row["task"] == task]
        told: dict[str, Any] = {"task": task, "questions": len(members)}
        for condition in CONDITIONS:
            kept = [row for row in members if condition in row]
            if not kept:
                continue
            values = [row[condition] for row in kept]
            told[condition] = sum(values) / len(values)
            if condition != "seen":
                gain = paired_difference(values, [row["seen"] for row in kept], groups=[row["group"] for row in kept])
                told |= {
                    f"above_{condition}": gain.estimate,
                    f"above_{condition}_low": gain.low,
                    f"above_{condition}_high": gain.high,
                }
        found.append(told)
    return found

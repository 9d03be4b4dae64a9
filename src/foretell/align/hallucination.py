"""Hallucination pairs: a model lists what its answer made up, rewrites it, and lists again until nothing is left.

Source: GPT-4 Technical Report, arXiv 2303.08774, section 6: answer, list, rewrite, list again, at most five rounds;
pairs of the first answer and a clean rewrite then train the reward model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foretell.chat import Conversation, Message, TextPart
from foretell.generate import Generator, Request, Sampling, generate_sync

LIST = (
    "Read your last answer again. List everything in it that is made up, cannot be known, or does not follow from what "
    "you were given: one item a line, each in its own words. If there is nothing of the kind, write only: none"
)
REWRITE = (
    "Write your answer again without what is listed here, and put nothing new in its place. Write only the answer."
    "\n\n{listed}"
)
_NONE = re.compile(r"\W*(?:none|nothing|no hallucinations?)\b\W*", re.IGNORECASE)


@dataclass(frozen=True)
class HallucinationPair:
    """rejected: the first answer. chosen: its clean rewrite. listed: what was found in the first answer."""

    prompt: Conversation
    chosen: str
    rejected: str
    listed: tuple[str, ...]
    rounds: int

    def row(self) -> dict[str, Any]:
        """In the conversational form of preferences: prompt, chosen, rejected."""
        said = [[{"role": "assistant", "content": text}] for text in (self.chosen, self.rejected)]
        return {"prompt": self.prompt.to_openai(), "chosen": said[0], "rejected": said[1]}


def hallucination_pairs(
    generator: Generator,
    prompts: Sequence[Conversation],
    rounds: int = 5,
    sampling: Sampling | None = None,
) -> list[HallucinationPair]:
    """Pairs of the prompts whose first answer had something made up, and whose rewrite in time had nothing.

    rounds: most rewrites of an answer; what is not clean after them is dropped. sampling: of answers and rewrites;
    lists are greedy. An empty rewrite is not taken. All prompts take a step together. Raises as the generator does.
    """
    drawn = sampling or Sampling()
    first = _ask(generator, prompts, drawn)
    current, found = list(first), _list(generator, prompts, first)
    listed = dict(enumerate(found))
    open_rows = [i for i, items in enumerate(found) if items]
    pairs: dict[int, HallucinationPair] = {}
    for done in range(1, rounds + 1):
        if not open_rows:
            break
        wanted = [REWRITE.format(listed="\n".join(f"- {item}" for item in listed[i])) for i in open_rows]
        asked = [_follow(prompts[i], current[i], text) for i, text in zip(open_rows, wanted, strict=True)]
        for i, text in zip(open_rows, _ask(generator, asked, drawn), strict=True):
            current[i] = text.strip() or current[i]
        again = _list(generator, [prompts[i] for i in open_rows], [current[i] for i in open_rows])
        for i, items in zip(open_rows, again, strict=True):
            listed[i] = items
            if not items and current[i] != first[i]:
                pairs[i] = HallucinationPair(prompts[i], current[i], first[i], found[i], done)
        open_rows = [i for i in open_rows if listed[i]]
    return [pairs[i] for i in sorted(pairs)]


def read_list(reply: str) -> tuple[str, ...]:
    """The items of a listing, without bullets and numbers; () where it says there are none."""
    lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line).strip() for line in reply.splitlines()]
    items = tuple(line for line in lines if line)
    return () if len(items) <= 1 and (not items or _NONE.fullmatch(items[0])) else items


def _list(generator: Generator, prompts: Sequence[Conversation], answers: Sequence[str]) -> list[tuple[str, ...]]:
    asked = [_follow(prompt, answer, LIST) for prompt, answer in zip(prompts, answers, strict=True)]
    return [read_list(reply) for reply in _ask(generator, asked, Sampling(temperature=0.0))]


def _ask(generator: Generator, prompts: Sequence[Conversation], sampling: Sampling) -> list[str]:
    return [results[0].text for results in generate_sync(generator, [Request(prompt, sampling) for prompt in prompts])]


def _follow(prompt: Conversation, answer: str, asked: str) -> Conversation:
    return Conversation((*prompt.with_reply(answer).messages, Message("user", (TextPart(asked),))))

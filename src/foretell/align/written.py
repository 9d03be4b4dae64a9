"""Prompts that a model writes after examples: more of a kind than people have written."""

from __future__ import annotations

import random
from collections.abc import Sequence

from foretell.chat import Conversation, Message, TextPart
from foretell.errors import DataError
from foretell.generate import Generator, Request, Sampling, generate_sync

ASK = (
    "Here are requests that users sent:\n\n{shown}\n\nWrite one more of the same kind, unlike these, and nothing else."
)


def written_prompts(
    generator: Generator,
    examples: Sequence[str],
    n: int,
    rng: random.Random,
    *,
    shots: int = 5,
    rounds: int = 4,
    sampling: Sampling | None = None,
) -> list[str]:
    """Up to n different prompts, none of them an example: the first line of each reply that has one.

    shots: examples shown at a time, drawn anew for each prompt. rounds: at most so many batches are asked for, each as
    large as what is missing. Whether a prompt is of the kind that was asked for is for others to say.
    Raises DataError without examples, and as the generator does.
    """
    if not examples:
        raise DataError("There are no examples to write prompts after. Give a few of the kind that is wanted.")
    known, found = set(examples), dict[str, None]()
    for _ in range(rounds):
        missing = n - len(found)
        if missing <= 0:
            break
        few = min(shots, len(examples))
        shown = ["\n".join(f"- {text}" for text in rng.sample(examples, few)) for _ in range(missing)]
        asked = [Conversation((Message("user", (TextPart(ASK.format(shown=text)),)),)) for text in shown]
        for results in generate_sync(generator, [Request(prompt, sampling or Sampling()) for prompt in asked]):
            line = results[0].text.strip().partition("\n")[0].removeprefix("- ").strip()
            if line and line not in known:
                found[line] = None
    return list(found)[:n]

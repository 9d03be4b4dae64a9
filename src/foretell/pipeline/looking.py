"""What a grown model sees: held-out conversations scored with their picture, with a grey one, and with another's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from foretell.align.examples import Dialogue, read_dialogues
from foretell.align.packing import prompt_digest
from foretell.chat import Conversation
from foretell.data.splits import split_of
from foretell.evals.summaries import FORM, row
from foretell.evals.vision.likelihood import Told, gains, likelihoods
from foretell.evals.visual import data_url, grey, with_images
from foretell.files import write_json
from foretell.generate import Generator, Request, Sampling, generate_sync
from foretell.loading import load
from foretell.run import Report

SCORED = 200  # held-out replies
SHOWN = 12
MOST_TASKS = 8  # questions in so many words are tasks of their own
MOST_TOKENS = 48
EVERY = "every reply"
EXAMINED = "examine.json"
SUMMARY = "seeing.summary.json"
NOTE = (
    "Held-out replies, in nats a token: how much less surprising each is with its own picture than with a grey one of "
    "the same size (blind). A model that never met grey pictures in training may be thrown off by them; the gain over "
    "another's picture is free of that."
)


def look(checkpoint: Path, data: Path, heldout: float, out: Path, model: str, report: Report) -> dict[str, Any]:
    """Score and show a grown model's held-out replies; writes examine.json and a summary that a card reads.

    heldout: the share of conversations that training left out. model: its name in the summary.
    Returns the gain of each task over blind; nothing where no conversation with a picture was held out.
    """
    talks = list(islice(_held(data, heldout), SCORED))
    found: dict[str, Any] = {"tasks": [], "texts": [], "shown": []}
    if talks:
        generator = load(checkpoint).generator
        told = _told(talks)
        total = 3 * len(told)
        rows = likelihoods(generator, told, lambda done: report("look", done, total, "replies scored"))
        found |= {"texts": gains(rows), "rows": rows, "shown": show(generator, told[:SHOWN])}
    write_json(out / EXAMINED, found)
    if talks:
        write_json(out / SUMMARY, summary(found["texts"], model))
    return {one["task"]: {"above_blind": one["above_blind"]} for one in found["texts"]}


def _held(data: Path, share: float) -> Iterator[Conversation]:
    """Held-out conversations that end in a reply and have pictures only before it."""
    for found in read_dialogues(data):
        if not isinstance(found, Dialogue) or split_of(prompt_digest(found), share) != "heldout":
            continue
        *asked, last = found.conversation.messages
        prompt = Conversation(tuple(asked))
        if last.role == "assistant" and last.text and prompt.images:
            yield found.conversation


def _told(talks: Sequence[Conversation]) -> list[Told]:
    prompts = [Conversation(talk.messages[:-1]) for talk in talks]
    asked = [prompt.messages[-1].text for prompt in prompts]
    tasks = asked if len(set(asked)) <= MOST_TASKS else [EVERY] * len(asked)
    told = []
    for i, (talk, prompt) in enumerate(zip(talks, prompts, strict=True)):
        other = next((p.images for p in prompts[i + 1 :] + prompts[:i] if p.images != prompt.images), None)
        told.append(Told(tasks[i], str(i), prompt, talk.messages[-1].text, None if other is None else tuple(other)))
    return told


def show(generator: Generator, told: Sequence[Told], max_tokens: int = MOST_TOKENS) -> list[dict[str, Any]]:
    """Greedy replies with the picture and with a grey one, as a page shows them."""
    blind = [with_images(one.prompt, [grey(image) for image in one.prompt.images]) for one in told]
    sampling = Sampling(max_tokens, temperature=0.0, seed=0)
    requests = [Request(prompt, sampling) for prompt in [*(one.prompt for one in told), *blind]]
    replies = [found[0].text.strip() for found in generate_sync(generator, requests)]
    return [
        {
            "task": one.task,
            "question": one.prompt.messages[-1].text,
            "truth": one.text,
            "answer": replies[i],
            "blind": replies[len(told) + i],
            "image": data_url(one.prompt.images[-1].data),
        }
        for i, one in enumerate(told)
    ]


def summary(texts: Sequence[dict[str, Any]], model: str) -> dict[str, Any]:
    """`foretell.summary` of what was gained, for a system card."""
    rows = [
        row(
            f"{one['task']}, gain over {control}",
            [one[f"above_{control}{end}"] for end in ("", "_low", "_high")],
            one["questions"],
            form="number",
        )
        for one in texts
        for control in ("blind", "shuffled")
        if f"above_{control}" in one
    ]
    title = "What its pictures tell a grown model"
    return {"form": FORM, "part": "vision", "title": title, "note": NOTE, "model": model, "rows": rows}

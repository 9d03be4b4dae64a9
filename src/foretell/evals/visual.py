"""The visual examination: does the model look, or does it guess from the words?

Every question is asked three times: with its image, with a grey image of the same size (blind), and with the image
of another question of the task (shuffled). The fourth column answers without a model: the answer that was most
frequent in training (majority). Only what is gained over these controls is owed to the image.
"""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import zip_longest
from typing import Any

import numpy as np

from foretell.chat import Conversation, ImagePart
from foretell.data.world.base import Item, is_right, png
from foretell.evals.scores import summarize
from foretell.generate import Generator, Request, Sampling, generate_sync
from foretell.images import decode_image
from foretell.measure.stats import paired_difference
from foretell.template import Encoded

Prior = Mapping[tuple[str, str], str]
AT_ONCE = 512  # prompts whose images are held as tiles
CONTROLS = ("blind", "shuffled", "majority")
MOST_SHOWN, SIDE_SHOWN = 40_000, 256  # bytes of a PNG, and pixels of what is shown in place of a larger one
WHOLE = ""  # of a prior: every question of a task, or every task


def majority(answers: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    """The most frequent answer by (part, question), and by (part, "") and ("", ""); ties go to the first.

    answers: part, question and answer of each.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for part, text, answer in answers:
        for key in {(part, text), (part, WHOLE), (WHOLE, WHOLE)}:
            counts.setdefault(key, Counter())[answer] += 1
    return {key: count.most_common(1)[0][0] for key, count in counts.items()}


def majority_answers(items: Iterable[Item]) -> dict[tuple[str, str], str]:
    """The most frequent answer by (task, question), and by (task, "") for questions never met.

    items: training items, since a control must not know the examination.
    """
    found = majority((item.task, question_text(item), item.answer) for item in items if item.answer is not None)
    return {key: answer for key, answer in found.items() if key != (WHOLE, WHOLE)}


def question_text(item: Item) -> str:
    """The last question's words."""
    asked = [message for message in item.content.conversation().messages if message.role == "user"]
    return asked[-1].text if asked else ""


def examine_visual(
    generator: Generator, items: Sequence[Item], prior: Prior, seed: int = 0, max_tokens: int = 40, shown: int = 12
) -> dict[str, Any]:
    """Ask each held-out item's last question (with its earlier turns) greedily, with and without its image.

    items without an image, an answer or a reply to leave out are passed over. prior: `majority_answers` of training
    items. seed: which image stands in where images are shuffled.
    Returns {"tasks", "shown"}. A task has accuracy with its 95 % Wilson interval (low, high), the three controls
    blind, shuffled and majority, and above_blind and above_majority, paired differences with 95 % intervals (_low,
    _high); sees: both intervals lie above zero. shown: the first questions of each task in turn, with their images.
    """
    asked = [item for item in items if _is_visual_question(item)]
    prompts = [_prompt(item) for item in asked]
    blind = [with_images(prompt, [grey(image) for image in prompt.images]) for prompt in prompts]
    others = _stand_ins(asked, random.Random(seed))
    shuffled = [
        blind[i] if other is None else with_images(prompts[i], prompts[other].images) for i, other in enumerate(others)
    ]
    reply = _answers(generator, [*prompts, *blind, *shuffled], max_tokens)
    replies = {
        "accuracy": [reply[prompt] for prompt in prompts],
        "blind": [reply[prompt] for prompt in blind],
        "shuffled": [reply[prompt] for prompt in shuffled],
        "majority": [_guess(prior, item) for item in asked],
    }
    truths = [item.answer or "" for item in asked]
    grades = {
        name: [float(is_right(text, truth)) for text, truth in zip(texts, truths, strict=True)]
        for name, texts in replies.items()
    }
    groups = list(_by_task(asked).values())
    order = [i for turn in zip_longest(*groups) for i in turn if i is not None][:shown]
    rows = [
        control_row(
            asked[group[0]].task, {n: [g[i] for i in group] for n, g in grades.items()}, kind=_kind(asked, group)
        )
        for group in groups
    ]
    return {
        "tasks": rows,
        "shown": [
            {
                "task": asked[i].task,
                "question": question_text(asked[i]),
                "truth": truths[i],
                "answer": replies["accuracy"][i],
                "blind": replies["blind"][i],
                "correct": bool(grades["accuracy"][i]),
                "image": data_url(prompts[i].images[-1].data),
            }
            for i in order
        ],
    }


def sample_texts(
    generator: Generator,
    prompts: Mapping[str, Conversation | Encoded],
    max_tokens: int = 40,
    temperature: float = 0.8,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One continuation of each prompt, as {"prompt", "text", "chat"}; the keys are the prompts as they are shown.

    chat: whether the text is a reply, which begins a turn of its own.
    """
    sampling = Sampling(max_tokens, temperature=temperature, top_p=0.95, seed=seed)
    results = generate_sync(generator, [Request(prompt, sampling) for prompt in prompts.values()])
    return [
        {"prompt": name, "text": samples[0].text, "chat": isinstance(prompt, Conversation)}
        for (name, prompt), samples in zip(prompts.items(), results, strict=True)
    ]


def _is_visual_question(item: Item) -> bool:
    if item.answer is None or not item.content.is_conversation:
        return False
    conversation = item.content.conversation()
    return conversation.messages[-1].role == "assistant" and bool(conversation.images)


def _prompt(item: Item) -> Conversation:
    return Conversation(item.content.conversation().messages[:-1])


def with_images(conversation: Conversation, images: Sequence[ImagePart]) -> Conversation:
    """The conversation with its k-th image replaced by images[k], counted round."""
    place = -1

    def swap(part: Any) -> Any:
        nonlocal place
        if not isinstance(part, ImagePart):
            return part
        place += 1
        return images[place % len(images)]

    return Conversation(tuple(replace(m, parts=tuple(map(swap, m.parts))) for m in conversation.messages))


def grey(image: ImagePart) -> ImagePart:
    """A grey picture of the same size. Raises ImageError for one that is damaged."""
    from PIL import Image

    return replace(image, data=png(Image.new("RGB", decode_image(image.data).size, (128, 128, 128))))


def _stand_ins(items: Sequence[Item], rng: random.Random) -> list[int | None]:
    """For each item any other of its task; one of another answer only would put a model that sees below chance."""
    tasks = _by_task(items)
    others = ([j for j in tasks[item.task] if j != i] for i, item in enumerate(items))
    return [rng.choice(rest) if rest else None for rest in others]


def _by_task(items: Sequence[Item]) -> dict[str, list[int]]:
    tasks: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        tasks.setdefault(item.task, []).append(i)
    return tasks


def _answers(generator: Generator, prompts: Sequence[Conversation], max_tokens: int) -> dict[Conversation, str]:
    """Greedy replies; equal prompts (many a blind one) are asked once."""
    unique = list(dict.fromkeys(prompts))
    sampling = Sampling(max_tokens, temperature=0.0, seed=0)
    replies: list[str] = []
    for start in range(0, len(unique), AT_ONCE):
        requests = [Request(prompt, sampling) for prompt in unique[start : start + AT_ONCE]]
        replies += [samples[0].text.strip() for samples in generate_sync(generator, requests)]
    return dict(zip(unique, replies, strict=True))


def _guess(prior: Prior, item: Item) -> str:
    return prior.get((item.task, question_text(item)), prior.get((item.task, WHOLE), ""))


def control_row(
    task: str, grades: Mapping[str, Sequence[float]], groups: Sequence[Hashable] | None = None, kind: str = ""
) -> dict[str, Any]:
    """One task beside its controls, as a row of an examination.

    grades: of each question, 0 to 1, under "accuracy", "blind", "shuffled" and "majority". groups: questions that share
    one are not independent. Returns task, kind, questions, accuracy with its 95 % interval (low, high), the means of
    the controls, above_blind, above_shuffled and above_majority as paired differences with 95 % intervals (_low,
    _high), and sees: whether those over blind and over majority lie above zero.
    """
    right = grades["accuracy"]
    labels = list(groups) if groups is not None and len(set(groups)) < len(right) else None
    found = summarize(np.asarray(right, np.float64), labels).interval
    above = {name: paired_difference(right, grades[name], groups=labels) for name in CONTROLS}
    row: dict[str, Any] = {
        "task": task,
        "kind": kind,
        "questions": len(right),
        "accuracy": found.estimate,
        "low": found.low,
        "high": found.high,
        **{name: sum(grades[name]) / len(right) for name in CONTROLS},
    }
    for name, gain in above.items():
        row |= {f"above_{name}": gain.estimate, f"above_{name}_low": gain.low, f"above_{name}_high": gain.high}
    return row | {"sees": above["blind"].low > 0 and above["majority"].low > 0}


def _kind(asked: Sequence[Item], group: Sequence[int]) -> str:
    return asked[group[0]].content.kind


def data_url(data: bytes) -> str:
    """A picture as a data URL for a page: PNG, or a small JPEG of what would be more than a page takes."""
    if not data.startswith(b"\x89PNG"):
        data = png(decode_image(data))
    kind = "png"
    if len(data) > MOST_SHOWN:
        small, buffer = decode_image(data), BytesIO()
        small.thumbnail((SIDE_SHOWN, SIDE_SHOWN))
        small.save(buffer, format="JPEG", quality=85)
        kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()

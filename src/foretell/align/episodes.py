"""Episodes: a prompt, the replies that a policy drew, and what each drawn token is worth; and rows packed of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from foretell.align.advantage import Floats
from foretell.align.examples import PromptRow
from foretell.align.packing import encode_reply
from foretell.align.samples import Sample
from foretell.chat import Conversation, Message, TextPart
from foretell.data.loader import NO_LOSS, PackedBatch
from foretell.errors import ConversationError
from foretell.generate import Generator, Request, Result, Sampling, generate_sync
from foretell.recipe import ModelConfig
from foretell.template import ChatTemplate, Encoded


@dataclass
class Episode:
    """Mutable while it is played. row: number of its prompt. ids: all tokens so far. drawn: places of the tokens that
    the policy drew, ascending. numbers: name -> one a drawn token."""

    row: int
    prompt: PromptRow
    ids: list[int]
    tiles: npt.NDArray[np.uint8]
    drawn: list[int] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    finished: bool = False
    numbers: dict[str, Floats] = field(default_factory=dict)

    @property
    def tokens(self) -> Encoded:
        loss = np.zeros(len(self.ids), np.bool_)
        loss[self.drawn] = True
        return Encoded(np.asarray(self.ids, np.int32), loss, self.tiles)

    @property
    def sample(self) -> Sample:
        row = self.prompt
        messages = list(row.prompt.messages)
        for reply, said in zip(self.replies, [*row.then, ""], strict=False):
            messages += [_message("assistant", reply), _message("user", said)]
        conversation = Conversation(tuple(messages[:-1]))
        return Sample(row.prompt, self.replies[-1], conversation, row.fields, self.tokens, self.finished)

    def plain(self) -> dict[str, Any]:
        """All but prompt and tiles, which are read again."""
        numbers = {name: values.tolist() for name, values in self.numbers.items()}
        return {"row": self.row, "ids": self.ids, "drawn": self.drawn, "numbers": numbers}


def _message(role: Any, text: str) -> Message:
    return Message(role, (TextPart(text),))


def follow_up(template: ChatTemplate, text: str) -> list[int]:
    """The tokens from the end of a reply to the opening of the next one, the user saying `text` in between.

    Raises ConversationError for a template that writes a turn differently once another follows it.
    """
    said = (_message("user", "a"), _message("assistant", "b"))
    before = encode_reply(template, Conversation(said)).ids
    whole = template.encode(Conversation((*said, _message("user", text))), add_generation_prompt=True, learn="none").ids
    if not np.array_equal(whole[: len(before)], before):
        raise ConversationError(
            "The model's chat template changes what was said once another turn follows, so episodes of several turns "
            "cannot be told token by token. Leave out `then`."
        )
    found: list[int] = whole[len(before) :].tolist()
    return found


class Player:
    """Lets a generator play episodes: tokens in, tokens out, nothing is ever encoded twice.

    limit: tokens that the model reads, a whole episode included. max_tokens: of each reply. logprobs: whether episodes
    get the number "sampled" of their tokens, their log-probability as the generator tells it.
    """

    def __init__(
        self, generator: Generator, template: ChatTemplate, limit: int, max_tokens: int, logprobs: bool = False
    ) -> None:
        self.generator, self.template, self.limit, self.max_tokens = generator, template, limit, max_tokens
        self.logprobs = int(logprobs)

    def play(
        self, rows: Sequence[tuple[int, PromptRow]], samples: int, seed: Callable[[int], int], greedy: bool = False
    ) -> list[Episode]:
        """`samples` episodes of each row, next to each other; seed: of the n-th request of all."""
        openings = [self.template.encode(row.prompt, add_generation_prompt=True, learn="none") for _, row in rows]
        episodes = [
            Episode(number, row, opening.ids.tolist(), opening.tiles)
            for (number, row), opening in zip(rows, openings, strict=True)
            for _ in range(samples)
        ]
        temperature = 0.0 if greedy else 1.0
        requests = [
            Request(o, Sampling(self.max_tokens, temperature, seed=seed(i), logprobs=self.logprobs), samples)
            for i, o in enumerate(openings)
        ]
        active = episodes
        while active:
            results = [one for group in generate_sync(self.generator, requests) for one in group]
            for episode, result in zip(active, results, strict=True):
                _take(episode, result)
            active = [episode for episode in active if self._goes_on(episode)]
            start = len(rows) + sum(len(episode.replies) for episode in episodes)
            requests = [
                Request(
                    episode.tokens,
                    Sampling(self.max_tokens, temperature, seed=seed(start + i), logprobs=self.logprobs),
                )
                for i, episode in enumerate(active)
            ]
        return episodes

    def _goes_on(self, episode: Episode) -> bool:
        """Put the user's next words behind a reply that ended by itself, where there are any and there is room."""
        turn = len(episode.replies)
        if not episode.finished or turn > len(episode.prompt.then):
            return False
        said = follow_up(self.template, episode.prompt.then[turn - 1])
        if len(episode.ids) + len(said) + 1 > self.limit:
            return False
        episode.ids += said
        return True


def _take(episode: Episode, result: Result) -> None:
    episode.drawn += range(len(episode.ids), len(episode.ids) + len(result.token_ids))
    episode.ids += result.token_ids
    episode.replies.append(result.text)
    episode.finished = result.finish_reason == "stop"
    if result.logprobs:
        told = np.array([log.logprob for log in result.logprobs])
        episode.numbers["sampled"] = np.concatenate([episode.numbers.get("sampled", told[:0]), told])


def request_seed(*parts: int) -> int:
    """A seed of 63 bits for one request, a function of its arguments alone."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


def pack_episodes(
    episodes: Sequence[Episode], room: int, pad: int, names: Sequence[str] = (), beside: PackedBatch | None = None
) -> Iterator[tuple[list[Episode], PackedBatch]]:
    """Episodes as batches of one row each, of at most `room` tokens unless one alone is longer.

    Targets are the drawn tokens; `values` has "weight", 1 for each of them, and the numbers of these names. beside:
    rows of other text, put behind the last episodes, whose targets count too; their weight is 0, and "ptx" is 1.
    """
    waiting: list[Episode] = []
    size = 0
    for episode in episodes:
        if waiting and size + len(episode.ids) > room:
            yield waiting, _row(waiting, names, pad, None)
            waiting, size = [], 0
        waiting.append(episode)
        size += len(episode.ids)
    if waiting:
        yield waiting, _row(waiting, names, pad, beside)


def _row(episodes: Sequence[Episode], names: Sequence[str], pad: int, beside: PackedBatch | None) -> PackedBatch:
    sizes = [len(episode.ids) for episode in episodes]
    length, starts = sum(sizes), np.cumsum([0, *sizes[:-1]])
    tokens = np.concatenate([episode.ids for episode in episodes]).astype(np.int64)
    positions = np.concatenate([np.arange(size) for size in sizes])
    number = np.repeat(np.arange(len(sizes)), sizes)
    # A token is predicted by the state before it.
    before = np.concatenate(
        [np.asarray(e.drawn, np.int64) + start - 1 for e, start in zip(episodes, starts, strict=True)]
    )
    targets = np.full(length, NO_LOSS, np.int64)
    targets[before] = tokens[before + 1]
    values = {name: np.zeros(length, np.float32) for name in ("weight", "ptx", *names)}
    values["weight"][before] = 1
    for name in names:
        values[name][before] = np.concatenate([episode.numbers[name] for episode in episodes])
    examples = number.copy()
    tiles = [episode.tiles for episode in episodes if len(episode.tiles)]
    if beside is not None:
        segments = beside.segments.astype(np.int64)
        shifted = np.where(segments >= 0, segments + 1, 0) + np.arange(len(segments))[:, None] * (segments.max() + 2)
        number = np.concatenate([number, shifted.ravel() + len(sizes)])
        tokens = np.concatenate([tokens, beside.tokens.ravel()])
        positions = np.concatenate([positions, beside.positions.ravel()])
        targets = np.concatenate([targets, beside.targets.ravel()])
        examples = np.concatenate([examples, np.full(beside.tokens.size, -1)])
        values = {name: np.pad(value, (0, beside.tokens.size)) for name, value in values.items()}
        values["ptx"][length:] = beside.targets.ravel() >= 0
        tiles += [beside.tiles] if len(beside.tiles) else []
    return PackedBatch(
        tokens[None],
        targets[None],
        positions[None],
        number[None].astype(np.int32),
        np.zeros((1, len(tokens)), np.uint8),
        np.concatenate(tiles) if tiles else np.zeros((0, 0, 0, 3), np.uint8),
        examples[None].astype(np.int32),
        {name: value[None] for name, value in values.items()},
    )


def of_episodes(batch: PackedBatch, model: ModelConfig) -> PackedBatch:
    """A row of `pack_episodes` without what lies beside its episodes."""
    assert batch.examples is not None
    width = int((batch.examples[0] >= 0).sum())
    if width == batch.tokens.shape[1]:
        return batch
    tiles = batch.tiles
    if model.vision is not None:
        tiles = tiles[: int((batch.tokens[0, :width] == model.image_token).sum()) // model.vision.tokens_per_tile]
    rows = ("tokens", "targets", "positions", "segments", "kinds", "examples")
    cut = {name: getattr(batch, name)[:, :width] for name in rows}
    return PackedBatch(**cut, tiles=tiles, values={name: value[:, :width] for name, value in batch.values.items()})

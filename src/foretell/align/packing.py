"""Examples become packed rows: each conversation once, all replies to a prompt side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foretell.align.examples import Dialogue, Preference, Unused, read_dialogues, read_preferences
from foretell.chat import Conversation
from foretell.data.encode import Vocabulary
from foretell.data.loader import PackedBatch
from foretell.data.pack import pack_examples
from foretell.data.splits import Split, split_of
from foretell.errors import CheckpointError, ConversationError, DataError, ImageError, RowError
from foretell.files import digest
from foretell.template import ChatTemplate, Encoded
from foretell.tuning import Tuning

TABLE = "examples.npz"


@dataclass(frozen=True)
class Table:
    """What belongs to each example of a pack, by its number. sizes: (E,) replies. margins: (E,)."""

    sizes: npt.NDArray[np.int64]
    margins: npt.NDArray[np.float64]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(E + 1,): the replies of example e are offsets[e] … offsets[e + 1] − 1 when all are counted on."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @classmethod
    def load(cls, pack: Path) -> Table:
        """The table beside a pack."""
        path = pack.with_name(f"{pack.name}-{TABLE}")
        try:
            with np.load(path, allow_pickle=False) as found:
                return cls(found["sizes"], found["margins"])
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is missing or damaged ({error}). Delete its folder and run again.") from error


def encode_reply(template: ChatTemplate, conversation: Conversation) -> Encoded:
    """A conversation up to the last token that is learned: the end token of the assistant's last message.

    Raises ConversationError when the assistant says nothing.
    """
    spoken = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
    # What follows is left out before, not after, since its images would be left over.
    kept = Conversation(conversation.messages[: spoken[-1] + 1 if spoken else 0])
    encoded = template.encode(kept, learn="assistant") if spoken else None
    if encoded is None or not encoded.loss.any():
        raise ConversationError("There is nothing the assistant says. Give a conversation with a reply.")
    end = int(np.flatnonzero(encoded.loss)[-1]) + 1
    return Encoded(encoded.ids[:end], encoded.loss[:end].copy(), encoded.tiles)


def encode_dialogue(template: ChatTemplate, dialogue: Dialogue, length: int) -> list[Encoded]:
    """A conversation by `encode_reply`. Raises RowError when it cannot be learned from, or is longer than a row."""
    with _named(dialogue.where, "messages"):
        encoded = encode_reply(template, dialogue.conversation)
    _check(len(encoded.ids), length, dialogue.where, "messages")
    return [encoded]


def encode_preference(template: ChatTemplate, preference: Preference, length: int) -> list[Encoded]:
    """The prompt with each reply, the best first; what was said before the reply carries no loss.

    Raises RowError when prompt and replies do not fit in a row together.
    """
    where = preference.where
    with _named(where, "prompt"):
        prompt = template.encode(preference.prompt, add_generation_prompt=True, learn="none").ids
    _check(len(prompt), length // 2, where, "prompt", f"half a row of {length:,}")  # as each reply needs a copy of it
    found = []
    for reply in range(len(preference.replies)):
        with _named(where, f"reply {reply + 1}"):
            encoded = encode_reply(template, preference.whole(reply))
        # Some templates write a turn differently once another follows it, so the beginnings are compared.
        same = sum(1 for _ in takewhile(lambda ab: ab[0] == ab[1], zip(prompt, encoded.ids, strict=False)))
        encoded.loss[:same] = False
        found.append(encoded)
    _check(sum(len(encoded.ids) for encoded in found), length, where, "prompt with its replies")
    return found


@contextmanager
def _named(where: str, field: str) -> Iterator[None]:
    try:
        yield
    except (ConversationError, ImageError) as error:
        raise RowError(where, field, "cannot be put into the model's chat template", str(error)) from error


def _check(tokens: int, limit: int, where: str, field: str, room: str = "") -> None:
    if tokens > limit:
        raise RowError(
            where,
            field,
            f"longer than {room or f'a row of {limit:,}'} tokens",
            f"It takes {tokens:,}. Raise sequence_length as far as the model reads, shorten it, or leave such rows out "
            "with --set bad_rows=skip.",
        )


def pack_split(
    data: Path, kind: str, split: Split, template: ChatTemplate, tokenizer: Vocabulary, out: Path, settings: Tuning,
    length: int, side: int, pad: int, say: Callable[[int], None],
) -> dict[str, Any]:  # fmt: skip
    """Pack one split of a file or folder of examples, with its `Table` beside it.

    kind: "sft" packs conversations, anything else preferences. What is held out is decided by the prompt alone.
    Returns the metrics of `pack_examples` and `skipped`. Raises RowError for the first bad row unless they are skipped,
    DataError when nothing is left.
    """
    skipped: Counter[str] = Counter()
    sizes: list[int] = []
    margins: list[float] = []

    def examples() -> Iterator[Sequence[tuple[Encoded, str]]]:
        for number, found in enumerate(_encoded(), 1):
            say(number)
            # A reward model makes no logits, and what is counted as learned is counted as work of the head.
            yield [(replace(e, loss=np.zeros_like(e.loss)) if kind == "reward" else e, kind) for e in found]

    def _encoded() -> Iterator[list[Encoded]]:
        for row in read_dialogues(data) if kind == "sft" else read_preferences(data):
            if isinstance(row, Unused):
                if split == "train":  # both passes meet it
                    skipped[row.why] += 1
                continue
            try:
                if isinstance(row, RowError):
                    raise row
                if split_of(prompt_digest(row), settings.heldout) != split:
                    continue
                if isinstance(row, Dialogue):
                    found = encode_dialogue(template, row, length)
                else:
                    found = encode_preference(template, row, length)
            except RowError as error:
                if settings.bad_rows == "stop":
                    raise
                if split == "train" or not isinstance(row, RowError):  # those are met in both passes
                    skipped[error.why] += 1
                continue
            sizes.append(len(found))
            margins.append(0.0 if isinstance(row, Dialogue) else row.margin)
            yield found

    try:
        metrics = pack_examples(examples(), tokenizer, out, length, side, pad)
    except DataError as error:
        if sizes or isinstance(error, RowError):
            raise
        why = "; ".join(f"{count} rows left out: {reason}" for reason, count in skipped.items()) or "no rows"
        raise DataError(f"{data} holds no example to train on ({why}). Give other data with --data.") from error
    np.savez(out.with_name(f"{out.name}-{TABLE}"), sizes=np.array(sizes, np.int64), margins=np.array(margins))
    return {**metrics, "replies": sum(sizes), "skipped": dict(skipped)}


def prompt_digest(row: Dialogue | Preference) -> str:
    """A digest of what is asked: rows that ask the same are held out together."""
    messages = row.prompt.messages if isinstance(row, Preference) else row.conversation.messages
    opening = tuple(takewhile(lambda message: message.role != "assistant", messages))
    return digest(json.dumps(Conversation(opening or messages).to_openai()))


@dataclass(frozen=True)
class Replies:
    """The R segments of a batch as replies, in the order of the rows.

    ends: (R,) flat position of each one's last token. of_target: for each target that counts, in flat order, its reply.
    example: (R,), rank: (R,) 0 for the best. better, worse: (P,) the pairs of every example, as numbers of replies;
    share: (P,) 1 over the pairs of their example.
    """

    ends: npt.NDArray[np.int64]
    of_target: npt.NDArray[np.int64]
    example: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    better: npt.NDArray[np.int64]
    worse: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]


def replies(batch: PackedBatch) -> Replies:
    """Find the replies of a batch and the pairs among those of one prompt, which share a row."""
    assert batch.examples is not None, "packed by pack_examples"
    time = batch.segments.shape[1]
    changes = batch.segments[:, 1:] != batch.segments[:, :-1]
    real = batch.segments >= 0
    first = np.pad(changes, ((0, 0), (1, 0)), constant_values=True) & real
    last = np.pad(changes, ((0, 0), (0, 1)), constant_values=True) & real
    ends = np.flatnonzero(last)
    reply = np.cumsum(first.reshape(-1)) - 1
    example = batch.examples.reshape(-1)[ends].astype(np.int64)
    opens = np.ones(len(ends), np.bool_)
    opens[1:] = (example[1:] != example[:-1]) | (ends[1:] // time != ends[:-1] // time)
    starts = np.flatnonzero(opens)
    sizes = np.diff([*starts, len(ends)])
    pairs = [(a, b, 2 / (k * (k - 1))) for s, k in zip(starts, sizes, strict=True)
             for a in range(s, s + k) for b in range(a + 1, s + k)]  # fmt: skip
    better, worse, share = zip(*pairs, strict=True) if pairs else ((), (), ())
    return Replies(
        ends,
        reply[np.flatnonzero(batch.targets.reshape(-1) >= 0)],
        example,
        np.arange(len(ends)) - np.repeat(starts, sizes),
        np.array(better, np.int64),
        np.array(worse, np.int64),
        np.array(share, np.float64),
    )


def count_examples(batch: PackedBatch) -> float:
    """How many examples a batch holds: what preference losses are divided by."""
    assert batch.examples is not None
    return float(sum(len(np.unique(row[row >= 0])) for row in batch.examples))


def require_template(template: ChatTemplate | None, ref: str) -> ChatTemplate:
    """Raises CheckpointError when a model has none."""
    if template is None:
        raise CheckpointError(
            f"{ref} has no chat template, so conversations cannot be written for it. Put a chat_template.jinja beside "
            "its tokenizer.json, or take the chat version of the model."
        )
    return template

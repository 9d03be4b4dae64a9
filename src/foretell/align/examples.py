"""What alignment learns from: conversations and preferences, read from the files that people have.

TRL's conversational rows, what the chat page's users prefer and rate, and the published forms of HH-RLHF, Alpaca and
Open-Assistant, told apart by their keys; see docs/align.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from foretell.align.ratings import Rating, pair
from foretell.align.rows import rows
from foretell.chat import Conversation, Message, TextPart
from foretell.errors import ConversationError, RowError

T = TypeVar("T")
_HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")
_CHAT = "Give messages with 'role' and 'content', as docs/align.md shows."
_WANTED = {
    "conversations": "messages; prompt and completion; instruction and output (Alpaca); or an Open-Assistant tree",
    "preferences": "chosen and rejected, with or without prompt; prompt and replies, best first; messages and label "
    "(true or false); or an Open-Assistant tree with ranks",
    "prompts": "prompt, messages, instruction, chosen and rejected, or an Open-Assistant tree",
}


@dataclass(frozen=True)
class Dialogue:
    """A conversation to learn the assistant's part of. where: file and line it is from."""

    conversation: Conversation
    where: str


@dataclass(frozen=True)
class Preference:
    """Replies to one prompt, best first; each is what follows the prompt, at least one assistant message.

    margin: by how much the first should be better than the second, in units of reward. where: file and line.
    """

    prompt: Conversation
    replies: tuple[Conversation, ...]
    where: str
    margin: float = 0.0

    def whole(self, reply: int) -> Conversation:
        """The prompt with one of its replies."""
        return Conversation(self.prompt.messages + self.replies[reply].messages)


@dataclass(frozen=True)
class Unused:
    """A row that is in order but gives no example, such as a reply called bad to who learns to reply. why: the same
    words for rows alike."""

    where: str
    why: str


@dataclass(frozen=True)
class PromptRow:
    """A prompt that a policy is to answer. then: what the user says after each of its replies, where there are several.
    fields: what else the row holds, for rewards. where: file and line.
    """

    prompt: Conversation
    then: tuple[str, ...]
    fields: Mapping[str, Any]
    where: str


def read_dialogues(path: Path) -> Iterator[Dialogue | Unused | RowError]:
    """Conversations of a file, or of every file in a folder, in order; a bad row as the error that says why.

    Raises DataError for a path that is missing or cannot be read.
    """
    return _read(path, _dialogues, "a tree without a reply")


def read_preferences(path: Path) -> Iterator[Preference | Unused | RowError]:
    """Preferences, as `read_dialogues` reads conversations; what ratings make comes last."""
    ratings: list[Rating] = []
    for found in _read(path, _judgements, "a tree without ranked replies"):
        if isinstance(found, Rating):
            ratings.append(found)
        else:
            yield found
    if ratings:
        yield from _of_ratings(path, ratings)


def read_prompts(path: Path) -> Iterator[PromptRow | RowError]:
    """Prompts, as `read_dialogues` reads conversations; of conversations and preferences what precedes the reply."""
    for found in _read(path, _prompts, ""):
        assert not isinstance(found, Unused), "every such row has a prompt"
        yield found


def _read(
    path: Path, parse: Callable[[str, Mapping[str, Any]], Iterator[T]], nothing: str
) -> Iterator[T | Unused | RowError]:
    for where, row in rows(path):
        if isinstance(row, RowError):
            yield row
            continue
        try:
            found = list(parse(where, row))
        except RowError as error:
            yield error
        else:
            yield from found
            if not found:
                yield Unused(where, nothing)


def _of_ratings(path: Path, ratings: list[Rating]) -> Iterator[Preference | Unused]:
    """What pairs of ratings say that no preference of the same files says already."""
    pairs, left = pair(ratings)
    asked = {good.prompt for good, _ in pairs}
    said = {
        (found.prompt, found.replies[i], worse)
        for found in (_read(path, _judgements, "") if asked else ())
        if isinstance(found, Preference) and found.prompt in asked
        for i in range(len(found.replies))
        for worse in found.replies[i + 1 :]
    }
    for good, bad in pairs:
        where = f"{good.where} beside {bad.where}"
        if (good.prompt, good.reply, bad.reply) in said:
            yield Unused(where, "two ratings that a preference says already")
        else:
            yield Preference(good.prompt, (good.reply, bad.reply), where)
    for rating, why in left:
        yield Unused(rating.where, why)


def _dialogues(where: str, row: Mapping[str, Any]) -> Iterator[Dialogue | Unused]:
    if row.get("label") is False and _is_rating(row):
        yield Unused(where, "called bad")
        return
    if "messages" in row:
        found = [("messages", _messages(where, "messages", row["messages"]))]
    elif "prompt" in row and "completion" in row:
        prompt = _messages(where, "prompt", row["prompt"], "user")
        found = [("completion", prompt + _messages(where, "completion", row["completion"], "assistant"))]
    elif "instruction" in row and "output" in row:
        reply = Message("assistant", (TextPart(_text(where, "output", row["output"])),))
        found = [("output", (_instruction(where, row), reply))]
    elif _is_tree(row):
        tree = _branches(where, row["prompt"], ())
        found = [("prompt", path) for path, replies in tree if not replies and path[-1].role == "assistant"]
    else:
        raise _unknown(where, row, "conversations")
    for field, messages in found:
        if not any(message.role == "assistant" and _says(message) for message in messages):
            raise RowError(where, field, "the assistant says nothing", "There is nothing to learn; remove the row.")
        yield Dialogue(Conversation(messages), where)


def _instruction(where: str, row: Mapping[str, Any]) -> Message:
    asked = "\n\n".join(filter(None, (_text(where, name, row.get(name, "")) for name in ("instruction", "input"))))
    if not asked.strip():
        raise RowError(where, "instruction", "empty", "Fill it, or remove the row.")
    return Message("user", (TextPart(asked),))


def _judgements(where: str, row: Mapping[str, Any]) -> Iterator[Preference | Rating]:
    if _is_rating(row):
        yield _rating(where, row)
    else:
        yield from _preferences(where, row)


def _is_rating(row: Mapping[str, Any]) -> bool:
    return "label" in row and ("messages" in row or ("prompt" in row and "completion" in row))


def _rating(where: str, row: Mapping[str, Any]) -> Rating:
    if not isinstance(row["label"], bool):
        raise RowError(
            where, "label", "neither true nor false", f"It is {row['label']!r:.40}; true says that it is good."
        )
    if "messages" in row:
        field, said = "messages", _messages(where, "messages", row["messages"])
        prompt, reply = said[:-1], said[-1:]
    else:
        field, prompt = "completion", _messages(where, "prompt", row["prompt"], "user")
        reply = _messages(where, field, row["completion"], "assistant")
    _check_reply(where, field, reply)
    if not prompt:
        raise RowError(where, field, "a reply to nothing", "Put what it answers before it.")
    return Rating(Conversation(prompt), Conversation(reply), row["label"], where)


def _preferences(where: str, row: Mapping[str, Any]) -> Iterator[Preference]:
    if "chosen" in row or "rejected" in row:
        for name in ("chosen", "rejected"):
            if not row.get(name):
                raise RowError(where, name, "missing or empty", "A preference needs both chosen and rejected.")
        role = "assistant" if "prompt" in row else None
        chosen, rejected = (_messages(where, name, row[name], role) for name in ("chosen", "rejected"))
        prompt = _messages(where, "prompt", row["prompt"], "user") if "prompt" in row else ()
        if chosen == rejected:
            raise RowError(where, "rejected", "the same as chosen", "Nothing is preferred; remove the row.")
        if not prompt:
            prompt = tuple(a for a, _ in takewhile(lambda ab: ab[0] == ab[1], zip(chosen, rejected, strict=False)))
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        margin = row.get("margin") or 0.0
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
            raise RowError(where, "margin", "no finite number", f"It is {margin!r}; give a number, or leave it out.")
        yield _preference(where, prompt, [("chosen", chosen), ("rejected", rejected)], float(margin))
    elif "replies" in row and "prompt" in row:
        replies = row["replies"]
        if not isinstance(replies, list) or len(replies) < 2:
            raise RowError(where, "replies", "no list of two or more replies", "List them, the best first.")
        read = [(f"replies[{i}]", _messages(where, f"replies[{i}]", r, "assistant")) for i, r in enumerate(replies)]
        yield _preference(where, _messages(where, "prompt", row["prompt"], "user"), read)
    elif _is_tree(row):
        for path, answers in _branches(where, row["prompt"], ()):
            ranked = [a for a in answers if a.get("role") == "assistant" and type(a.get("rank")) is int]
            ranked.sort(key=lambda answer: answer["rank"])
            if len(ranked) > 1:
                read = [("replies", _messages(where, "replies", answer["text"], "assistant")) for answer in ranked]
                yield _preference(where, path, read)
    else:
        raise _unknown(where, row, "preferences")


def _prompts(where: str, row: Mapping[str, Any]) -> Iterator[PromptRow]:
    if _is_tree(row):
        messages = next(_branches(where, row["prompt"], ()))[0]
    elif "prompt" in row:
        messages = _messages(where, "prompt", row["prompt"], "user")
    elif "messages" in row:
        messages = _messages(where, "messages", row["messages"])
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
    elif "instruction" in row:
        messages = (_instruction(where, row),)
    elif "chosen" in row:
        messages = next(iter(_preferences(where, row))).prompt.messages
    else:
        raise _unknown(where, row, "prompts")
    if not messages:
        raise RowError(where, "prompt", "empty", "There is nothing to answer; fill it, or remove the row.")
    if messages[-1].role not in ("user", "tool"):
        raise RowError(where, "prompt", "ends with what the assistant said", "Its last message is one to be answered.")
    then = row.get("then", [])
    if not isinstance(then, list) or not all(isinstance(text, str) and text.strip() for text in then):
        raise RowError(where, "then", "no list of texts", "It lists what the user says after each reply.")
    fields = {key: value for key, value in row.items() if key not in ("prompt", "messages", "then")}
    yield PromptRow(Conversation(messages), tuple(then), fields, where)


def _preference(
    where: str, prompt: tuple[Message, ...], replies: Sequence[tuple[str, tuple[Message, ...]]], margin: float = 0.0
) -> Preference:
    if not prompt:
        raise RowError(where, "prompt", "empty", "Give a prompt, or replies that begin with the same messages.")
    for i, (field, reply) in enumerate(replies):
        _check_reply(where, field, reply)
        if reply in [other for _, other in replies[:i]]:
            raise RowError(where, field, "the same as a better reply", "Nothing is preferred; remove one of them.")
    return Preference(Conversation(prompt), tuple(Conversation(reply) for _, reply in replies), where, margin)


def _check_reply(where: str, field: str, reply: tuple[Message, ...]) -> None:
    if not reply or reply[-1].role != "assistant" or not _says(reply[-1]):
        raise RowError(where, field, "no reply of the assistant", f"It must end with one. {_CHAT}")


def _messages(where: str, field: str, value: Any, role: str | None = None) -> tuple[Message, ...]:
    """Messages in OpenAI form. A plain string is one message of `role`; without one, a transcript as HH-RLHF has it."""
    if isinstance(value, str) and role is None:
        turns = _HH_TURN.split(value)
        if len(turns) < 3 or turns[0].strip():
            raise RowError(where, field, "no transcript", f"A plain string begins with 'Human:'. {_CHAT}")
        names = {"Human": "user", "Assistant": "assistant"}
        value = [{"role": names[n], "content": t.strip()} for n, t in zip(turns[1::2], turns[2::2], strict=True)]
    elif isinstance(value, str):
        value = [{"role": role, "content": value}] if value.strip() else []
    if not value:
        raise RowError(where, field, "empty", "Fill it, or remove the row.")
    try:
        return Conversation.from_openai(value).messages
    except ConversationError as error:
        raise RowError(where, field, "not in OpenAI message form", f"{error} Mend it, or remove the row.") from error


def _text(where: str, field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RowError(where, field, "not a string", f"It is {value!r:.40}; give text.")
    return value


def _says(message: Message) -> bool:
    return bool(message.text.strip() or message.tool_calls or any(not isinstance(p, TextPart) for p in message.parts))


def _is_tree(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("prompt"), dict) and "message_tree_id" in row


def _branches(
    where: str, node: dict[str, Any], before: tuple[Message, ...]
) -> Iterator[tuple[tuple[Message, ...], list[dict[str, Any]]]]:
    """Every message of an Open-Assistant tree: the conversation up to it, and the answers to it."""
    roles = {"prompter": "user", "assistant": "assistant"}
    replies = node.get("replies") or []
    for one in (node, *(replies if isinstance(replies, list) else [None])):
        if not isinstance(one, dict) or str(one.get("role")) not in roles or not isinstance(one.get("text"), str):
            raise RowError(
                where, "prompt", "a message without text or known role",
                "Roles are prompter and assistant. Mend the tree, or remove it.",
            )  # fmt: skip
    path = (*before, *_messages(where, "text", node["text"], roles[node["role"]]))
    answers = [answer for answer in replies if not answer.get("deleted")]
    yield path, answers
    for answer in answers:
        yield from _branches(where, answer, path)


def _unknown(where: str, row: Mapping[str, Any], wanted: str) -> RowError:
    found = ", ".join(list(row)[:8]) or "none"
    other = "preference" if wanted == "conversations" else "dialogue"
    kinds = {"dialogue": {"messages", "completion", "output"}, "preference": {"chosen", "rejected", "replies"}}
    hint = ""
    if kinds[other] & set(row):
        hint = (
            " `foretell sft` reads such rows."
            if other == "dialogue"
            else " `foretell reward` and `dpo` read such rows."
        )
    if isinstance(row.get("conversations"), list):
        hint = (
            " ShareGPT's conversations become messages when from and value are called role and content, and human and "
        )
        hint += "gpt user and assistant."
    return RowError(
        where, "the row", f"holds no {wanted}", f"Its fields are {found}; expected {_WANTED[wanted]}.{hint}"
    )

"""Chat templates of other models: their Jinja text, run in a sandbox that never sees what the messages say.

The sandbox renders a skeleton, the conversation with a mark for each text. White space around a text and literals
that the template looks for stay visible to it, since templates trim and search texts. Control tokens are looked up
in what the template wrote; then the texts take the places of their marks, as plain text. So neither a template nor
a message can make a control token of a message's text.
"""

from __future__ import annotations

import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any, Protocol

from foretell.chat import Conversation, ImagePart, Message, TextPart
from foretell.errors import CheckpointError, ConversationError, MissingExtraError
from foretell.files import read_json
from foretell.images import Tiling
from foretell.jinja_marks import OPEN
from foretell.jinja_skeleton import BROKEN, MARK, Skeleton
from foretell.template import (
    CHAT_TEMPLATE,
    IMAGE,
    AddedToken,
    Builder,
    ChatTemplate,
    Encoded,
    Encoder,
    Learn,
    Template,
    special_tokens,
)

PROCESSOR_SECONDS, SECONDS = 3, 20  # for one rendering: of processor time, and by the clock
MOST_ANSWER = 40_000_000  # bytes
MOST_SOURCE = 1_000_000  # characters
REMEMBERED = 512  # skeletons
MOST_LITERALS, MOST_CHARACTERS = 1_000, 6_400
MOST_REPEATS, MOST_SPLICED = 8, 1_000_000  # how often the texts of messages may be written, and characters beside


class Vocabulary(Encoder, Protocol):
    """What a Jinja template needs of a tokenizer."""

    @property
    def added(self) -> Sequence[AddedToken]: ...
    @property
    def ends(self) -> frozenset[int]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    def encode_spans(self, text: str, start: bool = True) -> tuple[list[int], list[tuple[int, int]]]: ...


class JinjaTemplate:
    """Implements `ChatTemplate` with a checkpoint's own template.

    tokens: texts of named tokens (bos_token, eos_token) for the template. now: what strftime_now tells.
    Text that one message's loss begins or ends in is learned by whole tokens. Beside ConversationError, `encode`
    raises CheckpointError for a template that is damaged or goes over the sandbox's limits.
    """

    def __init__(
        self,
        text: str,
        tokenizer: Vocabulary,
        tiling: Tiling | None,
        tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        if len(text) > MOST_SOURCE or BROKEN.search(text):
            raise CheckpointError(
                f"The chat template has {len(text)} characters or noncharacters of Unicode; expected at most "
                f"{MOST_SOURCE} of the usual ones. Copy the checkpoint again, or remove its template."
            )
        self.text, self.encoder, self.tiling = text, tokenizer, tiling
        self.special = tokenizer.special
        self._tokenizer, self._tokens, self._now = tokenizer, dict(tokens or {}), now
        self._added = {token.content: token for token in tokenizer.added}
        self._controls = re.compile("|".join(map(re.escape, sorted(self._added, key=len, reverse=True))) or "(?!)")
        self._answer = lru_cache(REMEMBERED)(self._ask)

    def encode(
        self, conversation: Conversation, *, add_generation_prompt: bool = False, learn: Learn = "assistant"
    ) -> Encoded:
        """As `ChatTemplate.encode`."""
        images = conversation.images
        if images and self.tiling is None:
            raise ConversationError(
                "This model reads text only, but the conversation holds an image. Remove the image."
            )
        if not conversation.messages:
            raise ConversationError("The conversation holds no message. Give at least one.")
        skeleton = Skeleton(self._about["shown"], self._about["constants"], self._about["alphabet"], self._added)
        messages = [self._message(skeleton, i, message) for i, message in enumerate(conversation.messages)]
        text = self._render(messages, add_generation_prompt)
        cuts = self._cuts(conversation, messages, text, skeleton) if learn == "assistant" else {}
        items = list(self._items(text, skeleton, sorted(cuts)))
        learned = _learned(items, {place: i for i, place in cuts.items()}, conversation, self._tokenizer.ends)
        builder = Builder(self._tokenizer, self.tiling, self._tokenizer.encode_spans)
        left = iter(images)
        for item, by_rule in zip(items, learned, strict=True):
            flag = learn == "all" or (learn == "assistant" and by_rule)
            if item.control is None:
                builder.text(item.text, flag)
            elif item.control.content != IMAGE or self.tiling is None:
                builder.control(item.control.content, flag)
            else:
                image = next(left, None)
                if image is None:
                    break
                builder.image(image.data, image.detail)
        if (found := sum(item.control is not None and item.control.content == IMAGE for item in items)) != len(images):
            raise ConversationError(
                f"The model's chat template wrote {found} images for the {len(images)} of the conversation. "
                "Put images into user messages only, or leave them out."
            )
        return builder.done()

    def _message(self, skeleton: Skeleton, owner: int, message: Message) -> dict[str, Any]:
        raw: dict[str, Any] = {"role": message.role}
        parts = message.parts or (TextPart(""),)
        if self._about["content"] == "string" and not any(isinstance(part, ImagePart) for part in parts):
            raw["content"] = skeleton.hide(message.text, owner)
        else:
            texts = [skeleton.hide(part.text, owner) if isinstance(part, TextPart) else None for part in parts]
            raw["content"] = [{"type": "image"} if text is None else {"type": "text", "text": text} for text in texts]
        for name in ("name", "tool_call_id"):
            if (value := getattr(message, name)) is not None:
                raw[name] = skeleton.name(value, owner)
        if message.tool_calls:
            raw["tool_calls"] = [
                {
                    "id": skeleton.name(call.id, owner),
                    "type": "function",
                    "function": {
                        "name": skeleton.name(call.name, owner),
                        "arguments": skeleton.arguments(call.arguments, owner),
                    },
                }
                for call in message.tool_calls
            ]
        return raw

    def _cuts(
        self, conversation: Conversation, messages: list[dict[str, Any]], text: str, skeleton: Skeleton
    ) -> dict[int, int]:
        """Where assistant messages without a text of their own, or with tool calls, begin in `text`: behind what
        would ask for them."""
        cuts = {}
        for i, message in enumerate(conversation.messages):
            if message.role == "assistant" and i and (message.tool_calls or i not in skeleton.owners):
                try:
                    before = self._render(messages[:i], True)
                except ConversationError:
                    continue
                if text.startswith(before):
                    cuts[len(before)] = i
        return cuts

    def _items(self, text: str, skeleton: Skeleton, cuts: list[int]) -> Iterator[_Item]:
        """What was rendered, cut at control tokens, texts in the places of their marks."""
        at, before, generated = 0, "", False
        left = MOST_SPLICED + MOST_REPEATS * sum(map(len, skeleton.pieces))
        for stop in [*cuts, len(text)]:
            while at < stop:
                mark = MARK.search(text, at, stop)
                run = text[at : mark.start() if mark else stop]
                if BROKEN.search(run):
                    raise ConversationError(
                        "The model's chat template takes the texts of messages apart in a way that cannot be followed. "
                        "Write the prompt as plain text and use `complete`."
                    )
                for item in self._scan(run, before):
                    yield _Item(item.text, item.control, generated=generated)
                before, at = run or before, mark.end() if mark else stop
                if mark and mark[4]:
                    generated = mark[4] == OPEN
                elif mark:
                    before, owner = skeleton.text(mark)
                    left -= len(before)
                    if left < 0:
                        raise CheckpointError(
                            "The checkpoint's chat template cannot be used: it repeats what messages say until it "
                            "fills the memory. Remove it and use `complete`."
                        )
                    yield _Item(before, owner=owner, generated=generated)
            yield _Item("", cut=True)

    def _scan(self, run: str, before: str) -> Iterator[_Item]:
        """Text that the template wrote, cut at control tokens as the tokenizers library does it."""
        at = 0
        for found in self._controls.finditer(run):
            token, start, stop = self._added[found[0]], found.start(), found.end()
            beside = (run[:start] or before)[-1:] + run[stop : stop + 1]
            if start < at or (token.single_word and re.search(r"\w", beside)):
                continue
            text = run[at:start]
            yield _Item(text.rstrip() if token.lstrip else text)
            yield _Item(found[0], token)
            at = stop + (len(run[stop:]) - len(run[stop:].lstrip()) if token.rstrip else 0)
        yield _Item(run[at:])

    def _render(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        variables: dict[str, Any] = {**self._tokens, "messages": messages, "tools": None, "documents": None}
        variables |= {"add_generation_prompt": add_generation_prompt}
        day = self._now().date().isoformat() if self._about["dated"] else ""
        answer = self._answer(json.dumps(variables), day)
        if "refused" in answer:
            said = MARK.sub("…", answer["refused"])
            raise ConversationError(f"The model's chat template refuses this conversation: {said}")
        if "failed" in answer:
            raise ConversationError(
                f"The model's chat template cannot write this conversation ({MARK.sub('…', answer['failed'])}). "
                "Leave out what it may not know: images, tool calls, the system message."
            )
        return str(answer["text"])

    @cached_property
    def _about(self) -> dict[str, Any]:
        variables = self._tokens | {"tools": None, "documents": None, "add_generation_prompt": True}
        found = self._ask(json.dumps(variables), "", {"literals": [], "alphabet": ""})
        hidden = [token.content for token in self._added.values() if token.special]
        for name, source in (("shown", "literals"), ("constants", "constants")):
            found[name] = [text for text in found[source] if not any(token in text for token in hidden)]
        found["alphabet"] = "".join(sorted({*"".join(found["shown"] + found["constants"])} - {*string.whitespace}))
        if len(found["literals"]) > MOST_LITERALS or len(found["alphabet"]) > MOST_CHARACTERS:
            raise CheckpointError(
                f"The checkpoint's chat template looks for {len(found['literals'])} texts of "
                f"{len(found['alphabet'])} characters; expected at most {MOST_LITERALS} of {MOST_CHARACTERS}. "
                "Copy the checkpoint again, or remove its template and use `complete`."
            )
        return found

    def _ask(self, variables: str, day: str, about: dict[str, Any] | None = None) -> dict[str, Any]:
        """The sandbox's answer. day: only tells answers of one day from those of another."""
        about = about or self._about
        job = {
            "template": self.text,
            "literals": about["literals"],
            "alphabet": about["alphabet"],
            "now": self._now().isoformat(),
            "variables": json.loads(variables),
        }
        answer = run_sandbox(job)
        if "unknown" in answer:
            raise CheckpointError(
                "The checkpoint's chat template cannot be followed: it changes or measures what messages say "
                f"({MARK.sub('…', answer['unknown'])}). Replace it, or write plain text and use `complete`."
            )
        if "broken" in answer:
            raise CheckpointError(
                f"The checkpoint's chat template cannot be used: {answer['broken']}. Copy the checkpoint again, or "
                "remove its template and use `complete`."
            )
        return answer


@dataclass(frozen=True)
class _Item:
    """Plain text, or a control token. owner: the message whose text it is. cut: a place between, without text."""

    text: str
    control: AddedToken | None = None
    owner: int | None = None
    generated: bool = False
    cut: bool = False


def _learned(items: list[_Item], cuts: dict[int, int], conversation: Conversation, ends: frozenset[int]) -> list[bool]:
    """For each item, whether an assistant said it: what {% generation %} encloses; without that, from the first text
    of an assistant's message, or its cut, to its last, and the end token behind it."""
    if any(item.generated for item in items):
        return [item.generated for item in items]
    learned = [False] * len(items)
    starts = iter([at for at, item in enumerate(items) if item.cut])
    places = {message: next(starts) for message in cuts}
    for i, message in enumerate(conversation.messages):
        own = [at for at, item in enumerate(items) if item.owner == i]
        if message.role != "assistant" or (not own and i not in places):
            continue
        first = places.get(i, own[0] if own else 0)
        last = max([first, *own])
        for at in range(last + 1, len(items)):
            control = items[at].control
            if items[at].owner is not None:
                break
            if control is not None and control.id in ends:
                last = at
                break
        learned[first : last + 1] = [True] * (last + 1 - first)
    return learned


def run_sandbox(job: Mapping[str, Any]) -> dict[str, Any]:
    """One answer of jinja_sandbox, in a process of its own that ends with it.

    Raises MissingExtraError without jinja2.
    """
    found = [find_spec(name) for name in ("jinja2", "markupsafe")]
    places = {str(Path(spec.origin).parents[1]) for spec in found if spec is not None and spec.origin}
    if None in found:
        raise MissingExtraError("The chat template of this model", "torch")
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    sandbox = Path(__file__).with_name("jinja_sandbox.py")
    environment["PYTHONPATH"] = os.pathsep.join(sorted({*places, str(sandbox.parents[1])}))
    process = subprocess.Popen(
        [sys.executable, "-S", "-s", "-P", "-B", str(sandbox), str(PROCESSOR_SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdin is not None and process.stdout is not None
    timer = Timer(SECONDS, process.kill)
    timer.start()
    output = b""
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode())
            process.stdin.close()
        output = process.stdout.read(MOST_ANSWER)
        answer = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    finally:
        timer.cancel()
        process.kill()
        process.stdout.close()
        process.wait()
    return answer if isinstance(answer, dict) else {"broken": "it ran too long, or ended the process it ran in"}


def find_template(folder: Path) -> str | None:
    """The Jinja text of a checkpoint's chat template, where transformers looks for it; None without one.

    Raises CheckpointError when its file is damaged.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            if file.stat().st_size <= 4 * MOST_SOURCE:
                return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}). Copy the checkpoint again.") from error
        raise CheckpointError(f"{file} is larger than any chat template. Copy the checkpoint again.")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name).get("chat_template")
            if isinstance(found, list):  # several, by name
                found = {str(one.get("name")): one.get("template") for one in found if isinstance(one, dict)}
            if isinstance(found, dict):
                found = found.get("default", next(iter(found.values())) if len(found) == 1 else None)
            if isinstance(found, str):
                return found
    return None


def load_template(folder: Path, tokenizer: Vocabulary, tiling: Tiling | None) -> ChatTemplate | None:
    """The chat template of a checkpoint folder; None without one.

    Models whose template and control tokens are those of models trained here get `template.Template`.
    """
    source = find_template(folder)
    if source is None:
        return None
    if source == CHAT_TEMPLATE and all(token in tokenizer.controls for token in special_tokens(1)[:-1]):
        return Template(tokenizer, tiling)
    tokens = {}
    for name, value in tokenizer.settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return JinjaTemplate(source, tokenizer, tiling, tokens)

"""Replies on their way out, in OpenAI's form: held back until they are known to be fit to be shown, and counted."""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from starlette.responses import Response

from foretell.generate import Usage
from foretell.serve.asked import ChatBody, Drawing
from foretell.serve.calls import json_response
from foretell.serve.traffic import DONE, EventStream, event

_PLAIN = {"role", "content", "tool_calls"}  # of a message: all else may be text that a policy must not let through


class Holder(Protocol):
    """Holds text back. stopped: what is said in the text's place, once something came that may not be shown."""

    stopped: str | None

    def push(self, text: str) -> str:
        """What may be shown now."""
        ...

    def finish(self) -> str:
        """What may be shown at the end."""
        ...


class Open:
    """Holds nothing back."""

    stopped: str | None = None

    def push(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


class Screen:
    """The replies of one call. chat: of chat completions, not of text completions. hold: makes a holder for each text.
    tell_usage: whether the caller asked for the event that tells usage. model: which answers, where it is another than
    was asked for: the reply says so. check: what is said in a whole text's place, None where it may be shown.

    usage: as the answer told it, else None. pieces: of text that came, about one a token.
    """

    def __init__(
        self,
        chat: bool,
        hold: Callable[[], Holder] = Open,
        tell_usage: bool = True,
        model: str | None = None,
        check: Callable[[str], str | None] = lambda text: None,
    ) -> None:
        self._chat, self._hold, self._tell_usage = chat, hold, tell_usage
        self._check = check
        self._model = {} if model is None else {"model": model}
        self._choices: dict[int, _Choice] = {}
        self.usage: Usage | None = None
        self.pieces = 0
        self.stopped = False

    def whole(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """An answer in one piece, with refusals where its texts may not be shown."""
        self._count(found)
        choices = [self._screened(choice) for choice in found.get("choices") or ()]
        return {**found, **self._model} | ({"choices": choices} if "choices" in found else {})

    def event(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What of a stream may be sent now that this event of it has come."""
        self._count(found)
        plain = {**found, **self._model}
        if not self._tell_usage:
            plain.pop("usage", None)
        if not (choices := found.get("choices")):
            return [plain] if self._tell_usage or not found.get("usage") else []
        out = []
        for choice in choices:
            index = choice.get("index", 0)
            if index not in self._choices:
                self._choices[index] = _Choice(self._chat, self._hold(), self._hold())
            out += [{**plain, "choices": [shown]} for shown in self._choices[index].take(choice)]
        self.pieces = sum(choice.pieces for choice in self._choices.values())
        self.stopped = any(choice.stopped for choice in self._choices.values())
        return out

    @property
    def ended(self) -> bool:
        """Whether every reply was stopped: what still comes would not be shown."""
        return bool(self._choices) and all(choice.stopped for choice in self._choices.values())

    def _count(self, found: Mapping[str, Any]) -> None:
        told = found.get("usage")
        if not isinstance(told, Mapping) or type(told.get("prompt_tokens")) is not int:
            return
        details = told.get("prompt_tokens_details") or {}
        counts = [told["prompt_tokens"], told.get("completion_tokens")]
        counts += [details.get("image_tokens"), details.get("cached_tokens")]
        self.usage = Usage(*(count if type(count) is int and count >= 0 else 0 for count in counts))

    def _screened(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        message = choice.get("message") or {}
        text = message.get("content") if self._chat else choice.get("text")
        calls = message.get("tool_calls") or ()
        more = [value for name, value in message.items() if name not in _PLAIN and isinstance(value, str)]
        for said in (text or "", *more, *(_arguments(call) for call in calls)):
            if said and (words := self._check(said)) is not None:
                self.stopped = True
                refused = {**choice, "finish_reason": "content_filter", "logprobs": None}
                if not self._chat:
                    return refused | {"text": words}
                shown = {"role": "assistant", "content": words, "refusal": words}
                return refused | {"message": shown}
        return dict(choice)


class _Choice:
    """One reply of a stream."""

    def __init__(self, chat: bool, text: Holder, arguments: Holder) -> None:
        self._chat, self._text, self._arguments = chat, text, arguments
        self._came = self._shown = 0  # characters
        self._logprobs: deque[tuple[int, Mapping[str, Any]]] = deque()  # with where their text ends
        self._calls: list[dict[str, Any]] = []
        self.pieces = 0
        self.stopped = False

    def take(self, choice: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pieces to send in place of this one."""
        if self.stopped:
            return []
        delta = choice.get("delta") or {}
        text = (delta.get("content") if self._chat else choice.get("text")) or ""
        finish, calls = choice.get("finish_reason"), delta.get("tool_calls")
        self.pieces += bool(text or calls)
        self._came += len(text)
        if choice.get("logprobs"):
            self._logprobs.append((self._came, choice["logprobs"]))
        ready = self._text.push(text) if text else ""
        if calls:
            self._arguments.push("".join(_arguments(call) for call in calls))
            self._calls.append(dict(choice))
        if finish:
            ready += self._text.finish()
            self._arguments.finish()
        self._shown += len(ready)
        index = {"index": choice.get("index", 0)}
        if (words := self._words()) is not None:
            self.stopped = True
            said = f"{ready}\n\n{words}" if self._shown else words
            return [index | self._with({}, said) | {"logprobs": None, "finish_reason": "content_filter"}]
        out = [{**call, "finish_reason": None} for call in self._calls] if finish else []
        self._calls = [] if finish else self._calls
        # Other texts, such as a model's reasoning, come outside of what is held back: then they are not shown at all.
        hidden = () if isinstance(self._text, Open) else delta.keys() - _PLAIN
        rest = {name: value for name, value in delta.items() if name not in {"content", "tool_calls", *hidden}}
        if ready or finish or rest or (not text and not calls):
            first = bool(rest) and delta.get("content") == ""  # the first piece of a reply, which names the role
            shown = {**choice, **self._with(rest, ready if ready or first else None)}
            if not self._chat:
                shown["text"] = ready
            out.append({**shown, "logprobs": self._released(bool(finish)), "finish_reason": finish})
        return out

    def _words(self) -> str | None:
        return self._text.stopped if self._text.stopped is not None else self._arguments.stopped

    def _with(self, rest: Mapping[str, Any], text: str | None) -> dict[str, Any]:
        if not self._chat:
            return {"text": text or ""}
        return {"delta": {**rest} if text is None else {**rest, "content": text}}

    def _released(self, all_of_it: bool) -> dict[str, Any] | None:
        """Log-probabilities of what was shown: those of held text would tell it."""
        found: dict[str, Any] = {}
        while self._logprobs and (all_of_it or self._logprobs[0][0] <= self._shown):
            for name, value in self._logprobs.popleft()[1].items():
                found[name] = [*(found.get(name) or ()), *value] if isinstance(value, list) else value
        return found or None


def _arguments(call: Mapping[str, Any]) -> str:
    function = call.get("function") or {}
    return (
        f"{function.get('name') or ''} {function.get('arguments') or ''}"
        if "id" in call
        else str(function.get("arguments") or "")
    )


def estimate(screen: Screen, asked: Usage) -> Usage:
    """What a call has used: as its answer told, else as far as can be told of one cut off. asked: its prompt."""
    return screen.usage or replace(asked, completion_tokens=screen.pieces)


def texts_of(raw: Mapping[str, Any], all_of_them: bool = False) -> list[str]:
    """What a call says, text by text: its messages, without the assistant's own unless all are asked for, a prompt, an
    input."""
    texts: list[str] = []
    for message in raw.get("messages") or ():
        if message.get("role") == "assistant" and not all_of_them:
            continue
        texts += _texts(message.get("content"))
    for name in ("prompt", "input"):
        texts += _texts(raw.get(name))
    return texts


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, Sequence):
        return []
    found = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return [text for text in found if isinstance(text, str)]


def words_alone(asked: Drawing, words: str) -> Response:
    """A reply that no model gave."""
    chat, streams = isinstance(asked, ChatBody), bool(asked.stream)
    kind = ("chat.completion.chunk" if streams else "chat.completion") if chat else "text_completion"
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "content_filter"}
    if not chat:
        choice["text"] = words
    else:
        said = {"role": "assistant", "content": words, "refusal": words}
        choice["delta" if streams else "message"] = said
    id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
    head = {"id": id, "object": kind, "created": int(time.time()), "model": asked.model, "choices": [choice]}
    if not streams:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return json_response({**head, "usage": usage})

    async def pieces() -> AsyncIterator[bytes]:
        yield event(json.dumps(head).encode()) + DONE

    async def close() -> None:
        pass

    return EventStream(pieces(), close)

"""POST /v1/chat/completions: a conversation in, replies or their stream out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request as HTTPRequest

from foretell.chat import Conversation, ImagePart, ToolCall
from foretell.errors import ImageError
from foretell.generate import Grammar, Request, Result, TokenLogprob
from foretell.serve import tools
from foretell.serve.asked import ChatBody, ObjectFormat, SchemaFormat
from foretell.serve.calls import (
    Reply,
    Server,
    bytes_of,
    finished,
    finite,
    json_response,
    sampling_of,
    start,
    stream,
)
from foretell.serve.models import Served
from foretell.serve.refusals import Params, refuse


async def chat(server: Server, http: HTTPRequest, asked: ChatBody, raw: Mapping[str, Any]) -> Any:
    served = await server.models.get(asked.model)
    n, limit = asked.n or 1, asked.max_completion_tokens or asked.max_tokens
    logprobs = max(asked.top_logprobs or 0, 1) if asked.logprobs else 0
    sampling = sampling_of(asked, served, max_tokens=limit, logprobs=logprobs, replies=n, limits=server.limits)
    conversation = Conversation.from_openai(place(raw["messages"], await fetch(server, raw["messages"])))
    if calls := bool(asked.tools) and asked.tool_choice != "none":
        conversation = tools.instructions(conversation, asked.tools or ())
    bound = tools.forced(asked)
    grammar = bound or _format(asked)
    request = Request(conversation, sampling, n, grammar, http.state.caller.tenant, served.adapter)
    readers = [
        tools.CallReader(
            [tool.function.name for tool in asked.tools or ()] if calls else (),
            bound is not None,
            asked.parallel_tool_calls is not False,
        )
        for _ in range(n)
    ]
    reply = _Reply(server, served, asked, readers)
    if asked.stream:
        return stream(reply, await start(server, served.generator, [request]), Params("messages"))
    return json_response(reply.whole(await finished(server, served.generator, [request])))


def _format(asked: ChatBody) -> Grammar | None:
    if isinstance(asked.response_format, ObjectFormat):
        return tools.json_grammar({"type": "object"})
    if isinstance(asked.response_format, SchemaFormat):
        return tools.json_grammar(asked.response_format.json_schema.schema_ or {})
    return None


async def fetch(server: Server, messages: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], bytes]:
    """The images of checked messages, by message and part. Raises RequestError for a bad one."""
    urls = {
        (i, j): part["image_url"]["url"]
        for i, message in enumerate(messages)
        if isinstance(message.get("content"), list)
        for j, part in enumerate(message["content"])
        if part["type"] == "image_url"
    }
    try:
        return dict(zip(urls, await server.images.get_all(list(urls.values())), strict=True)) if urls else {}
    except ImageError as error:
        places = [f"messages[{i}].content[{j}].image_url.url" for i, j in urls]
        param = places[0] if len(places) == 1 else "messages"
        raise refuse(str(error), 400, param=param, code="invalid_image_url") from error


def place(messages: Sequence[Mapping[str, Any]], pictures: Mapping[tuple[int, int], bytes]) -> list[dict[str, Any]]:
    """The messages with their images in place of URLs."""
    placed = [dict(message) for message in messages]
    for (i, j), data in pictures.items():
        content = placed[i]["content"] = list(placed[i]["content"])
        content[j] = ImagePart(data, content[j]["image_url"].get("detail", "auto"))
    return placed


class _Reply(Reply):
    """One call's replies, whole or piece by piece."""

    def __init__(self, server: Server, served: Served, asked: ChatBody, readers: Sequence[tools.CallReader]) -> None:
        super().__init__(server, served, asked, f"chat.completion{'.chunk' if asked.stream else ''}", "chatcmpl")
        self._asked, self._readers = asked, readers
        self._begun: set[int] = set()
        self._told: dict[int, int] = {}  # log-probabilities sent, by sample

    def whole(self, results: Sequence[Result]) -> dict[str, Any]:
        choices = []
        for result in results:
            reader = self._readers[result.sample]
            said = reader.push(result.text)
            rest, calls = reader.finish()
            message: dict[str, Any] = {"role": "assistant", "content": said + rest, "refusal": None}
            if calls:
                message["content"] = said + rest or None
                message["tool_calls"] = [_call(call) for call in calls]
            logprobs = self._logprobs(result.logprobs) if self._asked.logprobs else None
            finish = self._finish(result, calls)
            choices.append({"index": result.sample, "message": message, "logprobs": logprobs, "finish_reason": finish})
        return {**self.head, "choices": choices, "usage": self.used(results)}

    def write(self, result: Result) -> str:
        sample, text = result.sample, ""
        if sample not in self._begun:
            self._begun.add(sample)
            text = self._piece(sample, '{"role":"assistant","content":"","refusal":null}')
        reader = self._readers[sample]
        if result.delta:
            if self._asked.logprobs:
                self._told[sample] = self._told.get(sample, 0) + len(result.logprobs)
            said = reader.push(result.text)
            if not said and not result.logprobs:
                return text
            return text + self._piece(sample, f'{{"content":{json.dumps(said)}}}', result.logprobs)
        self.done.append(result)
        rest, calls = reader.finish()
        if rest:
            text += self._piece(sample, f'{{"content":{json.dumps(rest)}}}')
        for i, call in enumerate(calls):
            text += self._piece(sample, json.dumps({"tool_calls": [{"index": i, **_call(call)}]}))
        left = result.logprobs[self._told.get(sample, 0) :]
        return text + self._piece(sample, "{}", left, json.dumps(self._finish(result, calls)))

    def _piece(self, sample: int, delta: str, logprobs: Sequence[TokenLogprob] = (), finish: str = "null") -> str:
        told = json.dumps(self._logprobs(logprobs)) if logprobs and self._asked.logprobs else "null"
        rest = f',"delta":{delta},"logprobs":{told},"finish_reason":{finish}'
        return f"{self.opening}{sample}{rest}{self.closing}"

    def _finish(self, result: Result, calls: Sequence[ToolCall]) -> str:
        named = not isinstance(self._asked.tool_choice, str | None)  # then OpenAI says "stop"
        return "tool_calls" if calls and not named else result.finish_reason or "stop"

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        ends = getattr(getattr(self.served.generator, "tokenizer", None), "ends", ())
        content = []
        for token in tokens:
            if token.id in ends:  # no part of what was said
                continue
            top = token.top[: self._asked.top_logprobs or 0]
            content.append(
                {
                    "token": token.token,
                    "bytes": list(bytes_of(self.served.generator, token)),
                    "logprob": finite(token.logprob),
                    "top_logprobs": [
                        {"token": text, "bytes": _bytes(text), "logprob": finite(value)} for text, value in top
                    ],
                }
            )
        return {"content": content, "refusal": None}


def _bytes(token: str) -> list[int] | None:
    """None where the text does not tell them: half a character."""
    return None if "\ufffd" in token else list(token.encode())


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}

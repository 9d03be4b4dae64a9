"""Calls of tools: how a model is told of them, bound to make one, and read when it did."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from foretell.chat import Conversation, Message, TextPart, ToolCall
from foretell.engine.text import TextStream
from foretell.generate import Grammar
from foretell.serve.asked import ChatBody, NamedTool, Tool

_OPENINGS = ("\n<tool_call>", "<tool_call>")
_CALL = re.compile(r"\s*<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_ANY = {"type": "object"}


def instructions(conversation: Conversation, tools: Sequence[Tool]) -> Conversation:
    """The conversation with the tools told in its system message, as open models that call tools were trained."""
    lines = [json.dumps(tool.function.model_dump(exclude_none=True), ensure_ascii=False) for tool in tools]
    text = (
        "You may call functions, each described here by a line of JSON:\n"
        + "\n".join(lines)
        + '\nTo call one, write <tool_call>{"name": its name, "arguments": {its arguments}}</tool_call>.'
    )
    first, *rest = conversation.messages
    if first.role != "system":
        return Conversation((Message("system", (TextPart(text),)), first, *rest))
    return Conversation((Message("system", (*first.parts, TextPart(f"\n\n{text}")), first.name), *rest))


def forced(asked: ChatBody) -> Grammar | None:
    """What binds a reply to be a call, where one is required: {"name": …, "arguments": …}."""
    if asked.tool_choice in (None, "none", "auto"):
        return None
    tools = [tool.function for tool in asked.tools or ()]
    if isinstance(asked.tool_choice, NamedTool):
        tools = [tool for tool in tools if tool.name == asked.tool_choice.function.name]
    kinds: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "arguments": _moved(tool.parameters or _ANY, f"/anyOf/{i}" if len(tools) > 1 else ""),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for i, tool in enumerate(tools)
    ]
    return json_grammar(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def json_grammar(schema: Mapping[str, Any]) -> Grammar:
    """What binds a reply to a JSON schema. Between its parts stands little white space: a model that is unsure of what
    comes next might write it without end."""
    return Grammar("json_schema", json.dumps({**schema, "x-guidance": {"whitespace_pattern": "[ \\n]{0,16}"}}))


def _moved(schema: Any, place: str) -> Any:
    """A schema as a part of another, below `place`: its references to its own parts follow it there."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    if isinstance(ref := schema.get("$ref"), str) and ref.startswith("#"):
        moved["$ref"] = f"#{place}/properties/arguments{ref[1:]}"
    return moved


class CallReader:
    """Parts a reply, as it grows, into what is said and the calls that follow.

    names: of the tools there are; none means that all is said. bound: whether the whole reply is a call. several:
    whether more than the first call counts.
    """

    def __init__(self, names: Collection[str], bound: bool = False, several: bool = True) -> None:
        self._names, self._bound, self._several = names, bound, several
        self._said = TextStream(_OPENINGS if names and not bound else ())
        self._text, self._length = "", 0

    def push(self, text: str) -> str:
        """What of the text is certain to be said."""
        if not self._names:
            return text
        self._text += text
        said = "" if self._bound else self._said.push(text.encode())
        self._length += len(said)
        return said

    def finish(self) -> tuple[str, list[ToolCall]]:
        """The rest that is said, and the calls. What looks like a call but is none is said."""
        if not self._names:
            return "", []
        rest = self._text[self._length :]
        written = [rest] if self._bound else _CALL.findall(rest)
        calls = [self._call(text) for text in written]
        if not calls or None in calls:
            return rest, []
        said = "" if self._bound else _CALL.sub("", rest)
        return said.rstrip(), [call for call in calls if call][: None if self._several else 1]

    def _call(self, text: str) -> ToolCall | None:
        try:
            found = json.loads(text)
            name, arguments = found["name"], found["arguments"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(f"call_{secrets.token_hex(12)}", name, arguments) if name in self._names else None

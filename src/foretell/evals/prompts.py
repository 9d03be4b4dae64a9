"""Prompts of evals: plain text or messages, turned into each other and filled in as upstream does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any

from foretell.errors import EvalError

Message = dict[str, Any]
Prompt = str | list[Message]


def is_chat(prompt: object) -> bool:
    """Whether a prompt is a list of messages."""
    return isinstance(prompt, list) and all(isinstance(message, dict) for message in prompt)


def as_text(prompt: Prompt, reply: bool = True) -> str:
    """Messages as text for a completion model: one alone as it is, several behind the names of their roles.

    reply: whether the text ends with the opening of a reply.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return _words(prompt[0].get("content"))
    lines = [f"{_prefix(message)}{_words(message.get('content'))}\n" for message in prompt]
    return ("".join(lines) + ("Assistant:" if reply else "")).lstrip()


def as_chat(prompt: Prompt) -> list[Message]:
    """Text as messages for a chat model: one system message."""
    return [{"role": "system", "content": prompt}] if isinstance(prompt, str) else prompt


def fill(template: Prompt, values: Mapping[str, Any]) -> Prompt:
    """A template, or messages of templates, with its fields filled in; messages among the values become text.

    Raises EvalError, naming it, for a field without a value.
    """
    plain = {k: as_text(v, reply=False) if is_chat(v) else v for k, v in values.items()}
    if isinstance(template, str):
        return fill_text(template, plain)
    return [
        message | {"content": fill_text(message["content"], plain)}
        if isinstance(message.get("content"), str)
        else message
        for message in template
    ]


def fill_text(template: str, values: Mapping[str, Any]) -> str:
    try:
        fields = {name for _, name, _, _ in Formatter().parse(template) if name}
        if lacking := sorted(fields - values.keys()):
            raise EvalError(
                f"The template asks for {', '.join(lacking)}; the sample and its spec give "
                f"{', '.join(sorted(values)) or 'nothing'}."
            )
        return template.format(**{name: values[name] for name in fields})
    except (ValueError, IndexError, KeyError, AttributeError) as error:
        raise EvalError(f"The template cannot be filled in ({error}): write {{{{ and }}}} for braces.") from error


def escape(prompt: Prompt) -> Prompt:
    """The prompt as a template without fields: braces doubled."""
    if isinstance(prompt, str):
        return _escape(prompt)
    return _each(prompt, _escape)


def letters(answers: Sequence[str], right: int, order: Sequence[int]) -> tuple[str, str]:
    """Answers as lines "A) …" in the given order, and the letter of the right one."""
    lines = [f"{chr(ord('A') + place)}) {answers[i]}" for place, i in enumerate(order)]
    return "\n".join(lines), chr(ord("A") + list(order).index(right))


def _each(messages: list[Message], change: Callable[[str], str]) -> list[Message]:
    """The messages with the text of each changed."""
    return [m | {"content": change(m["content"])} if isinstance(m.get("content"), str) else m for m in messages]


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _prefix(message: Message) -> str:
    who = str(message["name"] if "name" in message else message.get("role", ""))
    known = {"system": "", "example_user": "User: ", "example_assistant": "Assistant: "}
    return known.get(who, f"{who.capitalize()}: ")


def _words(content: Any) -> str:
    """The text of a message; of its parts, where it has images too."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content)

"""How many tokens a call may come to, as estimated before it is read: what is reserved of its account's limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from foretell.serve.asked import CompletionBody, Drawing
from foretell.serve.limits.prices import ImageRule
from foretell.serve.screen import texts_of

_LETTERS = 3  # of a prompt for a token: few rather than many, since settling gives back
_HEAD = 4  # tokens of a message beside its text
_REPLY = 1_024  # tokens that are reserved where a call does not say how many it may write
_SIDE = 1_024  # pixels of an image that was not opened yet


def size(raw: Mapping[str, Any], rule: ImageRule) -> tuple[int, int]:
    """Tokens that a call's texts and its images come to."""
    texts = texts_of(raw, all_of_them=True)
    letters = sum(map(len, texts)) + len(json.dumps(raw["tools"]) if raw.get("tools") else "")
    images = sum(rule.tokens(_SIDE, _SIDE, detail) for detail in _details(raw))
    return letters // _LETTERS + _HEAD * len(texts) + _token_ids(raw) + 1, images


def most(asked: Drawing) -> int:
    """The most tokens that a call's replies may have, all together."""
    limit = getattr(asked, "max_completion_tokens", None) or asked.max_tokens
    prompts = 1
    if isinstance(asked, CompletionBody):
        limit = 16 if limit is None else limit  # as OpenAI's
        many = isinstance(asked.prompt, list) and not isinstance(asked.prompt[0], int)
        prompts = len(asked.prompt) if many else 1
    return (_REPLY if limit is None else limit) * (asked.n or 1) * prompts


def _token_ids(raw: Mapping[str, Any]) -> int:
    """Of prompts that are given as token ids."""
    lists = [value for name in ("prompt", "input") if isinstance(value := raw.get(name), list) and value]
    parts = [part for value in lists for part in (value if isinstance(value[0], list) else [value])]
    return sum(len(part) for part in parts if isinstance(part[0], int))


def _details(raw: Mapping[str, Any]) -> list[str]:
    return [
        part["image_url"].get("detail") or "auto"
        for message in raw.get("messages") or ()
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if part.get("type") == "image_url"
    ]

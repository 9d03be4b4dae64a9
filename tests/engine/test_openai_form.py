"""Replies that are not in OpenAI's form are refused in words, whatever they are."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.engine.openai_form import (
    FormError,
    read_answer,
    read_echoes,
    read_json,
    read_stream,
    refusal_of,
    results_of,
)
from mock_endpoint import chat_body, deltas, events, text_body

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.sampled_from(["", "stop", "a", "data"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("choices", "message", "delta", "content", "text", "index", "finish_reason", "usage", "logprobs"),
                    *("tokens", "token_logprobs", "top_logprobs", "text_offset", "error", "refusal", "tool_calls"),
                    *("token", "logprob", "prompt_tokens", "model", "detail", "code"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
FORMS = [chat_body("a"), text_body("b"), *deltas("a", "b")]


@st.composite
def bodies(draw):
    """Replies in the right form, but for some values."""
    body = json.loads(json.dumps(draw(st.sampled_from(FORMS))))
    for _ in range(draw(st.integers(0, 3))):
        place = body
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if draw(st.booleans()) or not isinstance(place[key], dict | list):
                place[key] = draw(JSON)
                break
            place = place[key]
    return body


def without_waiting(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@settings(max_examples=100, deadline=None)
@given(st.lists(bodies() | JSON, min_size=1, max_size=3), st.booleans())
def test_replies_of_any_form_are_read_or_refused(raws, chat):
    async def pieces():
        for piece in events(*raws):
            yield piece

    async def stream():
        return [result async for result in read_stream(pieces(), 0, chat)]

    body = json.dumps(raws[0]).encode()
    said = refusal_of(body)
    assert all(isinstance(part, str) for part in said)
    for attempt in (
        lambda: read_answer(read_json(body), chat),
        lambda: read_echoes(read_json(body), "a", ["ab"]),
        lambda: results_of(read_answer(read_json(body), chat), 0, chat),
        lambda: without_waiting(stream()),
    ):
        with suppress(FormError):
            attempt()

"""Replies on their way out: held back, stopped, counted, in both of OpenAI's forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.generate import Usage
from foretell.serve.screen import Open, Screen, estimate, texts_of

WORDS = "I won't."


class Five:
    """Holds five characters back, and stops at "bad"."""

    def __init__(self) -> None:
        self.text, self.shown, self.stopped = "", 0, None

    def push(self, text: str) -> str:
        self.text += text
        if "bad" in self.text:
            self.stopped = WORDS
        return self._until(len(self.text) - 5)

    def finish(self) -> str:
        return self._until(len(self.text))

    def _until(self, end: int) -> str:
        if self.stopped is not None or end <= self.shown:
            return ""
        out, self.shown = self.text[self.shown : end], end
        return out


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta | more, "logprobs": None, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


def said(events: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def finishes(events: list[dict[str, Any]]) -> list[str | None]:
    return [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]


@given(st.lists(st.text("abd ", max_size=4), max_size=12))
def test_what_is_allowed_comes_out_whole_and_nothing_of_what_is_not(pieces: list[str]) -> None:
    screen = Screen(True, Five)
    events = [event for piece in pieces for event in screen.event(chunk(piece))]
    events += screen.event(chunk(None, "stop"))
    whole = "".join(pieces)
    if "bad" not in whole:
        assert said(events) == whole and finishes(events) == ["stop"] and not screen.stopped
    else:
        shown = said(events).removesuffix(WORDS).removesuffix("\n\n")
        assert whole.startswith(shown) and "bad" not in shown and said(events).endswith(WORDS)
        assert finishes(events) == ["content_filter"] and screen.ended


def test_the_role_comes_at_once_and_empty_pieces_are_not_sent() -> None:
    screen = Screen(True, Five)
    assert screen.event(chunk("", role="assistant"))[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert screen.event(chunk("four")) == []
    assert said(screen.event(chunk("more text"))) == "fourmore"


def test_one_stopped_reply_leaves_the_others() -> None:
    screen = Screen(True, Five)
    events = [*screen.event(chunk("so bad it")), *screen.event(chunk("fine", index=1))]
    assert not screen.ended
    events += [*screen.event(chunk(" is worse")), *screen.event(chunk(None, "stop", index=1))]
    assert said(events) == WORDS and said(events, 1) == "fine"


def test_log_probabilities_wait_for_their_text() -> None:
    screen = Screen(True, Five)

    def piece(text: str) -> dict[str, Any]:
        found = chunk(text)
        found["choices"][0]["logprobs"] = {"content": [{"token": text}], "refusal": None}
        return found

    def tokens(events: list[dict[str, Any]]) -> list[str]:
        told = [choice["logprobs"] for event in events for choice in event["choices"] if choice["logprobs"]]
        return [entry["token"] for found in told for entry in found["content"]]

    assert tokens(screen.event(piece("abc"))) == []
    assert tokens(screen.event(piece("defgh"))) == ["abc"]
    assert tokens(screen.event(chunk(None, "stop"))) == ["defgh"]
    stopped = Screen(True, Five)
    assert tokens([*stopped.event(piece("a b")), *stopped.event(piece("ad bad"))]) == []


def test_calls_of_tools_are_read_before_they_are_sent() -> None:
    def call(arguments: str, **head: Any) -> dict[str, Any]:
        return chunk(None, tool_calls=[{"index": 0, "function": {"arguments": arguments}, **head}])

    screen = Screen(True, Five)
    assert screen.event(call('{"q": ', id="call_1")) == [] and screen.event(call('"good"}')) == []
    events = screen.event(chunk(None, "tool_calls"))
    calls = [part for event in events for choice in event["choices"] for part in choice["delta"].get("tool_calls", ())]
    assert "".join(part["function"]["arguments"] for part in calls) == '{"q": "good"}'
    assert finishes(events) == ["tool_calls"] and events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    stopped = Screen(True, Five)
    events = [*stopped.event(call('{"q": "b', id="call_1")), *stopped.event(call('ad"}'))]
    assert said(events) == WORDS and "tool_calls" not in str(events)


def test_reasoning_is_no_way_around() -> None:
    piece = chunk("", role="assistant", reasoning_content="how to be bad", refusal=None)
    held, plain = Screen(True, Five).event(piece), Screen(True).event(piece)
    assert "bad" not in str(held) and held[0]["choices"][0]["delta"]["role"] == "assistant"
    assert plain[0]["choices"][0]["delta"]["reasoning_content"] == "how to be bad"
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "fine", "reasoning": "bad"}}]}
    screen = Screen(True, check=lambda text: WORDS if "bad" in text else None)
    assert screen.whole(answer)["choices"][0]["message"]["content"] == WORDS and screen.stopped


def test_usage_is_read_and_told_only_to_who_asked() -> None:
    last = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3,
                                     "prompt_tokens_details": {"image_tokens": 2, "cached_tokens": 4}}}  # fmt: skip
    for tell in (True, False):
        screen = Screen(True, Open, tell)
        events = screen.event({**chunk("x"), "usage": None})
        assert ("usage" in events[0]) == tell
        assert bool(screen.event(last)) == tell
        assert screen.usage == Usage(7, 3, 2, 4) == estimate(screen, Usage(100, 0))
    cut = Screen(True)
    for _ in range(5):
        cut.event(chunk("x"))
    assert estimate(cut, Usage(100, 0, 85)) == Usage(100, 5, 85)


@pytest.mark.parametrize("chat", [True, False])
def test_whole_answers(chat: bool) -> None:
    def answer(text: str) -> dict[str, Any]:
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"choices": [{"index": 0, "finish_reason": "stop", "logprobs": {"x": []}, **choice}], "usage": None}

    def check(text: str) -> str | None:
        return WORDS if "bad" in text else None

    good = Screen(chat, check=check)
    assert good.whole(answer("good")) == answer("good") and not good.stopped
    bad = Screen(chat, check=check)
    choice = bad.whole(answer("quite bad"))["choices"][0]
    assert (choice["message"]["content"] if chat else choice["text"]) == WORDS
    assert choice["finish_reason"] == "content_filter" and choice["logprobs"] is None and bad.stopped


def test_text_completions_stream_alike() -> None:
    screen = Screen(False, Five)

    def piece(text: str, finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]}

    events = [*screen.event(piece("once upon ")), *screen.event(piece("a time", "length"))]
    assert "".join(event["choices"][0]["text"] for event in events) == "once upon a time"
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_every_text_of_a_call_is_found() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": "a"},
        {"role": "tool", "content": "t", "tool_call_id": "1"},
    ]
    assert texts_of({"messages": messages}) == ["s", "u", "t"]
    assert texts_of({"messages": messages}, all_of_them=True) == ["s", "u", "a", "t"]
    assert texts_of({"prompt": ["p", "q"]}) == ["p", "q"] and texts_of({"prompt": [1, 2]}) == []
    assert texts_of({"input": "i"}) == ["i"]

"""A table of calls that cannot be answered: each gets its status in the envelope, and other streams keep flowing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from servekit import PNG, Live

CHAT, TEXT, VECTORS, RULES = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ASSISTANT = {"role": "assistant", "content": None}
CALLED = {**ASSISTANT, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


def chat(**fields: Any) -> tuple[str, Any]:
    return CHAT, {"model": "demo", "messages": [USER], **fields}


def says(*messages: Any) -> tuple[str, Any]:
    return CHAT, {"model": "demo", "messages": list(messages)}


def part(**fields: Any) -> tuple[str, Any]:
    return says({"role": "user", "content": [fields]})


def picture(url: Any, **fields: Any) -> tuple[str, Any]:
    return part(type="image_url", image_url={"url": url, **fields})


def text(**fields: Any) -> tuple[str, Any]:
    return TEXT, {"model": "demo", "prompt": "hi", **fields}


def vectors(**fields: Any) -> tuple[str, Any]:
    return VECTORS, {"model": "demo", "input": "hi", **fields}


def schema(found: Any, **fields: Any) -> tuple[str, Any]:
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": found, **fields}})


def nested(depth: int) -> bytes:
    inner = b'{"a":' * depth + b"1" + b"}" * depth
    return b'{"model":"demo","messages":[{"role":"user","content":"hi"}],"metadata":' + inner + b"}"


URL = "messages[0].content[0].image_url.url"
DAMAGED = PNG[:-30] + "A" * 30
MISSING, UNKNOWN, TYPE, VALUE = "missing_required_parameter", "unknown_parameter", "invalid_type", "invalid_value"
SHORT, LONG = "array_below_min_length", "array_above_max_length"

Row = tuple[tuple[str, Any], int, str | None, str | None]
TABLE: dict[str, Row] = {
    # the body
    "nothing": ((CHAT, b""), 400, None, "*"),
    "no JSON": ((CHAT, b"hello"), 400, None, "*"),
    "half JSON": ((CHAT, b'{"model": "demo"'), 400, None, "*"),
    "JSON and more": ((CHAT, b'{"model": "demo"} x'), 400, None, "*"),
    "not UTF-8": ((CHAT, b'{"model": "\xff\xfe"}'), 400, None, "*"),
    "a list": ((CHAT, []), 400, None, "*"),
    "a string": ((CHAT, "hi"), 400, None, "*"),
    "a number": ((CHAT, 5), 400, None, "*"),
    "null": ((CHAT, b"null"), 400, None, "*"),
    "NaN": ((CHAT, b'{"model":"demo","messages":[{"role":"user","content":"hi"}],"temperature":NaN}'), 400, "*", "*"),
    "Infinity": ((CHAT, b'{"model":"demo","messages":[],"temperature":Infinity}'), 400, "*", "*"),
    "huge exponent": ((TEXT, b'{"model":"demo","prompt":"a","temperature":1e999}'), 400, "*", "*"),
    "huge integer": ((TEXT, b'{"model":"demo","prompt":"a","seed":' + b"9" * 6000 + b"}"), 400, "*", "*"),
    "too deep": ((CHAT, nested(100_000)), 400, "*", "*"),
    "lone surrogate": (
        (CHAT, b'{"model":"demo","messages":[{"role":"user","content":"\\ud800"}]}'),
        400, "*", "*",
    ),
    "surrogate in a key": ((CHAT, b'{"model":"demo","messages":[],"\\udfff":1}'), 400, "*", "*"),
    # fields of a chat
    "no model": ((CHAT, {"messages": [USER]}), 400, "model", MISSING),
    "no messages": ((CHAT, {"model": "demo"}), 400, "messages", MISSING),
    "model null": (chat(model=None), 400, "model", TYPE),
    "model empty": (chat(model=""), 400, "model", "string_below_min_length"),
    "model unknown": (chat(model="gpt-none"), 404, "model", "model_not_found"),
    "model a path": (chat(model="../../etc/passwd"), 404, "model", "model_not_found"),
    "model an absolute path": (chat(model="/etc/passwd"), 404, "model", "model_not_found"),
    "model a URL": (chat(model="http://127.0.0.1/x"), 404, "model", "model_not_found"),
    "model with NUL": (chat(model="demo\0"), 404, "model", "model_not_found"),
    "unknown field": (chat(temprature=1), 400, "temprature", UNKNOWN),
    "a template from outside": (chat(chat_template="{{ 1 }}"), 400, "chat_template", UNKNOWN),
    "temperature below 0": (chat(temperature=-1), 400, "temperature", "decimal_below_min_value"),
    "temperature above 2": (chat(temperature=2.5), 400, "temperature", "decimal_above_max_value"),
    "temperature a string": (chat(temperature="1"), 400, "temperature", TYPE),
    "temperature true": (chat(temperature=True), 400, "temperature", TYPE),
    "top_p above 1": (chat(top_p=1.5), 400, "top_p", "decimal_above_max_value"),
    "min_p below 0": (chat(min_p=-0.1), 400, "min_p", "decimal_below_min_value"),
    "top_k a decimal": (chat(top_k=1.5), 400, "top_k", TYPE),
    "n 0": (chat(n=0), 400, "n", "integer_below_min_value"),
    "n 129": (chat(n=129), 400, "n", "integer_above_max_value"),
    "n a decimal": (chat(n=1.5), 400, "n", TYPE),
    "max_tokens 0": (chat(max_tokens=0), 400, "max_tokens", VALUE),
    "max_tokens below 0": (chat(max_tokens=-5), 400, "max_tokens", "integer_below_min_value"),
    "max_tokens beyond all bounds": (chat(max_tokens=10**12), 400, "max_tokens", "integer_above_max_value"),
    "too much in all": (chat(n=128, max_tokens=10_000), 400, "max_tokens", "integer_above_max_value"),
    "two limits": (chat(max_tokens=5, max_completion_tokens=5), 400, "max_tokens", VALUE),
    "seed beyond 64 bits": (chat(seed=2**63), 400, "seed", "integer_above_max_value"),
    "penalty beyond 2": (chat(frequency_penalty=2.1), 400, "frequency_penalty", "decimal_above_max_value"),
    "penalty null-like": (chat(presence_penalty="none"), 400, "presence_penalty", TYPE),
    "stop empty": (chat(stop=""), 400, "stop", "string_below_min_length"),
    "stop holds an empty string": (chat(stop=["a", ""]), 400, "stop[1]", "string_below_min_length"),
    "stop of five": (chat(stop=list("abcde")), 400, "stop", LONG),
    "stop a number": (chat(stop=5), 400, "stop", TYPE),
    "bias for a word": (chat(logit_bias={"hello": 1}), 400, "logit_bias.hello", VALUE),
    "bias beyond 100": (chat(logit_bias={"5": 101}), 400, "logit_bias.5", "decimal_above_max_value"),
    "bias a list": (chat(logit_bias=[1]), 400, "logit_bias", TYPE),
    "logprobs a number": (chat(logprobs=3), 400, "logprobs", TYPE),
    "top_logprobs alone": (chat(top_logprobs=3), 400, "top_logprobs", VALUE),
    "top_logprobs 21": (chat(logprobs=True, top_logprobs=21), 400, "top_logprobs", "integer_above_max_value"),
    "stream a string": (chat(stream="true"), 400, "stream", TYPE),
    "stream_options alone": (chat(stream_options={"include_usage": True}), 400, "stream_options", VALUE),
    "stream_options unknown": (chat(stream=True, stream_options={"x": 1}), 400, "stream_options.x", UNKNOWN),
    "user a number": (chat(user=5), 400, "user", TYPE),
    "metadata of numbers": (chat(metadata={"a": 1}), 400, "metadata.a", TYPE),
    "audio": (chat(modalities=["audio"]), 400, "modalities[0]", VALUE),
    # messages
    "messages empty": (says(), 400, "messages", SHORT),
    "messages a string": (chat(messages="hi"), 400, "messages", TYPE),
    "message a string": (says("hi"), 400, "messages[0]", TYPE),
    "message without role": (says({"content": "hi"}), 400, "messages[0].role", MISSING),
    "unknown role": (says({"role": "god", "content": "hi"}), 400, "messages[0].role", VALUE),
    "role a list": (says({"role": ["user"], "content": "hi"}), 400, "messages[0].role", VALUE),
    "no content": (says({"role": "user"}), 400, "messages[0].content", MISSING),
    "content null": (says(USER, {"role": "user", "content": None}), 400, "messages[1].content", TYPE),
    "content a number": (says({"role": "user", "content": 5}), 400, "messages[0].content", TYPE),
    "content empty list": (says({"role": "user", "content": []}), 400, "messages[0].content", SHORT),
    "unknown field of a message": (says({**USER, "zone": 1}), 400, "messages[0].zone", UNKNOWN),
    "name with a line end": (says({**USER, "name": "a\nb"}), 400, "messages[0].name", VALUE),
    "unknown part": (part(type="video", video="x"), 400, "messages[0].content[0].type", VALUE),
    "part without type": (part(text="x"), 400, "messages[0].content[0].type", MISSING),
    "text part without text": (part(type="text"), 400, "messages[0].content[0].text", MISSING),
    "image for the system": (
        says({"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}),
        400, "messages[0].content[0].type", VALUE,
    ),
    "assistant with nothing": (says(USER, ASSISTANT), 400, "messages[1].content", VALUE),
    "tool without id": (says(USER, {"role": "tool", "content": "x"}), 400, "messages[1].tool_call_id", MISSING),
    "tool without a call": (
        says(USER, {"role": "tool", "content": "x", "tool_call_id": "c"}),
        400, "messages[1].tool_call_id", VALUE,
    ),
    "tool for another call": (
        says(USER, CALLED, {"role": "tool", "content": "x", "tool_call_id": "d"}),
        400, "messages[2].tool_call_id", VALUE,
    ),
    "call without arguments": (
        says(USER, {**ASSISTANT, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}),
        400, "messages[1].tool_calls[0].function.arguments", MISSING,
    ),
    "too long": (says({"role": "user", "content": "x " * 1000}), 400, "messages", "context_length_exceeded"),
    "10 MB": (says({"role": "user", "content": "x " * 5_000_000}), 400, "messages", "context_length_exceeded"),
    # images
    "image without url": (part(type="image_url", image_url={}), 400, URL, MISSING),
    "image a string": (part(type="image_url", image_url=PNG), 400, "messages[0].content[0].image_url", TYPE),
    "image url empty": (picture(""), 400, URL, "string_below_min_length"),
    "image of a file": (picture("file:///etc/passwd"), 400, URL, "invalid_image_url"),
    "image base64 damaged": (picture("data:image/png;base64,@@@"), 400, URL, "invalid_image_url"),
    "image no image": (picture("data:image/png;base64,aGVsbG8="), 400, URL, "invalid_image_url"),
    "image damaged": (picture(DAMAGED), 400, URL, "invalid_image_url"),
    "image SVG": (picture("data:image/svg+xml;base64,PHN2Zy8+"), 400, URL, "invalid_image_url"),
    "image detail": (picture(PNG, detail="ultra"), 400, "messages[0].content[0].image_url.detail", VALUE),
    # tools
    "tools a string": (chat(tools="f"), 400, "tools", TYPE),
    "tool without function": (chat(tools=[{"type": "function"}]), 400, "tools[0].function", MISSING),
    "tool of another kind": (chat(tools=[{**TOOL, "type": "web"}]), 400, "tools[0].type", VALUE),
    "tool name with a space": (
        chat(tools=[{"type": "function", "function": {"name": "a b"}}]), 400, "tools[0].function.name", VALUE,
    ),
    "tool parameters a list": (
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]),
        400, "tools[0].function.parameters", TYPE,
    ),
    "tools twice": (chat(tools=[TOOL, TOOL]), 400, "tools", VALUE),
    "129 tools": (chat(tools=[TOOL] * 129), 400, "tools", LONG),
    "choice without tools": (chat(tool_choice="required"), 400, "tool_choice", VALUE),
    "choice unknown": (chat(tools=[TOOL], tool_choice="always"), 400, "tool_choice", VALUE),
    "choice of another tool": (
        chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}), 400, "tool_choice", VALUE,
    ),
    "choice without a name": (
        chat(tools=[TOOL], tool_choice={"type": "function"}), 400, "tool_choice.function", MISSING,
    ),
    "parallel without tools": (chat(parallel_tool_calls=True), 400, "parallel_tool_calls", VALUE),
    "forced by a bad schema": (
        chat(
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}],
            tool_choice="required",
        ),
        400, "tools", "invalid_grammar",
    ),
    "tools and a schema": (
        chat(tools=[TOOL], response_format={"type": "json_object"}), 400, "response_format", VALUE,
    ),
    # formats
    "format a string": (chat(response_format="json"), 400, "response_format", TYPE),
    "format unknown": (chat(response_format={"type": "xml"}), 400, "response_format.type", VALUE),
    "format without type": (chat(response_format={}), 400, "response_format.type", MISSING),
    "schema missing": (
        chat(response_format={"type": "json_schema"}), 400, "response_format.json_schema", MISSING,
    ),
    "schema a string": (schema("x"), 400, "response_format.json_schema.schema", TYPE),
    "schema invalid": (schema({"type": "nonsense"}), 400, "response_format", "invalid_grammar"),
    # completions
    "no prompt": ((TEXT, {"model": "demo"}), 400, "prompt", MISSING),
    "prompt null": (text(prompt=None), 400, "prompt", TYPE),
    "prompt empty list": (text(prompt=[]), 400, "prompt", SHORT),
    "prompt mixed": (text(prompt=["a", 1]), 400, "prompt[1]", TYPE),
    "prompt ids mixed": (text(prompt=[1, "a"]), 400, "prompt[1]", TYPE),
    "prompt id below 0": (text(prompt=[-1]), 400, "prompt[0]", "integer_below_min_value"),
    "prompt id beyond 32 bits": (text(prompt=[2**40]), 400, "prompt[0]", "integer_above_max_value"),
    "prompt ids empty": (text(prompt=[[1], []]), 400, "prompt[1]", SHORT),
    "too many prompts": (text(prompt=["a"] * 2049), 400, "prompt", LONG),
    "prompt too long": (text(prompt="x " * 1000), 400, "prompt", "context_length_exceeded"),
    "logprobs 21": (text(logprobs=21), 400, "logprobs", "integer_above_max_value"),
    "logprobs true": (text(logprobs=True), 400, "logprobs", TYPE),
    "best_of": (text(best_of=3), 400, "best_of", VALUE),
    "suffix": (text(suffix="end"), 400, "suffix", TYPE),
    "messages for a completion": (text(messages=[USER]), 400, "messages", UNKNOWN),
    # embeddings and the rest
    "no input": ((VECTORS, {"model": "demo"}), 400, "input", MISSING),
    "input empty list": (vectors(input=[]), 400, "input", SHORT),
    "encoding unknown": (vectors(encoding_format="hex"), 400, "encoding_format", VALUE),
    "dimensions of another size": (vectors(dimensions=7), 400, "dimensions", VALUE),
    "dimensions 0": (vectors(dimensions=0), 400, "dimensions", "integer_below_min_value"),
    "no moderator": ((RULES, {"input": "hi"}), 404, None, "moderation_not_available"),
    "moderation without input": ((RULES, {}), 400, "input", MISSING),
    "no such route": (("/v1/nothing", {}), 404, None, "unknown_url"),
    "GET only": (("/v1/models", {}), 405, None, "method_not_allowed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def http(live: Live) -> Iterator[httpx.Client]:
    yield live.http


@pytest.fixture(scope="module", autouse=True)
def flowing(live: Live) -> Iterator[list[int]]:
    """Another caller's streams, one after another, while the table is worked through; each must come whole."""
    stop, told = threading.Event(), [0]
    said = " ".join(f"w{i}" for i in range(200))

    def read() -> None:
        body = {"model": "demo", "messages": [{"role": "user", "content": said}], "stream": True}
        with httpx.Client(base_url=live.url, verify=False, timeout=30) as client:
            while not stop.is_set():
                with client.stream("POST", CHAT, json=body) as response:
                    events = [line[6:] for line in response.iter_lines() if line]
                assert events[-1] == "[DONE]"
                pieces = (json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1])
                assert "".join(pieces) == said
                told[0] += 1

    thread = threading.Thread(target=read)
    thread.start()
    yield told
    stop.set()
    thread.join(30)
    assert told[0] > 0


def check(response: httpx.Response, status: int, param: str | None, code: str | None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    found = response.json()
    assert list(found) == ["error"]
    error = found["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert all(value is None or isinstance(value, str) for value in error.values())
    assert error["message"] and error["type"] == "invalid_request_error"
    if param != "*":
        assert error["param"] == param, error
    if code != "*":
        assert error["code"] == code, error


@pytest.mark.parametrize("name", TABLE)
def test_bad_request(http: httpx.Client, flowing: list[int], name: str) -> None:
    (path, body), status, param, code = TABLE[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    before = flowing[0]
    check(http.post(path, content=content, headers={"content-type": "application/json"}), status, param, code)
    assert flowing[0] >= before


def test_the_table_is_as_long_as_was_promised() -> None:
    assert len(TABLE) >= 80


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_other_types_of_body(http: httpx.Client, kind: str) -> None:
    """A page of another site can send these without asking."""
    body = json.dumps(chat()[1]).encode()
    check(http.post(CHAT, content=body, headers={"content-type": kind}), 400, None, None)

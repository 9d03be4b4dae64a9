"""The same API in front of another server, which is scripted here."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import openai
import pytest
from PIL import Image
from servekit import PNG, Live, make_server, running

import mock_endpoint as mock
from foretell.errors import GenerationError
from foretell.serve.upstream import Upstream
from mock_endpoint import MockEndpoint, Reply, chat_body, deltas, events, script

HELLO = {"model": "small", "messages": [{"role": "user", "content": "hello big world"}]}
CHAT = "/v1/chat/completions"


@contextmanager
def in_front_of(handler: mock.Handler, key: str | None = None) -> Iterator[tuple[Live, MockEndpoint]]:
    with mock.serve_in_thread(handler) as behind:
        upstream = Upstream(behind.url, key, {"small": "mock"})
        with running(make_server({}, upstream=upstream)) as live:
            yield live, behind


def test_the_official_client_sees_no_difference() -> None:
    with in_front_of(mock.echo) as (live, behind):
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="callers-own")
        reply = client.chat.completions.create(**HELLO)
        chunks = list(client.chat.completions.create(**HELLO, stream=True, stream_options={"include_usage": True}))
        text = client.completions.create(model="mock", prompt="go on")
        assert [model.id for model in client.models.list()] == ["mock", "small"]
        assert client.models.retrieve("small").id == "small"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("none")
        metrics = live.http.get("/metrics").text
    assert reply.choices[0].message.content == "hello big world"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hellobigworld"
    assert chunks[-1].usage is not None and chunks[-1].usage.prompt_tokens == 7
    assert text.choices[0].text == "go on"
    assert {call.json["model"] for call in behind.calls if call.method == "POST"} == {"mock"}, "aliases stay here"
    assert 'foretell_tokens_total{kind="prompt",model="mock"} 21.0' in metrics


def test_nothing_of_a_callers_head_goes_on_and_nothing_of_its_comes_back() -> None:
    answer = Reply(chat_body("hi"), headers={"set-cookie": "a=b", "server": "secret/1.0", "x-internal": "1"})
    with in_front_of(script(answer), key="its-own-key") as (live, behind):
        headers = {"authorization": "Bearer callers", "cookie": "c=d", "x-forwarded-for": "1.2.3.4", "x-evil": "1"}
        response = live.http.post(CHAT, json=HELLO, headers=headers)
    sent = behind.calls[0].headers
    assert sent["authorization"] == "Bearer its-own-key"
    assert not {"cookie", "x-forwarded-for", "x-evil"} & set(sent)
    assert not {"set-cookie", "server", "x-internal"} & set(response.headers)


def test_images_go_on_as_fresh_pngs() -> None:
    buffer = BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "JPEG", exif=b"Exif\0\0secret-place", comment=b"secret-words")
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    with in_front_of(script(Reply(chat_body("red")))) as (live, behind):
        found = live.http.post(CHAT, json={"model": "mock", "messages": [{"role": "user", "content": parts}]})
        refused = live.http.post(CHAT, json=with_image("http://10.0.0.1/x.png"))
        damaged = live.http.post(CHAT, json=with_image(PNG[:-30] + "A" * 30))
    assert found.status_code == 200
    assert [response.status_code for response in (refused, damaged)] == [400, 400]
    (call,) = [call for call in behind.calls if call.method == "POST"]  # what is refused is not asked
    sent = call.json["messages"][0]["content"][1]["image_url"]
    assert sent["detail"] == "low" and sent["url"].startswith("data:image/png;base64,")
    data = base64.b64decode(sent["url"].partition(",")[2])
    assert Image.open(BytesIO(data)).size == (3, 2) and b"secret" not in data


def with_image(url: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return {"model": "mock", "messages": [{"role": "user", "content": content}]}


def test_bad_calls_never_get_there() -> None:
    with in_front_of(script(Reply(chat_body("hi")))) as (live, behind):
        for body in ({**HELLO, "n": 0}, {**HELLO, "chat_template": "x"}, {**HELLO, "max_tokens": 10**9}, {}):
            assert live.http.post(CHAT, json=body).status_code == 400
        for path in ("/v1/load_lora_adapter", "/v1/../admin", "/tokenize", "/v1/chat/completions/../../x"):
            assert live.http.post(path, json={}).status_code == 404
    assert behind.calls == []


def test_a_name_that_it_does_not_list_goes_no_further() -> None:
    with in_front_of(mock.echo) as (live, behind):
        for name in ("gpt-4", "Mock", "mock "):
            refused = live.http.post(CHAT, json={**HELLO, "model": name})
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert live.http.post(CHAT, json=HELLO).status_code == 200
        metrics = live.http.get("/metrics").text
    assert [call.json["model"] for call in behind.calls if call.method == "POST"] == ["mock"]
    assert len(behind.calls) < 4 and "gpt-4" not in metrics, "the list is not asked for anew at each wrong name"


def test_it_is_ready_once_the_other_is_there() -> None:
    with in_front_of(mock.echo) as (live, _):
        assert live.http.get("/ready").status_code == 200
    with running(make_server({}, upstream=Upstream("http://127.0.0.1:9/v1"))) as live:
        refused = live.http.get("/ready")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unreachable")


def failure(status: int, **error: str) -> Reply:
    return Reply({"error": error}, status)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (failure(404, message="no such", code="model_not_found", param="model"), 404, "model_not_found"),
        (failure(400, message="too long", code="context_length_exceeded"), 400, "context_length_exceeded"),
        (Reply({"object": "error", "message": "too much", "code": 429}, 429), 429, "429"),
        (failure(401, message="your key"), 500, "upstream_error"),
        (failure(500, message="internals"), 500, "upstream_error"),
        (Reply(b"<html><title>Bad gateway</title>", 502), 500, "upstream_error"),
        (Reply(b"", 503), 503, "upstream_overloaded"),
        (Reply(b"", 302, {"location": "http://169.254.169.254/"}), 500, "upstream_error"),
        (Reply(b"no json"), 500, "upstream_error"),
        (Reply([1, 2]), 500, "upstream_error"),
        (failure(200, message="internals"), 500, "upstream_error"),
        (Reply(b'{"choices": [', headers={"content-length": "999"}, cut=True), 500, "upstream_error"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_its_failures_take_the_one_form(answer: Reply, status: int, code: str, stream: bool) -> None:
    with in_front_of(script(answer)) as (live, _):
        response = live.http.post(CHAT, json={**HELLO, "stream": stream})
    assert response.status_code == status
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"] and error["code"] == code
    assert "internals" not in response.text and "your key" not in response.text
    assert ("retry-after" in response.headers) == (status in (429, 503))


def test_one_that_is_not_there() -> None:
    with running(make_server({}, upstream=Upstream("http://127.0.0.1:9/v1"))) as live:
        response = live.http.post(CHAT, json=HELLO)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unreachable")
        assert live.http.get("/v1/models").status_code == 503
        assert live.http.get("/health").status_code == 200
        assert "127.0.0.1" not in response.text


def event_lines(text: str) -> list[str]:
    return [line[6:] for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(
    "answer",
    [
        Reply(pieces=events(*deltas("one", "two")[:2], done=False), cut=True),
        Reply(pieces=events(*deltas("one", "two")[:2], done=False)),
        Reply(pieces=[*events(*deltas("one")[:2], done=False), b'data: {"choi'], cut=True),
        Reply(pieces=[*events(*deltas("one")[:2], done=False), b"data: no json\n\n"]),
        Reply(pieces=events(*deltas("one")[:2], {"error": {"message": "internals", "code": 500}}, done=False)),
    ],
)
def test_a_stream_that_breaks_off_says_so(answer: Reply) -> None:
    with in_front_of(script(answer)) as (live, _):
        response = live.http.post(CHAT, json={**HELLO, "stream": True})
    lines = event_lines(response.text)
    if not answer.cut:  # what comes together with a broken connection, aiohttp throws away
        assert json.loads(lines[1])["choices"][0]["delta"]["content"] == "one", "what came is handed on"
    assert lines[-1] != "[DONE]"
    error = json.loads(lines[-1])["error"]
    assert list(error) == ["message", "type", "param", "code"] and error["code"] == "upstream_error"
    assert "internals" not in response.text


def test_a_stream_may_end_without_saying_so_once_its_replies_have() -> None:
    with in_front_of(script(Reply(pieces=events(*deltas("one"), done=False)))) as (live, _):
        response = live.http.post(CHAT, json={**HELLO, "stream": True})
    assert event_lines(response.text)[-1] == "[DONE]"


def test_comments_of_a_stream_stay_behind() -> None:
    pieces = [b": secret keep-alive\n\n", b"event: x\nid: 5\n", *events(*deltas("one"))]
    with in_front_of(script(Reply(pieces=pieces))) as (live, _):
        response = live.http.post(CHAT, json={**HELLO, "stream": True})
    assert "secret" not in response.text and "id: 5" not in response.text
    assert event_lines(response.text)[-1] == "[DONE]"


def test_a_url_that_is_none() -> None:
    for url in ("ftp://x", "localhost:8000", "http://user:word@host/v1"):
        with pytest.raises(GenerationError):
            Upstream(url)

"""What an endpoint is asked, and what is read from its answers."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys

import numpy as np
import pytest

import foretell
from foretell.chat import Conversation
from foretell.engine.remote import Endpoint
from foretell.errors import EndpointError, GenerationError
from foretell.generate import Generator, Grammar, Request, Sampling, TokenLogprob, Usage, collect
from foretell.template import Encoded
from mock_endpoint import Reply, chat_body, deltas, echo, events, run, script, serve, serve_in_thread, text_body

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, you"}]
CHAT = Conversation.from_openai(MESSAGES)
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def asked(prompt, *, replies=(), params=None, **settings):
    """The answer, and the calls that were made for it."""

    async def main():
        async with serve(script(*replies) if replies else echo) as mock:
            endpoint = Endpoint(mock.url, **{"model": "mock", **settings})
            return await endpoint.ask(prompt, **(params or {})), mock.calls

    return run(main())


def streamed(requests, handler, **settings):
    async def main():
        async with serve(handler) as mock:
            endpoint = Endpoint(mock.url, "mock", **settings)
            return [result async for result in endpoint.generate(requests)], mock

    return run(main())


def test_a_chat_is_sent_as_the_published_form_says():
    answer, [call] = asked(MESSAGES, api_key="sk-1", headers={"X-Team": "red"}, params={"temperature": 0, "stop": "."})
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    assert call.json == {"model": "mock", "messages": MESSAGES, "temperature": 0, "stop": "."}
    assert call.headers["authorization"] == "Bearer sk-1" and call.headers["content-type"] == "application/json"
    assert call.headers["x-team"] == "red"
    assert answer.texts == ("Hello, you",) and answer.finish_reasons == ("stop",) and answer.model == "mock"
    assert answer.usage == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert answer.raw == chat_body("Hello, you")


def test_text_goes_to_completions():
    answer, [call] = asked("Once", params={"max_tokens": 4})
    assert call.path == "/v1/completions" and call.json == {"model": "mock", "prompt": "Once", "max_tokens": 4}
    assert "authorization" not in call.headers
    assert answer.texts == ("Once",)


@pytest.mark.parametrize(
    ("settings", "prompt", "sent"),
    [
        ({"chat": True}, "Hi", {"messages": [{"role": "user", "content": "Hi"}]}),
        ({"chat": True, "role": "system"}, "Hi", {"messages": [{"role": "system", "content": "Hi"}]}),
        ({"chat": True}, MESSAGES, {"messages": MESSAGES}),
        ({"chat": False}, "Hi", {"prompt": "Hi"}),
        ({"chat": False}, MESSAGES[1:], {"prompt": "Hello, you"}),
        ({"chat": False}, MESSAGES, {"prompt": "Be brief.\nUser: Hello, you\nAssistant:"}),
        (
            {"chat": False},
            [
                {"role": "system", "name": "example_user", "content": [{"type": "text", "text": "2+2"}]},
                {"role": "system", "name": "example_assistant", "content": "4"},
                {"role": "user", "content": "3+3"},
            ],
            {"prompt": "User: 2+2\nAssistant: 4\nUser: 3+3\nAssistant:"},
        ),
        ({"extra": {"temperature": 0, "min_p": 0.1}}, MESSAGES, {"messages": MESSAGES, "temperature": 0, "min_p": 0.1}),
    ],
)
def test_chat_text_and_extra_parameters(settings, prompt, sent):
    _, [call] = asked(prompt, **settings, params={"temperature": 1} if "extra" in settings else None)
    assert call.json == {"model": "mock", **sent}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("{}/v1/", "/v1/chat/completions"),
        ("{}", "/v1/chat/completions"),
        ("{}/v1/chat/completions", "/v1/chat/completions"),
        ("{}/v1/completions", "/v1/chat/completions"),
        ("{}/openai/deployments/a%20b?api-version=1", "/openai/deployments/a%20b/chat/completions?api-version=1"),
    ],
)
def test_forms_of_the_base_url(url, path):
    async def main():
        async with serve() as mock:
            await Endpoint(url.format(mock.url.removesuffix("/v1")), "m").ask(MESSAGES)
            return mock.calls[0].path

    assert run(main()) == path


def test_url_and_key_come_from_the_environment(monkeypatch):
    async def main():
        async with serve() as mock:
            monkeypatch.setenv("OPENAI_BASE_URL", mock.url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-2\n")
            await Endpoint(model="m").ask(MESSAGES)
            await Endpoint(model="m", api_key="").ask(MESSAGES)
            return [call.headers.get("authorization") for call in mock.calls]

    assert run(main()) == ["Bearer sk-2", None]
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert Endpoint().url == "https://api.openai.com/v1"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http:///v1", "http://a:b/v1", "http://me:pw@host/v1"])
def test_what_is_no_url(url):
    with pytest.raises(GenerationError, match="no base URL") as caught:
        Endpoint(url)
    assert "pw" not in str(caught.value)


def test_a_proxy_is_used_but_for_servers_of_this_machine(monkeypatch):
    async def main():
        async with serve() as mock:
            monkeypatch.setenv("http_proxy", mock.url.removesuffix("/v1"))
            monkeypatch.setenv("no_proxy", "")
            await Endpoint("http://far.example/v1", "m").ask(MESSAGES)
            await Endpoint(mock.url, "m").ask(MESSAGES)
            return [call.path for call in mock.calls]

    assert run(main()) == ["http://far.example/v1/chat/completions", "/v1/chat/completions"]


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"retries": -1}, {"timeout_s": 0}, {"timeout_s": math.nan}])
def test_settings_out_of_range(settings):
    with pytest.raises(GenerationError, match="allowed"):
        Endpoint("http://h/v1", **settings)


@pytest.mark.parametrize("key", ["sk-\u00e9", "sk-1\nX-Evil: 1"])
def test_keys_that_no_header_can_hold(key):
    with pytest.raises(GenerationError, match="Copy the key again") as caught:
        Endpoint("http://h/v1", api_key=key)
    assert "sk-" not in str(caught.value)


def test_the_only_model_is_found_once():
    async def main():
        async with serve() as mock:
            endpoint = Endpoint(mock.url)
            await asyncio.gather(*(endpoint.ask(MESSAGES) for _ in range(9)))
            return endpoint.model, [call.path for call in mock.calls]

    model, paths = run(main())
    assert model == "mock" and paths.count("/v1/models") == 1 and len(paths) == 10


@pytest.mark.parametrize(
    ("names", "message"), [(["a", "b"], "offers 2 models: a, b. Say which"), ([], "offers no models")]
)
def test_several_models_must_be_told_apart(names, message):
    async def main():
        async with serve(lambda call: Reply({"data": [{"id": name} for name in names]})) as mock:
            assert await Endpoint(mock.url).models() == names
            await Endpoint(mock.url).ask(MESSAGES)

    with pytest.raises(EndpointError, match=message) as caught:
        run(main())
    assert caught.value.lasting


def test_choices_come_in_their_order():
    body = chat_body("a")
    body["choices"] = [{**body["choices"][0], "index": i, "message": {"content": t}} for i, t in ((1, "b"), (0, "a"))]
    body["choices"][0]["finish_reason"] = "length"
    answer, _ = asked(MESSAGES, replies=[Reply(body)], params={"n": 2})
    assert answer.texts == ("a", "b") and answer.finish_reasons == ("stop", "length")


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (chat_body(None, refusal="I will not."), "I will not.", "stop"),
        (chat_body(None, finish="content_filter"), "", "content_filter"),
        (chat_body(None, finish="length"), "", "length"),
        (chat_body(None, finish="tool_calls", tool_calls=[{"id": "1"}]), "", "tool_calls"),
        (chat_body(""), "", "stop"),
        (chat_body([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "stop"),
        ({"choices": [{"message": {"content": "x"}}]}, "x", "stop"),
    ],
)
def test_replies_without_plain_text(body, text, finish):
    answer, calls = asked(MESSAGES, replies=[Reply(body)])
    assert answer.texts == (text,) and answer.finish_reasons == (finish,) and len(calls) == 1


def test_the_name_that_a_server_wants_for_a_parameter_is_learnt():
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    refusal = Reply({"error": {"message": words, "param": "max_tokens", "code": "unsupported_parameter"}}, 400)

    def handler(call):
        return refusal if "max_tokens" in call.json else echo(call)

    async def main():
        async with serve(handler) as mock:
            endpoint = Endpoint(mock.url, "o", retries=0)
            for _ in range(2):
                await endpoint.ask(MESSAGES, max_tokens=5)
            return [call.json.get("max_completion_tokens") for call in mock.calls]

    assert run(main()) == [None, 5, 5]


def test_a_stream_is_handed_on_piece_by_piece():
    results, mock = streamed([Request(CHAT, Sampling(max_tokens=9, temperature=0.5, stop=("!",), seed=3))], echo)
    assert isinstance(Endpoint("http://h"), Generator)
    assert [r.text for r in results] == ["Hello,", "you", "Hello,you"]
    assert [r.delta for r in results] == [True, True, False]
    assert results[-1].finish_reason == "stop" and results[-1].usage == Usage(7, 2)
    assert mock.calls[0].json == {
        **{"model": "mock", "messages": MESSAGES, "max_tokens": 9, "temperature": 0.5, "top_p": 1.0, "stop": ["!"]},
        **{"seed": 3, "stream": True, "stream_options": {"include_usage": True}},
    }


def test_requests_run_side_by_side_and_are_told_apart():
    prompts = [Conversation.from_openai([{"role": "user", "content": f"a{i} b{i}"}]) for i in range(6)]

    async def main():
        async with serve(latency=1) as mock:
            endpoint = Endpoint(mock.url, "mock", concurrency=3)
            found = await collect(endpoint, [Request(prompt) for prompt in prompts])
            return [samples[0].text for samples in found], mock.most, asyncio.get_running_loop().time()

    texts, most, seconds = run(main())
    assert texts == [f"a{i}b{i}" for i in range(6)] and most == 3 and seconds == pytest.approx(2)


def test_each_endpoint_of_an_account_keeps_its_own_number():
    async def main():
        async with serve(latency=1) as mock:
            few, many = (Endpoint(mock.url, name, concurrency=n) for name, n in (("few", 2), ("many", 6)))
            await asyncio.gather(*(endpoint.ask(MESSAGES) for _ in range(12) for endpoint in (few, many)))
            for name, most in (("few", 2), ("many", 6)):
                starts = [call.at for call in mock.calls if call.json["model"] == name]
                assert max(starts.count(at) for at in starts) <= most
            assert mock.most == 6

    run(main())


def test_samples_of_one_request_are_interleaved():
    def piece(index, text, finish=None):
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}

    stream = events(piece(1, "x"), piece(0, "a"), piece(1, "y", "length"), ": a comment\n\n", piece(0, "b", "stop"))
    results, _ = streamed([Request(CHAT, n=2)], lambda call: Reply(pieces=stream))
    assert [(r.sample, r.text) for r in results] == [(1, "x"), (0, "a"), (1, "y"), (0, "b"), (0, "ab"), (1, "xy")]
    assert [r.finish_reason for r in results[-2:]] == ["stop", "length"]


def test_events_may_be_cut_anywhere():
    whole = b"".join(events("event: x\r\nid: 1\r\ndata: " + json.dumps(deltas("é\n")[1]) + "\r\n\r\n", *deltas("ü")))
    pieces = [bytes([byte]) for byte in whole]
    results, _ = streamed([Request(CHAT)], lambda call: Reply(pieces=pieces))
    assert results[-1].text == "é\nü"


def test_log_probabilities_of_both_forms():
    top = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]
    chat = deltas("a")
    chat[1]["choices"][0]["logprobs"] = {"content": [{"token": "a", "id": 7, "logprob": -0.5, "top_logprobs": top}]}
    text = {"index": 0, "text": "a", "finish_reason": "stop"}
    text["logprobs"] = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -1.5, "a": -0.5}]}
    for prompt, pieces, token, sent in (
        (CHAT, events(*chat), 7, {"logprobs": True, "top_logprobs": 2}),
        ("Once", events({"choices": [text]}), -1, {"logprobs": 2}),
    ):
        expected = (TokenLogprob("a", token, -0.5, (("a", -0.5), ("b", -1.5))),)
        results, mock = streamed([Request(prompt, Sampling(logprobs=2))], lambda call, p=pieces: Reply(pieces=p))
        assert results[0].logprobs == results[-1].logprobs == expected
        assert mock.calls[0].json.items() >= sent.items()


def test_other_kinds_of_request():
    ids = Encoded(np.array([5, 6], np.int32), np.zeros(2, bool), np.zeros((0, 0, 0, 3), np.uint8))
    pictured = Encoded(ids.ids, ids.loss, np.zeros((1, 8, 8, 3), np.uint8))
    schema = Grammar("json_schema", json.dumps({"type": "object"}))

    def handler(call):
        return Reply(text_body("t")) if "prompt" in call.json else Reply(chat_body("t"))  # neither streams

    results, mock = streamed([Request(ids), Request(CHAT, Sampling(top_k=3), grammar=schema)], handler)
    assert [(r.request, r.text, r.delta) for r in results] == [(0, "t", False), (1, "t", False)]
    tokens, chat = sorted((call.json for call in mock.calls), key=lambda sent: "messages" in sent)
    assert tokens["prompt"] == [5, 6] and chat["top_k"] == 3
    form = {"name": "reply", "schema": {"type": "object"}, "strict": True}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": form}
    for request, settings, message in (
        (Request(pictured), {}, "takes images in messages only"),
        (Request(Conversation.from_openai([{"role": "user", "content": [PIXEL]}])), {"chat": False}, "hold images"),
        (Request(CHAT, n=0), {}, "at least 1"),
        (Request(CHAT, n=2), {}, "1 choices; 2 were asked for"),
    ):
        with pytest.raises(GenerationError, match=message):
            streamed([request], handler, **settings)


def test_one_endpoint_serves_loop_after_loop(caplog):
    """Sessions end with their loop: nothing is left open, and nothing complains."""
    with serve_in_thread() as mock:
        model = foretell.load(f"{mock.url}#mock")
        for _ in range(2):
            assert model.chat(MESSAGES, temperature=0).text == "Hello,you"
        assert model.complete("Once", max_tokens=1).text == "Once"
        assert model.generator.model == "mock" and "/v1/models" not in {call.path for call in mock.calls}
    assert not caplog.records


def test_a_closed_endpoint_opens_again():
    async def main():
        async with serve() as mock:
            endpoint = Endpoint(mock.url, "mock")
            for _ in range(2):
                assert (await endpoint.ask("Once")).texts == ("Once",)
                await endpoint.close()
            await endpoint.close()

    run(main())


def test_it_works_without_torch_and_says_what_it_lacks():
    hidden = ["torch", "safetensors", "tokenizers", "psutil", "jinja2", "gguf", "aiohttp"]
    code = (
        f"import sys, asyncio; sys.modules.update(dict.fromkeys({hidden!r}))\n"
        "import foretell\n"
        "from foretell.errors import MissingExtraError\n"
        "try:\n    foretell.load('http://127.0.0.1:9/v1#m').complete('a')\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "foretell[evals]" in done.stdout

"""Endpoints that refuse, fail, hang and answer nonsense."""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import traceback
from email.utils import formatdate
from random import Random

import pytest

from foretell.chat import Conversation
from foretell.engine import wire
from foretell.engine.remote import Endpoint
from foretell.errors import EndpointError, MissingExtraError
from foretell.generate import Request
from mock_endpoint import Reply, chat_body, deltas, events, run, script, serve

MESSAGES = [{"role": "user", "content": "Hello, you"}]
CHAT = Conversation.from_openai(MESSAGES)
GOOD = Reply(chat_body("fine"))
NEVER = Reply(after=math.inf)
KEY = "sk-proj-0123456789abcdef"


def refused(message, status, headers=None, **error):
    return Reply({"error": {"message": message, **error}}, status, headers or {})


def ask(*replies, prompt=MESSAGES, stream=False, **settings):
    """What an endpoint that gives these replies is worth: texts or an error, its calls, and the seconds it took."""

    async def main():
        async with serve(script(*replies)) as mock:
            endpoint = Endpoint(mock.url, **{"model": "gpt-9", "random": Random(0), **settings})
            found = []
            try:
                if stream:
                    async for result in endpoint.generate([Request(CHAT)]):
                        found += [result.text]
                else:
                    found += (await endpoint.ask(prompt)).texts
            except EndpointError as error:
                found.append(error)
            return found, mock.calls, asyncio.get_running_loop().time()

    return run(main())


@pytest.mark.parametrize(
    ("reply", "message", "lasting"),
    [
        (
            refused("Incorrect API key provided.", 401),
            r"answered 401: Incorrect API key provided\. Set the right key",
            1,
        ),
        (refused("Country not supported", 403), r"answered 403: Country not supported\.$", 0),
        (refused("The model does not exist", 404), r"The model asked for was 'gpt-9'\. It offers: mock\.$", 1),
        (refused("No such", 400, code="model_not_found"), r"'gpt-9'\. It offers: mock", 1),
        (
            Reply({"detail": "Not Found"}, 404),
            r"answered 404: Not Found\. It has no /chat/completions: the base URL",
            1,
        ),
        (Reply({"detail": "Method Not Allowed"}, 405), "It has no /chat/completions", 1),
        (refused("Unsupported value", 400, param="temperature"), r"Change or leave out temperature\.$", 0),
        (refused("This model's maximum context length is 10 tokens", 400), "maximum context length is 10 tokens", 0),
        (Reply({"detail": [{"loc": ["body", "n"], "msg": "too many"}]}, 422), r'answered 422: .*"too many"', 0),
        (Reply({"error": "plain words"}, 400), "answered 400: plain words", 0),
        (Reply({"object": "error", "message": "vLLM's form"}, 400), "answered 400: vLLM's form", 0),
        (refused("Pay.", 402), r"Pay\. The account has no credit left", 1),
        (refused("You exceeded your current quota", 429, code="insufficient_quota"), "no credit left", 1),
        (refused("Later.", 429, {"x-should-retry": "false"}), "answered 429: Later", 0),
        (Reply(b"<html><title>Not\nhere</title>", 404), "answered 404: Not here", 1),
        (Reply(b"\x1b[31mred\x00 " + b"x" * 999, 400), r"answered 400: \[31mred x+…", 0),
        (Reply(b"", 418), "answered 418: nothing more", 0),
        (
            Reply(b"", 307, {"location": "https://other/v1?key=1"}),
            r"redirects to https://other/v1\. Give the base URL",
            1,
        ),
        (
            Reply(b"<!DOCTYPE html><title>Hi</title>", 200, {"content-type": "text/html"}),
            r"a web page \(Hi\)\. Check the",
            1,
        ),
    ],
)
def test_what_a_retry_cannot_mend_fails_at_once(reply, message, lasting):
    [error], calls, seconds = ask(reply)
    with pytest.raises(EndpointError, match=message):
        raise error
    assert len(calls) == 1 + ("It offers" in message) and seconds == 0
    assert error.lasting == bool(lasting) and error.status == reply.status
    assert "\x1b" not in str(error) and len(str(error)) < 700


def test_a_model_that_is_unknown_where_models_are_not_told():
    async def main():
        async with serve(lambda call: refused("no model x", 404)) as mock:
            await Endpoint(mock.url, "x").ask(MESSAGES)

    with pytest.raises(EndpointError, match=r"The model asked for was 'x'\.$"):
        run(main())


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("stream", [False, True])
def test_what_may_pass_is_tried_again(status, stream):
    found, calls, seconds = ask(refused("Busy", status), refused("Busy", status), GOOD, stream=stream)
    assert found == ["fine"] and len(calls) == 3 and 0 < seconds < 1.5


@pytest.mark.parametrize("reply", [Reply(cut=True, headers={"content-length": "9"}), Reply(status=500)])
def test_retries_are_bounded_in_number(reply):
    [error], calls, seconds = ask(reply, retries=3)
    assert len(calls) == 4 and "It was asked 4 times." in str(error) and seconds < 0.5 + 1 + 2
    assert ask(reply, retries=0)[2] == 0


def test_retries_are_bounded_in_time():
    [error], calls, seconds = ask(NEVER, timeout_s=10, retries=99)
    assert "did not answer within" in str(error) and 10 < seconds <= 20.001 and len(calls) == 2


@pytest.mark.parametrize(
    ("headers", "told"),
    [({"retry-after": "20"}, 20), ({"retry-after-ms": "2500"}, 2.5), ({"retry-after": formatdate(2_000_000_000)}, 25)],
)
@pytest.mark.parametrize("status", [429, 500])
def test_the_servers_own_wait_is_kept(headers, told, status, monkeypatch):
    monkeypatch.setattr(wire.time, "time", lambda: 2_000_000_000 - 25)
    found, calls, _ = ask(refused("Slow down", status, headers), GOOD)
    assert found == ["fine"] and told <= calls[1].at - calls[0].at <= told + 0.5


def test_a_wait_that_is_too_long_is_told():
    [error], calls, seconds = ask(refused("Slow down", 429, {"retry-after": "7200"}), timeout_s=60)
    assert "It asks to wait 7200 s; a call ends after 120 s." in str(error) and len(calls) == 1 and seconds == 0


def test_a_spent_rate_limit_holds_the_next_calls():
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m3s"}

    async def main():
        async with serve(script(Reply(chat_body("a"), headers=headers), GOOD)) as mock:
            endpoint = Endpoint(mock.url, "m")
            await endpoint.ask(MESSAGES)
            await Endpoint(mock.url, "m").ask(MESSAGES)  # of the same account
            return [call.at for call in mock.calls]

    assert run(main()) == [0, 63]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b'{"choices": [{"mess'), r"malformed JSON \(\{\"choices\": \[\{\"mess\)"),
        (Reply(b""), r"malformed JSON \(nothing at all\)"),
        (Reply(b"\xff\xfe"), "malformed JSON"),
        (Reply(b"[" * 100_000), "malformed JSON"),
        (Reply(b"[]"), "a JSON list, not an object"),
        (Reply(b"<html><title>Welcome</title></html>"), r"a web page \(Welcome\)"),
        (Reply({"choices": []}), "an empty list of choices"),
        (Reply({"hello": 1}), "without choices"),
        (Reply({"choices": [3]}), "without choices"),
        (Reply({"choices": [{"message": None}]}), "holds no message"),
        (Reply(chat_body(None)), "null in place of text"),
        (Reply(gzip.compress(b"x" * 3_000_000), headers={"content-encoding": "gzip"}), "sent more than 2 MB"),
    ],
)
def test_nonsense_is_tried_twice_more_and_named(reply, message, monkeypatch):
    monkeypatch.setattr(wire, "_BODY", 2_000_000)
    [error], calls, _ = ask(reply)
    with pytest.raises(EndpointError, match=message):
        raise error
    assert len(calls) == 3 and "/v1/chat/completions" in str(error) and "It was asked 3 times" in str(error)
    assert ask(reply, GOOD)[0] == ["fine"]


def test_a_wrong_content_type_is_no_matter_where_the_body_is_right():
    assert ask(Reply(chat_body("a"), headers={"content-type": "text/plain"}))[0] == ["a"]


@pytest.mark.parametrize(("code", "calls"), [(400, 1), ("odd", 3), (502, 3)])
def test_failures_sent_as_success(code, calls):
    [error], asked, _ = ask(Reply({"error": {"message": "Upstream failed", "code": code}}), retries=2)
    assert "Upstream failed" in str(error) and len(asked) == calls


@pytest.mark.parametrize(
    "hanging",
    [
        NEVER,
        Reply(headers={"content-length": "9"}, body=b"{"),
        Reply(pieces=[b"{"], hang=True),
        Reply(pieces=[b": wait\n\n"] * 1000, every=1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_hangs_ends_in_time_and_may_be_tried_again(hanging, stream):
    found, calls, seconds = ask(hanging, GOOD, timeout_s=30, stream=stream)
    assert found == ["fine"] and len(calls) == 2 and 30 <= seconds <= 30.6


def test_half_a_stream_is_asked_for_again_unless_some_was_handed_on():
    head, *pieces = events(*deltas("one", "two"))
    whole = Reply(pieces=[head, *pieces])
    assert ask(Reply(pieces=[head]), whole, stream=True)[0] == ["one", "two", "onetwo"]
    for reply, message in (
        (Reply(pieces=[head, pieces[0]]), "broke off its stream after 3 characters"),
        (Reply(pieces=[head, pieces[0]], cut=True), "hung up"),
        (Reply(pieces=[head, pieces[0]], hang=True), "did not answer within 600 s"),
        (Reply(pieces=[head, pieces[0], b"data: {\n\n"]), "malformed JSON"),
        (
            Reply(pieces=[head, pieces[0], *events({"error": {"message": "CUDA died"}})]),
            "broke off its stream: CUDA died",
        ),
    ):
        [text, error], calls, _ = ask(reply, whole, stream=True)
        assert text == "one" and message in str(error) and len(calls) == 1


def test_a_stream_may_end_without_its_last_words():
    *pieces, _ = events(*deltas("one"))
    assert ask(Reply(pieces=pieces), stream=True)[0] == ["one", "one"]
    assert ask(Reply(pieces=[b"".join(pieces).rstrip()]), stream=True)[0] == ["one", "one"]


def test_stream_options_are_left_out_where_they_are_refused():
    refusal = Reply({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}, 422)
    found, calls, seconds = ask(refusal, Reply(pieces=events(*deltas("one"))), stream=True, retries=0)
    assert found == ["one", "one"] and seconds == 0
    assert ["stream_options" in call.json for call in calls] == [True, False]


def test_one_request_that_fails_ends_the_others():
    async def main():
        def handler(call):
            return refused("No", 400) if call.json["messages"][0]["content"] == "bad" else NEVER

        async with serve(handler) as mock:
            chats = [Conversation.from_openai([{"role": "user", "content": text}]) for text in ("good", "bad")]
            with pytest.raises(EndpointError, match="answered 400: No"):
                async for _ in Endpoint(mock.url, "m").generate([Request(chat) for chat in chats]):
                    pass
            return asyncio.all_tasks() - {asyncio.current_task()}, asyncio.get_running_loop().time()

    assert run(main()) == (set(), 0)


def test_no_server_at_all():
    async def main():
        async with serve() as mock:
            url = mock.url
        await Endpoint(url, "m").ask(MESSAGES)

    with pytest.raises(EndpointError, match=r"cannot be reached .*Check the URL, and that the server runs.* 3 times"):
        run(main())


def test_what_does_not_speak_http():
    async def main():
        async def answer(_, writer):
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            await writer.drain()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        try:
            await Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "m", retries=1).ask(MESSAGES)
        finally:
            server.close()

    with pytest.raises(EndpointError, match="hung up"):
        run(main())


@pytest.mark.parametrize(
    "reply",
    [
        refused(f"Incorrect API key {KEY}", 401),
        Reply({"error": f"{KEY} and header-secret-0123456789 and query-secret-0123456789"}, 400),
        Reply(f"no JSON: {KEY}".encode()),
        Reply(b"", 302, {"location": f"http://elsewhere/{KEY}"}),
        Reply(cut=True, headers={"content-length": "9", "x-echo": KEY}),
        Reply(chat_body(f"Your key is {KEY}")),
    ],
)
def test_keys_are_told_to_nobody(reply, caplog):
    caplog.set_level(logging.DEBUG)

    async def main():
        async with serve(script(reply)) as mock:
            headers = {"X-Api-Key": "header-secret-0123456789"}
            endpoint = Endpoint(f"{mock.url}?key=query-secret-0123456789", "m", api_key=KEY, headers=headers, retries=0)
            try:
                answer = await endpoint.ask(MESSAGES)
                return f"{answer!r}{endpoint!r}", mock.calls
            except EndpointError as error:
                chain = [error]
                while (last := chain[-1].__cause__ or chain[-1].__context__) is not None:
                    chain.append(last)
                told = "".join(repr(link) + str(link.args) + str(vars(link)) for link in chain)
                return told + "".join(traceback.format_exception(error)) + repr(endpoint), mock.calls

    told, calls = run(main())
    assert calls[0].headers["authorization"] == f"Bearer {KEY}" and "secret" in calls[0].path  # they were sent
    for secret in (KEY, "header-secret", "query-secret"):
        assert secret not in told + caplog.text


def test_a_redirect_takes_no_key_along():
    async def main():
        async with serve() as other:
            async with serve(script(Reply(status=308, headers={"location": other.url + "/chat/completions"}))) as mock:
                with pytest.raises(EndpointError, match="redirects to"):
                    await Endpoint(mock.url, "m", api_key=KEY).ask(MESSAGES)
            return other.calls

    assert run(main()) == []


def test_cookies_are_not_kept(monkeypatch):
    async def main():
        async with serve(script(Reply(chat_body("a"), headers={"set-cookie": "a=b"}))) as mock:
            monkeypatch.setenv("http_proxy", mock.url.removesuffix("/v1"))
            endpoint = Endpoint("http://far.example/v1", "m")  # a name: those of addresses are kept by no one
            for _ in range(2):
                await endpoint.ask(MESSAGES)
            return ["cookie" in call.headers for call in mock.calls]

    assert run(main()) == [False, False]


def test_a_crowded_server_is_asked_as_fast_as_it_can_bear():
    """500 calls of a second each, 64 at once, where the server takes 8 at a time and refuses all beyond."""

    async def main():
        async with serve() as mock:

            def handler(call):
                return refused("Too many", 429) if mock.in_flight > 8 else Reply(chat_body("fine"), after=1)

            mock.handler = handler
            endpoint = Endpoint(mock.url, "m", random=Random(0))
            answers = await asyncio.gather(*(endpoint.ask(MESSAGES) for _ in range(500)))
            return [answer.texts for answer in answers], len(mock.calls), asyncio.get_running_loop().time()

    texts, calls, seconds = run(main())
    assert texts == [("fine",)] * 500
    assert seconds < 1.5 * 500 / 8 and calls < 1.4 * 500


def test_the_extra_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(MissingExtraError, match=r"foretell\[evals\]"):
        run(Endpoint("http://h", "m").ask(MESSAGES))

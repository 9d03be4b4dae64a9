"""The official client against the server: what a program written for OpenAI sees."""

import asyncio
import json

import openai
import pydantic
import pytest
from servekit import PNG, Live, Stub, make_server, running

from foretell.chat import ImagePart, TextPart

HELLO = [{"role": "user", "content": "hello big world"}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="demo", messages=HELLO)
    assert reply.choices[0].message.content == "hello big world"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "demo-2026-11-20", "an alias tells what it stands for"
    assert reply.id.startswith("chatcmpl-")
    assert reply.system_fingerprint and reply.system_fingerprint.startswith("fp_")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 3, 6)


def test_every_field_reaches_the_engine(client: openai.OpenAI, stub: Stub) -> None:
    client.chat.completions.create(
        model="demo",
        messages=HELLO,
        max_completion_tokens=2,
        temperature=0.5,
        top_p=0.9,
        n=3,
        stop=["a", "b"],
        seed=7,
        frequency_penalty=1.5,
        presence_penalty=-1,
        logit_bias={"5": -100},
        user="someone",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        extra_body={"min_p": 0.1, "top_k": 40},
    )
    request = stub.seen[-1]
    s = request.sampling
    assert request.n == 3
    assert (s.max_tokens, s.temperature, s.top_p, s.top_k, s.min_p) == (2, 0.5, 0.9, 40, 0.1)
    assert (s.stop, s.seed, s.frequency_penalty, s.presence_penalty) == (("a", "b"), 7, 1.5, -1)
    assert s.logit_bias == {5: -100}


def test_samples_and_length(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="demo", messages=HELLO, n=3, max_tokens=2)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert {choice.message.content for choice in reply.choices} == {"hello big"}
    assert {choice.finish_reason for choice in reply.choices} == {"length"}
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 6), "one prompt, three replies"


def test_logprobs(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(model="demo", messages=HELLO, logprobs=True, top_logprobs=2).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert [token.token for token in choice.logprobs.content] == ["hello", " big", " world"]
    token = choice.logprobs.content[1]
    assert token.bytes == list(b" big")
    assert token.logprob == -0.5
    assert [other.token for other in token.top_logprobs] == [" big0", " big1"]
    choice = client.chat.completions.create(model="demo", messages=HELLO, logprobs=True).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert choice.logprobs.content[0].top_logprobs == []
    assert client.chat.completions.create(model="demo", messages=HELLO).choices[0].logprobs is None


def test_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=HELLO, n=2, logprobs=True, stream=True, stream_options={"include_usage": True}
        )
    )
    for sample in (0, 1):
        mine = [choice for chunk in chunks for choice in chunk.choices if choice.index == sample]
        assert mine[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in mine) == "hello big world"
        told = [token.token for choice in mine if choice.logprobs for token in choice.logprobs.content or ()]
        assert told == ["hello", " big", " world"]
        assert [choice.finish_reason for choice in mine[-2:]] == [None, "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 6)
    assert {chunk.usage for chunk in chunks[:-1]} == {None}
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1


def test_no_usage_in_a_stream_unless_asked_for(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="demo", messages=HELLO, stream=True))
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)


def test_async_client_many_at_once(live: Live) -> None:
    async def main() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none") as client:

            async def one(i: int) -> str | None:
                messages = [{"role": "user", "content": f"reply {i}"}]
                if i % 2:
                    reply = await client.chat.completions.create(model="demo", messages=messages)
                    return reply.choices[0].message.content
                stream = await client.chat.completions.create(model="demo", messages=messages, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return list(await asyncio.gather(*(one(i) for i in range(30))))

    assert asyncio.run(main()) == [f"reply {i}" for i in range(30)]


def test_images(client: openai.OpenAI, stub: Stub) -> None:
    content = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": PNG}},
    ]
    reply = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": content}])
    assert reply.choices[0].message.content == "what is this"
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.model_dump()["image_tokens"] == 2
    text, low, auto = stub.seen[-1].prompt.messages[0].parts
    assert text == TextPart("what is this")
    assert (low.detail, auto.detail) == ("low", "auto")
    assert isinstance(low, ImagePart) and low.data.startswith(b"\x89PNG")


def test_roles_and_a_whole_tool_round(client: openai.OpenAI, stub: Stub) -> None:
    asked = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": f"say {CALL}"}]
    reply = client.chat.completions.create(model="demo", messages=asked, tools=[WEATHER])
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "say "
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Oslo"},
    )
    system = stub.seen[-1].prompt.messages[0]
    assert system.role == "system" and system.text.startswith("be brief") and "Of a city." in system.text
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    again = client.chat.completions.create(model="demo", messages=[*asked, choice.message, result], tools=[WEATHER])
    assert again.choices[0].message.content == "rain"
    assert stub.seen[-1].prompt.messages[2].tool_calls[0].name == "weather"
    assert stub.seen[-1].prompt.messages[3].tool_call_id == call.id


@pytest.mark.parametrize("parallel", [True, False])
def test_streamed_tool_calls(client: openai.OpenAI, parallel: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"look: \n{CALL}\n{CALL}"}],
            tools=[WEATHER],
            parallel_tool_calls=parallel,
            stream=True,
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas).strip() == "look:"
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.index for call in calls] == ([0, 1] if parallel else [0])
    assert {(call.function.name, call.function.arguments) for call in calls} == {("weather", '{"city": "Oslo"}')}
    assert len({call.id for call in calls}) == len(calls)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "text", ["<tool_call>no json</tool_call>", '<tool_call>{"name": "rm", "arguments": {}}', "a <to"]
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_no_call_is_text(client: openai.OpenAI, text: str, stream: bool) -> None:
    arguments = {"model": "demo", "messages": [{"role": "user", "content": text}], "tools": [WEATHER]}
    if stream:
        chunks = client.chat.completions.create(**arguments, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    else:
        choice = client.chat.completions.create(**arguments).choices[0]
        assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (text, None, "stop")


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "weather"}}, "stop")],
)
def test_forced_calls_are_bound_by_a_schema(choice: object, finish: str) -> None:
    stub = Stub(lambda request: '{"name": "weather", "arguments": {"city": "Oslo"}}')
    other = {"type": "function", "function": {"name": "other"}}
    with running(make_server({"m": stub})) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none")
        arguments = {"model": "m", "messages": HELLO, "tools": [WEATHER, other], "tool_choice": choice}
        reply = client.chat.completions.create(**arguments).choices[0]
        chunks = list(client.chat.completions.create(**arguments, stream=True))
    assert reply.finish_reason == chunks[-1].choices[0].finish_reason == finish
    assert reply.message.content is None and reply.message.tool_calls is not None
    assert json.loads(reply.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    assert sum(len(chunk.choices[0].delta.tool_calls or ()) for chunk in chunks) == 1
    grammar = stub.seen[-1].grammar
    assert grammar is not None and grammar.kind == "json_schema"
    schema = json.loads(grammar.text)
    kinds = schema.get("anyOf", [schema])
    assert [kind["properties"]["name"]["const"] for kind in kinds] == ["weather", "other"][
        : 2 if finish != "stop" else 1
    ]
    assert kinds[0]["properties"]["arguments"] == WEATHER["function"]["parameters"]


def test_tools_are_left_alone_where_none_may_be_called(client: openai.OpenAI, stub: Stub) -> None:
    messages = [{"role": "user", "content": CALL}]
    reply = client.chat.completions.create(model="demo", messages=messages, tools=[WEATHER], tool_choice="none")
    assert reply.choices[0].message.content == CALL
    assert len(stub.seen[-1].prompt.messages) == 1


class Answer(pydantic.BaseModel):
    number: int


def test_structured_output() -> None:
    stub = Stub(lambda request: '{"number": 4}')
    with running(make_server({"m": stub})) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none")
        parsed = client.chat.completions.parse(model="m", messages=HELLO, response_format=Answer)
        client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})
        client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "text"})
    assert parsed.choices[0].message.parsed == Answer(number=4)
    schema, plain, text = (request.grammar for request in stub.seen)
    assert schema is not None and json.loads(schema.text)["properties"]["number"]["type"] == "integer"
    assert plain is not None and json.loads(plain.text)["type"] == "object"
    assert text is None


def test_completions(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="demo", prompt=["a b", "c d e"], n=2, max_tokens=2)
    assert [choice.text for choice in reply.choices] == ["a b", "a b", "c d", "c d"]
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "stop", "length", "length"]
    assert reply.usage is not None and (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 8)
    chunks = list(client.completions.create(model="demo", prompt="a b", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "a b"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_embeddings(client: openai.OpenAI) -> None:
    """The client asks for base64 by itself, and reads it as float32."""
    reply = client.embeddings.create(model="demo", input=["a b c", "d"])
    assert [item.embedding for item in reply.data] == [[3.0, 0.5, -1.0], [1.0, 0.5, -1.0]]
    assert reply.usage.prompt_tokens == 4
    assert client.embeddings.create(model="demo", input=[5, 6], encoding_format="float").data[0].embedding[0] == 2.0
    assert len(client.embeddings.create(model="demo", input=[[5, 6], [7]]).data) == 2


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo-2026-11-20", "other", "demo", "latest"]
    assert client.models.retrieve("demo").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


def test_error_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-none", messages=HELLO)
    assert (missing.value.code, missing.value.param, missing.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert missing.value.request_id and missing.value.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "x " * 2000}])
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    assert "2000" in str(long.value) and "1000" in str(long.value)
    with pytest.raises(openai.APIError, match="failed while it answered") as broken:
        list(
            client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "to break"}], stream=True
            )
        )
    assert "secret" not in str(broken.value)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "to break"}])


def test_keys() -> None:
    from foretell.serve.gate import StaticGate

    with running(make_server({"m": Stub()}, gate=StaticGate("right"))) as live:
        url = f"{live.url}/v1"
        assert openai.OpenAI(base_url=url, api_key="right").models.list().data
        for key in ("wrong", "righ", "right2", "ключ"):
            with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
                openai.OpenAI(base_url=url, api_key=key).models.list()


def test_the_client_asks_again_when_the_server_is_crowded() -> None:
    stub = Stub()
    server = make_server({"m": stub})
    with running(server) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
        server.traffic.max_waiting = 0
        with pytest.raises(openai.InternalServerError) as crowded:
            client.chat.completions.create(model="m", messages=HELLO)
        assert (crowded.value.status_code, crowded.value.code) == (503, "server_overloaded")
        assert crowded.value.response.headers["retry-after"] == "1"
        tries: list[str] = []

        def asked(request: object) -> None:
            if tries:
                server.traffic.max_waiting = 5
            tries.append("")

        patient = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=2)
        patient._client.event_hooks["request"] = [asked]
        patient._calculate_retry_timeout = lambda *_, **__: 0.0
        assert patient.chat.completions.create(model="m", messages=HELLO).choices[0].message.content
    assert len(tries) == 2

"""A real engine with a small random model behind the server: the same answers as without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import torch
from servekit import PNG, Live, make_server, running

from foretell.chat import Conversation
from foretell.data.tokenizer import train_tokenizer
from foretell.engine.local import Engine
from foretell.generate import Request, Sampling, generate_sync, score_sync
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, TokenizerConfig, VisionConfig
from foretell.template import Template
from foretell.train.checkpoint import save_checkpoint

MESSAGES = [{"role": "user", "content": "the cat sat"}]


@pytest.fixture(scope="module")
def engine() -> Engine:
    words = "the cat sat on the mat and the dog saw it; how many? two. héllo naïve café " * 20
    tokenizer = train_tokenizer(iter([words]), TokenizerConfig(vocab_size=320), grid=1)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        image_token=tokenizer.special("<image>"),
        width=64,
        depth=2,
        max_length=2048,
        base_width=64,
        base_depth=2,
        init_std=0.25,
        zero_init_outputs=False,
        vision=VisionConfig(tile=32, patch=8, shuffle=2, width=64, depth=1, base_width=64, base_depth=1),
    )
    model = Multimodal(config, generator=torch.Generator().manual_seed(1))
    assert config.vision is not None
    return Engine(model, tokenizer, Template(tokenizer, config.vision.tiling))


@pytest.fixture(scope="module")
def live_engine(engine: Engine) -> Iterator[Live]:
    with running(make_server({"tiny": engine})) as live:
        yield live


@pytest.fixture(scope="module")
def asked(live_engine: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live_engine.url}/v1", api_key="none", max_retries=0)


def test_replies_are_the_engines(engine: Engine, asked: openai.OpenAI) -> None:
    sampling = Sampling(max_tokens=20, seed=5, logprobs=2)
    request = Request(Conversation.from_openai(MESSAGES), sampling, n=2)
    wanted = generate_sync(engine, [request])[0]
    fields = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "seed": 5, "n": 2, "logprobs": True}
    reply = asked.chat.completions.create(**fields, top_logprobs=2)
    texts = {0: "", 1: ""}
    for chunk in asked.chat.completions.create(**fields, top_logprobs=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    for choice, result in zip(reply.choices, wanted, strict=True):
        assert choice.message.content == texts[choice.index] == result.text
        assert choice.finish_reason == result.finish_reason
        assert choice.logprobs is not None and choice.logprobs.content is not None
        told = [token for token in result.logprobs if token.id not in engine.tokenizer.ends]
        assert [token.logprob for token in choice.logprobs.content] == pytest.approx([t.logprob for t in told])
        said = b"".join(bytes(token.bytes or b"") for token in choice.logprobs.content)
        assert said.decode("utf-8", "replace") == result.text
    assert reply.usage is not None and wanted[0].usage is not None
    assert reply.usage.prompt_tokens == wanted[0].usage.prompt_tokens
    assert reply.usage.completion_tokens == sum(result.usage.completion_tokens for result in wanted if result.usage)


def test_images_count_as_tokens(asked: openai.OpenAI) -> None:
    content = [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, {"type": "text", "text": "two"}]
    reply = asked.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}], max_tokens=3)
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.model_dump()["image_tokens"] == 4, "a tile of 32 / 8 / 2 squared"


def test_what_was_read_before_is_told(asked: openai.OpenAI) -> None:
    told = []
    for question in ("and the dog", "and the cat"):
        reply = asked.completions.create(model="tiny", prompt="the cat sat on the mat " * 30 + question, max_tokens=1)
        assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
        told.append(reply.usage.prompt_tokens_details.cached_tokens)
    assert told[0] == 0 and told[1] is not None and told[1] >= 64


def test_what_does_not_fit_names_both_numbers(engine: Engine, asked: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="2048") as refused:
        asked.completions.create(model="tiny", prompt=[5] * 3000, max_tokens=1)
    assert refused.value.param == "prompt" and "3000" in str(refused.value)
    with pytest.raises(openai.BadRequestError) as unknown:
        asked.completions.create(model="tiny", prompt=[999_999], max_tokens=1)
    assert unknown.value.param == "prompt"


def test_a_bias_for_what_is_no_token_is_laid_to_its_field(asked: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        asked.chat.completions.create(model="tiny", messages=MESSAGES, logit_bias={"99999": 5})
    assert refused.value.param == "logit_bias"


def test_bound_replies_follow_their_schema(asked: openai.OpenAI) -> None:
    """A random model writes noise; what binds it makes calls and objects of it."""
    parameters = {
        "type": "object",
        "properties": {"kind": {"$ref": "#/$defs/Kind"}},
        "required": ["kind"],
        "additionalProperties": False,
        "$defs": {"Kind": {"enum": ["a", "b"]}},
    }
    tool = {"type": "function", "function": {"name": "pick", "parameters": parameters}}
    other = {"type": "function", "function": {"name": "drop", "parameters": parameters}}
    for tools in ([tool], [tool, other]):
        reply = asked.chat.completions.create(
            model="tiny", messages=MESSAGES, tools=tools, tool_choice="required", max_tokens=400, seed=1
        ).choices[0]
        assert reply.finish_reason == "tool_calls" and reply.message.tool_calls is not None
        call = reply.message.tool_calls[0].function
        assert call.name in ("pick", "drop")
        assert json.loads(call.arguments)["kind"] in ("a", "b")
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": parameters}}
    found = asked.chat.completions.create(
        model="tiny", messages=MESSAGES, response_format=wanted, max_tokens=400, seed=1
    )
    assert json.loads(found.choices[0].message.content or "")["kind"] in ("a", "b")
    with pytest.raises(openai.BadRequestError) as refused:
        bad = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nonsense"}}}
        asked.chat.completions.create(model="tiny", messages=MESSAGES, response_format=bad)
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_grammar")


def test_echo_equals_score(engine: Engine, asked: openai.OpenAI) -> None:
    """As lm-eval asks: token ids, one token more, echo; the sum over the continuation is the engine's own score."""
    context, rest = "the cat", " sat on"
    ids = [*engine.tokenizer.prefix, *engine.tokenizer.encode(context)]
    tail = engine.tokenizer.encode_inside(rest)
    reply = asked.completions.create(
        model="tiny", prompt=[[*ids, *tail]], max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1234
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None and logprobs.top_logprobs is not None
    told = logprobs.token_logprobs[len(ids) : -1]
    assert len(told) == len(tail)
    assert sum(told) == pytest.approx(score_sync(engine, context, [rest])[0], abs=1e-4)
    for top, value in zip(logprobs.top_logprobs[1:], logprobs.token_logprobs[1:], strict=True):
        assert value in top.values() and max(top.values()) >= value
    assert reply.choices[0].text.startswith("the cat sat on")


def test_embeddings_are_the_engines(engine: Engine, asked: openai.OpenAI) -> None:
    import asyncio

    wanted = asyncio.run(engine.embed(["the cat", "two"]))
    found = asked.embeddings.create(model="tiny", input=["the cat", "two"])
    for item, vector in zip(found.data, wanted, strict=True):
        assert item.embedding == pytest.approx(vector, abs=1e-6)


def start(*arguments: str, hide_torch: bool = False) -> tuple[subprocess.Popen[str], str]:
    """`foretell serve` in a process of its own, and the URL that it prints."""
    hidden = "sys.modules['torch'] = None; " if hide_torch else ""
    code = f"import sys; {hidden}from foretell.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FORETELL_API_KEY": "secret-key"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, [word for word in line.split() if word.startswith("http")][-1].removesuffix("/v1;")


def end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(60)
    finally:
        process.kill()


def test_one_command_serves_a_run(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "counting" / "pretrain" / "checkpoint"
    engine.tokenizer.save(tmp_path)
    files = {name: tmp_path / name for name in ("tokenizer.json", "tokenizer_config.json")}
    save_checkpoint(folder, engine.model, None, files)
    process, url = start(str(tmp_path / "counting"), "--alias", "latest=counting")
    try:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret-key", max_retries=0, timeout=120) as client:
            assert [model.id for model in client.models.list()] == ["counting", "latest"]
            reply = client.completions.create(model="latest", prompt="1 2 3", max_tokens=4, temperature=0)
            assert reply.choices[0].text and reply.model == "counting"
        assert httpx.get(f"{url}/v1/models").status_code == 401
    finally:
        assert end(process) == 0


@pytest.mark.parametrize("again", [False, True], ids=["after the limit", "at a second signal"])
def test_an_answer_that_is_cut_off_ends_with_an_error(engine: Engine, tmp_path: Path, again: bool) -> None:
    folder = tmp_path / "counting"
    engine.tokenizer.save(tmp_path)
    files = {name: tmp_path / name for name in ("tokenizer.json", "tokenizer_config.json")}
    save_checkpoint(folder, engine.model, None, files)
    process, url = start(str(folder), "--drain-seconds", "60" if again else "0")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="secret-key", max_retries=0, timeout=120) as client:
        stream = client.completions.create(model="counting", prompt="1 2 3", max_tokens=1900, stream=True, seed=1)
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        if again:
            while httpx.get(f"{url}/ready").status_code != 503:
                pass
            process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="closed before"):
            for _ in stream:
                pass
    assert end(process) == 0


def test_upstream_needs_no_torch() -> None:
    import mock_endpoint as mock

    with mock.serve_in_thread() as behind:
        process, url = start("--upstream", behind.url, "--alias", "small=mock", hide_torch=True)
        try:
            headers = {"authorization": "Bearer secret-key"}
            body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
            found = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).json()
            assert found["choices"][0]["message"]["content"] == "hello"
        finally:
            assert end(process) == 0
    (call,) = [call for call in behind.calls if call.method == "POST"]
    assert json.loads(call.body)["model"] == "mock"

"""Cached, batched generation against the plain uncached forward pass."""

import asyncio
import itertools
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from foretell.chat import Conversation
from foretell.data.tokenizer import Tokenizer
from foretell.engine.local import Engine
from foretell.errors import ConversationError, ForetellError, GenerationError
from foretell.generate import Request, Sampling, collect, generate_sync, score_many_sync, score_sync
from foretell.jinja import JinjaTemplate
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig
from foretell.template import Encoded, Template
from tokenizer_families import write_tokenizer

GREEDY = Sampling(max_tokens=24, temperature=0)


def png(color: str, size: tuple[int, int] = (40, 30)) -> bytes:
    image = Image.new("RGB", size, color)
    image.putpixel((3, 4), (255, 255, 255))
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def user(*parts: object) -> Conversation:
    return Conversation.from_openai([{"role": "user", "content": list(parts)}])


def prompts() -> list[Conversation]:
    return [
        user("the cat"),
        user("how many? ", png("red"), " and ", png("blue", (90, 20))),
        user("sat on the mat and the dog saw it; how many? héllo"),
        user(png("green")),
        user("two."),
        Conversation.from_openai([{"role": "system", "content": "naïve café"}, {"role": "user", "content": "dog"}]),
    ]


@torch.inference_mode()
def uncached_logits(engine: Engine, prompt: Encoded, reply: list[int]) -> torch.Tensor:
    """(len(reply) + 1, V): from the whole sequence at once, without a cache."""
    tokens = torch.tensor([[*prompt.ids.tolist(), *reply]])
    tiles = torch.from_numpy(prompt.tiles) if len(prompt.tiles) else None
    logits = engine.model.logits(engine.model.hidden(tokens, None, None, tiles))
    return logits[0, len(prompt.ids) - 1 :]


@pytest.mark.parametrize("which", range(6))
def test_greedy_equals_the_uncached_argmax_token_by_token(engine, which):
    request = Request(prompts()[which], GREEDY)
    result = generate_sync(engine, [request])[0][0]
    prompt = engine.template.encode(request.prompt, add_generation_prompt=True)
    logits = uncached_logits(engine, prompt, list(result.token_ids))[:-1]
    allowed = torch.from_numpy(engine.tokenizer.token_bytes > 0)
    allowed[[engine.tokenizer.special("<|im_end|>"), engine.tokenizer.special("<|endoftext|>")]] = True
    assert logits.masked_fill(~allowed, -torch.inf).argmax(-1).tolist() == list(result.token_ids)
    assert result.usage.prompt_tokens == len(prompt.ids)
    assert result.usage.completion_tokens == len(result.token_ids)
    assert result.usage.image_tokens == len(prompt.tiles) * 4
    assert len(set(result.token_ids)) > 3  # a constant reply would prove nothing


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=24, seed=5, top_p=0.9)])
def test_ragged_batches_equal_one_by_one(engine, sampling, samples):
    limits = [24, 3, 17, 9, 1, 20]
    requests = [
        Request(prompt, Sampling(**{**vars(sampling), "max_tokens": limit}), n=1 + i % samples)
        for i, (prompt, limit) in enumerate(zip(prompts(), limits, strict=True))
    ]
    together = generate_sync(engine, requests)
    for request, results in zip(requests, together, strict=True):
        alone = generate_sync(engine, [request])[0]
        assert [r.token_ids for r in results] == [r.token_ids for r in alone]
        assert [r.text for r in results] == [r.text for r in alone]


def test_a_seed_gives_the_same_text_whatever_n_is_and_samples_differ(engine):
    sampling = Sampling(max_tokens=12, temperature=3.0, seed=7)
    five = generate_sync(engine, [Request(prompts()[0], sampling, n=5)])[0]
    one = generate_sync(engine, [Request(prompts()[0], sampling)])[0]
    assert five[0].token_ids == one[0].token_ids
    assert len({r.token_ids for r in five}) == 5
    assert [r.sample for r in five] == [0, 1, 2, 3, 4]
    fresh = generate_sync(engine, [Request(prompts()[0], Sampling(max_tokens=12, temperature=3.0), n=2)])[0]
    assert fresh[0].token_ids != fresh[1].token_ids


def test_logprobs_are_those_of_the_model(engine):
    plain = Request(prompts()[4], Sampling(max_tokens=6, seed=3))
    told = Request(prompts()[1], Sampling(max_tokens=6, seed=3, temperature=2.0, top_k=9, logprobs=3))
    results = [r[0] for r in generate_sync(engine, [plain, told])]
    assert results[0].logprobs == ()
    result = results[1]
    prompt = engine.template.encode(told.prompt, add_generation_prompt=True)
    logs = uncached_logits(engine, prompt, list(result.token_ids)).log_softmax(-1)
    assert tuple(entry.id for entry in result.logprobs) == result.token_ids
    for row, entry in zip(logs, result.logprobs, strict=False):
        assert entry.logprob == pytest.approx(row[entry.id].item(), abs=1e-4)
        assert [value for _, value in entry.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
        assert entry.token == engine.tokenizer.decode([entry.id], skip_special=False)


@pytest.mark.parametrize("which", [0, 1])
def test_score_equals_the_uncached_log_probability(engine, which):
    texts = ["two.", "", "the cat sat on the mat", "é", "x" * 40, " and "]  # more than one batch, ragged
    prompt = engine.template.encode(prompts()[which], add_generation_prompt=True)
    for given in (prompts()[which], prompt):
        scores = score_sync(engine, given, texts)
        for text, score in zip(texts, scores, strict=True):
            ids = engine.tokenizer.encode(text)
            logs = uncached_logits(engine, prompt, ids)[:-1].double().log_softmax(-1)
            assert score == pytest.approx(logs[torch.arange(len(ids)), ids].sum().item(), abs=2e-4)
    assert score_sync(engine, prompt, []) == []


def test_many_prompts_score_together_as_each_alone(engine):
    texts = [["two.", "é"], ["x"], [], ["", "the cat sat"], ["a", "b", "c"] * 30, ["one", "other"]]
    asked = [*zip(prompts()[: len(texts)], texts, strict=False), (engine.encode_text("Q: who?"), [" me", " you there"])]
    alone = [score_sync(engine, prompt, ends) for prompt, ends in asked]
    together = score_many_sync(engine, asked)
    assert [len(scores) for scores in together] == [len(ends) for _, ends in asked]
    assert together == alone
    assert score_many_sync(engine, []) == []
    full = Encoded(np.full(engine.model.config.max_length - 1, 9, np.int32), np.zeros(0, bool), asked[-1][0].tiles)
    asked = [(full, ["x"]), (engine.encode_text("Q"), ["the dog saw it " * 3])]  # together they would not fit
    for scores, pair in zip(score_many_sync(engine, asked), asked, strict=True):
        assert scores == pytest.approx(score_sync(engine, *pair), abs=2e-4)


def test_deltas_join_to_the_result_and_carry_its_tokens(engine):
    async def run():
        requests = [Request(p, Sampling(max_tokens=30, seed=1, logprobs=1)) for p in prompts()]
        return [r async for r in engine.generate(requests)]

    results = asyncio.run(run())
    finished = [r for r in results if not r.delta]
    assert sorted(r.request for r in finished) == list(range(6))
    for result in finished:
        deltas = [r for r in results if r.delta and r.request == result.request]
        assert "".join(d.text for d in deltas) == result.text
        assert all(d.text and d.finish_reason is None for d in deltas)
        ids = sum((d.token_ids for d in deltas), ())
        assert result.token_ids[: len(ids)] == ids
        assert results.index(result) > max(map(results.index, deltas), default=-1)


def test_only_text_and_end_tokens_are_drawn(engine):
    results = generate_sync(engine, [Request(prompts()[0], Sampling(max_tokens=60, temperature=50.0, seed=0), n=12)])
    drawn = {i for r in results[0] for i in r.token_ids}
    ends = {engine.tokenizer.special("<|im_end|>"), engine.tokenizer.special("<|endoftext|>")}
    assert len(drawn) > 150
    assert all(engine.tokenizer.token_bytes[i] > 0 for i in drawn - ends)


def test_a_stop_string_cuts_the_text(engine):
    free = generate_sync(engine, [Request(prompts()[2], GREEDY)])[0][0]
    at = next(i for i in range(3, len(free.text) - 2) if "\ufffd" not in free.text[i : i + 2])
    stop = free.text[at : at + 2]
    cut = generate_sync(engine, [Request(prompts()[2], Sampling(max_tokens=24, temperature=0, stop=("zzz", stop)))])
    assert cut[0][0].text == free.text[: free.text.index(stop)]
    assert cut[0][0].finish_reason == "stop"
    assert free.token_ids[: len(cut[0][0].token_ids)] == cut[0][0].token_ids


def test_max_tokens_is_cut_to_the_room_left(engine):
    prompt = engine.encode_text("the cat sat on the mat " * 60)
    full = Encoded(prompt.ids[:125], prompt.loss[:125], prompt.tiles)
    result = generate_sync(engine, [Request(full, Sampling(max_tokens=99, temperature=0))])[0][0]
    assert len(result.token_ids) == 3
    assert result.finish_reason == "length"
    last = Encoded(prompt.ids[:127], prompt.loss[:127], prompt.tiles)
    assert len(generate_sync(engine, [Request(last, GREEDY)])[0][0].token_ids) == 1


def test_impossible_requests_say_why(engine, make_model, tokenizer):
    long = engine.encode_text("x" * 500)
    short = engine.encode_text("x")
    cases = [
        (Request(long), rf"{len(long.ids)} tokens long.*at most 128"),
        (Request(engine.encode_text("")), "empty"),
        (Request(short, n=0), "n is 0"),
        (Request(short, adapter="a"), "No adapter 'a'"),
        (Request(Encoded(np.array([999], np.int32), np.zeros(1, bool), short.tiles)), "own tokenizer"),
        (Request(Encoded(short.ids, short.loss, np.zeros((1, 32, 32, 3), np.uint8))), "0 image slots"),
        (Request(Encoded(np.array([4], np.int32), np.zeros(1, bool), short.tiles)), "1 image slots"),
    ]
    for request, message in cases:
        with pytest.raises(GenerationError, match=message):
            generate_sync(engine, [Request(short, GREEDY), request])
    with pytest.raises(GenerationError, match="exceed the 128"):
        score_sync(engine, short, ["x" * 200])
    blind = Engine(make_model(False), tokenizer, Template(tokenizer, None))
    with pytest.raises(ConversationError, match="text only"):
        generate_sync(blind, [Request(prompts()[3])])
    with pytest.raises(GenerationError, match="text only"):
        generate_sync(blind, [Request(engine.template.encode(prompts()[3]))])
    assert len(generate_sync(blind, [Request(prompts()[0], GREEDY)])[0][0].token_ids) > 0


def test_a_diverged_model_is_told(make_model, tokenizer):
    model = make_model(False)
    with torch.no_grad():
        model.decoder.norm.fill_(float("nan"))
    with pytest.raises(ForetellError, match="not finite"):
        generate_sync(Engine(model, tokenizer, Template(tokenizer, None)), [Request(prompts()[0])])


def chain(tokenizer, following: dict[int, int], max_length: int = 128) -> Multimodal:
    """A model whose next token is a function of the last one: its blocks add nothing, its head is a table."""
    size = tokenizer.vocab_size
    width = -(-size // 32) * 32
    config = ModelConfig(
        vocab_size=size, width=width, depth=1, kv_heads=1, max_length=max_length, tie_embeddings=False, base_width=width
    )
    model = Multimodal(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.decoder.norm.fill_(1)
        model.decoder.embedding.copy_(torch.eye(size, width))
        for last, token in following.items():
            model.decoder.head[token, last] = 100 / width**0.5
    return model


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_end_tokens_end_a_reply_and_are_not_text(tokenizer, end):
    symbol = tokenizer.encode("€")  # three bytes, one token each
    assert len(symbol) == 3
    ids = [*tokenizer.encode("Z"), *symbol, *tokenizer.encode("W"), tokenizer.special(end)]
    engine = Engine(chain(tokenizer, dict(itertools.pairwise(ids))), tokenizer, None)

    async def run():
        return [r async for r in engine.generate([Request(engine.encode_text("Z"), GREEDY)])]

    *deltas, result = asyncio.run(run())
    assert [d.text for d in deltas] == ["€", "W"]
    assert [len(d.token_ids) for d in deltas] == [3, 1]
    assert (result.text, result.finish_reason) == ("€W", "stop")
    assert result.token_ids[-1] == tokenizer.special(end)


@pytest.fixture
def mistral(tmp_path):
    """An engine with a tokenizer that puts a space before text; it always says " Paris 42" and the end token."""
    tokenizer = Tokenizer.load(write_tokenizer(tmp_path, "mistral"))
    opening, end = tokenizer.special("[/INST]"), tokenizer.special("</s>")
    ids = [opening, *tokenizer.encode("Paris"), *tokenizer.encode_inside(" 42"), end]
    model = chain(tokenizer, dict(itertools.pairwise(ids)))
    template = JinjaTemplate("{{ bos_token + '[INST]' + messages[0].content + '[/INST]' }}", tokenizer, None, {
        "bos_token": "<s>"})  # fmt: skip
    return Engine(model, tokenizer, template)


def test_replies_lose_the_space_that_the_tokenizer_writes_and_completions_keep_it(mistral):
    async def run(prompt):
        *deltas, result = [r async for r in mistral.generate([Request(prompt, GREEDY)])]
        assert "".join(delta.text for delta in deltas) == result.text
        return result.text

    reply = asyncio.run(run(user("where?")))
    assert reply == "Paris 42"
    prompt = mistral.encode_chat(user("where?"))
    assert asyncio.run(run(prompt)) == " Paris 42"
    assert prompt.ids[0] == mistral.encode_text("x").ids[0] == mistral.tokenizer.special("<s>")


def test_a_continuation_is_scored_as_a_reply_or_as_text_that_goes_on(mistral):
    """The chain gives what it always says a log-probability near 0, and anything else nearly none."""
    prompt = mistral.encode_chat(user("where?"))
    assert score_sync(mistral, user("where?"), ["Paris 42", " Paris"])[0] > -1e-3
    assert score_sync(mistral, user("where?"), ["Lyon"])[0] < -1
    assert score_sync(mistral, prompt, [" Paris 42"])[0] > -1e-3
    assert score_sync(mistral, prompt, ["Paris 42"])[0] < -1


def test_plain_text_is_a_prompt_to_be_continued(engine):
    text, encoded = ([Request(prompt, GREEDY)] for prompt in ("the cat", engine.encode_text("the cat")))
    assert generate_sync(engine, text) == generate_sync(engine, encoded)
    assert score_sync(engine, "the cat", [" sat"]) == score_sync(engine, engine.encode_text("the cat"), [" sat"])


def test_a_model_without_a_template_completes_and_says_why_it_does_not_chat(make_model, tokenizer):
    engine = Engine(make_model(False), tokenizer, None)
    assert generate_sync(engine, [Request(engine.encode_text("the cat"), GREEDY)])[0][0].token_ids
    with pytest.raises(GenerationError, match=r"no chat template.*`complete`"):
        generate_sync(engine, [Request(user("the cat"))])


def test_a_caller_that_leaves_stops_the_work(tokenizer):
    a, b = tokenizer.encode("Z")[0], tokenizer.encode("W")[0]
    engine = Engine(chain(tokenizer, {a: b, b: a}), tokenizer, None)

    async def run():
        results = engine.generate([Request(engine.encode_text("Z"), Sampling(max_tokens=120, temperature=0))] * 64)
        async for _ in results:
            break
        await results.aclose()
        await engine.score(engine.encode_text("Z"), ["W"])  # takes a step, so the first call's replies are gone
        return engine.stats()

    stats = asyncio.run(run())
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.generated_tokens < 64 * 120 / 2
    assert len(generate_sync(engine, [Request(engine.encode_text("Z"), GREEDY)])[0][0].token_ids) == 24


def test_concurrent_callers_are_all_answered(engine):
    requests = [[Request(p, GREEDY)] for p in prompts()]

    async def run():
        return await asyncio.gather(*(collect(engine, r) for r in requests))

    together = asyncio.run(run())
    assert [r[0][0].token_ids for r in together] == [generate_sync(engine, r)[0][0].token_ids for r in requests]


def test_sync_calls_work_inside_a_running_loop(engine):
    async def notebook():
        return generate_sync(engine, [Request(prompts()[0], GREEDY)])[0][0].text

    assert asyncio.run(notebook()) == generate_sync(engine, [Request(prompts()[0], GREEDY)])[0][0].text

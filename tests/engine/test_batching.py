"""Whatever else is computed, in whatever pieces, with or without what is known already: the same bits."""

import asyncio
import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_local import png, user

from foretell.engine.cache import BLOCK, Cache
from foretell.engine.local import Engine
from foretell.errors import ContextLengthError, GenerationError, GrammarError, MissingExtraError, OverloadedError
from foretell.generate import Grammar, Request, Sampling, collect, generate_sync, run_sync
from foretell.recipe import ModelConfig
from foretell.template import Template

LONG = "the cat sat on the mat and the dog saw it; how many? two. héllo naïve café " * 2
REQUESTS = [
    Request(user("the cat"), Sampling(max_tokens=20, seed=1, logprobs=2)),
    Request(LONG, Sampling(max_tokens=25, seed=2, top_p=0.9, frequency_penalty=0.5, logprobs=1)),
    Request(LONG + " dog", Sampling(max_tokens=12, temperature=0, logprobs=3)),
    Request(user("how many? ", png("red"), " and ", png("blue", (90, 20))), Sampling(max_tokens=9, seed=3, logprobs=1)),
    Request(LONG[:60], Sampling(max_tokens=30, seed=4, min_p=0.05, presence_penalty=1.0), n=3),
    Request("x", Sampling(max_tokens=40, seed=5, temperature=2.0, top_k=20, logit_bias={70: -100, 71: 2})),
    Request("two", Sampling(max_tokens=15, seed=6), grammar=Grammar("regex", "[a-c]{3,20}(!|[?])")),
]


def make(make_model, tokenizer, **options) -> Engine:
    model = make_model(True)
    return Engine(model, tokenizer, Template(tokenizer, model.config.vision.tiling), **options)


@pytest.fixture(scope="module")
def alone(make_model, tokenizer):
    found = []
    for request in REQUESTS:
        engine = make(make_model, tokenizer)
        found.append(generate_sync(engine, [request])[0])
        engine.close()
    return found


@settings(max_examples=12)
@given(data=st.data())
def test_a_seeded_request_gives_the_same_tokens_and_log_probabilities_in_any_company(
    alone, make_model, tokenizer, data
):
    order = data.draw(st.permutations(range(len(REQUESTS))))
    waves = data.draw(st.integers(1, 3))
    engine = make(
        make_model,
        tokenizer,
        max_batch=data.draw(st.integers(1, 9)),
        step_tokens=data.draw(st.sampled_from([1, 3, 17, 64, 256])),
        cache_tokens=data.draw(st.sampled_from([128, 192, 1024])),
    )

    async def run():
        found = {}
        for wave in range(waves):
            some = order[wave::waves]
            together = await asyncio.gather(*(collect(engine, [REQUESTS[i]]) for i in some))
            found |= {i: results[0] for i, results in zip(some, together, strict=True)}
        return found

    found = asyncio.run(run())
    for i, expected in enumerate(alone):
        assert found[i] == expected
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.cache_used) == (0, 0, 0)
    engine.close()


def test_a_full_cache_makes_the_youngest_start_again_and_a_known_beginning_is_not_read_again(
    alone, make_model, tokenizer
):
    tight = make(make_model, tokenizer, cache_tokens=128, max_batch=8)
    found = generate_sync(tight, REQUESTS[1:3] * 2)
    assert [replace(r[0], request=0) for r in found] == [alone[1][0], alone[2][0]] * 2
    assert tight.stats().preemptions > 0
    roomy = make(make_model, tokenizer)
    request = REQUESTS[1]
    for salt, cached in (("", 0), ("", BLOCK), ("other", BLOCK), ("other", 2 * BLOCK)):
        again = Request(request.prompt, request.sampling, salt=salt)
        before = roomy.stats().cached_tokens
        assert (found := generate_sync(roomy, [again])[0]) == alone[1]
        assert roomy.stats().cached_tokens == cached == before + found[0].usage.cached_tokens
    images = [
        Request(user(png(color), "the cat sat on the mat " * 2), REQUESTS[0].sampling) for color in ("red", "blue")
    ]
    first, second = (generate_sync(roomy, [request])[0][0] for request in images)
    assert first.token_ids != second.token_ids  # the same ids, other pixels
    assert roomy.stats().cached_tokens == 2 * BLOCK


def test_a_reply_that_repeats_itself_is_guessed_and_comes_out_the_same(make_model, tokenizer):
    few = {token: 60.0 for token in tokenizer.encode("the cat")[:2]}  # a random model would not repeat itself
    sampling = Sampling(max_tokens=60, seed=3, logprobs=2, logit_bias=few)
    prompts = [f"the cat sat on the mat and {word}" for word in ("the dog", "the cat", "two", "how many?", "it")]
    engine = make(make_model, tokenizer)
    alone = [generate_sync(engine, [Request(prompt, sampling)])[0][0] for prompt in prompts]
    stats = engine.stats()
    assert 20 < stats.guessed_tokens < stats.generated_tokens == 60 * len(prompts)
    slow = make(make_model, tokenizer)
    slow._scheduler._guess = lambda plan: None
    found = [generate_sync(slow, [Request(prompt, sampling)])[0][0] for prompt in prompts]
    assert found == alone and slow.stats().guessed_tokens == 0
    for prompt, reply in zip(prompts, alone, strict=True):  # what the cache holds behind a guess is as good
        again = generate_sync(engine, [Request(prompt + reply.text, sampling)])[0][0]
        assert again == generate_sync(slow, [Request(prompt + reply.text, sampling)])[0][0]


def test_samples_share_the_reading_of_their_prompt(make_model, tokenizer):
    engine = make(make_model, tokenizer)
    generate_sync(engine, [Request("the cat sat", Sampling(max_tokens=3, seed=0), n=6)])
    assert engine.stats().prompt_tokens == len(engine.encode_text("the cat sat").ids)
    assert engine.stats().generated_tokens <= 18


@torch.inference_mode()
def test_prompt_log_probabilities_are_those_of_the_training_forward(engine):
    for prompt in (user("how many? ", png("red"), " and the cat sat"), LONG):
        encoded = engine.encode(prompt)
        tiles = torch.from_numpy(encoded.tiles) if len(encoded.tiles) else None
        ids = torch.from_numpy(encoded.ids).long()
        logs = engine.model(ids[None], tiles=tiles)[0].log_softmax(-1)
        found = run_sync(engine.prompt_logprobs(prompt, top=2))
        assert [log.id for log in found] == ids.tolist()
        assert math.isnan(found[0].logprob)
        assert [log.logprob for log in found[1:]] == pytest.approx(
            logs[:-1].gather(1, ids[1:, None])[:, 0].tolist(), abs=1e-4
        )
        assert [log.top[0][1] for log in found[1:]] == pytest.approx(logs[:-1].amax(-1).tolist(), abs=1e-4)


@torch.inference_mode()
def test_embeddings_are_mean_final_states_of_length_one(engine):
    prompts = ["the cat", LONG]
    for prompt, found in zip(prompts, run_sync(engine.embed(prompts)), strict=True):
        states = engine.model.hidden(torch.from_numpy(engine.encode(prompt).ids).long()[None])[0].double().mean(0)
        assert found == pytest.approx((states / states.norm()).tolist(), abs=1e-5)


def test_too_many_waiting_are_refused_at_once_and_a_closed_engine_says_so(make_model, tokenizer):
    engine = make(make_model, tokenizer, max_batch=1, max_waiting=2)

    async def run():
        long = [Request("x", Sampling(max_tokens=100, seed=0, logit_bias={i: -100 for i in tokenizer.ends}))] * 5
        first = engine.generate(long)
        await anext(first)
        with pytest.raises(OverloadedError, match="4 replies wait"):
            await collect(engine, long[:1])
        await first.aclose()
        await engine.score("x", ["y"])

    asyncio.run(run())
    engine.close()
    with pytest.raises(GenerationError, match="closed"):
        generate_sync(engine, REQUESTS[:1])


def test_prompts_that_do_not_fit_tell_both_lengths(engine):
    with pytest.raises(ContextLengthError) as caught:
        engine.encode("x" * 500)
    assert (caught.value.found, caught.value.limit) == (len(engine.encode_text("x" * 500).ids), 128)


def test_penalties_and_biases_change_what_is_drawn(engine):
    free = generate_sync(engine, [Request("the cat", Sampling(max_tokens=30, temperature=0))])[0][0].token_ids
    for change in ({"logit_bias": {free[0]: -100}}, {"logit_bias": {free[0]: -50}}):
        assert free[0] not in generate_sync(engine, [Request("the cat", Sampling(30, 0, **change))])[0][0].token_ids[:1]
    forced = generate_sync(engine, [Request("the cat", Sampling(5, 0, logit_bias={70: 100}))])[0][0]
    assert forced.token_ids == (70,) * 5
    varied = generate_sync(
        engine, [Request("the cat", Sampling(20, 0, logit_bias={70: 50, 71: 49.5}, presence_penalty=2))]
    )
    assert set(varied[0][0].token_ids[:2]) == {70, 71}
    with pytest.raises(GenerationError, match="logit_bias names tokens outside 0 to"):
        generate_sync(engine, [Request("x", Sampling(logit_bias={10**6: 1}))])


def test_training_between_calls_is_seen(make_model, tokenizer):
    engine = make(make_model, tokenizer)
    before = generate_sync(engine, REQUESTS[1:2])[0][0]
    with torch.no_grad():
        for block in engine.model.decoder.blocks:
            block.down.mul_(-1)
    after = generate_sync(engine, REQUESTS[1:2])[0][0]
    assert after.logprobs[0] != before.logprobs[0]
    fresh = Engine(engine.model, tokenizer, engine.template)
    assert generate_sync(fresh, REQUESTS[1:2])[0][0] == after


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["cat", "dog"]}, "many": {"type": "boolean"}},
    "required": ["name", "many"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
def test_a_random_model_bound_to_a_schema_writes_what_fits(engine, seed):
    schema = Grammar("json_schema", json.dumps(SCHEMA))
    lark = Grammar("lark", 'start: "a" ("b" | "c")+ "d"')
    sampling = Sampling(max_tokens=100, temperature=1.5, seed=seed)
    free, found, word = generate_sync(
        engine, [Request("x", sampling), Request("x", sampling, grammar=schema), Request("x", sampling, grammar=lark)]
    )
    value = json.loads(found[0].text)
    assert value["name"] in ("cat", "dog")
    assert isinstance(value["many"], bool)
    assert found[0].finish_reason == "stop"
    assert free[0].text != found[0].text
    assert set(word[0].text) <= set("abcd") and word[0].text[0] == "a"


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (Grammar("json_schema", "{"), "is not JSON"),
        (Grammar("json_schema", "[]"), "expected an object"),
        (Grammar("json_schema", '{"type": "nothing"}'), "cannot be used"),
        (Grammar("json_schema", '{"not":' * 100 + "{}" + "}" * 100), "levels deep"),
        (Grammar("json_schema", '{"x":' * 20_000 + "1" + "}" * 20_000), "characters"),
        (Grammar("json_schema", "[" * 30_000 + "]" * 30_000), "JSON schema"),
        (Grammar("regex", "(("), "regular expression cannot be used"),
        (
            Grammar("regex", "((a{1000}){1000}){1000}"),
            "regular expression (cannot be used: lexer error|takes more than)",
        ),
        (Grammar("lark", "start: nothing"), "Lark grammar cannot be used"),
        (Grammar("regex", "x" * 200_000), "200000 characters"),
    ],
)
def test_damaged_and_huge_grammars_are_refused(engine, grammar, message):
    with pytest.raises(GrammarError, match=message):
        generate_sync(engine, [Request("x", grammar=grammar)])


def test_a_reply_that_no_token_may_go_on_ends(engine):
    result = generate_sync(engine, [Request("x", Sampling(9, logit_bias={i: -100 for i in range(320)}))])[0][0]
    assert (result.text, result.token_ids, result.finish_reason) == ("", (), "stop")


def test_blocks_are_given_shared_known_and_forgotten():
    config = ModelConfig(vocab_size=64, width=32, depth=1, kv_heads=1, max_length=64)
    cache = Cache(config, 4 * BLOCK, torch.float32, torch.device("cpu"))
    first = cache.take(3)
    for block, name in zip(first, (b"a", b"b", b"c"), strict=True):
        cache.learn(block, name)
    assert cache.find([b"a", b"b", b"x", b"c"]) == first[:2]
    cache.share(first[:1])
    cache.release(first)
    assert cache.room == 3
    assert cache.find([b"a", b"b", b"c"]) == first
    cache.take(2)  # the free one, then the end of what was released
    assert cache.find([b"a", b"b", b"c"]) == first[:2]
    cache.take(1)
    assert cache.room == 0
    assert cache.find([b"a", b"b"]) == first[:1]
    cache.scrub(first[:1])
    assert cache.find([b"a"]) == []


def test_a_long_prompt_holds_up_nobody(make_model, tokenizer):
    engine = make(make_model, tokenizer, step_tokens=2)
    free = Sampling(max_tokens=60, seed=0, logit_bias=dict.fromkeys(tokenizer.ends, -100))

    async def run():
        return [result async for result in engine.generate([Request("x", free), Request(LONG, free)])]

    order = [result.request for result in asyncio.run(run())]
    assert order.index(1) > 10  # pieces of the first reply come while the other's prompt is read


def test_a_grammar_without_llguidance_names_the_extra(make_model, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    engine = make(make_model, tokenizer)
    assert generate_sync(engine, REQUESTS[:1])[0][0].token_ids
    with pytest.raises(MissingExtraError, match=r"foretell\[serve\]"):
        generate_sync(engine, REQUESTS[-1:])

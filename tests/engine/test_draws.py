"""Draws counted together, against exact chances and against one reply at a time."""

from collections import Counter

import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from foretell.engine.draws import count_draws
from foretell.engine.local import Engine
from foretell.engine.sampler import weigh
from foretell.errors import GenerationError
from foretell.generate import Request, Sampling, generate_sync

PROMPT = "the cat sat on"


def drawn(engine, draws, sampling):
    prompt = engine.encode_text(PROMPT)
    return count_draws(engine._runner, prompt, draws, sampling, engine.tokenizer.ends, engine._allowed)


@torch.inference_mode()
def exact(engine, sampling):
    """The chance of each reply, from the whole sequence at once and without a cache."""
    prompt, chances, open_ = engine.encode_text(PROMPT), {}, {(): 1.0}
    while open_:
        grown = {}
        for ids, chance in open_.items():
            tokens = torch.tensor([[*prompt.ids.tolist(), *ids]])
            logits = engine.model.logits(engine.model.hidden(tokens, None, None, None))[:, -1]
            weights = weigh(logits, [sampling], engine._allowed)[0].double()
            for token in weights.nonzero()[:, 0].tolist():
                grown[*ids, token] = chance * float(weights[token] / weights.sum())
        ended = {k: v for k, v in grown.items() if k[-1] in engine.tokenizer.ends or len(k) == sampling.max_tokens}
        chances |= ended
        open_ = {k: v for k, v in grown.items() if k not in ended}
    return chances


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=4, top_k=3, seed=1),
        Sampling(max_tokens=3, top_k=4, temperature=2.0, seed=2),
        Sampling(max_tokens=4, top_p=0.2, seed=3),
    ],
)
def test_replies_come_up_as_often_as_their_chances_say(engine, sampling):
    chances, found = exact(engine, sampling), drawn(engine, 20_000, sampling)
    assert sum(found.values()) == 20_000
    assert found.keys() <= chances.keys()
    common = [ids for ids, chance in chances.items() if chance > 5e-4]
    assert len(common) > 5
    expected = [20_000 * chances[ids] for ids in common]
    rest = 20_000 - sum(expected), 20_000 - sum(found[ids] for ids in common)
    if rest[0] > 5:
        assert chisquare([*(found[i] for i in common), rest[1]], [*expected, rest[0]]).pvalue > 1e-3
    else:
        scale = sum(found[i] for i in common) / sum(expected)
        assert chisquare([found[i] for i in common], [e * scale for e in expected]).pvalue > 1e-3


def test_they_are_distributed_as_replies_drawn_one_by_one(engine):
    engine = Engine(engine.model, engine.tokenizer, None, max_batch=128)
    sampling = Sampling(max_tokens=6, top_k=2, seed=4)
    slow = generate_sync(engine, [Request(engine.encode_text(PROMPT), sampling, n=1500)])[0]
    one_by_one = Counter(result.token_ids for result in slow)
    together = drawn(engine, 1500, sampling)
    both = sorted(ids for ids in one_by_one | together if one_by_one[ids] + together[ids] >= 10)
    assert len(both) > 5
    assert chi2_contingency([[counts[ids] for ids in both] for counts in (one_by_one, together)]).pvalue > 1e-3


def test_ends_limits_and_seeds(engine):
    sampling = Sampling(max_tokens=12, temperature=3.0, seed=5)
    found = drawn(engine, 3000, sampling)
    assert found == drawn(engine, 3000, sampling) != drawn(engine, 3000, Sampling(max_tokens=12, temperature=3.0))
    ended = [ids for ids in found if ids[-1] in engine.tokenizer.ends]
    assert ended
    assert all(len(ids) == 12 for ids in found if ids not in ended)
    assert not any(set(ids[:-1]) & engine.tokenizer.ends for ids in found)


def test_greedy_draws_agree_with_generate(engine):
    sampling = Sampling(max_tokens=10, temperature=0)
    prompt = engine.encode_text(PROMPT)
    reply = generate_sync(engine, [Request(prompt, sampling)])[0][0]
    assert drawn(engine, 7, sampling) == {reply.token_ids: 7}
    assert engine.count(prompt, 7, sampling) == {reply.text: 7}


def test_a_long_reply_is_cut_to_the_models_room_and_a_long_prompt_refused(engine):
    counted = engine.count(engine.encode_text(PROMPT), 3, Sampling(max_tokens=1000, temperature=0))
    assert sum(counted.values()) == 3
    with pytest.raises(GenerationError, match="tokens long"):
        engine.count(engine.encode_text("the cat " * 200), 3, Sampling())

"""An engine whose weights have few bits: near the full one, the same in any company, without the full weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import torch

from foretell.data.tokenizer import Tokenizer
from foretell.engine.local import Engine
from foretell.errors import GenerationError
from foretell.generate import Request, Sampling, collect, generate_sync, run_sync
from foretell.model.multimodal import Multimodal
from foretell.model.quantized import Bits

TEXT = "the cat sat on the mat and the dog saw it"


def engine(make_model: Callable[[bool], Multimodal], tokenizer: Tokenizer, bits: Bits | None) -> Engine:
    model = make_model(False).to(torch.bfloat16)
    model.compute_dtype = torch.bfloat16
    return Engine(model, tokenizer, None, bits=bits)


@pytest.mark.parametrize(("bits", "near"), [(8, 0.1), (4, 1.2)])
def test_scores_are_near_those_of_full_weights_and_replies_do_not_depend_on_company(
    make_model: Callable[[bool], Multimodal], tokenizer: Tokenizer, bits: Bits, near: float
) -> None:
    full, few = engine(make_model, tokenizer, None), engine(make_model, tokenizer, bits)
    a, b = ([log.logprob for log in run_sync(e.prompt_logprobs(TEXT))[1:]] for e in (full, few))
    gaps = [abs(x - y) for x, y in zip(a, b, strict=True)]
    assert 0 < sum(gaps) / len(gaps) < near
    requests = [Request(TEXT[: 5 + 3 * i], Sampling(max_tokens=8, seed=i, logprobs=1)) for i in range(5)]
    alone = [generate_sync(few, [request])[0][0] for request in requests]
    together = [results[0] for results in asyncio.run(collect(few, requests))]
    assert [(r.token_ids, r.logprobs) for r in together] == [(r.token_ids, r.logprobs) for r in alone]
    assert all(p.is_meta for name, p in few.model.named_parameters() if p.ndim == 2)
    assert not any(p.is_meta for p in full.model.parameters())
    with pytest.raises(GenerationError, match=f"weights of {bits} bits"):
        few.add_adapter("other", None)  # type: ignore[arg-type]
    full.close()
    few.close()


def test_untied_embeddings_stay_as_they_are(make_model: Callable[[bool], Multimodal], tokenizer: Tokenizer) -> None:
    config = make_model(False).config.model_copy(update={"tie_embeddings": False})
    model = Multimodal(config).to(torch.bfloat16)
    model.compute_dtype = torch.bfloat16
    few = Engine(model, tokenizer, None, bits=8)
    assert not model.decoder.embedding.is_meta
    assert model.decoder.head is not None and model.decoder.head.is_meta
    assert generate_sync(few, [Request(TEXT, Sampling(max_tokens=3, seed=0))])[0][0].token_ids
    few.close()

"""Many draws of one prompt in one batch: rows that agree so far are one row, with the number of draws it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretell.engine.runner import Runner
from foretell.engine.sampler import draw, stream, weigh
from foretell.generate import Sampling

if TYPE_CHECKING:
    from foretell.template import Encoded


@torch.inference_mode()
def count_draws(
    runner: Runner, prompt: Encoded, draws: int, sampling: Sampling, ends: Set[int], allowed_V: Tensor
) -> Counter[tuple[int, ...]]:
    """How often each reply came up in independent draws, by its token ids; the end token is last where there is one.

    Distributed as drawing one reply at a time; what is lost is their order, which is random. The cost is that of the
    different prefixes, far fewer than the draws where a model is sure of its reply.
    """
    cache, logits_BV = runner.prefill([prompt], len(prompt.ids) + sampling.max_tokens)
    random = stream(sampling.seed, 0)
    found: Counter[tuple[int, ...]] = Counter()
    prefixes: list[tuple[int, ...]] = [()]
    counts_B = torch.tensor([draws])
    while prefixes:
        weights_BV = weigh(logits_BV, [sampling] * len(prefixes), allowed_V).cpu()
        row_N = torch.arange(len(prefixes)).repeat_interleave(counts_B)
        token_N = draw(weights_BV[row_N], torch.rand(len(row_N), generator=random, dtype=torch.float64))
        paths, counts_B = torch.stack([row_N, token_N]).unique(dim=1, return_counts=True)  # type: ignore[no-untyped-call]
        rows, grown = paths[0].tolist(), [(*prefixes[row], token) for row, token in paths.T.tolist()]
        live = [i for i, ids in enumerate(grown) if ids[-1] not in ends and len(ids) < sampling.max_tokens]
        found.update({ids: n for ids, n in zip(grown, counts_B.tolist(), strict=True)})
        for i in live:
            del found[grown[i]]
        if not live:
            break
        if [rows[i] for i in live] != list(range(len(prefixes))):
            cache = runner.take(cache, [rows[i] for i in live])
        prefixes, counts_B = [grown[i] for i in live], counts_B[live]
        logits_BV = runner.step(cache, paths[1, live].to(runner.device))
    return found

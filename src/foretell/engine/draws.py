"""Many draws of one prompt in one batch: rows that agree so far are one row, with the number of draws it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretell.engine.cache import BLOCK
from foretell.engine.runner import Runner
from foretell.engine.sampler import draw, weigh
from foretell.generate import Sampling

if TYPE_CHECKING:
    from foretell.template import Encoded

_ROWS = 1024  # different beginnings computed at once, at most; the others wait
_MEMORY = 1 << 30  # bytes of their keys and values, about


@torch.inference_mode()
def count_draws(
    runner: Runner, prompt: Encoded, draws: int, sampling: Sampling, ends: Set[int], allowed_V: Tensor
) -> Counter[tuple[int, ...]]:
    """How often each reply came up in independent draws, by its token ids; the end token is last where there is one.

    Distributed as drawing one reply at a time; what is lost is their order, which is random. The cost is that of the
    different prefixes, far fewer than the draws where a model is sure of its reply.
    """
    random = torch.Generator()
    random.seed() if sampling.seed is None else random.manual_seed(sampling.seed % 2**63)
    blocks = -(-(len(prompt.ids) + sampling.max_tokens) // BLOCK)
    own = blocks - len(prompt.ids) // BLOCK  # of each row; the others are shared
    most = max(1, min(_ROWS, draws, _MEMORY // (own * BLOCK * runner.token_bytes)))
    cache = runner.cache((blocks + (most + 1) * own) * BLOCK)
    found: Counter[tuple[int, ...]] = Counter()
    waiting: list[dict[tuple[int, ...], int]] = [{(): draws}]
    while waiting:
        counts = waiting.pop()
        rows = {ids: runner.open(prompt, ids) for ids in counts}
        for sequence in rows.values():
            known = cache.find(sequence.name(len(prompt.ids) // BLOCK)[: (len(sequence.ids) - 1) // BLOCK])
            cache.share(known)
            sequence.blocks, sequence.filled = known + cache.take(blocks - len(known)), len(known) * BLOCK
        while counts:
            pieces = [(sequence, len(sequence.ids) - sequence.filled) for sequence in rows.values()]
            logits_BV = runner.logits(torch.stack([states[-1] for states in runner.forward(cache, pieces)]))
            weights_BV = weigh(logits_BV, [sampling] * len(rows), allowed_V).cpu()
            row_N = torch.arange(len(rows)).repeat_interleave(torch.tensor(list(counts.values())))
            token_N = draw(weights_BV[row_N], torch.rand(len(row_N), generator=random, dtype=torch.float64))
            paths, repeats = torch.stack([row_N, token_N]).unique(dim=1, return_counts=True)  # type: ignore[no-untyped-call]
            before, parents = list(rows), rows
            grown: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
            for (row, token), n in zip(paths.T.tolist(), repeats.tolist(), strict=True):
                ids = (*before[row], token)
                if token in ends or len(ids) == sampling.max_tokens:
                    found[ids] += n
                else:
                    grown.append((ids, before[row], n))
            grown, later = grown[:most], grown[most:]
            waiting += [{ids: n for ids, _, n in later[i : i + most]} for i in range(0, len(later), most)]
            counts, rows = {ids: n for ids, _, n in grown}, {}
            for parent in parents.keys() - {parent for _, parent, _ in grown}:
                cache.release(parents.pop(parent).blocks)
            for ids, parent, _ in grown:
                if parent in parents:
                    sequence = parents.pop(parent)
                else:  # another went on from there: a copy of its blocks
                    first = next(rows[other] for other in rows if other[:-1] == parent)
                    sequence = runner.open(prompt, parent)
                    sequence.filled = first.filled
                    sequence.blocks = cache.fork(first.blocks, first.filled)
                    sequence.blocks += cache.take(blocks - len(sequence.blocks))
                sequence.ids.append(ids[-1])
                rows[ids] = sequence
    return found

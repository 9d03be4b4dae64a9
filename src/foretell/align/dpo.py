"""Direct preference optimisation: the policy is its own reward model, measured against where it started.

Source: Rafailov et al. 2023 (arXiv 2305.18290); label smoothing: conservative DPO (Mitchell 2023).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from foretell.align.packing import Replies, Table, count_examples, replies
from foretell.data.loader import PackedBatch
from foretell.train.loss import chunked_logprobs
from foretell.train.objective import Sums, inputs, to_device


def reply_logprobs(model: Any, batch: PackedBatch, found: Replies, device: torch.device) -> Tensor:
    """(R,): the log-probability of each reply given its prompt, in nats, summed over its learned tokens."""
    targets = batch.targets.reshape(-1)
    counted = np.flatnonzero(targets >= 0)
    hidden = model.hidden(*inputs(batch, device))
    each = chunked_logprobs(hidden, model.head_weight, to_device(targets, device), to_device(counted, device))
    sums = torch.zeros(len(found.ends), dtype=each.dtype, device=device)
    return sums.index_add(0, to_device(found.of_target, device), each)


@torch.no_grad()
def reference_logprobs(
    model: Any, batches: Iterable[PackedBatch], table: Table, device: torch.device
) -> npt.NDArray[np.float64]:
    """`reply_logprobs` of every reply of a pack, at `table.offsets[example] + rank`."""
    out = np.full(int(table.offsets[-1]), np.nan)
    for batch in batches:
        found = replies(batch)
        out[table.offsets[found.example] + found.rank] = reply_logprobs(model, batch, found, device).cpu().numpy()
    return out


def dpo_loss(better: Tensor, worse: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """better, worse: (P,) implicit rewards β·(log π − log π_ref) of a pair's replies -> (P,)."""
    gap = better - worse
    return -(1 - label_smoothing) * F.logsigmoid(gap) - label_smoothing * F.logsigmoid(-gap)


class DPO:
    """The objective; all pairs of a prompt are one example, and weigh as much together.

    table, reference: of the pack that batches come from, the latter as `reference_logprobs` gave it.
    """

    def __init__(self, table: Table, reference: npt.NDArray[np.float64], beta: float, label_smoothing: float) -> None:
        self.offsets, self.reference = table.offsets, reference
        self.beta, self.label_smoothing = beta, label_smoothing

    def weight(self, batch: PackedBatch) -> float:
        return count_examples(batch)

    def loss(self, model: Any, batch: PackedBatch, device: torch.device) -> tuple[Tensor, Sums]:
        found = replies(batch)
        policy = reply_logprobs(model, batch, found, device)
        reference = to_device(self.reference[self.offsets[found.example] + found.rank], device).to(policy.dtype)
        reward = self.beta * (policy - reference)
        b, w = (reward[to_device(index, device)] for index in (found.better, found.worse))
        each = dpo_loss(b, w, self.label_smoothing)
        total = (each * to_device(found.share, device).to(each.dtype)).sum()
        values = {
            "loss": total,
            "examples": torch.tensor(self.weight(batch)),
            "pairs": torch.tensor(float(len(found.better))),
            "right": (b > w).sum(),
            "better": b.sum(),
            "worse": w.sum(),
            "moved": (policy - reference).sum(),
            "replies": torch.tensor(float(len(found.ends))),
        }
        return total, {key: value.detach().double().cpu() for key, value in values.items()}

    def summary(self, sums: Sums) -> dict[str, Any]:
        plain = {key: float(value) for key, value in sums.items()}
        pairs = max(1.0, plain["pairs"])
        return {
            "loss": plain["loss"] / max(1.0, plain["examples"]),
            "accuracy": plain["right"] / pairs,
            "reward_chosen": plain["better"] / pairs,
            "reward_rejected": plain["worse"] / pairs,
            "reward_margin": (plain["better"] - plain["worse"]) / pairs,
            "logprob_change": plain["moved"] / max(1.0, plain["replies"]),
            "pairs": int(plain["pairs"]),
        }

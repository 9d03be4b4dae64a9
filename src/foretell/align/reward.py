"""The reward model: a scalar head that reads the state at a reply's end token, trained on preferences.

Sources: Stiennon et al. 2020 (arXiv 2009.01325); InstructGPT, Ouyang et al. 2022 (arXiv 2203.02155, §3.5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foretell.align.packing import Replies, Table, count_examples, encode_reply, replies, require_template
from foretell.chat import Conversation
from foretell.data.loader import PackedBatch
from foretell.loading import find_checkpoint
from foretell.model.multimodal import Multimodal, ScalarHead
from foretell.model.weights import read_scalar_head
from foretell.template import ChatTemplate, Encoded
from foretell.train.objective import Sums, inputs, to_device
from foretell.train.setup import pick_device, pick_precision
from foretell.weights.importing import load_checkpoint

BINS = 5  # of confidence, from 1/2 to 1
AT_ONCE = 4096  # tokens that are scored together


def add_head(model: Multimodal, seed: int) -> None:
    """Give a model a scalar head with weights of variance 1 / (width + 1), as Stiennon et al. drew them."""
    head = ScalarHead(model.config.width)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * (len(head.weight) + 1) ** -0.5)
    model.scalar_head = head.to(model.device)


def rewards(model: Any, batch: PackedBatch, found: Replies, device: torch.device) -> Tensor:
    """(R,) float32: the scalar head's number at the last token of each reply."""
    hidden = model.hidden(*inputs(batch, device)).flatten(0, 1)
    scores: Tensor = model.scalar_head(hidden[to_device(found.ends, device)])
    return scores


def pairwise_loss(better: Tensor, worse: Tensor, margin: Tensor, centre: float = 0.0) -> Tensor:
    """−log σ(better − worse − margin) + centre · (better + worse)², pair by pair; all (P,)."""
    loss = -F.logsigmoid(better - worse - margin)
    return loss + centre * (better + worse).square() if centre else loss


class BradleyTerry:
    """The objective of a reward model: all pairs of a prompt are one example, and weigh as much together.

    table: of the pack that batches come from. Its summary has accuracy, and accuracy by confidence: σ(|difference|) of
    a pair is how sure the model is, and a calibrated one is right that often.
    """

    def __init__(self, table: Table, centre: float = 0.0) -> None:
        self.margins, self.centre = table.margins, centre

    def weight(self, batch: PackedBatch) -> float:
        return count_examples(batch)

    def loss(self, model: Any, batch: PackedBatch, device: torch.device) -> tuple[Tensor, Sums]:
        found = replies(batch)
        score = rewards(model, batch, found, device)
        b, w = (score[to_device(index, device)] for index in (found.better, found.worse))
        share = to_device(found.share, device).to(score.dtype)
        margin = to_device(self.margins[found.example[found.better]], device).to(score.dtype)
        each = pairwise_loss(b, w, margin, self.centre)
        total = (each * share).sum()
        gap = (b - w).detach().double().cpu()
        sure = torch.sigmoid(gap.abs())
        bins = ((sure - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
        right = (gap > 0).double() + (gap == 0).double() / 2
        by_bin = torch.zeros(3, BINS, dtype=torch.float64)
        by_bin.index_add_(1, bins, torch.stack([torch.ones_like(gap), right, sure]))
        return total, {
            "loss": total.detach().double().cpu(),
            "examples": torch.tensor(self.weight(batch), dtype=torch.float64),
            "bins": by_bin,
            "gap": gap.sum(),
        }

    def summary(self, sums: Sums) -> dict[str, Any]:
        pairs, right, sure = sums["bins"].tolist()
        count = max(1.0, sum(pairs))
        return {
            "loss": float(sums["loss"]) / max(1.0, float(sums["examples"])),
            "accuracy": sum(right) / count,
            "reward_margin": float(sums["gap"]) / count,
            "pairs": int(sum(pairs)),
            "by_confidence": [
                {"pairs": int(n), "confidence": s / n, "accuracy": r / n}
                for n, r, s in zip(pairs, right, sure, strict=True)
                if n
            ],
        }


@torch.no_grad()
def normalise(model: Multimodal, batches: Iterable[PackedBatch]) -> dict[str, float]:
    """Set the head's mean and standard deviation so that rewards of these replies have mean 0 and deviation 1.

    Returns the raw ones; rewards that do not differ keep their scale.
    """
    head = model.scalar_head
    assert head is not None
    head.mean.zero_()
    head.std.fill_(1)
    training = model.training
    model.eval()
    raw = torch.cat([rewards(model, batch, replies(batch), model.device).double().cpu() for batch in batches])
    model.train(training)
    mean, std = float(raw.mean()), float(raw.std(correction=0))
    head.mean.fill_(mean)
    head.std.fill_(std if std > 0 else 1.0)
    return {"reward_mean": mean, "reward_std": std}


@dataclass(frozen=True)
class RewardModel:
    """A trained reward model. Rewards are normalised; times `model.scalar_head.std` they are log-odds."""

    model: Multimodal
    template: ChatTemplate

    @classmethod
    def load(cls, ref: str | Path, device: str = "auto", dtype: str = "auto") -> RewardModel:
        """From a run of `foretell reward`, or a checkpoint folder with a scalar head.

        Raises CheckpointError for anything else.
        """
        own, place = Path(ref) / "reward" / "checkpoint", pick_device(device)
        folder = own if own.is_dir() else find_checkpoint(ref)
        kind = getattr(torch, pick_precision("auto", place) if dtype == "auto" else dtype)
        opened = load_checkpoint(folder, lambda stored: kind)
        read_scalar_head(folder, opened.model)
        return cls(opened.model.to(place), require_template(opened.template, str(ref)))

    def score(self, conversations: Sequence[Conversation]) -> list[float]:
        """The reward of each conversation's last reply. Raises ConversationError where there is none."""
        return self.score_tokens([encode_reply(self.template, conversation) for conversation in conversations])

    @torch.no_grad()
    def score_tokens(self, sequences: Sequence[Encoded]) -> list[float]:
        """The reward of each sequence, read at its last token: its end token, where the reply has one."""
        scores: list[float] = []
        waiting: list[Encoded] = []
        for sequence in [*sequences, None]:
            size = sum(len(s.ids) for s in waiting)
            if waiting and (sequence is None or size + len(sequence.ids) > AT_ONCE):
                scores += self._score_row(waiting)
                waiting = []
            if sequence is not None:
                waiting.append(sequence)
        return scores

    def _score_row(self, sequences: list[Encoded]) -> list[float]:
        sizes, device = [len(s.ids) for s in sequences], self.model.device
        tokens = to_device(np.concatenate([s.ids for s in sequences]).astype(np.int64)[None], device)
        positions = to_device(np.concatenate([np.arange(size) for size in sizes])[None], device)
        segments = to_device(np.repeat(np.arange(len(sizes)), sizes)[None], device)
        tiles = [s.tiles for s in sequences if len(s.tiles)]
        hidden = self.model.hidden(
            tokens, positions, segments, to_device(np.concatenate(tiles), device) if tiles else None
        )
        assert self.model.scalar_head is not None
        ends = to_device(np.cumsum(sizes) - 1, device)
        found: list[float] = self.model.scalar_head(hidden[0, ends]).tolist()
        return found

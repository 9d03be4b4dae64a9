"""Losses and gradients on packed rows equal the formulas, written out over one sequence and full logits at a time."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alignkit import Base, chat, preferences, write_jsonl
from torch import Tensor

from foretell.align.dpo import DPO, reference_logprobs
from foretell.align.examples import read_dialogues, read_preferences
from foretell.align.packing import Table, encode_dialogue, encode_preference, pack_split
from foretell.align.reward import BradleyTerry, RewardModel, add_head, normalise
from foretell.chat import Conversation
from foretell.data.loader import Loader, PackedBatch
from foretell.errors import ConversationError
from foretell.model.multimodal import Multimodal
from foretell.template import Encoded
from foretell.train.objective import NextToken, Objective, split
from foretell.tuning import Tuning

CPU = torch.device("cpu")
RANKED = [
    *({**row, "margin": 0.25 * i} for i, row in enumerate(preferences(4))),
    {"prompt": "1 2 3", "replies": ["4", "5 5", "the sky", "green"]},
    {"prompt": "user", "replies": ["4 5", "5 5 5", "blue"]},
]


def pack_rows(base: Base, folder: Path, rows: list[dict[str, Any]], kind: str) -> Path:
    data = write_jsonl(folder / "rows.jsonl", rows)
    settings = Tuning(heldout=0.0)
    pack_split(
        data, kind, "train", base.template, base.tokenizer, folder / "train", settings, 192, 16, 1, lambda number: None
    )
    return folder / "train"


def batch_of(pack: Path) -> PackedBatch:
    return Loader.fixed(pack, 64, 1)[0]


def gradients(model: Multimodal, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def ours(model: Multimodal, objective: Objective, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, a row at a time as the trainer accumulates them."""
    parts = list(split(batch, 1, model.config.image_token, 4))
    assert len(parts) > 1
    total = torch.stack([objective.loss(model, part, CPU)[0] for part in parts]).sum() / objective.weight(batch)
    return total.detach(), gradients(model, total)


def same(found: tuple[Tensor, dict[str, Tensor]], model: Multimodal, loss: Tensor) -> None:
    torch.testing.assert_close(found[0], loss.detach().to(found[0].dtype), rtol=1e-5, atol=1e-6)
    expected = gradients(model, loss)
    assert found[1].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def logprob(model: Multimodal, encoded: Encoded) -> Tensor:
    """Σ log p of the learned tokens, from all logits of one sequence."""
    ids = torch.from_numpy(encoded.ids.astype(np.int64))[None]
    logprobs = torch.log_softmax(model(ids)[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    return logprobs[torch.from_numpy(encoded.loss[1:])].sum()


def raw_reward(model: Multimodal, encoded: Encoded) -> Tensor:
    assert model.scalar_head is not None
    ids = torch.from_numpy(encoded.ids.astype(np.int64))[None]
    return model.hidden(ids)[0, -1] @ model.scalar_head.weight


def test_sft_is_cross_entropy_over_the_assistants_tokens(base: Base, tmp_path: Path) -> None:
    rows = [{"messages": chat("Q " * i, "The sky is blue. " * (i % 3 + 1), "And?", "1 2")} for i in range(1, 9)]
    pack = pack_rows(base, tmp_path, rows, "sft")
    model = base.model()
    found = ours(model, NextToken(["sft"], base.tokenizer.token_bytes), batch_of(pack))
    encoded = [encode_dialogue(base.template, row, 192)[0] for row in read_dialogues(tmp_path / "rows.jsonl")]  # type: ignore[arg-type]
    count = sum(int(e.loss[1:].sum()) for e in encoded)
    same(found, model, -torch.stack([logprob(model, e) for e in encoded]).sum() / count)


@pytest.mark.parametrize("centre", [0.0, 0.1])
def test_reward_loss_is_bradley_terry_over_all_pairs(base: Base, tmp_path: Path, centre: float) -> None:
    pack = pack_rows(base, tmp_path, RANKED, "reward")
    model = base.model()
    add_head(model, 5)
    found = ours(model, BradleyTerry(Table.load(pack), centre), batch_of(pack))
    losses = []
    for row in read_preferences(tmp_path / "rows.jsonl"):
        r = [raw_reward(model, e) for e in encode_preference(base.template, row, 192)]  # type: ignore[arg-type]
        pairs = [
            -torch.log(torch.sigmoid(a - b - row.margin)) + centre * (a + b) ** 2  # type: ignore[union-attr]
            for a, b in combinations(r, 2)
        ]
        losses.append(torch.stack(pairs).mean())
    same(found, model, torch.stack(losses).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_loss_is_the_papers(base: Base, tmp_path: Path, smoothing: float) -> None:
    pack = pack_rows(base, tmp_path, RANKED, "dpo")
    start, model = base.model(), base.model()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    table = Table.load(pack)
    reference = reference_logprobs(start, Loader.fixed(pack, 2, 99), table, CPU)
    assert np.isfinite(reference).all() and len(reference) == table.sizes.sum()
    found = ours(model, DPO(table, reference, 0.3, smoothing), batch_of(pack))
    losses = []
    for row in read_preferences(tmp_path / "rows.jsonl"):
        encoded = encode_preference(base.template, row, 192)  # type: ignore[arg-type]
        r = [0.3 * (logprob(model, e) - logprob(start, e).detach()) for e in encoded]
        pairs = [
            -(1 - smoothing) * torch.log(torch.sigmoid(a - b)) - smoothing * torch.log(torch.sigmoid(b - a))
            for a, b in combinations(r, 2)
        ]
        losses.append(torch.stack(pairs).mean())
    same(found, model, torch.stack(losses).mean())


def test_accuracy_by_confidence_counts_every_pair_once(base: Base, tmp_path: Path) -> None:
    pack = pack_rows(base, tmp_path, RANKED, "reward")
    model = base.model()
    add_head(model, 5)
    with torch.no_grad():
        model.scalar_head.weight.mul_(4)  # type: ignore[union-attr]
    objective = BradleyTerry(Table.load(pack))
    summary = objective.summary(objective.loss(model, batch_of(pack), CPU)[1])
    gaps = []
    for row in read_preferences(tmp_path / "rows.jsonl"):
        r = [float(raw_reward(model, e).detach()) for e in encode_preference(base.template, row, 192)]  # type: ignore[arg-type]
        gaps += [a - b for a, b in combinations(r, 2)]
    assert summary["pairs"] == len(gaps) == 13
    assert summary["accuracy"] == pytest.approx(np.mean([gap > 0 for gap in gaps]))
    assert summary["reward_margin"] == pytest.approx(np.mean(gaps), rel=1e-4)
    bins = summary["by_confidence"]
    assert sum(one["pairs"] for one in bins) == 13 and len(bins) > 1
    sure = 1 / (1 + np.exp(-np.abs(gaps)))
    assert sum(one["pairs"] * one["confidence"] for one in bins) == pytest.approx(sure.sum(), rel=1e-5)
    assert sum(one["pairs"] * one["accuracy"] for one in bins) == pytest.approx(sum(gap > 0 for gap in gaps))


def test_rewards_of_reference_samples_have_mean_0_and_deviation_1(base: Base, tmp_path: Path) -> None:
    pack = pack_rows(base, tmp_path, RANKED, "reward")
    model = base.model()
    add_head(model, 5)
    raw = [
        float(raw_reward(model, e).detach())
        for row in read_preferences(tmp_path / "rows.jsonl")
        for e in encode_preference(base.template, row, 192)  # type: ignore[arg-type]
    ]
    told = normalise(model, Loader.fixed(pack, 2, 99))
    assert told == {
        "reward_mean": pytest.approx(np.mean(raw), abs=1e-5),
        "reward_std": pytest.approx(np.std(raw), rel=1e-4),
    }
    assert normalise(model, Loader.fixed(pack, 3, 99)) == pytest.approx(told)  # it starts from raw ones
    conversations = [
        row.whole(k)
        for row in read_preferences(tmp_path / "rows.jsonl")
        for k in range(len(row.replies))  # type: ignore[union-attr]
    ]
    scores = RewardModel(model.eval(), base.template).score(conversations)
    assert scores == pytest.approx((np.array(raw) - np.mean(raw)) / np.std(raw), abs=1e-4)
    with pytest.raises(ConversationError, match="nothing the assistant says"):
        RewardModel(model, base.template).score([Conversation.from_openai(chat("Q"))])

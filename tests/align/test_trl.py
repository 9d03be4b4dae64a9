"""Losses, gradients and tokens beside TRL's own trainers, on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
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
from foretell.align.reward import BradleyTerry, add_head
from foretell.data.loader import Loader, PackedBatch
from foretell.model.convert import join, table
from foretell.model.multimodal import Multimodal
from foretell.template import Encoded, Template
from foretell.train.checkpoint import save_checkpoint
from foretell.train.objective import NextToken, Objective
from foretell.tuning import Tuning
from foretell.weights.exporting import export

pytestmark = pytest.mark.peer
CPU = torch.device("cpu")
DIALOGUES = [{"messages": chat("1 2 " * i, "The sky is blue. " * (i % 3 + 1), "And?", "1 2")} for i in range(1, 7)]
PREFERENCES = [{**row, "margin": 0.25 * i} for i, row in enumerate(preferences(6))]


@pytest.fixture(scope="module")
def trl() -> Any:
    return pytest.importorskip("trl")


@pytest.fixture(scope="module")
def ours(base: Base) -> Base:
    """The tiny model without its image tower, which transformers reads as a Llama."""
    return Base(base.folder, base.tokenizer, base.config.model_copy(update={"vision": None}))


@pytest.fixture(scope="module")
def theirs(ours: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    files = {name: ours.folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
    save_checkpoint(folder / "checkpoint", ours.model(), None, files)
    export(folder / "checkpoint", folder / "hf")
    return folder / "hf"


def pack_rows(ours: Base, folder: Path, rows: list[dict[str, Any]], kind: str) -> tuple[Path, PackedBatch]:
    data = write_jsonl(folder / "rows.jsonl", rows)
    template, tokenizer, settings = Template(ours.tokenizer, None), ours.tokenizer, Tuning(heldout=0.0)
    pack_split(data, kind, "train", template, tokenizer, folder / "train", settings, 192, 0, 1, lambda number: None)
    return folder / "train", Loader.fixed(folder / "train", 64, 1)[0]


def arguments(kind: Any, folder: Path, **more: Any) -> Any:
    return kind(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, **more)


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def causal(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def compare(
    model: Multimodal, objective: Objective, batch: PackedBatch, trainer: Any, examples: Sequence[dict[str, Any]]
) -> None:
    """Loss and every gradient to 1e-5 of the largest entry."""
    loss = objective.loss(model, batch, CPU)[0] / objective.weight(batch)
    loss.backward()
    trainer.model.zero_grad()
    other = trainer.compute_loss(trainer.model, trainer.data_collator(list(examples)))
    other.backward()
    assert float(loss.detach()) == pytest.approx(float(other.detach()), rel=1e-5)
    # A head that takes no part has no gradient there, and a zero one or none here.
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in trainer.model.named_parameters()}
    found = dict(model.named_parameters())
    for entry in table(model.config):
        if all(piece.name in grads for piece in entry.pieces):
            near(found[entry.ours].grad, join(entry, grads.__getitem__), entry.ours)
    if model.scalar_head is not None:
        near(model.scalar_head.weight.grad, grads["score.weight"][0], "score")


def near(ours: Tensor | None, theirs: Tensor, name: str) -> None:
    assert ours is not None, name
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max())), name


def halves(encoded: Encoded) -> tuple[list[int], list[int]]:
    """Ids before the first learned token, and from it on."""
    start = int(np.flatnonzero(encoded.loss)[0])
    return encoded.ids[:start].tolist(), encoded.ids[start:].tolist()


def test_sft_equals_trl(trl: Any, ours: Base, theirs: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    _, batch = pack_rows(ours, tmp_path, DIALOGUES, "sft")
    rows = [
        encode_dialogue(Template(ours.tokenizer, None), row, 192)[0] for row in read_dialogues(tmp_path / "rows.jsonl")
    ]  # type: ignore[arg-type]
    examples = [{"input_ids": e.ids.tolist(), "labels": np.where(e.loss, e.ids, -100).tolist()} for e in rows]
    trainer = trl.SFTTrainer(
        causal(theirs), arguments(trl.SFTConfig, tmp_path), train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer_of(theirs),
    )  # fmt: skip
    model = ours.model()
    compare(model, NextToken(["sft"], ours.tokenizer.token_bytes), batch, trainer, examples)


@pytest.mark.parametrize("centre", [0.0, 0.05])
def test_the_reward_model_equals_trl(trl: Any, ours: Base, theirs: Path, tmp_path: Path, centre: float) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification

    pack, batch = pack_rows(ours, tmp_path, PREFERENCES, "reward")
    examples = []
    for row in read_preferences(tmp_path / "rows.jsonl"):
        chosen, rejected = encode_preference(Template(ours.tokenizer, None), row, 192)  # type: ignore[arg-type]
        examples.append(
            {"chosen_ids": chosen.ids.tolist(), "rejected_ids": rejected.ids.tolist(), "margin": row.margin}
        )  # type: ignore[union-attr]
    model, tokenizer = ours.model(), tokenizer_of(theirs)
    add_head(model, 5)
    other = AutoModelForSequenceClassification.from_pretrained(theirs, num_labels=1, dtype=torch.float32)
    other.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        other.score.weight.copy_(model.scalar_head.weight[None])  # type: ignore[union-attr]
    trainer = trl.RewardTrainer(
        other, arguments(trl.RewardConfig, tmp_path, center_rewards_coefficient=centre or None),
        train_dataset=Dataset.from_list(examples), processing_class=tokenizer,
    )  # fmt: skip
    compare(model, BradleyTerry(Table.load(pack), centre), batch, trainer, examples)


def test_dpo_equals_trl(trl: Any, ours: Base, theirs: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    pack, batch = pack_rows(ours, tmp_path, PREFERENCES, "dpo")
    rows = [
        {"prompt": chat(row["prompt"]), **{n: chat("", row[n])[1:] for n in ("chosen", "rejected")}}
        for row in PREFERENCES
    ]
    policy = causal(theirs)
    trainer = trl.DPOTrainer(
        policy, causal(theirs),
        arguments(trl.DPOConfig, tmp_path, beta=0.3),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer_of(theirs),
    )  # fmt: skip
    examples = []
    newline = ours.tokenizer.encode("\n", start=False)
    for row, tokenized in zip(read_preferences(tmp_path / "rows.jsonl"), trainer.train_dataset, strict=True):
        chosen, rejected = encode_preference(Template(ours.tokenizer, None), row, 192)  # type: ignore[arg-type]
        prompt, better = halves(chosen)
        assert tokenized["prompt_ids"] == prompt
        # What TRL learns behind the end token, nobody reads.
        assert tokenized["chosen_ids"] == better + newline
        assert tokenized["rejected_ids"] == halves(rejected)[1] + newline
        examples.append({"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": halves(rejected)[1]})
    noise = {
        n: 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(7)) for n, p in policy.named_parameters()
    }
    model, start = ours.model(), ours.model()
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            parameter.add_(noise[name])
        mine = dict(model.named_parameters())
        for entry in table(model.config):
            mine[entry.ours].add_(join(entry, noise.__getitem__))
    tables = Table.load(pack)
    reference = reference_logprobs(start, [batch], tables, CPU)
    compare(model, DPO(tables, reference, 0.3, 0.0), batch, trainer, examples)

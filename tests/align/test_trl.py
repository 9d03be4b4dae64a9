"""Losses, gradients and tokens beside TRL's own trainers, on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alignkit import Base, chat, preferences, write_jsonl
from torch import Tensor

from foretell.align.advantage import Floats
from foretell.align.dpo import DPO, reference_logprobs
from foretell.align.episodes import Episode, pack_episodes
from foretell.align.examples import PromptRow, read_dialogues, read_preferences
from foretell.align.packing import Table, encode_dialogue, encode_preference, pack_split
from foretell.align.ppo import GroupAdvantages, PolicyGradient
from foretell.align.reward import BradleyTerry, add_head
from foretell.align.rollout import logprobs
from foretell.chat import Conversation
from foretell.data.loader import Loader, PackedBatch
from foretell.model.convert import join, table
from foretell.model.multimodal import Multimodal
from foretell.template import Encoded, Template
from foretell.train.checkpoint import save_checkpoint
from foretell.train.objective import NextToken, Objective
from foretell.tuning import GRPOConfig, Tuning
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


def compare(model: Multimodal, objective: Objective, batch: PackedBatch, trainer: Any, given: Any) -> None:
    """Loss and every gradient to 1e-5 of the largest entry. given: what the trainer's own collator would."""
    loss = objective.loss(model, batch, CPU)[0] / objective.weight(batch)
    loss.backward()
    trainer.model.zero_grad()
    other = trainer.compute_loss(trainer.model, given)
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
    compare(model, NextToken(["sft"], ours.tokenizer.token_bytes), batch, trainer, trainer.data_collator(examples))


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
    compare(model, BradleyTerry(Table.load(pack), centre), batch, trainer, trainer.data_collator(examples))


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
    compare(model, DPO(tables, reference, 0.3, 0.0), batch, trainer, trainer.data_collator(examples))


def episodes_of(ours: Base) -> list[Episode]:
    """Two prompts of unlike length with three replies each, the last of them cut off before its end token."""
    found, tiles = [], np.zeros((0, 0, 0, 3), np.uint8)
    for number, text in enumerate(("sky?", "What colour is the sky? 1 2 3")):
        prompt = PromptRow(Conversation.from_openai(chat(text)), (), {}, "here")
        ids = (
            Template(ours.tokenizer, None).encode(prompt.prompt, add_generation_prompt=True, learn="none").ids.tolist()
        )
        for said, end in (("The sky is blue.", True), ("No.", True), ("green 1 2 3 4 5", False)):
            reply = ours.tokenizer.encode(said, start=False) + sorted(ours.tokenizer.ends)[:1] * end
            drawn = list(range(len(ids), len(ids) + len(reply)))
            found.append(Episode(number, prompt, ids + reply, tiles, drawn, [said], end))
    return found


def padded(rows: list[Any], left: bool = False) -> Tensor:
    """(B, T): rows of unlike length side by side, with zeros in front of them or behind."""
    width = max(map(len, rows))
    return torch.stack(
        [torch.nn.functional.pad(torch.tensor(r), (width - len(r), 0) if left else (0, width - len(r))) for r in rows]
    )


@pytest.mark.parametrize(("beta", "scale"), [(0.0, True), (0.1, True), (0.1, False)])
def test_grpo_equals_trl(trl: Any, ours: Base, theirs: Path, tmp_path: Path, beta: float, scale: bool) -> None:
    """TRL's loss over the tokens of a batch, "bnpo", on the same replies, rewards, and log-probabilities of the policy
    that drew them and of the reference, far enough from the policy's for clipping."""
    from datasets import Dataset

    model, episodes = ours.model(), episodes_of(ours)
    rewards: Floats = np.array([1.0, 0.25, 0.0, 0.5, 0.5, 2.0])
    generator = np.random.default_rng(5)
    (_, batch), *_ = pack_episodes(episodes, 1 << 20, 1)
    with torch.no_grad():
        policy = np.split(logprobs(model, batch, CPU).numpy(), np.cumsum([len(e.drawn) for e in episodes])[:-1])
    for episode, logprob in zip(episodes, policy, strict=True):
        for name in ("old", "reference"):
            episode.numbers[name] = logprob + 0.3 * generator.standard_normal(len(logprob))
    config = GRPOConfig(samples=3, kl=beta, scale_rewards=scale)
    GroupAdvantages(config).assign(episodes, rewards)
    groups = torch.tensor(rewards).reshape(2, 3)
    advantages = groups - groups.mean(1, keepdim=True)
    advantages = (advantages / (groups.std(1, keepdim=True) + 1e-4) if scale else advantages).reshape(-1)
    assert [e.numbers["advantage"][0] for e in episodes] == pytest.approx(advantages.tolist(), abs=1e-12)

    trainer = trl.GRPOTrainer(
        causal(theirs), lambda completions, **_: [0.0] * len(completions),
        arguments(
            trl.GRPOConfig, tmp_path, beta=beta, epsilon=config.clip_ratio, loss_type="bnpo", num_generations=3,
            per_device_train_batch_size=6, use_bias_correction_kl=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": "sky?"}] * 6), processing_class=tokenizer_of(theirs),
    )  # fmt: skip
    trainer.model.eval()  # it divides by its accumulation steps, which only its own loop knows
    starts = [episode.drawn[0] for episode in episodes]
    given = {
        "prompt_ids": padded([e.ids[:s] for e, s in zip(episodes, starts, strict=True)], left=True),
        "prompt_mask": padded([[1] * s for s in starts], left=True),
        "completion_ids": padded([e.ids[s:] for e, s in zip(episodes, starts, strict=True)]),
        "completion_mask": padded([[1] * len(e.drawn) for e in episodes]),
        "advantages": advantages.float(),
        "old_per_token_logps": padded([e.numbers["old"] for e in episodes]).float(),
        "ref_per_token_logps": padded([e.numbers["reference"] for e in episodes]).float(),
    }
    (_, batch), *_ = pack_episodes(episodes, 1 << 20, 1, ("old", "advantage", "reference"))
    objective = PolicyGradient(None, config, None, beta)  # type: ignore[arg-type]
    assert 0.1 < float(objective.loss(model, batch, CPU)[1]["clipped"]) / objective.weight(batch) < 0.9
    compare(model, objective, batch, trainer, given)

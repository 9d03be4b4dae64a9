"""Fine-tuning by adapters, or of chosen parts: what changes, what is written, and resuming to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignkit import Base, chat, preferences, write_jsonl
from safetensors.torch import load_file
from torch import Tensor

import foretell
from clikit import invoke
from foretell.align.reward import RewardModel
from foretell.align.stages import tune
from foretell.chat import Conversation
from foretell.generate import Request, Sampling, generate_sync
from foretell.model.lora import merged, read_lora
from foretell.recipes import check_settings
from foretell.train.log import read_log
from foretell.tuning import DPOConfig, LoraConfig, RewardConfig, SFTConfig

FAST: dict[str, Any] = {
    "sequence_length": 128,
    "batch_tokens": 256,
    "device": "cpu",
    "precision": "float32",
    "log_every": 2,
    "heldout": 0.0,
}
LORA = LoraConfig(rank=4, alpha=8.0, targets=("q_proj", "o_proj", "up_proj", "down_proj"))


def sft_data(folder: Path, count: int = 16) -> Path:
    rows = [{"messages": chat(f"What colour is the sky? {i}", "The sky is blue.")} for i in range(count)]
    return write_jsonl(folder / "sft.jsonl", rows)


def stop_at(step: int) -> Callable[..., None]:
    def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
        if task == "sft" and done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


def losses(run: Path, kind: str = "sft") -> list[float]:
    return [line["loss"] for line in read_log(run / kind / "log.jsonl") if line["event"] == "train"]


def tensors(folder: Path) -> dict[str, Tensor]:
    return {f"{f.name}/{name}": t for f in sorted(folder.glob("*.safetensors")) for name, t in load_file(f).items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> set[str]:
    assert left.keys() == right.keys()
    return {name for name in left if left[name].numpy().tobytes() == right[name].numpy().tobytes()}


def test_adapters_learn_resume_to_the_bit_and_leave_the_base(base: Base, tmp_path: Path) -> None:
    data, settings = sft_data(tmp_path), SFTConfig(epochs=6, lr=5e-2, lora=LORA, **FAST)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tune("sft", base.folder, data, whole, settings)
    assert losses(whole)[-1] < losses(whole)[0] - 0.3  # little, on a random base with its head frozen
    with pytest.raises(KeyboardInterrupt):
        tune("sft", base.folder, data, cut, settings, stop_at(3))
    step = cut / "sft/checkpoints/step-000003"
    moments = {name.split("/")[1] for name in load_file(step / "training/state.safetensors") if "moments" in name}
    assert moments and all(".adapters." in name for name in moments)
    halfway = foretell.load(step, device="cpu").generator.model.weights()  # merged, as any checkpoint
    tune("sft", base.folder, data, cut, settings)
    for folder in ("sft/checkpoint", "sft/adapter"):
        one, two = tensors(whole / folder), tensors(cut / folder)
        assert same(one, two) == one.keys()

    begun, ended = tensors(base.folder), tensors(whole / "sft/checkpoint")
    changed = begun.keys() - same(begun, ended)
    assert {name.rpartition(".")[2] for name in changed} == {"qkv", "attention_out", "gate_up", "down"}
    name = "decoder.blocks.0.down"
    assert not torch.equal(halfway[name], ended[f"model.safetensors/{name}"])
    # What is written in PEFT's form is the same change to the base.
    decoder = merged(base.model(), read_lora(whole / "sft/adapter", base.model()))
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(parameter, ended[f"model.safetensors/decoder.{name}"], rtol=1e-5, atol=1e-6)

    engine = foretell.load(base.folder, device="cpu").generator
    engine.add_adapter("sky", whole / "sft/adapter")
    asked = Conversation.from_openai(chat("What colour is the sky? 3"))
    sampling = Sampling(temperature=0, max_tokens=8)
    plain, beside = generate_sync(engine, [Request(asked, sampling), Request(asked, sampling, adapter="sky")])
    alone = foretell.load(whole, device="cpu").chat(asked, temperature=0, max_tokens=8)
    assert beside[0].text == alone.text != plain[0].text


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_preferences_are_learned_by_adapters(base: Base, tmp_path: Path, kind: Any) -> None:
    data = write_jsonl(tmp_path / "preferences.jsonl", preferences(12))
    more: dict[str, Any] = {"epochs": 3, "lr": 2e-2, "lora": LORA, "freeze": ("vision",), **FAST}
    settings = RewardConfig(**more) if kind == "reward" else DPOConfig(beta=0.3, **more)
    tune(kind, base.folder, data, tmp_path / "run", settings)
    found = losses(tmp_path / "run", kind)
    assert found[-1] < 0.8 * found[0]
    ended = tensors(tmp_path / "run" / kind / "checkpoint")
    begun = tensors(base.folder)
    kept = same(begun, {name: ended[name] for name in begun})
    assert {name.rpartition(".")[2] for name in begun.keys() - kept} == {"qkv", "attention_out", "gate_up", "down"}
    if kind == "reward":
        judge = RewardModel.load(tmp_path / "run", "cpu", "float32")
        scores = judge.score([Conversation.from_openai(chat("What colour is the sky? 1", said)) for said in
                              ("The sky is blue.", "No, it is green. 1 2")])  # fmt: skip
        assert scores[0] > scores[1]


@pytest.mark.parametrize(
    ("freeze", "moved"),
    [
        (("vision", "embedding"), {"qkv", "attention_out", "gate_up", "down", "attention_norm", "mlp_norm", "norm"}),
        (("decoder", "vision", "connector"), {"embedding"}),
        (("decoder", "embedding"), set()),  # only images would teach what is left
    ],
)
def test_frozen_parts_keep_their_bits(base: Base, tmp_path: Path, freeze: Any, moved: set[str]) -> None:
    tune("sft", base.folder, sft_data(tmp_path, 8), tmp_path / "run", SFTConfig(lr=1e-2, freeze=freeze, **FAST))
    begun, ended = tensors(base.folder), tensors(tmp_path / "run/sft/checkpoint")
    changed = begun.keys() - same(begun, ended)
    assert {name.rpartition(".")[2] for name in changed} == moved
    assert not any(".vision." in f".{name.partition('/')[2]}" for name in changed)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lora.rank=-1", "lora.rank is -1; allowed: 0 or more"),
        ("lora.targets=[c_attn]", "lora.targets.0 is 'c_attn'; allowed: 'q_proj', 'k_proj'"),
        ("lora.targets=[]", "lora.targets is []"),
        ("lora.r=4", "unknown key lora.r"),
        ("lora.rank=64", "is 32 × 32, a matrix of rank 32 at most. Set lora.rank to at most that"),
        ("freeze=[lm_head]", "freeze.0 is 'lm_head' (did you mean 'head'?); allowed: 'vision', 'connector'"),
        ("freeze=[head]", "a tied head is its embedding"),
    ],
)
def test_bad_settings_are_one_clear_message(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, said: str
) -> None:
    flags = ["--model", base.folder, "--data", sft_data(tmp_path, 2), "--out", tmp_path / "out"]
    sets = ["heldout=0", "sequence_length=128", "device=cpu", "precision=float32", override]
    code, _, err = invoke(capsys, "sft", *flags, *(f"--set={one}" for one in sets))
    assert code == 2 and said in err


def test_settings_by_the_command_line() -> None:
    found = check_settings(SFTConfig, ["lora.rank=8", "lora.targets=[q_proj, v_proj]", "freeze=[vision]"])
    assert found.lora == LoraConfig(rank=8, targets=("q_proj", "v_proj"))
    assert found.trained() == {"lora": found.lora.model_dump(mode="json"), "freeze": ["vision"]}
    assert SFTConfig().trained() == {}

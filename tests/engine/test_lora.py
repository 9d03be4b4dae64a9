"""Adapters beside each other in one batch equal the models they are merged into."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from foretell.engine.local import Engine
from foretell.errors import CheckpointError, GenerationError
from foretell.generate import Request, Sampling, generate_sync
from foretell.model.convert import table

RANK, ALPHA = 4, 12


def write(folder, model, seed, **config):
    generator = torch.Generator().manual_seed(seed)
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    tensors = {}
    for entry in table(model.config):
        for piece in entry.pieces:
            if entry.ours.startswith("decoder") and piece.name.split(".")[-2] in kinds:
                stem = f"base_model.model.{piece.name.removesuffix('.weight')}"
                tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, piece.shape[1], generator=generator) * 0.05
                tensors[f"{stem}.lora_B.weight"] = torch.randn(piece.shape[0], RANK, generator=generator) * 0.05
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "target_modules": list(kinds)}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


def by_hand(model, folder):
    """The model with W + α/r · B A in place of each W, part by part of our fused matrices."""
    tensors, changed = load_file(folder / "adapter_model.safetensors"), copy.deepcopy(model)
    own = dict(changed.named_parameters())
    with torch.no_grad():
        for entry in table(model.config):
            start = 0
            for piece in entry.pieces:
                stem = f"base_model.model.{piece.name.removesuffix('.weight')}"
                if f"{stem}.lora_A.weight" in tensors:
                    delta = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
                    own[entry.ours][start : start + piece.shape[0]] += ALPHA / RANK / entry.factor * delta
                start += piece.shape[0]
    return changed


def test_adapters_answer_as_the_models_they_are_merged_into(make_model, tokenizer, tmp_path):
    model, sampling = make_model(False), Sampling(max_tokens=12, temperature=0, logprobs=1)
    text = "the cat sat on the mat and the dog saw it; how many? two. the cat sat on the mat"
    engine = Engine(model, tokenizer, None)
    folders = [write(tmp_path / str(seed), model, seed) for seed in (1, 2)]
    for folder in folders:
        engine.add_adapter(folder.name, folder)
    requests = [Request(text, sampling, adapter=name) for name in (None, "1", "2")] * 2
    for _ in range(2):  # read, and found in the cache
        together = [result.logprobs for (result,) in generate_sync(engine, requests)]
        assert together[:3] == together[3:]
        for found, changed in zip(together, (model, *(by_hand(model, folder) for folder in folders)), strict=False):
            expected = generate_sync(Engine(changed, tokenizer, None), [Request(text, sampling)])[0][0].logprobs
            assert [log.id for log in found] == [log.id for log in expected]
            assert [log.logprob for log in found] == pytest.approx([log.logprob for log in expected], abs=1e-4)
    assert len({logs[0].logprob for logs in together}) == 3


def test_adapters_that_do_not_fit_are_refused(make_model, tokenizer, tmp_path):
    model = make_model(False)
    engine = Engine(model, tokenizer, None)
    good = write(tmp_path / "good", model, 1)
    for name, settings, message in (
        ("dora", {"use_dora": True}, "no plain LoRA"),
        ("rank", {"r": 8}, "expected rank 8"),
        ("type", {"peft_type": "IA3"}, "no plain LoRA"),
        ("alpha", {"lora_alpha": "x"}, "expected numbers"),
    ):
        with pytest.raises(CheckpointError, match=message):
            engine.add_adapter(name, write(tmp_path / name, model, 1, **settings))
    save_file({"other": torch.zeros(1)}, good / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="changes no matrix"):
        engine.add_adapter("good", good)
    (good / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        engine.add_adapter("good", good)
    with pytest.raises(GenerationError, match="there are: none"):
        generate_sync(engine, [Request("x", adapter="good")])

"""Adapters that are trained: their path, gradients and file form; freezing by part."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from foretell.errors import CheckpointError, TrainingError
from foretell.files import read_json
from foretell.model.adapters import add_adapters, choose_trained, matrices, target, without_adapters
from foretell.model.convert import fold
from foretell.model.lora import merged, read_lora, restore_lora, trained, write_lora
from foretell.model.multimodal import Multimodal
from foretell.model.packed import PackedDecoder
from foretell.model.parametrize import parameter_groups
from foretell.recipe import ModelConfig, OptimizerConfig, VisionConfig
from foretell.train.loss import chunked_cross_entropy, chunked_logprobs
from foretell.tuning import LoraConfig, SFTConfig, Training

RANK = 3
SOME = LoraConfig(rank=RANK, alpha=5.0, targets=("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"))
# Branch factors other than 1, fewer heads for keys than for queries, biases: what a fused matrix may have.
CONFIG: dict[str, Any] = {
    "vocab_size": 64, "width": 64, "depth": 3, "head_dim": 16, "kv_heads": 2, "max_length": 64, "qkv_bias": True,
    "base_width": 32, "base_depth": 2, "zero_init_outputs": False, "init_std": 0.2,
}  # fmt: skip
TOWER = VisionConfig(tile=16, patch=4, shuffle=2, width=16, depth=1, head_dim=16)
TOKENS = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(5))


def model_of(**options: Any) -> Multimodal:
    return Multimodal(ModelConfig(**CONFIG | options), torch.Generator().manual_seed(1)).train()


def adapted(lora: LoraConfig = SOME, **options: Any) -> Multimodal:
    """With adapters as they are after some training: B is not zero."""
    model = model_of(**options)
    add_adapters(model, lora, seed=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapters." in name and ".b." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def by_hand(model: Multimodal, base: dict[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
    """Every weight W of the base as W + scale · B A, written out; differentiable in A and B."""
    scale = lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
    weights, own = dict(base), trained(model)
    for _, _, entry in matrices(model.config):
        rows = []
        for piece in entry.pieces:
            stem = f"base_model.model.{piece.name.removesuffix('.weight')}"
            if target(piece.name) in lora.targets:
                rows.append(own[f"{stem}.lora_B.weight"] @ own[f"{stem}.lora_A.weight"] * scale / entry.factor)
            else:
                rows.append(torch.zeros(piece.shape))
        weights[entry.ours] = base[entry.ours] + torch.cat(rows)
    return weights


@pytest.mark.parametrize("lora", [SOME, LoraConfig(rank=4, rslora=True)])
def test_outputs_and_gradients_are_those_of_the_changed_matrices(lora: LoraConfig) -> None:
    model, plain = adapted(lora), model_of()
    weight = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(4))
    ours = model(TOKENS)
    (ours * weight).sum().backward()
    found = {name: p.grad for name, p in trained(model).items()}
    model.zero_grad()
    base = {name: p.detach() for name, p in plain.named_parameters()}
    theirs = functional_call(plain, by_hand(model, base, lora), (TOKENS,))
    assert (theirs - plain(TOKENS)).abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    (theirs * weight).sum().backward()
    assert len(found) == 2 * 3 * len(lora.targets)
    for name, p in trained(model).items():
        assert p.grad is not None and p.grad.abs().max() > 0
        torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-4 * float(p.grad.abs().max()), msg=name)
    frozen = [p for name, p in model.named_parameters() if ".adapters." not in name]
    assert not any(p.requires_grad for p in frozen) and all(p.grad is None for p in frozen)


def test_nothing_changes_before_training_and_the_base_stays_at_hand() -> None:
    model, plain = model_of(), model_of()
    add_adapters(model, SOME, seed=2)
    expected = plain(TOKENS)
    assert torch.equal(model(TOKENS), expected)  # B is zero
    a = next(p for name, p in trained(model).items() if "lora_A" in name)
    assert 0.9 * 64**-0.5 < float(a.detach().abs().max()) <= 64**-0.5  # uniform within 1/√D
    other = adapted()
    changed = other(TOKENS)
    names = [name for name, _ in other.named_parameters()]
    with pytest.raises(ZeroDivisionError), without_adapters(other):
        assert torch.equal(other(TOKENS), expected)
        raise ZeroDivisionError
    assert torch.equal(other(TOKENS), changed) and not torch.equal(changed, expected)
    assert [name for name, _ in other.named_parameters()] == names


def test_merged_weights_are_what_was_trained() -> None:
    model = adapted(vision=TOWER)
    model.scalar_head = None
    whole = model_of(vision=TOWER)
    whole.load_state_dict(model.weights())
    torch.testing.assert_close(whole(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    base = {name: p for name, p in model_of(vision=TOWER).named_parameters()}
    for name, weight in by_hand(model, base, SOME).items():
        torch.testing.assert_close(model.weights()[name], weight)
    for name, tensor in fold(whole).items():
        assert torch.equal(tensor, fold(model)[name])

    packed = PackedDecoder(model.decoder, torch.float32), PackedDecoder(whole.decoder, torch.float32)
    x, positions = model.decoder.embed(TOKENS[0]).detach(), torch.arange(12)
    with torch.no_grad():
        one, two = (p(x, positions, lambda layer, q, kv: q.flatten(1)) for p in packed)
    assert torch.equal(one, two)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("vision", [None, TOWER])
def test_the_file_form_is_read_back(tmp_path: Path, rslora: bool, vision: VisionConfig | None) -> None:
    lora = SOME.model_copy(update={"rslora": rslora})
    model = adapted(lora, vision=vision)
    write_lora(tmp_path / "adapter", model, "org/base")
    base = model_of(vision=vision)
    twin = copy.copy(base)
    twin._modules = {**base._modules, "decoder": merged(base, read_lora(tmp_path / "adapter", base))}
    torch.testing.assert_close(twin(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    # An adapter that is served is one on the base, whatever else is being trained.
    twin._modules["decoder"] = merged(model, read_lora(tmp_path / "adapter", model))
    torch.testing.assert_close(twin(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    settings = read_json(tmp_path / "adapter/adapter_config.json")
    assert (settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (RANK, 5, rslora)
    assert settings["base_model_name_or_path"] == "org/base"

    fresh = model_of(vision=vision)
    add_adapters(fresh, lora, seed=9)
    restore_lora(tmp_path / "adapter", fresh)
    assert torch.equal(fresh(TOKENS), model(TOKENS))
    add_adapters(fresh, LoraConfig(rank=2), seed=9)
    with pytest.raises(CheckpointError, match="other adapters than are trained"):
        restore_lora(tmp_path / "adapter", fresh)


def test_bfloat16_keeps_the_type_of_the_products() -> None:
    model = adapted()
    exact = model(TOKENS)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    model.compute_dtype = torch.bfloat16
    hidden = model.hidden(TOKENS)
    assert hidden.dtype == torch.bfloat16
    hidden.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained(model).values())
    assert float((model.logits(hidden) - exact).detach().abs().max()) < 0.1 * float(exact.detach().abs().max())
    assert {w.dtype for w in model.weights().values()} == {torch.float32}


def test_losses_make_no_gradient_of_a_frozen_head() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(9, 8, generator=generator), torch.randn(20, 8, generator=generator)
    targets = torch.randint(0, 20, (9,), generator=generator)

    def gradients(loss: str, trains: bool) -> tuple[Tensor, Tensor | None]:
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(trains)
        if loss == "nll":
            chunked_cross_entropy(h, w, targets, chunk=4)[0].backward()
        else:
            chunked_logprobs(h, w, targets, chunk=4).square().sum().backward()
        assert h.grad is not None
        return h.grad, w.grad

    for loss in ("nll", "logprobs"):
        (with_head, head), (without, nothing) = gradients(loss, True), gradients(loss, False)
        assert torch.equal(with_head, without) and head is not None and nothing is None


def of(**settings: Any) -> Training:
    return SFTConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("freeze", "kept"),
    [
        (["vision"], ["vision.patch", "vision.blocks.0.qkv", "vision.norm_bias"]),
        (["connector"], ["vision.connector"]),
        (["embedding"], ["decoder.embedding"]),
        (["decoder"], ["decoder.norm", "decoder.blocks.2.down", "decoder.blocks.0.attention_norm"]),
        (["head", "vision"], ["decoder.head", "vision.positions"]),
    ],
)
def test_parts_that_are_frozen_have_no_gradient_and_no_moments(freeze: list[str], kept: list[str]) -> None:
    model = model_of(vision=TOWER, tie_embeddings=False)
    choose_trained(model, of(freeze=freeze))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen >= set(kept)
    assert {name.partition(".")[0] for name in frozen} == {name.partition(".")[0] for name in kept}
    groups = parameter_groups(model, OptimizerConfig(), 1, 1)
    grouped = {name for group in groups for name in group["names"]}
    assert grouped == {name for name, _ in model.named_parameters()} - frozen


def test_parts_cover_the_model_once() -> None:
    parts = ("vision", "connector", "embedding", "decoder", "head")
    frozen: list[str] = []
    for part in parts:
        model = model_of(vision=TOWER, tie_embeddings=False)
        choose_trained(model, of(freeze=[part]))
        frozen += [name for name, p in model.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == sorted(name for name, _ in model_of(vision=TOWER, tie_embeddings=False).named_parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora": {"rank": 33}}, r"lora.rank is 33, but [kv]_proj of this model is 32 × 64"),
        ({"freeze": ["vision"]}, "freeze names vision, which this model does not have"),
        ({"freeze": ["head"]}, "tied head is its embedding"),
        ({"freeze": ["decoder", "embedding"]}, "all of this model"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        choose_trained(model_of(), of(**settings))

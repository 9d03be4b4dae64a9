"""Adapters beside PEFT's own, on the equal model in Hugging Face form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_adapters import SOME, TOKENS, TOWER, adapted, model_of
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig, LlamaForCausalLM

from foretell.model.adapters import add_adapters
from foretell.model.convert import fold
from foretell.model.lora import trained, write_lora
from foretell.model.multimodal import Multimodal
from foretell.weights.families import hugging_face_config

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def peft() -> Any:
    return pytest.importorskip("peft")


def equal(model: Multimodal) -> Any:
    """The model in Hugging Face form, its weights aside."""
    settings = hugging_face_config(model.config)
    if model.config.vision is None:
        return LlamaForCausalLM(LlamaConfig(**settings)).eval()
    return Idefics3ForConditionalGeneration(Idefics3Config(**settings)).eval()


@pytest.mark.parametrize("vision", [None, TOWER])
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_reads_what_was_trained_and_computes_the_same(
    peft: Any, tmp_path: Path, vision: Any, rslora: bool
) -> None:
    lora = SOME.model_copy(update={"rslora": rslora})
    options = {"vision": vision, "qkv_bias": False, "image_token": 63}
    model, base = adapted(lora, **options), model_of(**options)
    write_lora(tmp_path / "adapter", model, "org/base")
    plain = equal(base)
    plain.load_state_dict(fold(base))
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter", is_trainable=True)
    tokens = TOKENS.clamp(max=62)
    ours, logits = model(tokens), theirs(tokens).logits
    assert (base(tokens) - ours).abs().max() > 0.1
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)

    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
    (ours * weight).sum().backward()
    (logits * weight).sum().backward()
    found = {n.replace(".default.", "."): p for n, p in theirs.named_parameters() if p.requires_grad}
    assert found.keys() == trained(model).keys()  # none in the image tower
    for name, p in trained(model).items():
        assert p.grad is not None and torch.equal(p, found[name])
        torch.testing.assert_close(p.grad, found[name].grad, rtol=1e-3, atol=1e-5 * float(p.grad.abs().max()), msg=name)


def test_what_peft_draws_is_drawn_alike(peft: Any) -> None:
    """A of the same distribution, B zero."""
    base = model_of(qkv_bias=False)
    plain = equal(base)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=list(SOME.targets), task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(plain, config)
    add_adapters(base, SOME, seed=0)
    own = trained(base)
    for name, p in theirs.named_parameters():
        if p.requires_grad:
            mine = own[name.replace(".default.", ".")].detach()
            assert mine.shape == p.shape
            if "lora_B" in name:
                assert not mine.any() and not p.any()
            else:
                assert float(mine.std()) == pytest.approx(float(p.std()), rel=0.3)
                assert max(float(mine.abs().max()), float(p.abs().max())) <= mine.shape[1] ** -0.5 + 1e-6

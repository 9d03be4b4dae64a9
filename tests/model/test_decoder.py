"""What open models switch on: shapes, windows, stretched and growing rotary positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from foretell.model import decoder
from foretell.model.decoder import FIRST_POSITIONS, Decoder, rotary_table
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, RopeScaling, VisionConfig
from stepping import Stepped

BASE: dict[str, Any] = {
    "vocab_size": 320, "width": 48, "depth": 3, "head_dim": 16, "max_length": 64, "zero_init_outputs": False,
    "init_std": 0.3,
}  # fmt: skip
UNTIED = {"tie_embeddings": False}
OPTIONS = {
    "q_heads": {"q_heads": 4, "kv_heads": 2},
    "qkv_bias": {"qkv_bias": True},
    "qk_norm": {"qk_norm": True},
    "windows": {"sliding_window": 6, "sliding_layers": (0, 2)},
    "yarn": {"rope_scaling": RopeScaling(kind="yarn", factor=4, original_max_position_embeddings=16)},
}


def randomized(config: ModelConfig) -> Multimodal:
    model, generator = Multimodal(config), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def tokens(time: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(0, 320, (rows, time), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_the_model_alike_in_every_form(option: str) -> None:
    config = ModelConfig(**BASE | OPTIONS[option])
    model = randomized(config).train()
    row = torch.cat([tokens(30), tokens(20)], 1)
    positions = torch.cat([torch.arange(30), torch.arange(20)])[None]
    segments = (torch.arange(50) >= 30).long()[None]
    packed = model(row, positions, segments)
    model.eval()
    alone = [model(row[:, :30]), model(row[:, 30:])]
    torch.testing.assert_close(packed, torch.cat(alone, 1), atol=1e-4, rtol=1e-4)
    stepped = Stepped(model, row[0, :30]).all([9, *[1] * 21])
    # Logits reach 27 here: in float32 both are up to 3e-4 off those computed in float64, the engine no further.
    torch.testing.assert_close(stepped, alone[0][0], atol=4e-4, rtol=1e-4)
    plain = randomized(ModelConfig(**BASE | {"q_heads": config.q_heads, "kv_heads": config.kv_heads}))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(own[name])
        assert option == "q_heads" or not torch.allclose(plain.eval()(row[:, :30]), alone[0], atol=1e-2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("window", [1, 5, 20])
def test_a_window_is_the_last_positions_itself_included(window: int, training: bool) -> None:
    config = ModelConfig(**BASE | {"depth": 1, "sliding_window": window, "sliding_layers": (0,)} | UNTIED)
    model = randomized(config).train(training)
    model(torch.arange(20)[None])[0, -1].sum().backward()
    gradient = model.decoder.embedding.grad
    assert gradient is not None
    assert gradient[:20].abs().sum(1).nonzero().flatten().tolist() == list(range(20 - window, 20))


def test_a_window_no_document_exceeds_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(**BASE | {"sliding_window": 10, "sliding_layers": (1,)})
    model, row = randomized(config).train(), tokens(30)
    segments = (torch.arange(30) // 10)[None]
    expected = model(row, torch.arange(30)[None] % 10, segments)
    monkeypatch.setattr("foretell.model.multimodal.masked_attention", None)
    assert torch.equal(model(row, torch.arange(30)[None] % 10, segments), expected)


def test_the_rotary_table_grows_by_doubling_as_positions_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    long = ModelConfig(**BASE | {"max_length": 131_072})
    model = Decoder(long)
    assert model.table.shape[1] == FIRST_POSITIONS
    for reach, size in (
        (FIRST_POSITIONS, FIRST_POSITIONS),
        (FIRST_POSITIONS + 1, 2 * FIRST_POSITIONS),
        (40_000, 65_536),
    ):
        model.reach(reach)
        assert model.table.shape[1] == size
        assert torch.equal(model.table, rotary_table(long, 65_536)[:, :size])
    model.reach(131_072)
    assert model.table.shape[1] == 131_072

    monkeypatch.setattr(decoder, "FIRST_POSITIONS", 4)
    small, whole = ModelConfig(**BASE), randomized(ModelConfig(**BASE))
    growing = Multimodal(small)
    growing.load_state_dict(whole.state_dict())
    assert growing.decoder.table.shape[1] == 4
    monkeypatch.undo()
    text = tokens(50)
    with torch.no_grad():
        assert torch.equal(growing.eval()(text), whole.eval()(text))
    assert growing.decoder.table.shape[1] == small.max_length == 64


def test_the_table_is_that_of_the_closed_form() -> None:
    config = ModelConfig(**BASE)
    angles = torch.arange(64, dtype=torch.float64)[:, None] * 10_000.0 ** -(torch.arange(8, dtype=torch.float64) / 8)
    expected = torch.stack([angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], 1)]).float()
    assert torch.equal(rotary_table(config, 64), expected)


def test_an_empty_model_has_real_buffers_and_no_memory() -> None:
    config = ModelConfig(**BASE, vision=VisionConfig())
    empty, full = Multimodal.empty(config), Multimodal(config)
    assert all(parameter.is_meta for parameter in empty.parameters())
    for (name, ours), (_, theirs) in zip(empty.named_buffers(), full.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sliding_window": 4}, "belong together"),
        ({"sliding_layers": (1,)}, "belong together"),
        ({"sliding_window": 4, "sliding_layers": (3,)}, "outside 0…2"),
        ({"q_heads": 4, "kv_heads": 3}, "cannot share"),
        ({"rope_scaling": {"kind": "yarn", "factor": 2}}, "needs original_max_position_embeddings"),
        ({"rope_scaling": {"kind": "dynamic", "factor": 2}}, "linear"),
        ({"vision": {"tile": 60, "patch": 8, "shuffle": 2}}, "holds 7 patches a side"),
        ({"vision": {"tile": 6, "patch": 8, "shuffle": 2}}, "holds 0 patches a side"),
    ],
)
def test_options_that_contradict_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(BASE | fields)

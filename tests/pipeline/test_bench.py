"""`foretell bench`: every figure there, those that follow from others following, on narrow terminals too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clikit import invoke
from foretell.model.describe import parameter_count, training_flops
from foretell.pipeline import bench

NAMES = [
    "matmul_float32", "matmul_bfloat16", "memory_copy", "memory_read", "train_tokens_s", "train_gflops", "mfu",
    "mfu_6n", "decode_tokens_s_1", "decode_bandwidth", "decode_tokens_s_16", "tokenizer_mb_s", "loader_mb_s",
]  # fmt: skip


def test_it_measures_everything_and_prints_for_any_width(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    code, out, err = invoke(capsys, "bench", "tiny", "--quick", "--json", tmp_path / "bench.json")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 44
    found = json.loads((tmp_path / "bench.json").read_text())
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    assert list(figures) == NAMES and all(value > 0 for value in figures.values())
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == NAMES
    recipe = bench.shape_recipe("tiny")
    model = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    assert found["model"]["parameters"] == parameter_count(model)
    per_token = training_flops(model, 1, context=(recipe.data.sequence_length + 1) / 2)
    assert figures["train_gflops"] * 1e9 == pytest.approx(per_token * figures["train_tokens_s"])
    assert figures["mfu"] / figures["mfu_6n"] == pytest.approx(per_token / (6 * parameter_count(model)))
    assert found["machine"]["torch"] == torch.__version__


def test_an_interrupt_leaves_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "training", stop)
    code, out, err = invoke(capsys, "bench", "tiny", "--quick")
    assert code == 130 and "Interrupted" in err
    assert [line.split()[0] for line in out.splitlines()] == NAMES[:4]


def test_a_misspelt_shape_is_told_the_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = invoke(capsys, "bench", "11m")
    assert code == 2 and "measure a shape: tiny, 1m, 10m" in err
    code, _, err = invoke(capsys, "bench", "tiny", "--set", "model.depht=3")
    assert code == 2 and "unknown key model.depht" in err
    code, _, err = invoke(capsys, "bench", "1m", "--device", "cuda:77")
    assert code == 2 and "finds only" in err


@pytest.mark.parametrize("name", [name for name in bench.SHAPES if name != "tiny"])
def test_shapes_have_the_parameters_that_their_names_say(name: str) -> None:
    recipe = bench.shape_recipe(name)
    count = parameter_count(recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size}))
    wanted = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert 0.9 * wanted < count < 1.35 * wanted


def test_a_step_of_few_bits_reads_fewer_bytes() -> None:
    config = bench.shape_recipe("tiny").model
    read = {
        bits: bench.decoding(config, torch.bfloat16, torch.device("cpu"), 1, bits=bits, seconds=0)[1]
        for bits in (None, 8, 4)
    }
    assert read[None] > read[8] > read[4] > 0

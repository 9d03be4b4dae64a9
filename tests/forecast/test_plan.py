from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.profiler import ProfilerActivity, profile

from foretell.cli.app import app
from foretell.errors import ForecastError
from foretell.forecast.footprint import Memory, Speed, memory, micro_rows, take_steps
from foretell.forecast.plan import Machine, Plan, between, plan, ready
from foretell.forecast.rungs import DataShape, flops, params
from foretell.recipe import Recipe
from foretell.recipes import load_recipe, recipe_yaml
from foretell.train import sharing

TEXT = DataShape(context=128.5)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("quickstart", ["forecast=null"])


def machine(limit: float = 1e12, data: DataShape = TEXT) -> Machine:
    """One that computes faster the wider a model is: 1e8 FLOP/s a unit of width, whatever it multiplies."""

    def steps(shape: Recipe, rows: int) -> Speed:
        batch = shape.train.batch_tokens
        seconds = flops(shape, data) * batch / shape.train.tokens / (1e8 * shape.model.width)
        update = 0.25 * seconds
        tokens = rows * shape.data.sequence_length
        return Speed(tokens, (seconds - update) * tokens / batch, update)

    return Machine(steps, lambda shape: memory(shape, data, 3e8, "bfloat16", "cpu"), limit)


def test_the_widest_shape_within_the_budget_is_chosen(recipe: Recipe) -> None:
    found = plan(recipe, budget=1e15, machine=machine())
    widths = [shape.recipe.model.width for shape in found.shapes]
    at = found.shapes.index(found.chosen)
    assert widths == list(range(widths[0], widths[0] + 5 * 32, 32)) and at == 2
    assert found.chosen.flops <= 1e15 < found.shapes[at + 1].flops
    assert found.chosen.flops == flops(found.chosen.recipe, TEXT)


@pytest.mark.parametrize(("ratio", "depth"), [(None, None), (8.0, None), (None, 7), (31.0, 2)])
def test_tokens_batch_and_rate_follow_by_rule(recipe: Recipe, ratio: float | None, depth: int | None) -> None:
    chosen = plan(recipe, budget=3e14, tokens_per_parameter=ratio, depth=depth, machine=machine()).chosen
    wanted = ratio or recipe.train.tokens / params(recipe)
    train = chosen.recipe.train
    assert abs(chosen.tokens - wanted * chosen.parameters) <= train.batch_tokens
    assert chosen.recipe.model.depth == (depth or recipe.model.depth)
    growth = chosen.tokens / recipe.train.tokens
    assert train.batch_tokens == pytest.approx(recipe.train.batch_tokens * math.sqrt(growth), abs=256)
    rate = recipe.train.optimizer.lr * math.sqrt(train.batch_tokens / recipe.train.batch_tokens)
    assert train.optimizer.lr == pytest.approx(rate, rel=1e-2)
    assert chosen.recipe.model.ffn_width % 32 == 0


def test_hours_are_those_of_the_measured_rate(recipe: Recipe) -> None:
    found = plan(recipe, hours=50, machine=machine())
    at = found.shapes.index(found.chosen)
    assert found.chosen.seconds <= 180_000 < found.shapes[at + 1].seconds
    assert len(found.rates) <= 4
    assert found.chosen.rate == pytest.approx(1e8 * found.chosen.recipe.model.width, rel=0.05)
    assert found.ladder and found.ladder_flops == sum(rung.flops for rung in found.ladder)
    slowest, fastest = (found.ladder_flops / (1e8 * width) for width in (32, found.chosen.recipe.model.width))
    assert fastest < found.ladder_seconds < slowest


def test_what_cannot_be_measured_in_seconds_takes_the_rate_of_the_widest_that_can(recipe: Recipe) -> None:
    found = plan(recipe, budget=1e23, machine=machine(limit=1e15))
    assert max(found.rates) < found.chosen.recipe.model.width / 2
    assert found.chosen.rate == found.rates[max(found.rates)]


def test_parts_sum_to_the_run(recipe: Recipe) -> None:
    data = DataShape(context=60.0, tiles=0.01, learned=0.7)
    found = plan(recipe, budget=1e15, machine=machine(data=data), data=data)
    assert sum(part.flops for part in found.parts()) == pytest.approx(found.chosen.flops)
    assert sum(part.parameters for part in found.parts()) == found.chosen.parameters


def test_a_tight_memory_shortens_the_micro_batch_and_then_refuses(recipe: Recipe) -> None:
    wide = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_tokens": 8192})})
    roomy = plan(wide, budget=1e15, machine=machine()).chosen
    assert roomy.recipe.train.micro_batch is None and micro_rows(roomy.recipe) > 8
    tight = plan(wide, budget=1e15, machine=machine(limit=0.6 * roomy.memory.total)).chosen
    assert micro_rows(tight.recipe) < micro_rows(roomy.recipe)
    assert tight.memory.total <= 0.6 * roomy.memory.total
    with pytest.raises(
        ForecastError, match=r"Width \d+, which the budget buys, needs .* GB .*this machine has 0\.4 GB"
    ):
        plan(wide, budget=1e15, machine=machine(limit=4e8))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "neither was given"),
        ({"budget": 1e15, "hours": 2.0}, "both were given"),
        ({"budget": 1e9}, r"width 32, depth 4, .* takes \S+ FLOPs, more than the budget"),
        ({"hours": 1e-5}, r"takes \S+ hours, more than the budget"),
        ({"budget": -1.0}, "Budget is -1; allowed is a number above 0"),
        ({"hours": math.inf}, "Hours is inf"),
        ({"budget": 1e15, "tokens_per_parameter": 0.0}, "Tokens per parameter is 0"),
    ],
)
def test_impossible_wishes_are_refused(recipe: Recipe, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ForecastError, match=said):
        plan(recipe, machine=machine(), **asked)


def test_the_written_recipe_reads_more_where_it_trains_on_more(recipe: Recipe, tmp_path: Path) -> None:
    chosen = plan(recipe, budget=1e15, machine=machine()).chosen
    made = ready(chosen, recipe)
    (tmp_path / "r.yaml").write_text(recipe_yaml(made))
    assert load_recipe(tmp_path / "r.yaml") == made
    assert made.model == chosen.recipe.model and made.train == chosen.recipe.train
    growth = chosen.tokens / recipe.train.tokens
    assert made.data.tokens == pytest.approx(recipe.data.tokens * growth, rel=1e-5)
    assert made.data.sources[1].documents == math.ceil(recipe.data.sources[1].documents * growth)  # type: ignore[union-attr]


def test_rates_lie_between_the_measured_ones() -> None:
    rates = {64: 1e9, 256: 4e9}
    assert [between(rates, width) for width in (32, 64, 128, 256, 999)] == pytest.approx([1e9, 1e9, 2e9, 4e9, 4e9])


CASES: list[tuple[list[str], float, str]] = [
    (["train.batch_tokens=1024"], 0.0, "bfloat16"),
    (["train.batch_tokens=1024"], 0.02, "float32"),
    (["model.kv_heads=1", "model.width=256", "train.batch_tokens=512", "data.sequence_length=512"], 0.0, "float32"),
    (["model.qk_norm=true", "train.batch_tokens=1024", "tokenizer.vocab_size=1024"], 0.0, "bfloat16"),
]


@pytest.mark.parametrize(("overrides", "tiles", "precision"), CASES)
def test_memory_is_what_torch_allocates_at_its_peak(
    overrides: list[str], tiles: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the allocator's slack, for a step of one micro-batch; the profiler sees one thread."""
    from foretell.forecast.footprint import _SLACK

    monkeypatch.setattr(sharing, "sharers", lambda *_: 1)
    recipe, data = load_recipe("quickstart", overrides), DataShape(128.5, tiles)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        take_steps(recipe, micro_rows(recipe), data, precision, "cpu")
    events = [(e.start_ns(), e.nbytes()) for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(events):
        held += change
        peak = max(peak, held)
    found = memory(recipe, data, 0.0, precision, "cpu")
    assert found.weights + found.moments + found.activations / _SLACK == pytest.approx(peak, rel=0.08)


def test_gradients_add_up_only_where_they_wait_for_other_micro_batches() -> None:
    one, many = (Memory(0, 10, 10, 20, 15, waits) for waits in (False, True))
    assert (one.total, many.total) == (45, 55)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("overrides", [[], ["model.width=256", "train.batch_tokens=2048", "model.vision=null"]])
def test_memory_agrees_with_a_process_that_trains(overrides: list[str]) -> None:
    code = f"""
import re
from foretell.forecast.footprint import memory, micro_rows, resident, take_steps
from foretell.forecast.rungs import DataShape, scaled
from foretell.recipes import load_recipe
recipe, data = load_recipe("quickstart", {overrides}), DataShape(128.5)
take_steps(scaled(recipe, 32), 1, data, "bfloat16", "cpu")
said = memory(recipe, data, resident("cpu"), "bfloat16", "cpu")
take_steps(recipe, micro_rows(recipe), data, "bfloat16", "cpu")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # getrusage would count the parent
print(said.total, 1024 * int(peak.group(1)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, measured = map(float, done.stdout.split())
    assert said == pytest.approx(measured, rel=0.15)


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import typer

    monkeypatch.setattr(Machine, "here", classmethod(lambda *_: machine()))
    out = tmp_path / "planned.yaml"
    command = typer.main.get_command(app)
    command.main(["forecast", "plan", "quickstart", "--hours", "50", "--out", str(out)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "→" in said and "Its ladder:" in said and "head (tied)" in said and "Images are not counted" in said
    marked = next(line for line in said.splitlines() if line.startswith("→"))
    assert load_recipe(out).model.width == int(marked.split()[1])


def test_a_plan_is_of_its_own_shapes(recipe: Recipe) -> None:
    found: Plan = plan(recipe, budget=1e14, machine=machine())
    assert found.chosen in found.shapes and not found.ladder and "forecast needs" in found.no_ladder


@pytest.mark.parametrize(("budget", "kept"), [(3e15, False), (5e13, True)])
def test_named_widths_give_way_to_the_shape_s_own_where_they_make_a_ladder(budget: float, kept: bool) -> None:
    named = load_recipe("quickstart", ["forecast.widths=[8,12,16,20,24]"])
    found = plan(named, budget=budget, machine=machine())
    widths = {rung.recipe.model.width for rung in found.ladder}
    assert (widths == {8, 12, 16, 20, 24}) is kept and len(widths) >= 5
    assert ready(found.chosen, named).forecast == found.chosen.recipe.forecast
    refused = plan(load_recipe("quickstart", ["forecast.widths=[12,16]"]), budget=5e13, machine=machine())
    assert not refused.ladder and refused.chosen.recipe.forecast is None

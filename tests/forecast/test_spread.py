from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretell.cli.app import app
from foretell.errors import ForecastError, RecipeError
from foretell.forecast.cluster import Cluster, Curve, Link, load_cluster
from foretell.forecast.estimate import estimate
from foretell.forecast.footprint import _CHUNK, Memory, kept, memory_per_rank
from foretell.forecast.here import fit_curve
from foretell.forecast.job import Job, Layout
from foretell.forecast.rungs import DataShape
from foretell.forecast.shapes import find_shape
from foretell.forecast.spread import _slower, spread
from foretell.forecast.spread_page import described, duration_text, spread_page
from foretell.forecast.steptime import gather, step_time
from foretell.model.describe import describe
from foretell.recipe import ModelConfig
from foretell.recipes import load_recipe


def job(**changes: Any) -> Job:
    shape = {"width": 1024, "depth": 8, "head_dim": 64, "kv_heads": 8, "ffn": 2816, "vocab_size": 32000} | changes
    model = ModelConfig(max_length=1024, tie_embeddings=False, **shape)
    return Job("test", model, 1024, 64 * 1024, 10**9, DataShape(512.5))


def cluster(**changes: Any) -> Cluster:
    plain = Cluster(
        device="X",
        flops={"bfloat16": 1e14},
        memory=80e9,
        bandwidth=1e12,
        node=8,
        nodes=2,
        intra=Link(bandwidth=2e11),
        inter=Link(bandwidth=2e10),
        process=0.0,
        dispatch=0.0,
        efficiency=Curve(products=1, slope=0, attention=1, passes=1e-9, range=(1, 1)),
    )
    return plain.model_copy(update=changes)


def test_the_chunk_of_the_loss_is_the_loss_s() -> None:
    from foretell.train.loss import CHUNK

    assert _CHUNK == CHUNK


def test_sharded_state_sums_to_sixteen_bytes_a_parameter() -> None:
    one = job()
    for layout in (Layout(), Layout(2, 8), Layout(shard=8), Layout(shard=4, tensor=2), Layout(2, 2, 2, True)):
        held = memory_per_rank(one, replace(layout, reshard="always"), 0.0, "bfloat16")
        state = held.weights + held.gradients + held.moments
        twice = 16 * one.rest * (layout.tensor - 1)  # what tensor parallelism leaves whole on each of its ranks
        assert layout.shard * layout.tensor * state == pytest.approx(16 * one.parameters + twice)


def test_what_is_held_whole_follows_the_policy() -> None:
    one = job()

    def held(reshard: Any, rows: int) -> Memory:
        return memory_per_rank(one, Layout(shard=8, reshard=reshard, rows=rows), 0.0, "bfloat16")

    whole, part = 4.0 * one.parameters, 4.0 * one.parameters / 8
    assert held("auto", 8).gathered == held("always", 1).gathered == 4 * one.rest + (3 * 2 + 6) * one.block
    assert held("never", 8).gathered - held("auto", 8).gathered == pytest.approx(2 * 6 * one.block)
    assert held("always", 1).gradients == pytest.approx(part)
    assert held("auto", 1).gradients == held("never", 1).gradients == pytest.approx(whole)
    assert held("auto", 8).gradients == pytest.approx(part + 8 * one.rest)  # one micro-batch: they travel at once
    assert memory_per_rank(one, Layout(8), 0.0, "bfloat16").gathered == 0


def test_each_policy_keeps_less_than_the_one_before_and_tensor_divides_it() -> None:
    one = job()
    held = [kept(one, Layout(checkpoint=policy))[1] for policy in ("none", "selective", "full")]
    assert held == [4 * 1024 + 4 * 1024 + 4 * 2816, 3 * 1024 + 1024 + 2 * 512 + 2 * 2816, 1024]
    whole, split = (kept(one, Layout(tensor=t))[0] for t in (1, 4))
    assert split - 4 * 1024 == (whole - 4 * 1024) / 4
    peaks = [
        memory_per_rank(one, Layout(checkpoint=policy, rows=8), 0.0, "bfloat16").activations
        for policy in ("none", "selective", "full")
    ]
    assert peaks[0] > peaks[1] > peaks[2]


def test_what_a_policy_computes_again_takes_as_long_as_the_first_time() -> None:
    one = job(vision={"tile": 64, "patch": 8, "shuffle": 2, "width": 64, "depth": 2, "head_dim": 32})
    one = replace(one, data=replace(one.data, tiles=0.01))
    none, some, full = (
        step_time(one, Layout(checkpoint=policy), cluster(), "bfloat16")  # type: ignore[arg-type]
        for policy in ("none", "selective", "full")
    )
    parts = {part.name: part.forward * (0.01 if part.per == "tile" else 1) for part in describe(one.model, 512.5)}
    scores = (parts["attention scores"] + parts["vision scores"]) * one.batch_tokens / 1e14
    layers = (parts["attention projections"] + parts["mlp"] + parts["vision blocks"]) * one.batch_tokens / 1e14
    assert some.attention - none.attention == pytest.approx(scores) == full.attention - none.attention
    assert full.products - none.products == pytest.approx(layers) and some.products == none.products


def test_a_ring_moves_each_part_past_everyone() -> None:
    two = cluster()
    assert gather(8e9, 8, 8, two) == pytest.approx(8e9 * 7 / 8 / (0.8 * 2e11))
    # Over nodes, all eight ports of a node together: 1.6e11, less than the links within.
    assert gather(8e9, 16, 8, two) == pytest.approx(8e9 * 15 / 16 / (0.8 * 1.6e11))
    assert gather(8e9, 2, 1, two) == pytest.approx(8e9 / 2 / (0.8 * 2e10))
    late = cluster(intra=Link(bandwidth=2e11, latency=1e-6), inter=Link(bandwidth=2e10, latency=1e-5))
    assert gather(0, 16, 8, late, 3) == pytest.approx(3 * (7e-6 + 1e-5))
    assert gather(1e9, 1, 1, two) == 0


def test_one_device_takes_flops_over_its_rate_and_bytes_over_its_bandwidth() -> None:
    one, place = job(), cluster()
    found = step_time(one, Layout(rows=4), place, "bfloat16")
    assert found.products + found.attention == pytest.approx(one.flops_per_token * one.batch_tokens / 1e14)
    assert found.traffic == pytest.approx(16 * 14 * one.parameters / 1e12, rel=1e-6)
    assert found.update == pytest.approx(32 * one.parameters / 1e12)
    assert found.sharding == found.tensor == 0
    again = step_time(one, Layout(rows=4, checkpoint="full"), place, "bfloat16")
    head = 6 * one.head / (one.flops_per_token)
    assert (again.compute - again.traffic) / (found.compute - found.traffic) == pytest.approx(
        1 + (1 - head) / 3, rel=0.01
    )


def test_short_kernels_wait_for_the_host() -> None:
    one = job()
    slow = step_time(one, Layout(rows=4), cluster(dispatch=1.0), "bfloat16")
    assert slow.compute - slow.update == pytest.approx(16 * 8)
    assert step_time(one, Layout(rows=4), cluster(dispatch=1e-9), "bfloat16").dispatch == 0


def test_replicas_divide_computing_and_add_one_sum_of_gradients() -> None:
    one, place = job(), cluster()
    single, eight = (step_time(one, Layout(count, rows=1), place, "bfloat16") for count in (1, 8))
    assert eight.products == pytest.approx(single.products / 8)
    assert eight.sharding == pytest.approx(2 * 4 * one.parameters * 7 / 8 / (0.8 * 2e11))


def test_sharding_is_hidden_where_computing_takes_longer() -> None:
    one = job()
    slow = cluster(efficiency=Curve(products=0.01, slope=0, attention=1, passes=1e-9))
    shown = step_time(one, Layout(shard=16, rows=4), slow, "bfloat16").sharding
    weights, gradients = 2 * one.model.depth * one.block + 4 * one.rest, 4 * one.parameters
    moved = gather(weights, 16, 8, slow) + gather(gradients, 16, 8, slow)
    assert shown == pytest.approx(moved / one.model.depth)  # the first layer's weights, the last one's gradients
    fast = cluster(flops={"bfloat16": 1e20}, bandwidth=1e18)
    bare = 2 * gather(weights, 16, 8, fast) + gather(gradients, 16, 8, fast)
    assert step_time(one, Layout(shard=16, rows=4), fast, "bfloat16").sharding == pytest.approx(
        bare + moved / one.model.depth, rel=1e-3
    )


def test_tensor_parallel_divides_the_layers_products_alone_and_sums_four_times_a_layer() -> None:
    one, place = job(), cluster()
    single, four = (step_time(one, Layout(tensor=t, rows=2), place, "bfloat16") for t in (1, 4))
    head = 6 * one.head * one.batch_tokens / 1e14
    assert four.products - head == pytest.approx((single.products - head) / 4)
    passed = 2 * 2 * 1024 * 1024
    assert four.tensor == pytest.approx(32 * 8 * 4 * 2 * passed * 3 / 4 / (0.8 * 2e11))


def test_the_chosen_layout_fits_and_no_other_that_fits_is_faster() -> None:
    one, place = job(), cluster(memory=6e9)
    found = spread(one, place)
    assert found.chosen.layout.world == 16 and found.chosen.memory.total <= 0.92 * 6e9
    assert found.tried > 200
    for replicate in (1, 2, 4, 8, 16):
        for tensor in (1, 2, 4, 8):
            if 16 % (replicate * tensor):
                continue
            for policy in ("none", "selective", "full"):
                layout = Layout(replicate, 16 // replicate // tensor, tensor, tensor > 1, "auto", policy, 2)  # type: ignore[arg-type]
                other = estimate(one, layout, place)
                fits = other.memory.total <= 0.92 * 6e9
                assert not fits or other.step.total * 1.021 > found.chosen.step.total, layout
    sizes = {(r.replicate, r.shard, r.tensor) for r in found.refused}
    chosen = found.chosen.layout
    assert (chosen.replicate, chosen.shard, chosen.tensor) not in sizes and len(sizes) == len(found.refused) == 13
    assert all(one.reason for one in found.refused)


def test_simpler_ways_are_not_each_a_little_slower_than_the_one_before() -> None:
    one, place = find_shape("mpt-7b"), load_cluster("h100x64")
    assert one is not None
    other = estimate(one, Layout(1, 64, 1, False, "auto", "selective", 8), place)
    assert other.memory.total < 0.92 * place.memory
    assert spread(one, place).chosen.step.total <= 1.02 * other.step.total


def test_where_all_fits_the_plain_way_is_taken_and_reasons_name_what_is_slower() -> None:
    found = spread(replace(job(), batch_tokens=1024 * 1024), cluster(inter=Link(bandwidth=2e11)))
    assert found.chosen.layout.tensor == 1 and found.chosen.layout.checkpoint == "none"
    reasons = " ".join(one.reason for one in found.refused)
    assert "slower: weights and gradients exchanged +" in reasons and "activations exchanged +" in reasons


def test_a_reason_is_what_takes_longer() -> None:
    one = job()

    def reason(place: Cluster, layout: Layout, chosen: Layout) -> str:
        return _slower(*(estimate(one, each, place) for each in (layout, chosen)))

    # Computing alone differs: recomputed products are a third of them but for the head, and nothing is exchanged.
    head = 6 * one.head / one.flops_per_token
    full = reason(cluster(), Layout(rows=4, checkpoint="full"), Layout(rows=4))
    assert full.split(": ")[1].startswith("computing again +"), full
    assert float(full.split("%")[0]) == pytest.approx(100 * (1 - head) / 3, rel=0.2)
    # Micro-batches of one row read the weights more often.
    assert "slower: memory traffic +" in reason(cluster(bandwidth=1e11), Layout(rows=1), Layout(rows=64))
    # Replicas each hold the whole optimizer state.
    near = cluster(intra=Link(bandwidth=1e18), inter=Link(bandwidth=1e18), bandwidth=1e11)
    whole, shared = Layout(16, rows=4), Layout(1, 16, reshard="never", rows=4)
    assert reason(near, whole, shared).split(": ")[1].startswith("optimizer +")
    # With tensor parallelism every device multiplies the head of more tokens.
    split = Layout(8, tensor=2, rows=4)
    assert "slower: products that tensor does not share +" in reason(cluster(intra=Link(bandwidth=1e18)), split, whole)
    assert reason(cluster(), whole, whole) == "as fast, but less simple"
    assert reason(cluster(), Layout(rows=4), Layout(rows=4, checkpoint="full")).endswith("% faster, but less simple")


def test_sizes_that_cannot_be_built_say_why() -> None:
    odd = job(kv_heads=2)
    reasons = [one.reason for one in spread(odd, cluster()).refused if one.best is None]
    assert any("kv_heads (2) cannot be divided by 4" in reason for reason in reasons)
    with pytest.raises(ForecastError, match="64 rows cannot be shared evenly by 48 parts"):
        spread(odd, cluster(node=3, nodes=16))
    with pytest.raises(ForecastError, match="A step of 1000 tokens is less than one row of 1024"):
        spread(replace(odd, batch_tokens=1000), cluster())
    with pytest.raises(ForecastError, match=r"needs \d.* GB a device at the least on 16 of X .*Take more devices"):
        spread(job(), cluster(memory=1e8))
    with pytest.raises(ForecastError, match=r"16 devices that fail every 0\.001 h each.*never train test to its end"):
        spread(job(), cluster(mtbf_hours=0.001))


def test_cost_energy_and_failures_follow_the_hours() -> None:
    place = cluster(power=500.0, pue=1.2, price=2.0, mtbf_hours=1000.0, restart_minutes=10.0)
    found = estimate(job(), Layout(16, rows=1), place)
    assert found.cost == pytest.approx(2 * found.device_hours)
    assert found.energy == pytest.approx(600 * found.device_hours)
    assert found.emitted(0.4) == pytest.approx(0.24 * found.device_hours)
    assert found.failures == pytest.approx(found.wall / 3600 / (1000 / 16))
    calm = estimate(job(), Layout(16, rows=1), cluster())
    assert calm.energy is calm.cost is calm.emitted(1) is None
    assert calm.seconds == found.seconds < calm.wall < found.wall
    assert found.rate == pytest.approx(64 * 1024 / 16 / found.step.total)
    assert estimate(job(), Layout(rows=1), cluster()).mfu("bfloat16") < 1


def test_a_curve_is_found_again_from_steps_that_it_made() -> None:
    curve = Curve(products=0.4, slope=0, attention=1, passes=7.0)
    place = cluster(efficiency=curve)
    shapes = [(job(), Layout(rows=4)), (job(width=2048, ffn=5632), Layout(rows=2)), (job(depth=2), Layout(rows=8))]
    told = [(one, layout, step_time(one, layout, place, "bfloat16").total) for one, layout in shapes]
    found = fit_curve(told, place, "bfloat16")
    assert (found.products, found.passes) == pytest.approx((0.4, 7.0), rel=1e-4)
    assert found.range == pytest.approx((1 / 1.15, 1.15))


def test_this_machine_is_a_cluster_of_one_device() -> None:
    from foretell.forecast.here import here

    tiny = load_recipe("quickstart", ["model.vision=null", "model.width=32", "model.depth=1", "train.batch_tokens=512"])
    found = here(tiny, DataShape(64.5), [tiny])
    assert found.devices == 1 and found.memory > 1e8 and found.process > 1e7 and found.efficiency is not None
    planned = estimate(Job.of(tiny, DataShape(64.5)), Layout(rows=1), found, next(iter(found.flops)))
    assert planned.wall > 0 and planned.energy is None


def test_a_plan_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys\nfrom foretell.forecast.spread import spread\nfrom foretell.forecast.shapes import find_shape\n"
        "from foretell.forecast.cluster import load_cluster\n"
        "spread(find_shape('llama-7b'), load_cluster('h100x8'))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_page_tells_what_was_chosen() -> None:
    one, place = find_shape("llama-3-8b"), load_cluster("h100x64").model_copy(update={"price": 3.0})
    assert one is not None
    found = spread(one, place)
    text = spread_page(found, "bfloat16", 0.4)
    for said in ("Plan of llama-3-8b", "micro_batch", "shard:", "CO₂", "Cost", "Daly 2006", "eight of ten"):
        assert said in text


def test_times_are_told_in_units_that_are_read() -> None:
    assert [duration_text(s) for s in (0.0123, 11.13, 4590.0)] == ["12.3 ms", "11.1 s", "1 h 16 min"]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [((1, 1), "X"), ((4, 1), "X, 4 in one node"), ((8, 2), "X, 8 a node, 2 nodes")],
)
def test_devices_are_counted_where_there_are_several(sizes: tuple[int, int], said: str) -> None:
    place = cluster(device="X", node=sizes[0], nodes=sizes[1])
    found = estimate(job(), Layout(place.devices, rows=1), place)
    assert dict(described(found, "bfloat16"))["Device"] == said


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    import typer

    def say(*words: str) -> str:
        typer.main.get_command(app).main(["forecast", "plan", *words], standalone_mode=False)
        return capsys.readouterr().out

    return say


def test_command_plans_a_shape_and_a_recipe(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("llama-2-7b", "--cluster", "a100-80x64", "--price", "2", "--page", str(tmp_path / "p.html"))
    assert "parallel:\n  replicate:" in said and "Cost" in said and "Energy" in said and "CO₂" not in said
    assert "\n\n\n" not in said  # a table without heads has no line for them
    assert (tmp_path / "p.html").is_file()
    out = tmp_path / "spread.yaml"
    recipe = ("quickstart", "--cluster", "h100x4", "--co2", "0.3", "--set", "train.batch_tokens=16384")
    assert "CO₂" in run(*recipe, "--out", str(out))
    text = out.read_text()
    assert "parallel:\n  replicate: " in text and "micro_batch: " in text
    if "parallel" in type(load_recipe("quickstart")).model_fields:
        assert load_recipe(out).train.batch_tokens == 16384


def test_shapes_are_named_only_where_there_is_no_such_recipe(run: Callable[..., str]) -> None:
    with pytest.raises(RecipeError, match=r"cannot share 3 kv_heads; set kv_heads to a divisor of 4\.$"):
        run("quickstart", "--cluster", "h100x8", "--set", "model.kv_heads=3")
    with pytest.raises(RecipeError, match=r"Did you mean the shape llama-3-70b\?$"):
        run("llama-3-700b", "--cluster", "h100x8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["llama-7b"], "need a cluster"),
        (["quickstart", "--precision", "float32", "--budget", "1e14"], "need a cluster"),
        (["quickstart", "--cluster", "here", "--precision", "float32"], "takes the recipe's precision"),
        (["quickstart", "--price", "2", "--budget", "1e14"], "need a cluster"),
        (["quickstart", "--cluster", "h100x8", "--hours", "2"], "plans the recipe as it is"),
        (["llama-7b", "--cluster", "here"], "a shape has none"),
        (["llama-7b", "--cluster", "h100x8", "--out", "x.yaml"], "a shape is none"),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(run: Callable[..., str], words: list[str], said: str) -> None:
    import typer

    with pytest.raises(typer.BadParameter, match=said):
        run(*words)

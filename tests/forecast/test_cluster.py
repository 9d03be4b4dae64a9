from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretell.errors import ForecastError, RecipeError
from foretell.forecast.cluster import Curve, built_in, load_cluster
from foretell.forecast.shapes import find_shape, shapes


def test_built_in_clusters_are_whole_and_say_where_their_figures_come_from() -> None:
    for name in built_in():
        found = load_cluster(name)
        assert found.source and found.power and found.devices == found.node, name
        assert 1e10 < found.bandwidth < found.peak(found.mixed), name


def test_a_v100_multiplies_float16_and_no_bfloat16() -> None:
    found = load_cluster("v100x8")
    assert (found.mixed, found.peak("float16"), found.peak("float32")) == ("float16", 125e12, 15.7e12)
    with pytest.raises(ForecastError, match=r"V100 .* has no rate for bfloat16; described are float16, float32\. Name"):
        found.peak("bfloat16")
    assert load_cluster("h100").mixed == "bfloat16"


def test_a_number_of_devices_is_a_part_of_a_node_or_whole_ones() -> None:
    assert (load_cluster("h100x4").node, load_cluster("h100x4").nodes) == (4, 1)
    assert (load_cluster("a100-80x64").node, load_cluster("a100-80x64").nodes) == (8, 8)
    assert load_cluster("h200").memory == 141e9 and load_cluster("h200").power == 700
    with pytest.raises(ForecastError, match="12 devices are no whole number of nodes of 8"):
        load_cluster("h100x12")


def test_a_file_takes_over_what_it_does_not_say(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text("like: h200\nnodes: 4\nprice: 2.5\nflops: {bfloat16: 9e14}\n")
    found = load_cluster(str(file))
    assert (found.devices, found.price, found.peak("bfloat16"), found.memory) == (32, 2.5, 9e14, 141e9)
    with pytest.raises(ForecastError, match="no rate for float16; described are bfloat16"):
        found.peak("float16")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("like: h300", "like is 'h300'; built in are h100"),
        ("like: h100\nmemory: -1", "memory is -1"),
        ("like: h100\nwatts: 3", "unknown key watts.*Allowed here: .* kind, like, matmul"),
        ("lik: h100", r"unknown key lik \(did you mean 'like'\?\)"),
        ("like: h100\nflops: {}", "flops is {}"),
        ("[1, 2]", "is no cluster; expected are fields such as device"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_what_is_no_cluster_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises((ForecastError, RecipeError), match=said):
        load_cluster(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("name", ["h101", "h100x0", "nowhere.yaml"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ForecastError, match=r"No cluster is called|is a cluster without devices|could not be read"):
        load_cluster(name)


def test_the_curve_gives_the_share_of_the_reference_and_falls_with_the_peak() -> None:
    curve = Curve(products=0.5, slope=0.25)
    assert curve.rate(312e12, 0.8) == pytest.approx(312e12 * 0.8 * 0.5)
    assert curve.rate(16 * 312e12, 1.0) == pytest.approx(16 * 312e12 * 0.25)
    assert curve.rate(1e9, 0.9) == pytest.approx(0.9e9)  # never more than the best products


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-7b", 6.74e9),
        ("llama-65b", 65.2e9),
        ("llama-3-8b", 8.03e9),
        ("llama-3-70b", 70.6e9),
        ("llama-3-405b", 405.9e9),
        ("gpt-3-175b", 174.6e9),
        ("palm-540b", 540.35e9),
        ("smollm3-3b", 3.075e9),
        ("mpt-7b", 6.65e9),
    ],
)
def test_shapes_have_the_parameters_that_were_published(name: str, parameters: float) -> None:
    job = find_shape(name)
    assert job is not None and job.parameters == pytest.approx(parameters, rel=0.01)


def test_every_shape_can_be_planned_and_gpt_3_costs_what_its_paper_says() -> None:
    assert all(find_shape(name) is not None for name in shapes())
    job = find_shape("gpt-3-175b")
    assert job is not None and job.flops == pytest.approx(3.14e23, rel=0.02)


def test_a_file_of_a_shape_is_checked_against_its_parameters(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "{layers: 2, width: 128, heads: 4, ffn: 352, vocabulary: 1000, context: 256, batch_tokens: 2e4, tokens: 1e7"
    file.write_text(text + ", parameters: 6.6e5}")
    job = find_shape(str(file))
    assert job is not None and job.name == "mine" and job.model.head_dim == 32 and job.batch_tokens == 20_000
    file.write_text(text + ", parameters: 7e9}")
    with pytest.raises(ForecastError, match=r"states 7e\+09 parameters, but its shape has"):
        find_shape(str(file))
    assert find_shape("quickstart") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kv_heads": 3}, r"bad\.yaml: kv_heads is 3, which does not divide heads \(4\); give a divisor"),
        ({"width": 130}, r"bad\.yaml: width is 130, which heads \(4\) does not divide; change one of them"),
        ({"width": 32}, r"bad\.yaml: head_dim is 8; allowed: 16 or more"),
        ({"layers": None, "layer": 2}, r"bad\.yaml: unknown key layer \(did you mean 'layers'\?\).*layers is missing"),
    ],
)
def test_a_file_of_a_shape_with_a_mistake_says_which(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    whole = {"layers": 2, "width": 128, "heads": 4, "ffn": 352, "vocabulary": 1000, "context": 256}
    whole |= {"batch_tokens": 20_000, "tokens": 10_000_000} | changes
    file = tmp_path / "bad.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in whole.items() if value is not None))
    with pytest.raises(RecipeError, match=said):
        find_shape(str(file))


def test_a_recipe_is_not_taken_for_a_shape(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: x\ndata: {sources: [{kind: world}]}\nmodel: {width: 64}\ntokens: 1e6\n")
    assert find_shape(str(file)) is None

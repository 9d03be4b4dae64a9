"""Recipes: overrides, what an error says, round trips."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretell.errors import RecipeError
from foretell.recipe import ParquetSource
from foretell.recipes import find_recipe, load_recipe, presets, recipe_yaml


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETELL_DATA", "/somewhere")


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "r.yaml").write_text(text)
    return tmp_path / "r.yaml"


@pytest.mark.parametrize("name", ["quickstart", "textbooks-cpu", "text-cpu", "gpu-1", "gpu-8"])
def test_every_preset_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name in presets()
    assert load_recipe(write(tmp_path, recipe_yaml(recipe))) == recipe


@pytest.mark.parametrize("name", ["no", "2e6", "1e5", "true", "2024-01-01", "null", "7", "0x1f", "off"])
def test_text_that_looks_like_something_else_survives(name: str, tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [f'name="{name}"', f'description="{name}"'])
    assert recipe.name == name == recipe.description
    assert load_recipe(write(tmp_path, recipe_yaml(recipe))) == recipe


def test_overrides() -> None:
    recipe = load_recipe(
        "quickstart",
        [
            "train.tokens=2e6",
            "data.sources.0.weight=2",
            "data.sources.world.weight=3",
            "train.watch=off",
            "model.vision=null",
            "train.optimizer.lr=1e-3",
            "data.cutoff=2024-01-01",
        ],
    )
    assert recipe.train.tokens == 2_000_000 and isinstance(recipe.train.tokens, int)
    assert [source.weight for source in recipe.data.sources] == [2, 3]
    assert recipe.train.watch == "off" and recipe.model.vision is None
    assert recipe.train.optimizer.lr == 1e-3 and recipe.data.cutoff == "2024-01-01"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.tokns=3", r"unknown key train.tokns \(did you mean 'tokens'\?\)"),
        ("train.tokns=3", "Allowed here: batch_tokens, checkpoint_minutes"),
        ("data.sources.1.documnets=3", r"unknown key data.sources.1.documnets \(did you mean 'documents'\?\)"),
        ("data.sources.0.kind=wrld", "data.sources.0.kind is 'wrld' .did you mean 'world'.*allowed are folder, hub"),
        ("data.sources.9.weight=1", "no item '9'; allowed are 0 to 1, or python, world"),
        ("data.sources.0.weight=-2", "data.sources.0.weight is -2; allowed: above 0"),
        ("data.sources.0.name=../out", "data.sources.0.name is '../out'; allowed: letters, digits"),
        ("train.tokens=-5", "train.tokens is -5; allowed: above 0"),
        ("train.tokens=2.5", "train.tokens is 2.5; allowed: a whole number"),
        ("train.schedule=lin", r"train.schedule is 'lin' .did you mean 'linear'.*; allowed: 'linear', 'cosine' or 'w"),
        ("model.width=100", "width 100 is not divisible by head_dim 32"),
        ("data.sequence_length=9999", "longer than model.max_length"),
        ("train.tokens.more=1", r"train.tokens is \d+, which has no parts"),
        ("data.cutoff=garbage", "cutoff 'garbage' is no date; allowed are such as 2023"),
        ("tokenizer.vocab_size=1e9", "tokenizer.vocab_size is 1000000000.0; allowed: at most 1000000"),
        ("train.tokens", "must have the form key.path=value"),
        ("train.tokens=[1", "not valid YAML"),
        ("train.tokens=.nan", "train.tokens is nan"),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("- 1", "must be a mapping"),
        ("name: a\nname: b", "'name' stands twice"),
        ("name: [", "not valid YAML at line"),
        ("name: a", "data is missing"),
        ("name: a\ndata: {sources: []}", "name at least one source"),
        ("name: a\ndata: {sources: [{kind: world}, {kind: world}]}", "share a name"),
        ("name: !!python/object/apply:os.getcwd []\ndata: 1", "not valid YAML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "r.yaml")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        find_recipe("quikstart")


def test_paths_are_relative_to_the_recipe_or_for_overrides_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "name: a\ndata: {sources: [{kind: parquet, path: shards/*.parquet}]}")
    source = load_recipe(path).data.sources[0]
    assert isinstance(source, ParquetSource) and source.path == tmp_path / "shards" / "*.parquet"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    source = load_recipe(path, ["data.sources.parquet.path=x"]).data.sources[0]
    assert isinstance(source, ParquetSource) and source.path == tmp_path / "here" / "x"


def test_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_recipe("textbooks-cpu").data.sources[0]
    assert isinstance(source, ParquetSource) and source.path == Path("/somewhere/corpus/textbooks-*.parquet")
    monkeypatch.delenv("FORETELL_DATA")
    with pytest.raises(RecipeError, match="environment variable FORETELL_DATA is not set"):
        load_recipe("textbooks-cpu")
    assert load_recipe("textbooks-cpu", [f"data.sources.{i}.path=/mnt" for i in range(3)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (['data.curriculum=[{"share": 1, "weights": {"verse": 1}}]'], "phase 1 weighs 'verse'"),
        (['data.curriculum=[{"share": 1, "weights": {"python": 0, "world": 0}}]'], "weight 0"),
        (['data.curriculum=[{"share": 1}]', "train.tokens=9000000"], "begin again"),
    ],
)
def test_a_curriculum_that_cannot_be_read_is_refused(settings: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", settings)

"""The whole path at a tiny size: data to page, once; what is skipped and rebuilt; documents; the rehearsal's sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from foretell.data.document import Document, Segment
from foretell.data.parquet import write_documents
from foretell.errors import DataError, RecipeError
from foretell.pipeline import run_recipe, run_status
from foretell.pipeline.depth import scale_to_depth
from foretell.pipeline.documents import fingerprint, samples, tokenizer_texts, write_sources
from foretell.pipeline.rehearse import shrink
from foretell.recipe import FolderSource, ParquetSource, Recipe
from foretell.recipes import check_recipe, load_recipe
from foretell.run import silent

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "sources": [
            {"kind": "folder", "path": "", "heldout": 0.2, "license": "CC0-1.0", "language": "en"},
            {
                "kind": "world",
                "documents": 60,
                "heldout_documents": 40,
                "kinds": {"scenes": 3, "reading": 2, "facts": 1},
            },
        ],
        "sequence_length": 64,
        "tokens": 6_000,
        "heldout_tokens": 1_000,
    },
    "tokenizer": {"vocab_size": 384, "train_bytes": 20_000},
    "model": {
        "width": 32,
        "depth": 1,
        "head_dim": 16,
        "vision": {"tile": 32, "patch": 8, "shuffle": 2, "width": 32, "depth": 1},
    },
    "train": {"tokens": 1024, "batch_tokens": 256, "precision": "float32", "device": "cpu", "eval_batches": 1},
    "examine": {"questions": 3, "shown": 2, "samples": 3, "max_tokens": 3},
}


def tiny(folder: Path, touch: bool = False, **train: Any) -> Recipe:
    (folder / "texts").mkdir(exist_ok=True)
    for i in range(30 if touch or not (folder / "texts" / "29.md").exists() else 0):
        (folder / "texts" / f"{i}.md").write_text(f"# Note {i}\n\n" + f"The number {i} is followed by {i + 1}. " * 8)
    raw = json.loads(json.dumps(TINY))
    raw["data"]["sources"][0]["path"] = str(folder / "texts")
    raw["train"] |= train
    return check_recipe(raw)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tiny")
    return folder, run_recipe(tiny(folder), folder / "run")


def test_the_whole_path(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, manifests = finished
    run = folder / "run"
    assert list(manifests) == ["data", "tokenizer", "pack", "pretrain", "examine", "page", "card"]
    recipe, stages = run_status(run)
    assert recipe == tiny(folder) and {stage.state for stage in stages} == {"done"}
    assert manifests["data"]["metrics"]["licenses"].keys() == {"CC0-1.0"}
    assert manifests["data"]["metrics"]["sources"]["world"]["train"]["documents"] == 60
    assert manifests["pack"]["metrics"]["train"]["rows"] > 0
    assert manifests["pretrain"]["metrics"]["bits_per_byte"] > 0
    examined = json.loads((run / "examine" / "examine.json").read_text())
    assert examined["tasks"] and len(examined["samples"]) == 3
    assert all(task["questions"] <= 3 for task in examined["tasks"])
    assert "<html" in (run / "page" / "index.html").read_text()


def test_the_result_loads_and_talks(finished: tuple[Path, dict[str, Any]]) -> None:
    import foretell

    model = foretell.load(finished[0] / "run", device="cpu")
    assert isinstance(model.chat([{"role": "user", "content": "Hello"}], max_tokens=2, seed=0).text, str)


def test_only_what_depends_on_a_change_is_stale(finished: tuple[Path, dict[str, Any]]) -> None:
    from foretell.pipeline import stages
    from foretell.run import status

    folder, _ = finished

    def stale(recipe: Recipe) -> list[str]:
        return [stage.name for stage in status(folder / "run", stages(recipe)) if stage.state != "done"]

    assert stale(tiny(folder)) == []
    assert stale(tiny(folder, log_every=3, keep=1, checkpoint_minutes=60)) == []
    assert stale(tiny(folder, tokens=2048)) == ["pretrain", "examine", "page", "card"]
    raw = tiny(folder).model_dump(mode="json")
    raw["examine"]["questions"] = 4
    assert stale(check_recipe(raw)) == ["examine", "page", "card"]
    raw["data"]["sources"][0]["weight"] = 2
    assert stale(check_recipe(raw)) == ["tokenizer", "pack", "pretrain", "examine", "page", "card"]


def test_prompts_that_leave_no_room_are_passed_over(tmp_path: Path) -> None:
    from foretell.pipeline.examination import examine

    folder = tmp_path / "data" / "folder"
    turns = [("long " * 300, "user"), ("x", "assistant")], [("a", "assistant"), ("b", "assistant")]
    documents = [Document("space", (Segment(text=" " + "x" * 90),), "s", "MIT")]
    documents += [
        Document(str(i), tuple(Segment(t, role=r) for t, r in chat), "s", "MIT") for i, chat in enumerate(turns)
    ]  # type: ignore[arg-type]
    write_documents(folder / "heldout.parquet", documents)
    raw = tiny(tmp_path).model_dump(mode="json")
    raw["data"]["sources"] = raw["data"]["sources"][:1]
    recipe = check_recipe(raw)
    run_recipe(recipe, tmp_path / "run", until="pretrain")
    inputs = {"data": tmp_path / "data", "pretrain": tmp_path / "run" / "pretrain"}
    examine(recipe, inputs, tmp_path, silent)
    samples = json.loads((tmp_path / "examine.json").read_text())["samples"]
    assert [sample["prompt"] for sample in samples] == ["x" * 80]


def test_a_second_run_writes_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, manifests = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").glob("*/*") if path.is_file()}
    assert run_recipe(tiny(folder), folder / "run") == manifests
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").glob("*/*") if path.is_file()} == before


def test_touched_files_rebuild_the_data_and_nothing_that_is_equal(tmp_path: Path) -> None:
    first = run_recipe(tiny(tmp_path), tmp_path / "run", until="tokenizer")
    second = run_recipe(tiny(tmp_path, touch=True), tmp_path / "run", until="tokenizer")
    assert first["data"]["key"] != second["data"]["key"]
    assert first["data"]["output"] == second["data"]["output"]
    assert first["tokenizer"] == second["tokenizer"]


def test_sources_that_were_finished_are_not_read_again(tmp_path: Path) -> None:
    source = tiny(tmp_path).data.sources[0]
    first = write_sources([source], None, 0, tmp_path / "out", silent)
    assert isinstance(source, FolderSource)
    again = write_sources([source.model_copy(update={"path": tmp_path / "gone"})], None, 0, tmp_path / "out", silent)
    assert first["documents"] == again["documents"] > 0


def dated(folder: Path, *dates: str | None) -> ParquetSource:
    documents = [
        Document(f"d{i}", (Segment(text="words " * 9),), "s", "MIT" if i % 2 else "CC0-1.0", "de", date)
        for i, date in enumerate(dates)
    ]
    write_documents(folder / "d.parquet", documents)
    return ParquetSource(path=folder / "d.parquet", heldout=0.3)


def test_the_cutoff_leaves_out_what_is_later_and_counts_it(tmp_path: Path) -> None:
    dates = ["2020", "2023-05-01", "2023-06-02", "2024", None] * 12
    counts = write_sources([dated(tmp_path, *dates)], "2023-05-31", 0, tmp_path / "out", silent)
    assert counts["documents"] == 36
    assert counts["skipped"] == {"dated after the cutoff": 24}
    assert counts["licenses"].keys() == {"MIT", "CC0-1.0"} and counts["languages"] == {"de": 36}


def test_a_source_without_documents_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dated after the cutoff"):
        write_sources([dated(tmp_path, "2024", "2025")], "2020", 0, tmp_path / "out", silent)


def test_the_fingerprint_sees_files_and_names_a_missing_path(tmp_path: Path) -> None:
    source = tiny(tmp_path).data.sources[0]
    before = fingerprint([source])
    assert fingerprint([source]) == before
    (tmp_path / "texts" / "new.md").write_text("more")
    assert fingerprint([source]) != before
    with pytest.raises(DataError, match=r"Source .parquet.*Check the path"):
        fingerprint([ParquetSource(path=tmp_path / "none" / "*.parquet")])


def test_tokenizer_texts_follow_the_weights(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, manifests = finished
    sources, counts = tiny(folder).data.sources, manifests["data"]["metrics"]["sources"]
    every = list(tokenizer_texts(sources, folder / "run" / "data", counts, 10**9, 0))
    some = list(tokenizer_texts(sources, folder / "run" / "data", counts, counts["folder"]["train"]["bytes"], 0))
    assert len(every) == sum(count["train"]["documents"] for count in counts.values())
    assert 0.2 < sum("# Note" in text for text in some) / sum("# Note" in text for text in every) < 0.8


def test_samples_name_the_sources_there_are(finished: tuple[Path, dict[str, Any]]) -> None:
    run = finished[0] / "run"
    assert {d.source for d in samples(run, None, None, "heldout", 2)} == {"folder", "foretell.world"}
    assert all(d.kind == "scenes.count" for d in samples(run, "world", "scenes.count", "train", 2))
    with pytest.raises(DataError, match="its sources are folder, world"):
        list(samples(run, "bogus", None, "train", 1))
    assert {d.kind.partition(".")[0] for d in samples(run, None, "scenes", "train", 20)} == {"scenes"}
    with pytest.raises(DataError, match=r"No train document .* is of kind scene; its kinds are .*scenes.count"):
        list(samples(run, None, "scene", "train", 1))


def test_a_world_that_cannot_be_made_is_told_before_anything_is_touched(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    run = finished[0] / "run"
    right = load_recipe(run)
    with pytest.raises(DataError, match="no kind 'scnes'"):
        run_recipe(load_recipe(run, ["data.sources.world.kinds.scnes=1"]), run)
    assert "no kind 'scnes'" in run_status(run)[1][0].why
    run_recipe(right, run)
    assert [s.state for s in run_status(run)[1]] == ["done"] * 7


def test_images_nobody_will_see_are_told(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    blind = load_recipe(finished[0] / "run", ["model.vision=null"])
    notes = run_recipe(blind, tmp_path / "run", until="pack")["pack"]["metrics"]["train"]["notes"]
    assert any("images were left out" in note and "model.vision" in note for note in notes)


@pytest.mark.parametrize("name", ["quickstart", "textbooks-cpu", "text-cpu", "align-cpu", "gpu-1", "gpu-8"])
def test_every_preset_can_be_rehearsed_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretell.model.describe import parameter_count

    monkeypatch.setenv("FORETELL_DATA", "/somewhere")
    recipe = load_recipe(name)
    small, changes = shrink(recipe, "cpu")
    assert small.train.tokens <= max(recipe.train.tokens / 900, 8 * 8192)
    assert parameter_count(small.model) < 55e6
    assert small.forecast is None and any("ladder" in change for change in changes) == (recipe.forecast is not None)
    assert small.align is None and any("alignment" in change for change in changes) == (recipe.align is not None)
    assert any("exams" in change for change in changes) == bool(recipe.examine.exams)
    others = [change for change in changes if not re.search("ladder|alignment|exams", change)]
    assert bool(others) == name.startswith("gpu")
    assert [source.name for source in small.data.sources] == [source.name for source in recipe.data.sources]
    if name.startswith("gpu"):
        assert shrink(recipe, "cuda")[0].model == recipe.model
        assert any("million" in change or " M " in change for change in changes)


def test_one_dial_scales_everything_together() -> None:
    from foretell.model.describe import parameter_count

    recipe = load_recipe("gpu-1")
    small, large = scale_to_depth(recipe, 6), scale_to_depth(recipe, 24)
    assert (small.model.width, large.model.width) == (384, 1536)
    vocabulary = {"vocab_size": recipe.tokenizer.vocab_size}
    assert small.train.tokens == 20 * parameter_count(small.model.model_copy(update=vocabulary))
    assert small.train.batch_tokens < large.train.batch_tokens
    lrs = [r.train.optimizer.lr / r.train.batch_tokens**0.5 for r in (small, large)]
    assert lrs[0] == pytest.approx(lrs[1]) and small.data.tokens == small.train.tokens
    assert small.model.base_width == large.model.base_width
    for depth in range(1, 40):
        assert scale_to_depth(recipe, depth).model.depth == depth
    with pytest.raises(RecipeError, match="allowed is 1 or more"):
        scale_to_depth(recipe, 0)

"""A run whose pass rates are forecast with its loss: one record before it, one outcome a claim after it."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from foretell.cli.app import app
from foretell.errors import ForecastError
from foretell.forecast.buckets import MEAN
from foretell.forecast.capability import tally
from foretell.forecast.passing import Exam
from foretell.forecast.register import LOSS, read
from foretell.pipeline import capability as stage
from foretell.pipeline import run_recipe
from foretell.recipes import load_recipe, recipe_yaml
from foretell.run import silent
from foretell.train import loop

pytestmark = pytest.mark.slow
TINY = [
    *("model.width=96", "train.tokens=98304", "train.batch_tokens=512", "train.precision=float32", "data.tokens=25000"),
    *("data.heldout_tokens=2000", "data.sources.0.documents=300", "data.sources.0.heldout_documents=40"),
    *("tokenizer.vocab_size=400", "forecast.seeds=[1,2]", "data.sequence_length=64"),
]


def answered(checkpoints, exam, out, *, workers=None, report=silent):
    """Tallies of a law in the width; what was asked is kept in their names' place."""
    found = {}
    for name in checkpoints:
        assert (checkpoints[name] / "model.safetensors").is_file()
        width = 96 if name == "target" else int(re.match(r"w(\d+)", name)[1])
        rng = np.random.default_rng([width, exam.draws, len(name)])
        losses = np.geomspace(0.3, 3, 30) * (width / 32) ** -0.6
        found[name] = [tally(f"p{i}", rng.random(exam.most) < np.exp(-loss), 40) for i, loss in enumerate(losses)]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "programs"
    recipe = load_recipe("programs-cpu", TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "peak_rate", lambda *_: 1e11)
        patch.setattr(stage, "sit", answered)
        with pytest.raises(ForecastError, match="no finished ladder"):
            stage.foretell_capability(run_dir, recipe, stage.exam_of(recipe))
        run_recipe(recipe, run_dir, "ladder", silent, workers=1)
        first = CliRunner().invoke(app, ["forecast", "capability", str(run_dir), "--grades", "3,4"])
        assert first.exit_code == 0, first.output
        run_recipe(recipe, run_dir, "pretrain", silent)
        second = CliRunner().invoke(app, ["forecast", "capability", str(run_dir)])
        assert second.exit_code == 0, second.output
        again = CliRunner().invoke(app, ["forecast", "capability", str(run_dir)])
        assert again.output == second.output
    return run_dir, recipe, first.output, second.output


def test_loss_and_buckets_stand_in_one_record_that_the_run_used(finished):
    run_dir, _, said, _ = finished
    (path,) = (path for path in (run_dir / "forecasts").glob("*.json"))
    record = read(path)
    names = [claim.name for claim in record.claims]
    assert names[0] == LOSS
    assert names[-1] == MEAN
    assert len(names) == 8
    assert record.raw["curve"] is not None
    assert record.sha256 in said
    exam, rungs, found = stage.read_capability(run_dir)
    assert exam == Exam(40, (3, 4), "ns", 1)
    assert found.claims(record.target) == record.claims[1:]
    assert len(rungs) == 5  # of widths with two seeds the second only sorts
    assert len({flops for flops, _ in rungs}) == 5


def test_every_claim_gets_its_outcome_once(finished):
    run_dir, _, _, said = finished
    (path,) = (path for path in (run_dir / "forecasts").glob("*.json"))
    record = read(path)
    assert sorted(outcome.claim.name for outcome in record.outcomes) == sorted(claim.name for claim in record.claims)
    buckets = [outcome for outcome in record.outcomes if outcome.claim.name.startswith("bucket")]
    assert sum(outcome.hit for outcome in buckets) >= 5
    assert said.count("inside") + said.count("outside") == 8
    page = path.with_name(f"{path.stem}-capability.html").read_text()
    assert page.count("<svg") >= 6
    assert "outcome" in page


def test_a_late_forecast_and_altered_buckets_are_refused(finished, monkeypatch):
    run_dir, recipe, _, _ = finished
    monkeypatch.setattr(stage, "sit", answered)
    with pytest.raises(ForecastError, match="has begun"):
        stage.foretell_capability(run_dir, recipe, stage.exam_of(recipe))
    file = run_dir / stage.FOLDER / stage.FILE
    before = file.read_bytes()
    file.write_bytes(before.replace(b'"p0"', b'"p00"', 1))
    with pytest.raises(ForecastError, match="not the one"):
        stage.compare_capability(run_dir, recipe)
    file.write_bytes(before)


def test_seeds_are_split_between_sorting_and_fitting():
    assert stage.split_seeds(["w16-s0", "w32-s0", "w32-s1"]) == (["w32-s1"], ["w16-s0", "w32-s0"])
    assert stage.split_seeds(["w16-s0", "w32-s0"]) == (["w16-s0", "w32-s0"], ["w16-s0", "w32-s0"])


def test_a_recipe_without_programs_has_no_exam():
    with pytest.raises(ForecastError, match="no world source of programs"):
        stage.exam_of(load_recipe("quickstart"))


def test_a_run_without_a_forecast_of_pass_rates_is_told_so(tmp_path):
    (tmp_path / "pretrain").mkdir()
    manifest = {"key": "", "output": "", "files": [], "metrics": {}}
    (tmp_path / "pretrain" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ForecastError, match="No pass rates were forecast"):
        stage.compare_capability(tmp_path, load_recipe("programs-cpu"))


def test_grades_that_are_no_numbers_are_told(tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe_yaml(load_recipe("programs-cpu")))
    result = CliRunner().invoke(app, ["forecast", "capability", str(tmp_path), "--grades", "2,x"])
    assert isinstance(result.exception, ForecastError) and "'2,x'" in str(result.exception)

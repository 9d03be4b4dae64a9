"""The stages of a forecast: the ladder below a run, the record made before its first step, the outcome after its last.

Records lie in the run's folder `forecasts`, outside every stage: no rebuild removes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretell.errors import ForecastError
from foretell.files import write_text
from foretell.forecast.ledger import RECORDS, registered
from foretell.forecast.rungs import flops, lay, measured, target_digest, with_vocabulary
from foretell.measure.fanout import Where
from foretell.recipe import ForecastConfig, Recipe
from foretell.run import Report, Stage, read_manifest

if TYPE_CHECKING:
    from foretell.forecast.fitting import Forecast
    from foretell.forecast.register import Record
    from foretell.forecast.table import LadderTable
    from foretell.forecast.watch import Live

_LADDER = ("widths", "depths", "seeds", "largest", "batch_exponent", "horizon_exponent")
_FIT = ("unit", "kinds", "floor", "tail", "precision", "level")


def ladder_stage(
    recipe: Recipe, train: Mapping[str, Any], report: Report, on: Where = "local", workers: int | None = None
) -> Stage:
    """train: the settings of `recipe.train` that decide numbers."""
    plain = recipe.model_dump(mode="json")
    config = {key: plain["forecast"][key] for key in _LADDER}

    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        from foretell.data.tokenizer import Tokenizer
        from foretell.forecast.ladder import data_shape, run_ladder

        pack = inputs["pack"]
        sized, data = (
            with_vocabulary(recipe, Tokenizer.load(inputs["tokenizer"]).vocab_size),
            data_shape(pack / "train"),
        )
        rungs = lay(sized, data)
        table = run_ladder(
            rungs, pack / "train", pack / "heldout", inputs["tokenizer"], out,
            config=_config(recipe), on=on, workers=workers, report=report,
        )  # fmt: skip
        names, target = [rung.name for rung in rungs], flops(sized, data)
        return {
            "rungs": names,
            "diverged": [[rung.run, reason] for rung, reason in table.excluded],
            "flops": sum(rung.flops for rung in rungs),
            "target_flops": target,
            "compute_ratio": target / table.rungs[-1].flops if table.rungs else None,
        }

    shape = {"model": plain["model"], "train": dict(train), "seed": recipe.seed, "vocab": recipe.tokenizer.vocab_size}
    return Stage("ladder", config | shape, build, ("pack", "tokenizer"))


def forecast_stage(recipe: Recipe) -> Stage:
    """Fit the ladder and register what the run will reach."""
    settings = _config(recipe)

    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        from foretell.forecast.chart import advice, forecast_page, sentence
        from foretell.forecast.fitting import fit
        from foretell.forecast.ladder import read_ladder
        from foretell.forecast.ledger import canonical, sha256

        ladder = _metrics(inputs["ladder"])
        table, target = read_ladder(inputs["ladder"], ladder["rungs"], settings), float(ladder["target_flops"])
        found = fit(table, floor=settings.floor, tail=settings.tail, target=target, precision=settings.precision)
        digest = sha256(canonical(found.to_json()))
        same = [
            record
            for record in _records(out.parent, recipe)
            if sha256(canonical(record.raw["forecast"])) == digest and record.claims[0].level == settings.level
        ]
        record = same[-1] if same else new_record(out.parent, recipe, table, found, target)
        write_text(out / "index.html", forecast_page(found, table, record=record))
        claim = record.claims[0]
        return {
            "record": record.name,
            "sha256": record.sha256,
            "utc": record.utc,
            **claim._asdict(),
            "unit": table.unit,
            "said": sentence(found.predict(target, settings.level), table.unit),
            "advice": advice(found),
        }

    plain = recipe.model_dump(mode="json")["forecast"]
    config = {key: plain[key] for key in _FIT} | {"target": target_digest(recipe)}
    return Stage("forecast", config, build, ("ladder",))


def outcome_stage(recipe: Recipe) -> Stage:
    """Compare the record with what the run reached, and note it in the ledger."""

    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        from foretell.forecast.chart import forecast_page
        from foretell.forecast.register import verify

        record = usable(out.parent, recipe, first_step(inputs["pretrain"] / "log.jsonl"))
        loss = measured(_metrics(inputs["pretrain"]), _config(recipe))
        if not any(outcome.measured == loss for outcome in record.outcomes):
            record = verify(out.parent / RECORDS / record.name, loss)
        outcome = next(each for each in record.outcomes if each.measured == loss)
        write_text(out / "index.html", forecast_page(record.forecast(), record.table(), record=record))
        return {
            "record": record.name,
            "sha256": record.sha256,
            "loss": loss,
            **{name: value for name, value in outcome.claim._asdict().items() if name != "name"},
            "unit": record.raw["unit"],
            "error": outcome.error,
            "covered": outcome.hit,
        }

    plain = recipe.model_dump(mode="json")["forecast"]
    config = {key: plain[key] for key in _FIT} | {"target": target_digest(recipe)}
    return Stage("outcome", config, build, ("forecast", "pretrain"))


def new_record(
    run_dir: Path, recipe: Recipe, table: LadderTable, found: Forecast, target: float, **claims: Any
) -> Record:
    """Register a run's forecast under the next name in its folder. target: FLOPs. claims: further ones, and their rule.

    Also one that the data do not support: the run goes on, and the record says so.
    """
    from foretell.forecast.register import register
    from foretell.forecast.watch import watch

    folder = run_dir / RECORDS
    number = len(registered(folder)) + 1
    return register(
        folder / f"{recipe.name}-{number:03d}.json",
        table,
        found,
        target=target,
        level=_config(recipe).level,
        recipe=target_digest(recipe),
        curve=watch(table, found, target).to_json(),
        anyway=True,
        **claims,
    )


def observer(recipe: Recipe, out: Path) -> Live | None:
    """What holds the training in `out` against its forecast; None where the record has no curve.

    Raises ForecastError where the record was altered, or is younger than the run's first step.
    """
    from foretell.forecast.watch import Band, Live

    record = usable(out.parent, recipe, first_step(out / "log.jsonl"))
    curve = record.raw["curve"]
    return Live(Band.from_json(curve), stop=_config(recipe).on_alarm == "stop") if curve else None


def usable(run_dir: Path, recipe: Recipe, begun: str) -> Record:
    """The newest record that this run may be held against.

    begun: UTC time of its first step. Raises ForecastError where there is none that is older, or one was altered.
    """
    from foretell.forecast.register import check_before

    found = _records(run_dir, recipe)
    if not found:
        raise ForecastError(f"{run_dir / RECORDS} holds no record of this recipe. Run the forecast stage first.")
    older = [record for record in found if datetime.fromisoformat(record.utc) < datetime.fromisoformat(begun)]
    return check_before(run_dir / RECORDS / (older or found)[-1].name, begun, target_digest(recipe))


def _records(run_dir: Path, recipe: Recipe) -> list[Record]:
    """Those of this recipe's run, in the order of their registration."""
    from foretell.forecast.register import read

    folder, wanted = run_dir / RECORDS, target_digest(recipe)
    return [record for name in registered(folder) if (record := read(folder / name)).raw["recipe"] == wanted]


def first_step(log: Path) -> str:
    """UTC time at which a run began; now, where it has not."""
    from foretell.train.log import read_log

    start = next((line for line in read_log(log) if line["event"] == "start"), None)
    return str(start["utc"]) if start else datetime.now(UTC).isoformat()


def _config(recipe: Recipe) -> ForecastConfig:
    return recipe.forecast or ForecastConfig()


def _metrics(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None, "run_stages finished it"
    return dict(manifest["metrics"])

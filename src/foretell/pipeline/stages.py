"""The stages of a run: data → tokenizer → pack → [ladder → forecast →] pretrain → [outcome →] examine → [exams →] page
→ card.

Those in brackets where the recipe has a forecast, or names exams. Each names the part of the recipe it uses, and only
that part decides whether it is built again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from foretell.errors import MissingExtraError, RunError
from foretell.measure.fanout import Where
from foretell.measure.machine import has_torch
from foretell.pipeline import documents, forecasting
from foretell.recipe import Recipe
from foretell.recipes import load_recipe, recipe_yaml
from foretell.report.record import TELLING
from foretell.run import Report, Stage, StageStatus, place, read_manifest, run_stages, silent, status, written
from foretell.template import Template

if TYPE_CHECKING:
    from foretell.data.document import Document
    from foretell.train.distributed import Group
    from foretell.train.hooks import Observer

_PREPARING = ("data", "tokenizer", "pack")  # stages that need no machine to train on
# Settings that change how a run is watched, not what comes out of it.
_WATCHING = {"checkpoint_minutes", "keep", "log_every"}


def run_recipe(
    recipe: Recipe,
    out_dir: Path,
    until: str | None = None,
    report: Report = silent,
    *,
    on: Where = "local",
    workers: int | None = None,
    arms: bool = False,
) -> dict[str, dict[str, Any]]:
    """Run every stage that is not up to date; returns their manifests.

    on, workers: where the ladder's rungs are trained, and how many at a time (see `measure.fanout`). arms: train every
    arm of the recipe's alignment, not only the main one.

    Under torchrun the first process does so; the others join it where a stage trains, and return nothing.
    Raises a ForetellError that says what to do; finished stages stay, and the same call resumes.
    """
    if not has_torch():
        raise MissingExtraError("Training", "torch")
    run = partial(
        run_stages,
        out_dir,
        recipe_text=recipe_yaml(recipe),
        name=recipe.name,
        seed=recipe.seed,
        until=until,
        report=report,
    )
    from foretell.train.distributed import Group

    if place()[1] == 1:
        if until not in _PREPARING and _demands(recipe):
            _check(recipe, Group())
        return run(stages(recipe, report, on=on, workers=workers, run_dir=out_dir, arms=arms))
    with Group.join({"recipe": recipe.model_dump(mode="json")}) as group:
        _check(recipe, group)
        if group.rank == 0:
            return run(stages(recipe, report, group, run_dir=out_dir, arms=arms))
        while True:  # until the first process leaves
            _train(recipe, (), silent, group)
    return {}


def _demands(recipe: Recipe) -> bool:
    """Whether training asks something of the machine that it may not have."""
    return recipe.parallel is not None or recipe.train.compile or recipe.train.device != "auto"


def _check(recipe: Recipe, group: Group) -> None:
    """Raise TrainingError now where training would: stages that take hours come before it."""
    from foretell.model.multimodal import Multimodal
    from foretell.train.layout import check_layout, layout
    from foretell.train.setup import check_compiler, pick_device, share_rows

    where = layout(recipe.parallel, group)
    share_rows(recipe, where.readers)
    check_compiler(recipe.train)
    pick_device(recipe.train.device, group.world)
    if recipe.parallel is not None:
        shape = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size, "image_token": 0})
        empty = Multimodal.empty(shape)
        check_layout(empty, recipe.parallel, where, recipe.data.sequence_length, recipe.train.compile)


def run_status(run_dir: Path) -> tuple[Recipe, list[StageStatus]]:
    """A run's recipe and the state of its stages."""
    if not (run_dir / "recipe.yaml").is_file():
        raise RunError(f"{run_dir} is not a run directory: it has no recipe.yaml. Start one with: foretell run RECIPE.")
    recipe = load_recipe(run_dir / "recipe.yaml")
    return recipe, status(run_dir, stages(recipe, run_dir=run_dir))


def fine_tuning(run_dir: Path) -> tuple[str, list[StageStatus]] | None:
    """What a run of `foretell sft`, `reward`, `dpo`, `ppo` or `grpo` is, and its stages; None for another folder."""
    try:
        raw = yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), str) or not isinstance(raw.get("data"), str):
        return None
    return f"{raw.get('name')} of {raw['model']} on {raw['data']}, seed {raw.get('seed')}", written(run_dir)


def stages(
    recipe: Recipe,
    report: Report = silent,
    group: Group | None = None,
    *,
    on: Where = "local",
    workers: int | None = None,
    run_dir: Path | None = None,
    arms: bool = False,
) -> list[Stage]:
    """The stages of a recipe, in order. group: the processes that train together. run_dir: where they are to run, for
    those of alignment, which are left out without it."""
    plain = recipe.model_dump(mode="json")
    sources = recipe.data.sources
    mixture = {source.name: source.weight for source in sources}
    seed = {"seed": recipe.seed}
    amounts = {k: plain["data"][k] for k in ("sequence_length", "tokens", "heldout_tokens", "max_epochs")}
    if recipe.data.curriculum:
        amounts["curriculum"] = plain["data"]["curriculum"]
    tiling = (
        {k: plain["model"]["vision"][k] for k in ("tile", "patch", "shuffle", "grid")} if recipe.model.vision else None
    )
    read = [{k: v for k, v in source.items() if k != "weight"} for source in plain["data"]["sources"]]
    train = {k: v for k, v in plain["train"].items() if k not in _WATCHING}
    found = [
        Stage(
            "data",
            {"sources": read, "cutoff": recipe.data.cutoff, **seed},
            lambda inputs, out: documents.write_sources(sources, recipe.data.cutoff, recipe.seed, out, report),
            outside=lambda: documents.fingerprint(sources),
        ),
        Stage(
            "tokenizer",
            {**plain["tokenizer"], "mixture": mixture, "grid": _grid(recipe), **seed},
            lambda inputs, out: _tokenizer(recipe, inputs, out, report),
            ("data",),
        ),
        Stage(
            "pack",
            {**amounts, "mixture": mixture, "tiling": tiling, **seed},
            lambda inputs, out: _pack(recipe, inputs, out, report),
            ("data", "tokenizer"),
        ),
        Stage(
            "pretrain",
            {"model": plain["model"], "train": train, **seed},
            lambda inputs, out: _pretrain(recipe, inputs, out, report, group),
            ("pack", "tokenizer"),
            scratch="checkpoints",
        ),
        Stage(
            "examine",
            {**{k: v for k, v in plain["examine"].items() if k != "exams"}, "device": recipe.train.device, **seed},
            lambda inputs, out: _examine(recipe, inputs, out, report),
            ("data", "pretrain"),
        ),
        Stage(
            "page",
            {"name": recipe.name, "description": recipe.description},
            lambda inputs, out: _page(out),
            ("data", "tokenizer", "pack", "pretrain", "examine", *(["outcome"] if recipe.forecast else [])),
        ),
    ]
    if recipe.forecast is not None:
        found[4:4] = [forecasting.outcome_stage(recipe)]
        found[3:3] = [
            forecasting.ladder_stage(recipe, train, report, on, workers),
            forecasting.forecast_stage(recipe),
        ]
    if recipe.align is not None and run_dir is not None:
        from foretell.pipeline.alignment import align_stages

        found[-1] = replace(found[-1], inputs=(*found[-1].inputs, "outcomes"))
        found[-1:-1] = align_stages(recipe, run_dir, report, arms)
    if recipe.examine.exams:
        from foretell.pipeline.sitting import exams_stage

        found[-1:-1] = [exams_stage(recipe, report, any(stage.name == "ppo" for stage in found))]
    told = tuple(stage.name for stage in found if stage.name not in TELLING)
    found.append(Stage("card", {"name": recipe.name, "description": recipe.description}, _card, told))
    return found


def _grid(recipe: Recipe) -> int:
    return recipe.model.vision.grid if recipe.model.vision else 1


def _tokenizer(recipe: Recipe, inputs: Mapping[str, Path], out: Path, report: Report) -> dict[str, Any]:
    from foretell.data.tokenizer import train_tokenizer

    manifest = read_manifest(inputs["data"])
    assert manifest is not None, "run_stages finished it"
    total = recipe.tokenizer.train_bytes
    texts = documents.tokenizer_texts(
        recipe.data.sources, inputs["data"], manifest["metrics"]["sources"], total, recipe.seed
    )
    seen = _Counted(texts, report, total)
    tokenizer = train_tokenizer(iter(seen), recipe.tokenizer, _grid(recipe))
    tokenizer.save(out)
    return {"vocab_size": tokenizer.vocab_size, "trained_on_bytes": seen.bytes}


class _Counted:
    def __init__(self, texts: Iterator[str], report: Report, total: int) -> None:
        self._texts, self._report, self._total = texts, report, total
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.bytes += len(text.encode("utf-8", "replace"))
            self._report("tokenizer", min(self.bytes, self._total), self._total, "reading")
            yield text


def _pack(recipe: Recipe, inputs: Mapping[str, Path], out: Path, report: Report) -> dict[str, Any]:
    from foretell.data.pack import PackSource, pack
    from foretell.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(inputs["tokenizer"])
    template = Template(tokenizer, recipe.model.vision.tiling if recipe.model.vision else None)
    data, metrics = recipe.data, {}
    wanted = {"train": (data.tokens, data.max_epochs), "heldout": (data.heldout_tokens, 1.0)}
    for split, (tokens, epochs) in wanted.items():
        chosen = {s.name: PackSource(_reader(inputs["data"], s.name, split), s.weight) for s in data.sources}
        metrics[split] = pack(
            chosen,
            template,
            tokenizer,
            out / split,
            data.sequence_length,
            tokens,
            epochs,
            recipe.seed,
            partial(report, f"pack, {split}"),
            [(phase.share, phase.weights) for phase in data.curriculum] if split == "train" else (),
        )
    if recipe.model.vision is None and (read := read_manifest(inputs["data"])) is not None:
        images = sum(source["train"]["images"] for source in read["metrics"]["sources"].values())
        if images:
            metrics["train"]["notes"].append(
                f"{images:,} images were left out: the recipe gives the model no image tower (model.vision)."
            )
    return metrics


def _reader(data_dir: Path, source: str, split: str) -> Callable[[], Iterator[Document]]:
    from foretell.data.parquet import read_documents

    return lambda: read_documents(documents.documents_file(data_dir, source, split))  # type: ignore[arg-type]


def _pretrain(
    recipe: Recipe, inputs: Mapping[str, Path], out: Path, report: Report, group: Group | None
) -> dict[str, Any]:
    folders = (inputs["pack"] / "train", inputs["pack"] / "heldout", inputs["tokenizer"], out)
    return _train(recipe, folders, report, group, forecasting.observer(recipe, out) if recipe.forecast else None)


def _train(
    recipe: Recipe, folders: Iterable[Path], report: Report, group: Group | None, observe: Observer | None = None
) -> dict[str, Any]:
    """folders: of the packs, the tokenizer and the output; every process takes the first one's."""
    from foretell.train.loop import pretrain

    if group is not None:
        folders = map(Path, group.share(lambda: [str(folder.absolute()) for folder in folders]))
    train, heldout, tokenizer, out = folders
    return pretrain(recipe, train, heldout, tokenizer, out, report=report, group=group, observe=observe)


def _examine(recipe: Recipe, inputs: Mapping[str, Path], out: Path, report: Report) -> dict[str, Any]:
    from foretell.pipeline.examination import examine

    return examine(recipe, inputs, out, report)


def _card(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    from foretell.report.card.write import write_card

    write_card(out.parent, out=out, building="card")
    return {}


def _page(out: Path) -> dict[str, Any]:
    from foretell.report.run_page import write_page

    write_page(out.parent)
    return {}

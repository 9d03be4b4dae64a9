"""Fine-tuning as a run: [base →] pack → [reference →] sft, reward or dpo; skipped and resumed as any run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from foretell.align.dpo import DPO, reference_logprobs
from foretell.align.packing import Table, pack_split, require_template
from foretell.align.reward import BradleyTerry, add_head, normalise
from foretell.align.rows import data_files
from foretell.data.loader import FixedBatches, Loader, PackedBatch
from foretell.data.shards import Shards
from foretell.data.splits import Split
from foretell.errors import CheckpointError, DataError, RowError, TrainingError
from foretell.files import expand_home, read_json, sha256_file
from foretell.loading import find_checkpoint, is_foreign
from foretell.model.adapters import choose_trained
from foretell.model.multimodal import Multimodal
from foretell.model.weights import MANIFEST, SCALAR_HEAD, WEIGHTS
from foretell.run import Report, Stage, place, run_stages, silent
from foretell.train.distributed import Group
from foretell.train.layout import layout
from foretell.train.loop import WHOLE, fit, micro_rows
from foretell.train.objective import NextToken, Objective, evaluate
from foretell.train.setup import pick_device, pick_precision
from foretell.tuning import DPOConfig, RewardConfig, SFTConfig, Tuning
from foretell.weights.importing import Opened, import_weights, load_checkpoint

Kind = Literal["sft", "reward", "dpo"]
CONFIGS: dict[Kind, type[Tuning]] = {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig}
SETTINGS = "tuning.yaml"
SPLITS: tuple[Split, ...] = ("train", "heldout")
OWN_FILES = {WEIGHTS, SCALAR_HEAD, MANIFEST, "config.json", SETTINGS}
# Settings that change how a stage is watched, not what comes out of it; and those that only packing reads.
WATCHING = {"checkpoint_minutes", "keep", "log_every", "parallel"}
_PACKING = {"heldout", "bad_rows", "sequence_length"}
_OBJECTIVE = ("centre", "beta", "label_smoothing")


def tune(
    kind: Kind,
    model: str | Path,
    data: str | Path,
    out_dir: str | Path,
    settings: Tuning | None = None,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:
    """Fine-tune a model; the result, `out_dir`/KIND/checkpoint, is what `foretell.load(out_dir)` reads.

    model: as for `foretell.load`, but no endpoint. data: a file or folder of examples (align/examples.py). settings:
    those of `CONFIGS[kind]`. The same call again resumes what was cut off and skips what is done.
    Under torchrun the first process does so; the others join it where the model is trained, and return nothing.
    Returns the manifests by stage; the last one's metrics are those of the held-out examples.
    Raises a ForetellError that says what to do; KeyboardInterrupt after a checkpoint on SIGINT or SIGTERM.
    """
    settings = settings or CONFIGS[kind]()
    data, out_dir = Path(data), Path(out_dir)
    foreign = is_foreign(model)
    base = None if foreign else find_checkpoint(model)
    data_files(data)

    def origin(inputs: Mapping[str, Path]) -> Path:
        return inputs["base"] / "checkpoint" if base is None else base

    def weights() -> str:
        return "" if base is None else sha256_file(base / MANIFEST)

    first = ("base",) if foreign else ()
    named = {"name": kind, "model": str(model), "data": str(data), **settings.model_dump(mode="json")}
    text = yaml.safe_dump(named, sort_keys=False, allow_unicode=True)

    def run(group: Group) -> dict[str, dict[str, Any]]:
        beside = {"model": str(model)}
        stages = tuning_stages(kind, settings, origin, data, text, report, first, weights, beside, group=group)
        if foreign:
            stages.insert(0, import_stage(model, report))
        return run_stages(out_dir, stages, recipe_text=text, name=kind, seed=settings.seed, report=report)

    if place()[1] == 1:
        return run(Group())
    with Group.join({"kind": kind, "settings": settings.model_dump(mode="json")}) as group:
        if group.rank == 0:
            return run(group)
        follow(kind, settings, text, group)
    return {}


def follow(kind: Kind, settings: Tuning, text: str, group: Group) -> None:
    """Join whatever the first process trains, until it leaves."""
    while True:
        _train(kind, settings, (), text, silent, group)


def tuning_stages(
    kind: Kind,
    settings: Tuning,
    origin: Callable[[Mapping[str, Path]], Path],
    data: Path,
    text: str,
    report: Report,
    first: tuple[str, ...] = (),
    weights: Callable[[], str] | None = None,
    beside: Mapping[str, str] | None = None,
    prefix: str = "",
    group: Group | None = None,
    name: str = "",
) -> list[Stage]:
    """The stages that fine-tune a model: packing, perhaps the reference's log-probabilities, and training.

    origin: the model's checkpoint, from the folders of the stages `first`. data: as of `tune`; it may be written by one
    of them. text: lies beside the result. weights: fingerprint of a model from outside the run. beside: what else
    decides a rebuild. prefix: of the names of all stages but the last. group: the processes that train together.
    name: of the last stage, in place of `kind`.
    """
    plain = settings.model_dump(mode="json")
    outside = weights or (lambda: "")
    beside = {**(beside or {}), "data": str(data)} if weights else {}
    pack, reference = f"{prefix}pack", f"{prefix}reference"
    stages = [
        Stage(
            pack,
            {key: plain[key] for key in sorted(_PACKING)} | {"kind": kind},
            lambda inputs, out: _pack(kind, settings, origin(inputs), data, out, report),
            first,
            outside=lambda: [outside(), *([file.name, sha256_file(file)] for file in data_files(data))],
        ),
        Stage(
            name or kind,
            {key: value for key, value in plain.items() if key not in WATCHING | _PACKING} | beside,
            lambda inputs, out: _train(
                kind,
                settings,
                (origin(inputs), inputs[pack], out, *([inputs[reference]] if reference in inputs else [])),
                text,
                report,
                group or Group(),
            ),
            (*first, pack, *([reference] if kind == "dpo" else [])),
            outside=outside,
            scratch="checkpoints",
        ),
    ]
    if kind == "dpo":
        watched = {key: plain[key] for key in ("precision", "device")}
        build = Stage(
            reference,
            watched,
            lambda inputs, out: _reference(settings, origin(inputs), inputs[pack], out, report),
            (*first, pack),
            outside=outside,
        )
        stages.insert(1, build)
    return stages


def import_stage(model: str | Path, report: Report) -> Stage:
    """Write open weights into the run, as "base"."""

    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # whole, but the stage was cut off right after
        return import_weights(model, out / "checkpoint", report=report)

    return Stage("base", {"model": str(model)}, build, outside=lambda: fingerprint(model))


def fingerprint(model: str | Path) -> Any:
    """What tells whether the files of open weights have changed, without reading them."""
    path = expand_home(model)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def open_base(folder: Path, device: str, frozen: bool = False, processes: int = 1) -> Opened:
    """A checkpoint's model in float32, with memory of its own, on the device that is to train it.

    frozen: whether only adapters are trained, so that weights may keep the type they are stored in. processes: how many
    train together.
    """
    opened = load_checkpoint(folder, lambda stored: stored if frozen else torch.float32)
    chosen = pick_device(device, processes)
    for parameter in opened.model.parameters():  # they may be views of the file
        parameter.data = parameter.detach().clone().to(chosen)
    opened.model.to(chosen)
    return opened


def tuned(text: str, base: Path, kind: str) -> dict[str, str]:
    """What a checkpoint's manifest says of how it was made. text: the settings, with the model where it was named."""
    return {"tuned_from": yaml.safe_load(text).get("model") or str(base), "tuned_by": kind}


def _row_length(settings: Tuning, model: Multimodal) -> int:
    return min(settings.sequence_length, model.config.max_length)


def _pack(kind: Kind, settings: Tuning, base: Path, data: Path, out: Path, report: Report) -> dict[str, Any]:
    opened = load_checkpoint(base, lambda stored: stored)
    template = require_template(opened.template, str(base))
    vision = opened.model.config.vision
    metrics: dict[str, Any] = {}
    for split in SPLITS if settings.heldout else SPLITS[:1]:
        try:
            metrics[split] = pack_split(
                data, kind, split, template, opened.tokenizer, out / split, settings,
                _row_length(settings, opened.model), vision.tile if vision else 0, opened.tokenizer.pad,
                lambda number, split=split: report(f"pack, {split}", number, None, f"{number:,} examples"),  # type: ignore[misc]
            )  # fmt: skip
        except DataError as error:
            if split == "train" or isinstance(error, RowError):
                raise
            metrics[split] = None  # too few examples for any to be held out
    return metrics


def _held(pack: Path) -> Path | None:
    return pack / "heldout" if (pack / "heldout" / "index.json").is_file() else None


def _reference(settings: Tuning, base: Path, pack: Path, out: Path, report: Report) -> dict[str, Any]:
    model = open_base(base, settings.device).model
    model.compute_dtype = getattr(torch, pick_precision(settings.precision, model.device))
    model.eval()
    metrics = {}
    for folder in filter(None, (pack / "train", _held(pack))):
        table = Table.load(folder)
        batches = Loader.fixed(folder, _micro(settings, Shards(folder).length), WHOLE)
        found = reference_logprobs(model, _told(batches, folder.name, report), table, model.device)
        if not np.isfinite(found).all():
            raise CheckpointError(f"{base} gives replies a log-probability that is not finite. Use another model.")
        np.save(out / f"{folder.name}.npy", found)
        metrics[folder.name] = {"mean_logprob": float(found.mean()), "replies": len(found)}
    return metrics


def _told(batches: FixedBatches, split: str, report: Report) -> Iterator[PackedBatch]:
    for number, batch in enumerate(batches, 1):
        yield batch
        report(f"reference, {split}", number, len(batches))


def _micro(settings: Tuning, length: int) -> int:
    return micro_rows(settings.training(length, length), 1 << 20, length)


def _share(shards: Shards, settings: Tuning, world: int) -> int:
    """Rows of a step, all processes together. Raises TrainingError where they cannot have as many each."""
    rows = min(shards.rows, max(1, settings.batch_tokens // shards.length))
    if shards.rows < world:
        raise TrainingError(
            f"The examples fill {shards.rows} rows of {shards.length} tokens, fewer than the {world} processes. "
            "Start fewer (foretell launch --ranks), lower sequence_length, or run the command without launch."
        )
    if rows % world:
        even = max(1, rows // world) * world * shards.length
        raise TrainingError(
            f"A step has {rows} rows of {shards.length} tokens, which {world} processes cannot share evenly. Give "
            f"--set batch_tokens={even}, or start another number of processes."
        )
    return rows


def _train(
    kind: Kind, settings: Tuning, folders: Iterable[Path], text: str, report: Report, group: Group
) -> dict[str, Any]:
    """folders: of the model, the pack, the output, and for DPO the reference's log-probabilities. Every process takes
    the folders and settings of the first."""
    if group.world > 1:
        folders = map(Path, group.share(lambda: [str(folder.absolute()) for folder in folders]))
        settings = type(settings).model_validate(group.share(lambda: settings.model_dump(mode="json")))
    base, pack, out, *others = folders
    opened = open_base(base, settings.device, settings.lora.rank > 0, group.world)
    model = opened.model
    shards = Shards(pack / "train")
    place = layout(settings.parallel, group)
    group.agree("The data", {"pack": shards.fingerprint, "model": sha256_file(base / MANIFEST)})
    rows = _share(shards, settings, place.readers)
    steps = max(1, round(settings.epochs * shards.rows / rows))
    if kind == "reward":
        add_head(model, settings.seed)
    choose_trained(model, settings)
    size = model.config.vocab_size  # an imported model may have more ids than its tokenizer
    known = opened.tokenizer.token_bytes
    token_bytes = np.pad(known, (0, max(0, size - len(known))))

    def objective(folder: Path) -> Objective:
        if isinstance(settings, DPOConfig):
            reference = np.load(others[0] / f"{folder.name}.npy")
            return DPO(Table.load(folder), reference, settings.beta, settings.label_smoothing)
        if isinstance(settings, RewardConfig):
            return BradleyTerry(Table.load(folder), settings.centre)
        return NextToken(Shards(folder).kinds, token_bytes)

    held = _held(pack)
    micro = min(rows, _micro(settings, shards.length))

    def measure(batches: int) -> dict[str, Any]:
        assert held is not None
        return evaluate(model, objective(held), group.each(Loader.fixed(held, micro, batches)), model.device)

    def finish() -> dict[str, Any]:
        return normalise(model, Loader.fixed(held or pack / "train", micro, WHOLE))

    manifest = read_json(base / MANIFEST)
    facts = {key: manifest[key] for key in ("imported_from",) if key in manifest}
    files: dict[str, Path | str] = {p.name: p for p in base.iterdir() if p.is_file() and p.name not in OWN_FILES}
    return fit(
        model,
        Loader(
            pack / "train",
            rows // place.readers,
            settings.seed,
            verify=not group.rank,
            rank=place.reader,
            world=place.readers,
            balance=settings.parallel is not None,
        ),
        objective(pack / "train"),
        settings.training(steps * rows * shards.length, rows * shards.length),
        out,
        total_steps=steps,
        name=kind,
        seed=settings.seed,
        measure=None if held is None else measure,
        files=files | {SETTINGS: text},
        facts=facts | tuned(text, base, kind),
        plan={
            "kind": kind,
            **settings.trained(),
            **{name: getattr(settings, name) for name in _OBJECTIVE if hasattr(settings, name)},
        },
        finish=finish if kind == "reward" else None,
        task=kind,
        report=report,
        group=group,
        parallel=settings.parallel,
    )

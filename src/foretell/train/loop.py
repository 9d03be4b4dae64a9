"""Training as a stage: from packed data to a trained checkpoint and its log.

`pretrain` makes the model; whatever fine-tunes one calls `fit` with it, as `pretrain` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from foretell.data.loader import Loader
from foretell.data.tokenizer import Tokenizer
from foretell.errors import DataError, TrainingError
from foretell.files import sha256_file
from foretell.model.describe import parameter_count
from foretell.model.lora import write_lora
from foretell.model.multimodal import Multimodal
from foretell.model.parametrize import initial, parameter_groups
from foretell.model.weights import ADAPTERS, read_weights, stored_weights
from foretell.recipe import ParallelConfig, Recipe, TrainConfig
from foretell.recipes import recipe_yaml
from foretell.run import Report, silent
from foretell.template import IMAGE
from foretell.train.checkpoint import agreed, check_same, save_checkpoint
from foretell.train.distributed import Group
from foretell.train.hooks import Hooks, Observer
from foretell.train.layout import check_layout, layout
from foretell.train.log import RunLog, SilentLog, open_trackers
from foretell.train.objective import Batches, NextToken, Objective, evaluate
from foretell.train.optim import build_adamw
from foretell.train.parallel import Sharded, recompute
from foretell.train.setup import (
    check_compiler,
    give_back_memory,
    keep_freed_memory,
    peak_rate,
    pick_device,
    pick_precision,
    share_rows,
)
from foretell.train.trainer import Trainer

CHECKPOINTS = "checkpoints"
FINAL = "checkpoint"
LOG = "log.jsonl"
WHOLE = 1 << 40
MICRO_TOKENS = 16_384  # bounds the memory of activations where train.micro_batch is not set


def pretrain(
    recipe: Recipe,
    pack_dir: Path,
    heldout_dir: Path | None,
    tokenizer_dir: Path,
    out_dir: Path,
    *,
    report: Report = silent,
    clock: Callable[[], float] = time.monotonic,
    group: Group | None = None,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Train a model from scratch, or go on from the newest whole checkpoint in out_dir/checkpoints.

    Writes out_dir/log.jsonl, out_dir/checkpoints/step-…/ (resumable) and out_dir/checkpoint/ (the result). The
    vocabulary size and image token come from the tokenizer. group: processes that call this alike, see the same
    files and share each batch; the numbers are those of one, up to rounding. observe: see `train.trainer.Hooks`; for
    example `forecast.watch.Live`.
    Returns metrics: loss, bits_per_byte and by_kind on the whole held-out pack, steps, tokens, flops, seconds, rates.
    Raises KeyboardInterrupt after a checkpoint on SIGINT or SIGTERM; DataError, CheckpointError, TrainingError,
    RunError.
    """
    config, group = recipe.train, group or Group()
    place = layout(recipe.parallel, group)
    tokenizer = Tokenizer.load(tokenizer_dir)
    shape = recipe.model.model_copy(
        update={"vocab_size": tokenizer.vocab_size, "image_token": tokenizer.special(IMAGE)}
    )
    check_compiler(config)
    device = pick_device(config.device, group.world)
    length = recipe.data.sequence_length
    rows = share_rows(recipe, place.readers)
    total_steps = config.tokens // (rows * length)
    if total_steps < 1:
        raise TrainingError(
            f"train.tokens is {config.tokens}, less than one step of {rows * length} tokens. Raise train.tokens, or "
            "lower train.batch_tokens."
        )
    if place.splits:
        model = Multimodal.empty(shape)  # no process has room for all of it
    else:
        model = Multimodal(shape, generator=torch.Generator().manual_seed(recipe.seed)).to(device)
    # A flipped bit in a shard would train unnoticed; reading every byte once costs seconds.
    check = group.rank == 0
    loader = Loader(
        pack_dir,
        rows // place.readers,
        recipe.seed,
        verify=check,
        rank=place.reader,
        world=place.readers,
        planned=total_steps * rows,
        balance=recipe.parallel is not None,
    )
    group.agree("The data", {"pack": loader.fingerprint, "tokenizer": sha256_file(tokenizer_dir / "tokenizer.json")})
    if loader.sequence_length != length:
        raise DataError(f"{pack_dir} has rows of {loader.sequence_length} tokens, the recipe of {length}; pack again.")
    micro = micro_rows(config, rows, length)

    def measure(batches: int) -> dict[str, Any]:
        assert heldout_dir is not None
        fixed = Loader.fixed(heldout_dir, micro, batches)
        return evaluate(model, NextToken(fixed.kinds, tokenizer.token_bytes), group.each(fixed), device)

    files: dict[str, Path | str] = {path.name: path for path in sorted(tokenizer_dir.glob("tokenizer*.json"))}
    files["recipe.yaml"] = recipe_yaml(recipe)
    return fit(
        model,
        loader,
        NextToken(loader.kinds, tokenizer.token_bytes),
        config,
        out_dir,
        total_steps=total_steps,
        name=recipe.name,
        seed=recipe.seed,
        measure=None if heldout_dir is None else measure,
        files=files,
        report=report,
        clock=clock,
        group=group,
        parallel=recipe.parallel,
        device=device,
        observe=observe,
    )


def micro_rows(config: TrainConfig, rows: int, length: int) -> int:
    """How many of a step's rows go through the model at a time."""
    return min(rows, config.micro_batch or max(1, MICRO_TOKENS // length))


def fit(
    model: Multimodal,
    loader: Batches,
    objective: Objective,
    config: TrainConfig,
    out_dir: Path,
    *,
    total_steps: int,
    name: str,
    seed: int,
    measure: Callable[[int], dict[str, Any]] | None,
    files: Mapping[str, Path | str],
    facts: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    finish: Callable[[], dict[str, Any]] | None = None,
    critic: tuple[Multimodal, float] | None = None,
    task: str = "pretrain",
    report: Report = silent,
    clock: Callable[[], float] = time.monotonic,
    group: Group | None = None,
    parallel: ParallelConfig | None = None,
    device: torch.device | None = None,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Train what requires gradients of a model that lies on its device, with its weights as they are to begin with;
    writes, resumes and raises as `pretrain`. Adapters are written to out_dir/adapter/ too.

    measure: the objective's summary of so many held-out batches. files, facts: beside the weights in checkpoints, and
    in their manifests. plan: settings beyond those of `config` that decide the numbers. finish: called once with the
    trained model, before it is written; what it returns joins the metrics. critic: a second model that the
    objective trains, and its learning rate. task: what progress is reported as. parallel: how the model lies on the
    processes of the group; the loader is to give each what `layout` says. device: where a model without memory is to
    lie, whose parts are drawn from `seed`.
    """
    group, device = group or Group(), device or model.device
    if device.type == "cpu":
        keep_freed_memory()
    place, parallel = layout(parallel, group), parallel or ParallelConfig()
    length, rows = loader.sequence_length, loader.rows * place.readers
    check_layout(model, parallel, place, length, config.compile)
    found = agreed(out_dir / CHECKPOINTS, lambda text: report(task, 0, None, text), group)
    # What was measured when the run began stays: a clock must not choose the numbers of a resumed run.
    precision = found[1].plain["plan"].get("precision") if found and config.precision == "auto" else None
    precision = group.share(lambda: precision or pick_precision(config.precision, device))
    model.compute_dtype = getattr(torch, precision)
    torch.manual_seed(seed)
    if config.compile:
        model.compile_blocks()
    rate = group.share(lambda: peak_rate(precision, device)) * group.world
    log: RunLog = SilentLog()
    if group.rank == 0:
        trackers = open_trackers(out_dir, name)
        log = RunLog(out_dir / LOG, found[1].plain["step"] if found else None, trackers)
    sizes = rows * length, total_steps * rows * length
    groups = parameter_groups(model, config.optimizer, *sizes)
    if critic is not None:
        groups += parameter_groups(critic[0], config.optimizer.model_copy(update={"lr": critic[1]}), *sizes)
    deciding = {
        "seed": seed,
        "total_steps": total_steps,
        "rows": rows,
        "precision": precision,
        "model": model.config.model_dump(mode="json"),
        "optimizer": config.optimizer.model_dump(mode="json"),
        **{key: getattr(config, key) for key in ("schedule", "warmup", "decay")},
        **(plan or {}),
    }
    trained = sum(p.numel() for members in groups for p in members["params"])
    recompute(model, parallel.checkpoint)
    sharded = None
    if place.splits:
        whole = found[0] if found and not found[1].pieces else None
        if found and whole:
            check_same(found[1].plain["plan"], deciding, whole)
        empty = model.device.type == "meta"
        if whole and not empty:
            read_weights(whole, model)
        stored = stored_weights(whole, model) if whole and empty else {}
        sharded = Sharded(model, place, parallel, precision, device)
        if empty and not found:
            sharded.fill(initial(model.config, sharded.shapes, torch.Generator().manual_seed(seed)))
        sharded.fill(stored.items())
        for members in groups:
            members["params"] = [sharded.local[name] for name in members["names"]]
    trainer = Trainer(
        model,
        build_adamw(groups),
        loader,
        objective,
        config,
        log,
        out_dir / CHECKPOINTS,
        total_steps=total_steps,
        micro_rows=micro_rows(config, loader.rows, length),
        plan=deciding,
        hooks=Hooks(
            evaluate=(lambda: measure(config.eval_batches)) if measure is not None else None,
            files=files,
            facts=facts,
            matmul_rate=rate,
            observe=observe,
            report=report,
            task=task,
            clock=clock,
        ),
        group=group,
        sharded=sharded,
        critic=critic and critic[0],
    )
    about = {
        "steps": total_steps,
        "parameters": parameter_count(model.config),
        "trained_parameters": trained,
        "device": str(device),
        "processes": group.world,
        **({} if sharded is None else {"parallel": place.sizes}),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "matmul_rate": rate,
        "compile": config.compile,
    }
    group.judged(True)
    try:
        if found:
            trainer.restore(*found)
            note = f"resuming at step {trainer.count.step} of {total_steps} from {found[0].name}"
            report(task, trainer.count.step, total_steps, note)
            log.write("resume", step=trainer.count.step, checkpoint=found[0].name, **about)
        else:
            log.write("start", step=0, name=name, seed=seed, **about)
        trainer.fit()
        count = trainer.count
        heldout = measure(WHOLE) if measure is not None else {}
        log.write("eval", step=count.step, tokens=count.tokens, whole=True, **heldout)
        heldout |= finish() if finish is not None else {}
        if sharded is not None:
            sharded.gather(keep=group.rank == 0)
        if group.rank == 0:
            save_checkpoint(out_dir / FINAL, model, None, files, facts)
            if model.lora is not None:
                write_lora(out_dir / ADAPTERS, model, (facts or {}).get("tuned_from"))
        metrics = {
            **heldout,
            **about,
            "tokens": count.tokens,
            "flops": count.flops,
            "dropped_steps": count.dropped,
            "seconds": round(trainer.seconds, 3),
            "tokens_per_s": count.tokens / max(1e-9, trainer.seconds),
            "matmul_share": count.flops / max(1e-9, trainer.seconds) / rate,
            "loader_idle_seconds": round(loader.idle_seconds, 3),
        }
        log.write("end", step=count.step, **{key: value for key, value in metrics.items() if key != "by_kind"})
        return metrics
    finally:
        group.judged(False)
        loader.close()
        log.close()
        if device.type == "cpu":
            give_back_memory()

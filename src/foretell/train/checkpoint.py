"""Training checkpoints: a model folder with training/ in it (optimizer, loader, generators, watch); no pickle.

A sharded run's have the weights in training/ too, in a file of each process (`train.pieces`).
"""

from __future__ import annotations

import errno
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foretell.errors import CheckpointError, RunError
from foretell.files import atomic_folder, describe_os_error, write_json
from foretell.model.lora import write_lora
from foretell.model.multimodal import Multimodal
from foretell.model.weights import ADAPTERS, seal, verify, write_model
from foretell.train.distributed import Group
from foretell.train.meeting import differences

FORMAT = 1
PIECES = 2  # the form of a checkpoint that every process wrote a part of
PREFIX = "step-"


@dataclass
class TrainingState:
    """Everything beside the weights. plain: JSON data, with "step" and "plan". tensors: named, on any device.
    pieces: weights and what is as large lie in the files of several processes."""

    plain: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    pieces: bool = False


def save_checkpoint(
    folder: Path,
    model: Multimodal,
    state: TrainingState | None,
    files: Mapping[str, Path | str],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all. files: name -> a file to copy, or a text, beside the weights.
    facts: what else the manifest says.

    Raises RunError when the disk is full or not writable; earlier checkpoints are untouched.
    """
    with atomic_folder(folder) as temporary:
        try:
            write_model(temporary, model)
            if state is not None:
                if model.lora is not None:
                    write_lora(temporary / ADAPTERS, model)
                write_state(temporary, state)
        except SafetensorError as error:
            # safetensors wraps the operating system's error and keeps only its text.
            full = any(sign in str(error) for sign in ("No space", "StorageFull", "os error 28"))
            cause = OSError(errno.ENOSPC if full else errno.EIO, str(error))
            raise RunError(describe_os_error(cause, folder)) from error
        write_files(temporary, files)
        seal(temporary, {**(facts or {}), **({"step": state.plain["step"]} if state is not None else {})})


def write_state(folder: Path, state: TrainingState) -> None:
    """Write training/ into a checkpoint that is being made."""
    (folder / "training").mkdir()
    write_tensors(folder / "training/state.safetensors", state.tensors)
    write_json(folder / "training/state.json", {"format": PIECES if state.pieces else FORMAT, **state.plain})


def write_files(folder: Path, files: Mapping[str, Path | str]) -> None:
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            shutil.copyfile(content, folder / name)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def load_state(folder: Path) -> TrainingState:
    """The training state of a checkpoint, on the CPU; every file of the folder is checked against its SHA-256.

    Raises CheckpointError when a byte is wrong, a file is missing, or the folder holds weights only.
    """
    verify(folder)
    try:
        plain = json.loads((folder / "training/state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "training/state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} has no readable training state, so training cannot resume there.") from error
    form = plain.pop("format", None)
    if form not in (FORMAT, PIECES):
        raise CheckpointError(f"{folder} is not in checkpoint form {FORMAT}; resume with the version that wrote it.")
    return TrainingState(plain, tensors, form == PIECES)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = folder.glob(f"{PREFIX}*") if folder.is_dir() else ()
    return sorted((path for path in found if path.name.removeprefix(PREFIX).isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX}{step:06d}"


def agreed(folder: Path, say: Callable[[str], None], group: Group) -> tuple[Path, TrainingState] | None:
    """`latest`, the same one in every process: where one of them finds it damaged, all take the one before it. What
    was never finished is removed.

    Raises CheckpointError when no checkpoint is whole for all.
    """
    if group.rank == 0:
        for cut_off in folder.glob(f".{PREFIX}*"):  # of a process that was killed as it wrote
            shutil.rmtree(cut_off, ignore_errors=True)
    found, refused = latest(folder, say) if group.rank == 0 else None, list[Path]()
    while name := group.share(partial(_name, found)):
        path, odd = folder / name, 0
        if group.rank:
            try:
                found = path, load_state(path)
            except CheckpointError:
                odd = group.rank
        (who,) = map(int, group.most(odd))
        if not who:
            for bad in refused:
                shutil.rmtree(bad, ignore_errors=True)
            return found
        if group.rank == 0:
            say(f"{path} is damaged where rank {who} reads it. Trying the checkpoint before it.")
            refused.append(path)
            found = latest(folder, say, before=path)
    if group.share(lambda: bool(refused)):
        raise CheckpointError(f"No checkpoint in {folder} is whole for every process. Restore one from a backup.")
    return None


def _name(found: tuple[Path, TrainingState] | None) -> str:
    return found[0].name if found else ""


def latest(folder: Path, say: Callable[[str], None], before: Path | None = None) -> tuple[Path, TrainingState] | None:
    """The newest checkpoint that is whole, None where there is none; damaged ones are told to `say` and removed.
    before: only those older than this one.

    Raises CheckpointError when there are checkpoints and all of them are damaged; nothing is removed then.
    """
    damaged = []
    for path in reversed(checkpoints(folder)):
        if before is not None and _step(path) >= _step(before):
            continue
        try:
            state = load_state(path)
        except CheckpointError as error:
            damaged.append(path)
            say(f"{error} Trying the checkpoint before it.")
            continue
        for bad in damaged:
            shutil.rmtree(bad, ignore_errors=True)
        return path, state
    if damaged:
        raise CheckpointError(
            f"All {len(damaged)} checkpoints in {folder} are damaged, so training cannot resume. Restore one from a "
            "backup, or delete that folder to start anew."
        )
    return None


def prune(newest: Path, keep: int) -> None:
    """Remove all but the checkpoint just written and the `keep` - 1 before it. Those of later steps are from before
    a rewind."""
    found = checkpoints(newest.parent)
    end = found.index(newest) + 1
    for path in (*found[: max(0, end - keep)], *found[end:]):
        shutil.rmtree(path, ignore_errors=True)


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise CheckpointError naming the settings in which a checkpoint's run and this one differ."""
    if told := differences(expected, found, "there"):
        raise CheckpointError(
            f"{folder} is from another run: {told}. Resume with the recipe it was made with, or delete that folder to "
            "start anew."
        )


def generators_state() -> dict[str, Any]:
    """State of every global generator as JSON data: python, numpy, torch on the CPU and on each GPU."""
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 (the global generator is state, too)
    assert isinstance(numpy, dict)
    inner = {"key": numpy["state"]["key"].tolist(), "pos": int(numpy["state"]["pos"])}
    return {
        "python": [version, list(words), gauss],
        "numpy": {**numpy, "state": inner},
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "mps": _hex(torch.mps.get_rng_state()) if torch.backends.mps.is_available() else None,
    }


def restore_generators(state: Mapping[str, Any]) -> None:
    """Put back `generators_state()`; GPUs that are not here are left out."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy = state["numpy"]
    inner = {**numpy["state"], "key": np.array(numpy["state"]["key"], np.uint32)}
    np.random.set_state({**numpy, "state": inner})  # noqa: NPY002
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes(text) for text in state["cuda"]])
    if torch.backends.mps.is_available() and state["mps"]:
        torch.mps.set_rng_state(_bytes(state["mps"]))


def _hex(state: Tensor) -> str:
    return bytes(state.tolist()).hex()


def _bytes(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)

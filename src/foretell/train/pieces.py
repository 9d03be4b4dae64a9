"""Checkpoints of which every process writes its part while training goes on, by torch.distributed.checkpoint.

Tensors lie in safetensors files, one of each process, whose headers say which rows and columns they hold; any number of
processes reads them. Neither torch.save's form nor DCP's pickled metadata is written or read.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from foretell.errors import CheckpointError, RunError
from foretell.files import describe_os_error, put_folder, sha256_file
from foretell.model.multimodal import Multimodal
from foretell.model.weights import seal, write_config
from foretell.train.checkpoint import TrainingState, prune, write_files, write_state
from foretell.train.distributed import Group, patience
from foretell.train.parallel import Sharded

FOLDER = "training"


class _Writer(HuggingFaceStorageWriter):
    """Hashes each file where it is written, and lets the first process seal the folder when all are done."""

    def __init__(self, folder: Path, done: Callable[[dict[str, str]], None]) -> None:
        super().__init__(str(folder), save_distributed=True)
        self._folder, self._done = folder, done

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = super().write_data(plan, planner).wait()
        names = {result.storage_data.relative_path for result in results}
        hashes = {name: sha256_file(self._folder / name) for name in names}
        found: Future[list[WriteResult]] = Future()
        found.set_result([replace(result, storage_data=hashes) for result in results])
        return found

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self._done(
            {name: digest for mine in results for result in mine for name, digest in result.storage_data.items()}
        )


class Saver:
    """Writes a run's checkpoints, one at a time, behind its back; all processes call its methods alike.

    Collectives of its own group, by gloo, do not meet those of training.
    """

    def __init__(self, group: Group, keep: int) -> None:
        self._group, self._keep = group, keep
        self._channel = dist.new_group(backend="gloo", timeout=patience())
        self._busy: Any = None
        self._path, self._began, self._ended, self._stall = Path(), 0.0, 0.0, 0.0

    def start(
        self,
        path: Path,
        sharded: Sharded,
        names: Mapping[Tensor, str],
        state: TrainingState,
        files: Mapping[str, Path | str],
        facts: Mapping[str, Any],
    ) -> None:
        """Copy everything, and return while it is written. names: of this process's parts of the parameters.

        Raises RunError when the folder cannot be made.
        """
        self._path, self._began = path, time.perf_counter()
        large = {name: part.detach() for part, name in names.items()}
        large |= {key: state.tensors.pop(key) for key in list(state.tensors) if parameter_of(key)}
        pieces = {key: sharded.piece(parameter_of(key), part) for key, part in large.items()}
        temporary = path.with_name(f".{path.name}.part")
        if self._group.rank == 0:
            self._prepare(temporary, sharded.model, replace(state, pieces=True), files)
        self._group.wait()

        def done(hashes: dict[str, str]) -> None:
            known = {f"{FOLDER}/{name}": digest for name, digest in hashes.items()}
            seal(temporary, {**facts, "step": state.plain["step"]}, known)
            put_folder(temporary, path)
            prune(path, self._keep)

        self._busy = async_save(
            pieces,
            storage_writer=_Writer(temporary / FOLDER, done),
            planner=DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
            process_group=self._channel,
        )
        self._busy.add_done_callback(self._note_end)
        self._stall = time.perf_counter() - self._began

    def _note_end(self, _: Any) -> None:
        self._ended = time.perf_counter()

    @staticmethod
    def _prepare(temporary: Path, model: Multimodal, state: TrainingState, files: Mapping[str, Path | str]) -> None:
        try:
            temporary.mkdir(parents=True)
            write_config(temporary, model)
            write_state(temporary, state)
            write_files(temporary, files)
        except OSError as error:
            raise RunError(describe_os_error(error, temporary)) from error

    @property
    def done(self) -> bool:
        """Whether one has been written of which `wait` has not told."""
        return self._busy is not None and self._busy.done() and not self.failed

    @property
    def failed(self) -> bool:
        """Whether the last one could not be written; `wait` says why."""
        return self._busy is not None and self._busy.done() and self._busy.exception() is not None

    def wait(self) -> dict[str, Any] | None:
        """Until the last one is on the disk; fields of a log line about it. Raises RunError where it could not be
        written."""
        if self._busy is None:
            return None
        began, busy = time.perf_counter(), self._busy
        self._busy = None
        try:
            busy.result()
        except CheckpointException as error:
            cause = next(iter(error.failures.values()))[0]
            text = describe_os_error(cause, self._path) if isinstance(cause, OSError) else f"{self._path}: {cause}"
            raise RunError(text) from error
        now = time.perf_counter()
        ended = self._ended if self._ended > self._began else now  # it is told a moment after the result is there
        return {
            "path": self._path.name,
            "took": round(ended - self._began, 3),
            "stall": round(self._stall + now - began, 3),
        }


def parameter_of(key: str) -> str:
    """The parameter that a tensor of a checkpoint is laid out as, by the names of `Trainer.state`; "" for others."""
    key = key.removeprefix("snapshot/").removeprefix("weights/")
    if key.startswith("moments/"):
        name, _, moment = key.removeprefix("moments/").rpartition("/")
        return "" if moment == "step" else name
    return key if "." in key else ""


@torch.no_grad()
def read(folder: Path, state: TrainingState, names: Mapping[Tensor, str], sharded: Sharded | None) -> None:
    """Put the weights of a checkpoint that any number of processes wrote into the parameters, or their parts here, and
    the rest of its state into `state.tensors`.

    Raises CheckpointError where weights are missing, or of another shape.
    """
    own = {name: part for part, name in names.items()}
    reader = HuggingFaceStorageReader(str(folder / FOLDER))
    into: dict[str, Tensor] = {}
    for key, entry in reader.read_metadata().state_dict_metadata.items():
        if (name := parameter_of(key)) in own and isinstance(entry, TensorStorageMetadata):
            kind = entry.properties.dtype
            into[key] = torch.empty_like(own[name], dtype=kind) if sharded is None else sharded.empty_piece(name, kind)
    if missing := own.keys() - into.keys():
        raise CheckpointError(f"{folder} has no weights of {min(missing)}. Resume with the recipe it was made with.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each process reads what it needs by itself, on purpose
            planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
            load(into, storage_reader=reader, planner=planner, no_dist=True)
    except (CheckpointException, RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{folder} does not hold the tensors of this model ({str(error).strip().splitlines()[-1]}). Resume with "
            "the recipe it was made with."
        ) from error
    for key, piece in into.items():
        name = parameter_of(key)
        part = sharded.part(name, piece) if sharded is not None and isinstance(piece, DTensor) else piece
        if key == name:
            own[name].copy_(part)
        else:
            state.tensors[key] = part

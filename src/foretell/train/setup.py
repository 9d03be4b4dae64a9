"""Where and in what precision a run computes, decided from the recipe and the machine."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys

import torch

from foretell.errors import TrainingError
from foretell.measure.machine import MatmulType, matmul_rate
from foretell.recipe import Recipe, TrainConfig


def pick_device(wanted: str, processes: int = 1) -> torch.device:
    """The device of train.device; auto takes CUDA, then MPS, then the CPU. Raises TrainingError if it is not here.

    processes: how many train together; each then takes the GPU of its LOCAL_RANK.
    """
    device = _find_device(wanted)
    if processes == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise TrainingError(f"Several processes can train on cuda or cpu, not on {device}. Start a single one.")
    local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= found:
        raise TrainingError(
            f"Process {local} of this machine has no GPU of its own: torch finds {found}. Start as many "
            f"processes: foretell launch --ranks {found} …"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _find_device(wanted: str) -> torch.device:
    here = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    here += ["mps", "cpu"] if torch.backends.mps.is_available() else ["cpu"]
    if wanted == "auto":
        return torch.device(here[0])
    if wanted not in here:
        raise TrainingError(
            f"The device is set to {wanted}, but this torch ({torch.__version__}) finds only: {', '.join(here)}. "
            "Install a build of torch for it (docs/install.md), or set the device to auto."
        )
    return torch.device(wanted)


def pick_precision(wanted: str, device: torch.device) -> MatmulType:
    """train.precision; auto takes bfloat16 where the hardware multiplies it.

    The processor is asked, not timed: a run must not depend on what else the machine was doing.
    """
    if wanted == "auto":
        if device.type == "cpu":
            known = torch.cpu.get_capabilities()
            faster = any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        else:
            faster = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if faster else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def share_rows(recipe: Recipe, processes: int) -> int:
    """Rows of a step, over all processes. Raises TrainingError where they cannot have as many each."""
    length = recipe.data.sequence_length
    rows = recipe.train.batch_tokens // length
    if rows % processes:
        raise TrainingError(
            f"train.batch_tokens makes {rows} rows of {length} tokens, which {processes} processes cannot share "
            f"evenly. Set it to a multiple of {processes * length}, or start another number of processes."
        )
    return rows


def check_compiler(config: TrainConfig) -> None:
    """Raise TrainingError when train.compile is asked for and there is no C++ compiler."""
    if config.compile and not any(
        shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "c++", "cl")
    ):
        raise TrainingError(
            "train.compile is true, but no C++ compiler was found (g++, clang++ or $CXX), which torch.compile needs. "
            "Install one (Debian: apt install g++), or set train.compile: false; the numbers hardly differ."
        )


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free, for the next ones.

    A step takes and frees the same sizes over and over. What is given back meanwhile comes back page by page, each a
    fault and zeroed: 6 % of the processor time of a step at 10 M parameters. Of glibc alone; others are left as they
    are. `give_back_memory` ends it as far as it goes: what is free then is given back.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_memory() -> None:
    """Give what is free back to the system."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "malloc_trim") else None


def peak_rate(precision: MatmulType, device: torch.device) -> float:
    """Matmul rate of this machine in FLOP/s, measured now."""
    return matmul_rate(precision, n=1024 if device.type == "cpu" else 4096, device=str(device))

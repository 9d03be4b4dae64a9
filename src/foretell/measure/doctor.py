"""What is installed, what is missing for which feature, and what the machine can do."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foretell.errors import SandboxError
from foretell.measure import machine

# Feature → (extra of the package, modules it needs, what pip calls them).
FEATURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "models, training, engine": ("torch", ("torch", "safetensors", "tokenizers", "matplotlib")),
    "endpoints": ("evals", ("aiohttp",)),
    "data sets from the hub": ("hub", ("datasets",)),
    "TensorBoard log": ("track", ("tensorboard",)),
    "tests and checks": ("dev", ("pytest", "hypothesis", "mypy", "ruff", "transformers")),
}
_COMFORTABLE_MEMORY = 4e9  # the quickstart stays below
_COMFORTABLE_DISK = 2e9


@dataclass(frozen=True)
class Finding:
    """ok: nothing is missing. text: what was found, and how to mend it where something is missing."""

    subject: str
    ok: bool
    text: str


def examine(folder: Path | None = None) -> list[Finding]:
    """Look the machine over, measuring for about two seconds; needs nothing but the base installation.

    folder: where runs would be written; default the working directory.
    """
    found = [_python(), *_features(), *_compiler(), _sandbox(), *_hardware(folder or Path.cwd())]
    return [*found, *_rates(machine.best_device())]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, f"{platform.python_version()} on {platform.platform(terse=True)}")


def _features() -> list[Finding]:
    found = []
    for feature, (extra, modules) in FEATURES.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            text = f"missing: {', '.join(missing)}. Install with: pip install 'foretell[{extra}]'"
        else:
            text = ", ".join(f"{module} {_version(module)}".strip() for module in modules)
        found.append(Finding(feature, not missing, text))
    return found


def _version(module: str) -> str:
    try:
        return version(module)
    except PackageNotFoundError:
        return ""


def _compiler() -> list[Finding]:
    path = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
    return [Finding("compiled training", path is not None, path or "no C++ compiler; train.compile needs one (g++)")]


def _sandbox() -> Finding:
    from foretell.measure.sandbox import Sandbox

    try:
        text = f"{Sandbox().backend}: untrusted programs run without network, your files, or more than their limits"
    except SandboxError as error:
        return Finding("sandbox", False, str(error))
    return Finding("sandbox", True, text)


def _hardware(folder: Path) -> list[Finding]:
    memory = machine.memory_bytes()
    free = shutil.disk_usage(folder).free
    low = "; the quickstart needs 4 GB" if 0 < memory < _COMFORTABLE_MEMORY else ""
    return [
        Finding("cores", True, str(machine.cores())),
        Finding("memory", not low, (f"{memory / 1e9:.1f} GB" if memory else "unknown") + low),
        Finding("disk", free >= _COMFORTABLE_DISK, f"{free / 1e9:.1f} GB free in {folder}"),
        _gpu(),
    ]


def _gpu() -> Finding:
    if not machine.has_torch():
        return Finding("GPU", False, "unknown without torch")
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Finding("GPU", True, ", ".join(f"{card.name} {card.total_memory / 1e9:.0f} GB" for card in cards))
    if torch.backends.mps.is_available():
        return Finding("GPU", True, "Apple (MPS)")
    return Finding("GPU", False, "none seen by this build of torch; training runs on the CPU")


def _rates(device: str) -> list[Finding]:
    on = f"on {device}"
    kinds: list[machine.MatmulType] = ["float32", "bfloat16"] if machine.has_torch() else ["float32"]
    n = 1024 if device == "cpu" else 8192
    found = [
        Finding(f"matmul {kind}", True, f"{machine.matmul_rate(kind, n, device=device) / 1e9:,.0f} GFLOP/s {on}")
        for kind in kinds
    ]
    rate = machine.copy_bandwidth(device=device) / 1e9
    return [*found, Finding("memory bandwidth", True, f"{rate:,.1f} GB/s copied (read and written) {on}")]

"""What this machine can do: matrix-multiply rate, memory bandwidth, memory, accelerators."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from foretell.errors import MissingExtraError

MatmulType = Literal["float32", "bfloat16"]


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def has_torch() -> bool:
    """Whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def matmul_rate(dtype: MatmulType = "float32", n: int = 1024, seconds: float = 0.3, device: str = "cpu") -> float:
    """Fastest observed rate of an n × n matrix product, in FLOP/s (2·n³ a product).

    Uses torch with its current thread count, or NumPy where torch is not installed.
    Raises MissingExtraError for bfloat16, or a device other than the CPU, without torch.
    """
    if has_torch():
        import torch

        kind = getattr(torch, dtype)
        left = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).to(device, kind)
        out = torch.empty_like(left)

        def product() -> None:
            torch.matmul(left, left, out=out)
            _wait(device)
    else:
        if dtype != "float32" or device != "cpu":
            raise MissingExtraError(f"Measuring {dtype} products on {device}", "torch")
        import numpy as np

        plain = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
        result = np.empty_like(plain)

        def product() -> None:
            np.matmul(plain, plain, out=result)

    return 2 * n**3 / _fastest(product, seconds)


def copy_bandwidth(megabytes: int = 128, seconds: float = 0.3, device: str = "cpu") -> float:
    """Fastest observed memory copy, in bytes/s, counting what is read and what is written."""
    size = megabytes * 1_000_000
    if has_torch():
        import torch

        source = torch.ones(size // 4, device=device)
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            _wait(device)
    else:
        import numpy as np

        plain = np.ones(size // 4, dtype=np.float32)
        result = np.empty_like(plain)

        def copy() -> None:
            np.copyto(result, plain)

    return 2 * size / _fastest(copy, seconds)


def read_bandwidth(megabytes: int = 256, seconds: float = 0.5, device: str = "cpu") -> float:
    """Fastest observed sum over a large array, in bytes/s. Needs torch."""
    import torch

    source = torch.ones(megabytes * 250_000, device=device)

    def read() -> None:
        source.sum()
        _wait(device)

    return source.nbytes / _fastest(read, seconds)


# Dense bfloat16 FLOP/s of what is sold, by a part of torch's name for it. Source: NVIDIA's data sheets.
_SOLD = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def datasheet_rate(device: str) -> float | None:
    """FLOP/s in bfloat16 by the maker's data sheet, of GPUs that are known here."""
    if not device.startswith("cuda"):
        return None
    import torch

    name = torch.cuda.get_device_name(device)
    return next((rate for part, rate in _SOLD.items() if part in name), None)


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or its control group's limit where that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_device() -> str:
    """The device `auto` stands for: cuda, then mps, then cpu."""
    if has_torch():
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
    return "cpu"


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _fastest(work: Callable[[], None], seconds: float) -> float:
    """Seconds of the fastest of repeated calls; the first call warms up and is not counted."""
    work()
    best, started = float("inf"), time.perf_counter()
    while True:
        begin = time.perf_counter()
        work()
        end = time.perf_counter()
        best = min(best, end - begin)
        if end - started >= seconds:
            return max(best, 1e-9)

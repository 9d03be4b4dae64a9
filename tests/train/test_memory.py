"""What a step frees stays at hand for the next one, and is given back at the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, psutil, torch
from foretell.train.setup import give_back_memory, keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        tensors = [torch.ones(megabytes << 18) for megabytes in (48, 3, 1, 20)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
keep_freed_memory()
faults()
kept = faults()
held = psutil.Process().memory_info().rss
give_back_memory()
print(plain, kept, held - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_freed_is_kept_until_it_is_given_back() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    plain, kept, given = map(int, found.stdout.split())
    assert kept < plain / 10
    assert given > 50e6

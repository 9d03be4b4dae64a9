"""What all tests share: one thread a process, no network, no window, and where the real material lies."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pgkit import running_postgresql

ENVIRONMENT = {
    # Two thread pools on the same cores collapse each other's speed.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    "HF_HUB_OFFLINE": "1",
}

# No deadline, since a shared machine stalls; the same examples in every run, since a red test must stay red.
settings.register_profile("foretell", deadline=None, derandomize=True)
settings.load_profile("foretell")


# Here, since the conftest of a folder that is named on the command line imports torch before anything is configured.
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)


def pytest_configure() -> None:
    gc.disable()  # modules and tests stay: to look through them again and again took a quarter of the collection


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("FORETELL_DATA"):
        return
    unset = pytest.mark.skip(reason="FORETELL_DATA does not name a folder with real material")
    for item in items:
        if "realdata" in item.keywords:
            item.add_marker(unset)


@pytest.fixture
def real_data() -> Path:
    """The folder of real material; for tests marked `realdata`."""
    return Path(os.environ["FORETELL_DATA"])


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL of the tests' own; skipped where none is installed."""
    with running_postgresql(Path(tmp_path_factory.mktemp("pg"))) as url:
        yield url

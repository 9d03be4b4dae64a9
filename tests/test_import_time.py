"""What an import must not pull in. Start-up time follows from this, and no clock is needed to test it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import foretell

ROOT = Path(__file__).resolve().parent.parent
TORCH_EXTRA = ["torch", "safetensors", "tokenizers", "matplotlib", "psutil", "jinja2", "gguf", "huggingface_hub"]
HEAVY = {*TORCH_EXTRA, "aiohttp", "pyarrow", "PIL", "scipy", "transformers", "datasets"}


def loaded(statement: str) -> set[str]:
    """Top-level modules present after a statement has run in a fresh interpreter."""
    code = (
        f"import sys, json; {statement}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    return set(
        json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    )


def ground_floor() -> list[str]:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    return [name.strip() for name in layers[-1].split(":")]


@pytest.mark.parametrize("module", ["foretell", "foretell.cli.app"])
def test_import_stays_light(module: str) -> None:
    assert not loaded(f"import {module}") & HEAVY


def test_ground_floor_and_cli_need_no_torch() -> None:
    """The base installation carries none of the `torch` extra; hide it and import."""
    hidden = f"sys.modules.update(dict.fromkeys({TORCH_EXTRA!r}))"
    modules = ", ".join([*ground_floor(), "foretell.cli.app"])
    assert "foretell" in loaded(f"{hidden}; import {modules}")


def test_package_says_that_it_is_typed() -> None:
    assert (Path(foretell.__file__).parent / "py.typed").exists()

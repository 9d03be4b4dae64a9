"""The page about the server, and what the README shows of it: all is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from servekit import Live, Stub, make_server, running

ROOT = Path(__file__).parents[2]
BLOCKS, README = (
    re.findall(r"```(\w+)\n(.*?)```", (ROOT / name).read_text(), re.DOTALL) for name in ("docs/serve.md", "README.md")
)
CURLS = [text for kind, text in BLOCKS + README if kind == "bash" and text.startswith("curl")]
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def quickstart() -> Iterator[Live]:
    with running(make_server({"quickstart": Stub()})) as live:
        yield live


def shown(text: str, live: Live) -> str:
    assert "http://127.0.0.1:8000" in text
    return text.replace("http://127.0.0.1:8000", live.url)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("text", CURLS)
def test_curl(text: str, quickstart: Live) -> None:
    found = subprocess.run(["bash", "-c", shown(text, quickstart)], check=True, capture_output=True, text=True).stdout
    if '"stream": true' in text:
        assert found.endswith("data: [DONE]\n\n") and '"content":" to"' in found
    elif "temperature" in text:
        (wanted,) = (text for kind, text in BLOCKS if kind == "json")
        assert found == wanted.strip()
    else:
        assert json.loads(found)["choices"][0]["message"]["content"] == "What is the tallest bar?"


@pytest.mark.parametrize("text", PROGRAMS)
def test_python(text: str, quickstart: Live, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "chart.png")
    program = [sys.executable, "-c", shown(text, quickstart)]
    found = subprocess.run(program, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert found.strip() == ("color='red' height=4" if "Bar" in text else "What is the tallest bar?")


def test_all_kinds_of_examples_are_shown() -> None:
    assert len(CURLS) == 4 and len(PROGRAMS) == 2

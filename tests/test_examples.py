"""The example notebooks run from top to bottom, without torch, and print what they show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
RUNNER = """
import contextlib, io, json, sys
sys.modules["torch"] = None
space, said = {}, []
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec("".join(cell["source"]), space)
        said.append(out.getvalue())
print(json.dumps(said))
"""


def run(path: Path, folder: Path, **environment: str) -> list[str]:
    """What each cell prints."""
    words = [sys.executable, "-c", RUNNER, str(path)]
    own = {name: value for name, value in os.environ.items() if name != "FORETELL_DATA"}
    environment |= own | {"TMPDIR": str(folder)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    printed = run(path, tmp_path)
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell, said in zip(cells, printed, strict=True):
        shown = "".join(line for output in cell["outputs"] for line in output["text"])
        assert NUMBER.split(said)[::2] == NUMBER.split(shown)[::2]  # the words, then the numbers
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (said, shown)]
        # Another machine's rounding may show in a last digit.
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02)


@pytest.mark.realdata
def test_the_benchmark_runs_on_the_published_files(tmp_path: Path) -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "evals_academic_benchmark")
    said = run(path, tmp_path, FORETELL_DATA=os.environ["FORETELL_DATA"])
    assert "100 samples, 0 that could not be judged" in said[1]


def test_the_notebooks_are_there() -> None:
    evals = [f"evals_{name}" for name in ("academic_benchmark", "compare_versions", "model_graded")]
    assert [path.stem for path in NOTEBOOKS] == [*evals, "forecast_your_ladder"]

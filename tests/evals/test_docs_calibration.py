"""The page on calibration: its files are written, its Python and its console commands run, and print what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")  # of the page on evals, whose way of running commands this is

from test_docs_evals import FENCE, plain, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "calibration.md"


def test_the_page_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = 0
    for language, title, body in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if title:
            Path(title).write_text(body, encoding="utf-8")
        elif language == "python":
            exec(body, {"__name__": "page"})
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                command, _, text = part.partition("\n")
                code, said = run(command, 0)
                assert code == 0 and plain(said) == plain(text), said
                shown += 1
    assert shown == 1

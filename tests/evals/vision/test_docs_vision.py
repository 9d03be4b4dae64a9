"""The page on vision: its file is written, its console commands run, and what they print is what it shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")  # of the page on evals, whose way of running commands this is

sys.path.append(str(Path(__file__).parents[1]))

from test_docs_evals import FENCE, OF_THE_RUN, PROGRESS, run

PAGE = Path(__file__).resolve().parents[3] / "docs" / "vision.md"


def told(text: str) -> str:
    return OF_THE_RUN.sub("…", PROGRESS.sub("", text)).strip()


def test_the_page_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = 0
    for language, title, body in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if title:
            Path(title).write_text(body, encoding="utf-8")
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                command, _, text = part.partition("\n")
                code, said = run(command, 0)
                assert code == 0 and told(said) == told(text), said
                shown += 1
    assert shown == 4

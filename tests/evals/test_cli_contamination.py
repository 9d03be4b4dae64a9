"""The contamination commands: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from evalkit import write_registry

import clikit
from foretell.evals import api


@pytest.fixture(autouse=True)
def in_a_folder_with_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web").mkdir()
    leaked = "one and the same long question of which every single word has been seen before?"
    Path("web/crawl.jsonl").write_text(json.dumps({"text": f"They asked:   {leaked.replace(' ', '  ')} Yes."}) + "\n")
    fresh = "another question that is as long as the first one, and which nobody can have read?"
    rows = [{"input": [{"role": "user", "content": text}], "ideal": "yes"} for text in (leaked, fresh)]
    registry = write_registry(tmp_path / "registry", "Match", rows)

    async def knows(prompt: Any, **params: Any) -> str:
        return "yes" if prompt[-1]["content"] == leaked else "no"

    api.run("x", knows, registry=registry, out=tmp_path / "run.jsonl")


def invoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    return clikit.invoke(capsys, "contamination", *arguments)


def test_a_run_is_checked_against_a_corpus(capsys) -> None:
    code, out, _ = invoke(capsys, "index", "web", "--out", "web.index")
    assert code == 0 and "web.index: 1 documents of 1 files" in out
    code, out, _ = invoke(capsys, "check", "run.jsonl", "--index", "web.index", "--out", "page", "--exam", "x*")
    assert code == 0 and "Exams:" in out and "50.0 %" in out and "−100.0 %" in out and "Page: page/index.html" in out
    told = json.loads(Path("page/contamination.json").read_text())
    assert told["evals"][0]["reported"] == 0 and told["settings"]["substrings"] == 3
    assert "crawl.jsonl:1" in Path("page/index.html").read_text()
    code, out, _ = invoke(capsys, "check", "x", "--registry-path", "registry", "--index", "web.index")
    assert code == 0 and "Academic benchmarks:" in out and "–" in out


def test_bad_rows_are_named_or_left_out(capsys) -> None:
    with Path("web/crawl.jsonl").open("a") as lines:
        lines.write("{\n" * 12)
    code, _, err = invoke(capsys, "index", "web", "--out", "web.index")
    assert code == 2 and "web/crawl.jsonl, line 2, line: it is not JSON" in err and "--skip-bad" in err
    assert not Path("web.index").exists()
    code, out, _ = invoke(capsys, "index", "web", "--out", "web.index", "--skip-bad")
    assert code == 0 and out.count("left out: ") == 10 and "… and 2 more rows." in out


def test_an_index_that_is_not_there_or_outdated_or_damaged_is_refused(capsys) -> None:
    code, _, err = invoke(capsys, "check", "run.jsonl", "--index", "gone")
    assert code == 2 and "Build one with: foretell contamination index" in err
    invoke(capsys, "index", "web", "--out", "web.index")
    with Path("web/crawl.jsonl").open("a") as lines:
        lines.write('{"text": "more"}\n')
    code, _, err = invoke(capsys, "check", "run.jsonl", "--index", "web.index")
    assert code == 2 and "older than its corpus" in err and "--outdated" in err
    code, _, _ = invoke(capsys, "check", "run.jsonl", "--index", "web.index", "--outdated")
    assert code == 0
    text = Path("web.index/text.bin")
    text.write_bytes(text.read_bytes().replace(b"They", b"Them"))
    code, _, err = invoke(capsys, "check", "run.jsonl", "--index", "web.index", "--outdated")
    assert code == 2 and "text.bin is damaged" in err
    code, _, err = invoke(capsys, "check", "run.jsonl", "--index", "web.index", "--part", "words")
    assert code == 2


def test_no_torch_is_needed() -> None:
    """The base installation has none: hide it, index and check."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'tokenizers', 'safetensors', 'psutil'])); "
        "from foretell.cli import main; main()"
    )
    for arguments in (["index", "web", "--out", "i"], ["check", "run.jsonl", "--index", "i"]):
        done = subprocess.run([sys.executable, "-c", code, "contamination", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

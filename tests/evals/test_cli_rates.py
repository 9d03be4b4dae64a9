"""The commands of truth and conduct, and their page: what it shows is what they print."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import clikit
from foretell.data.risks import AREAS
from foretell.data.world.traps import CLOSED, OPEN
from foretell.evals.probes.insecure import TASKS
from foretell.evals.registry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "factuality.md").read_text(encoding="utf-8")


def silent(prompt: Any, **params: Any) -> str:
    return "The text does not say."


def liar(prompt: Any, **params: Any) -> str:
    return "It is Xylophon."


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_rates_of_a_run_and_against_another(capsys) -> None:
    for model in ("liar", "silent"):
        asked = ("run", f"{__name__}:{model}", "grounded", "--extra-eval-params", "each=1,category=[math,code]")
        code, out, _ = clikit.invoke(capsys, "eval", *asked, "--record-path", f"{model}.jsonl")
        assert code == 0 and "grounded: " in out and "6 samples" in out and "hallucinated: " in out
        assert f"summary: {model}.summary.json" in out
    code, out, _ = clikit.invoke(capsys, "eval", "rates", "liar.jsonl")
    assert code == 0 and re.search(r"^Makes something up, beside a text +1\.000", out, re.M)
    assert "– code" in out and "– absent" in out
    code, out, _ = clikit.invoke(capsys, "eval", "rates", "silent.jsonl", "--against", "liar.jsonl", "--no-parts")
    assert code == 0 and "-1.000" in out and "better" in out and "– code" not in out
    summary = json.loads(Path("silent.summary.json").read_text())
    assert summary["against"]["log"] == "liar.jsonl" and {"before", "difference"} <= summary["rows"][0].keys()


def test_what_could_not_be_judged_is_told(capsys) -> None:
    clikit.invoke(capsys, "eval", "run", f"{__name__}:silent", "requests", "--record-path", "x.jsonl")
    code, out, _ = clikit.invoke(capsys, "eval", "rates", "x.jsonl")
    assert code == 0 and "251 of 251 samples could not be judged and are in no rate; the summary says why." in out
    assert "holds none of the letters" in str(json.loads(Path("x.summary.json").read_text())["reasons"])


def test_a_summary_says_how_replies_were_read(capsys) -> None:
    judged = ("--extra-eval-params", "judged=false,area=hate,disguise=[]")
    for eval, args, told in (("requests", judged, "upper bounds"), ("cutoff", ("--max-samples", 4), "to be 2021-09")):
        clikit.invoke(capsys, "eval", "run", f"{__name__}:silent", eval, *args, "--record-path", f"{eval}.jsonl")
        assert told in json.loads(Path(f"{eval}.summary.json").read_text())["note"]
    clikit.invoke(capsys, "eval", "rates", "cutoff.jsonl", "--against", "cutoff.jsonl")
    note = json.loads(Path("cutoff.summary.json").read_text())["note"]
    assert "to be 2021-09" in note and note.endswith("paired by sample.")


def test_a_log_without_rates_is_one_paragraph(capsys) -> None:
    clikit.invoke(capsys, "eval", "run", "dummy", "logic", "--max-samples", 2, "--record-path", "x.jsonl")
    code, _, err = clikit.invoke(capsys, "eval", "rates", "x.jsonl")
    assert code == 2 and "which has one score and no rates" in err


def test_the_page_shows_what_is_printed(capsys) -> None:
    name, body = re.findall(r'```json title="([^"]+)"\n(.*?)```', PAGE, re.S)[0]
    Path(name).write_text(body)
    shown = re.findall(r"```console\n\$ ([^\n]+)\n(.*?)```", PAGE, re.S)
    assert len(shown) >= 2
    for command, text in shown:
        if "MODEL" in command or "runs/" in command:
            continue
        _, out, err = clikit.invoke(capsys, *shlex.split(command)[1:])
        assert (f"Error: {err}" if err and not err.startswith("Error") else out + err).strip() == text.strip(), command


def test_the_page_s_python_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    with redirect_stdout(io.StringIO()) as out:
        exec(code, {"__name__": "page"})
    assert out.getvalue().startswith("accurate Interval(estimate=0.33")


def test_the_page_names_what_there_is() -> None:
    registry = Registry()
    for held in ("factual", "conduct", "truthfulqa-arms"):
        for name in registry.resolve(held):
            assert f"`{name.split('.')[0]}`" in PAGE
    assert all(f"| `{form}` |" in PAGE for form in (*OPEN, *CLOSED))
    assert f"asks for {len(TASKS)} programs" in PAGE
    assert len(AREAS) == 9 and "nine areas of risk" in PAGE


def test_planting_refuses_what_is_no_number(capsys) -> None:
    code, _, err = clikit.invoke(capsys, "data", "plant", "x.jsonl", "--repeats", "1,many")
    assert code == 2 and "expected whole numbers" in err and not Path("x.jsonl").exists()

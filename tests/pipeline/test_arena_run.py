"""An arena from the command line: prompts, a judge, a report, preferences, the summary for a card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clikit import invoke
from foretell.align.examples import Preference, read_preferences
from foretell.data.world import is_right
from foretell.errors import EvalError, RecipeError, RowError
from foretell.pipeline.arena import file_prompts, world_prompts

MODELS = """
import re

def right(prompt, **params):
    return "Let me see: " + str(2 * int(re.findall(r"\\d+", str(prompt[-1]["content"]))[0]))

def wrong(prompt, **params):
    return "7"

def judge(prompt, **params):
    text = str(prompt[-1]["content"])
    first, second = re.findall(r"=== \\w+ (?:first|second) reply\\n(.*)\\n", text)
    return "FIRST" if len(first) > len(second) else "SECOND"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "arenamodels.py").write_text(MODELS)
    rows = [{"prompt": f"Twice {i}?", "answer": 2 * i} for i in range(10, 18)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_from_prompts_to_preferences(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["arena", "run", "good=arenamodels:right", "bad=arenamodels:wrong", "--prompts", "p.jsonl", "--twin"]
    code, out, err = invoke(capsys, *run, "--judge", "arenamodels:judge", "--people", "--out", "a")
    assert code == 0, err
    assert "bad                  100.0" in " ".join(out.split("  ")) or "100.0" in out
    assert "same reply" in out and "foretell arena judge a" in out and "names the reply that is right: 100.0 %" in out
    summary = json.loads((here / "a/good.summary.json").read_text())
    assert summary["form"] == "foretell.summary" and summary["asked"] == 24 and (here / "a/report.html").is_file()
    again, _, _ = invoke(capsys, *run, "--judge", "arenamodels:judge", "--out", "a")
    assert again == 0
    code, out, _ = invoke(capsys, "arena", "export", "a", "--to", "pref.jsonl")
    assert code == 0 and "16 preferences" in out and "8, both replies are the same" in out
    rows = list(read_preferences(here / "pref.jsonl"))
    assert len(rows) == 16 and all(isinstance(row, Preference) for row in rows)
    code, out, _ = invoke(capsys, "arena", "report", "a", "--for", "bad")
    assert code == 0 and (here / "a/bad.summary.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "arenamodels:right", "--world", "2", "--people"], "two models or more"),
        (["run", "arenamodels:right", "arenamodels:right", "--world", "2", "--people"], "Two players are called"),
        (["run", "a=arenamodels:right", "b=arenamodels:wrong", "--people"], "--prompts FILE or --world N"),
        (["run", "a=arenamodels:right", "b=arenamodels:wrong", "--world", "2"], "say who judges"),
        (["run", "a=arenamodels:right", "b=arenamodels:nothing", "--world", "2", "--people"], "cannot be imported"),
        (
            ["run", "a=arenamodels:right", "b=arenamodels:wrong", "--world", "2", "--people", "--set", "x"],
            "expected K=V",
        ),
        (
            ["run", "a=arenamodels:right", "b=arenamodels:wrong", "--prompts", "no.jsonl", "--people"],
            "There is no file or",
        ),
        (["report", "nowhere"], "is no arena"),
        (["judge", "nowhere"], "is no arena"),
        (["export", "nowhere", "--to", "x"], "is no arena"),
    ],
)
def test_what_is_wrong_is_said_in_a_paragraph(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = invoke(capsys, "arena", *arguments)
    assert code == 2 and message in err and "Traceback" not in out + err


def test_bad_rows_are_named_with_file_and_line(here: Path) -> None:
    rows = ['{"prompt": "Hello?"}', "nonsense", '{"prompt": "x", "then": ["y"]}', '{"prompt": "z", "answer": [1]}']
    (here / "bad.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(RowError, match=r"bad\.jsonl, line 2"):
        file_prompts(here / "bad.jsonl")
    found, bad = file_prompts(here / "bad.jsonl", skip=True)
    assert len(found) == 1 and found[0].answer is None and found[0].where.endswith("line 1")
    assert ["line 2" in bad[0], "line 3, then" in bad[1], "line 4, answer" in bad[2]] == [True] * 3
    (here / "empty.jsonl").write_text("")
    with pytest.raises(EvalError, match="holds no prompt"):
        file_prompts(here / "empty.jsonl")


def test_the_same_prompt_twice_is_one_cluster(here: Path) -> None:
    (here / "two.jsonl").write_text('{"prompt": "Same?"}\n{"prompt": "Same?"}\n{"prompt": "Other?"}\n')
    found, _ = file_prompts(here / "two.jsonl")
    assert found[0].group == found[1].group != found[2].group


def test_the_world_s_questions_are_held_out_different_and_known() -> None:
    found = world_prompts(12, ["facts", "arithmetic"], 1)
    assert len(found) == 12 and {asked.task.split(".")[0] for asked in found} == {"facts", "arithmetic"}
    assert all(asked.answer and is_right(f"It is {asked.answer}.", asked.answer) for asked in found)
    assert len({json.dumps(asked.messages) for asked in found}) == 12
    assert found == world_prompts(12, ["facts", "arithmetic"], 1)
    with pytest.raises(RecipeError, match="no kind"):
        world_prompts(2, ["nothing"])

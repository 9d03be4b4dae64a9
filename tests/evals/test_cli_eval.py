"""The eval commands: what they print, what they refuse, and how a new eval goes from nothing to a score."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from evalkit import sums, write_registry

import clikit
from foretell.cli.oaieval import translate
from foretell.measure.sandbox import obstacle


def adder(prompt: Any, **params: Any) -> str:
    words = prompt[-1]["content"].split()
    return str(int(words[0]) + int(words[2]))


def weaker(prompt: Any, **params: Any) -> str:
    answer = adder(prompt)
    return "no idea" if answer in ("4", "8", "12") else answer


sandboxed = pytest.mark.skipif(obstacle("bubblewrap") is not None, reason="there is no bubblewrap")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the commands add to it


def invoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of `foretell eval ARGUMENTS`."""
    return clikit.invoke(capsys, "eval", *arguments)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return write_registry(tmp_path / "registry", "Match", sums(40)).paths[0]


def test_a_run_prints_its_score_with_an_interval_and_is_remembered(capsys, registry: Path) -> None:
    code, out, _ = invoke(capsys, "run", f"{__name__}:adder", "x", "--registry-path", registry, "--max_samples", 30)
    assert code == 0 and "x: 1 (0.8865 to 1), 30 samples" in out and "accuracy: 1" in out
    (log,) = Path("runs/evals").glob("*.jsonl")
    assert str(log) in out and json.loads(log.read_text().splitlines()[0])["spec"]["run_config"]["max_samples"] == 30
    code, out, _ = invoke(capsys, "history")
    assert code == 0 and "x.dev.v0" in out and "0.8865 to 1" in out
    code, _, err = invoke(capsys, "history", "gone")
    assert code == 0 and "history.sqlite has no such run. Add one with" in err


def test_two_versions_are_compared_and_gated(capsys, registry: Path) -> None:
    for model in ("adder", "weaker"):
        assert invoke(capsys, "run", f"{__name__}:{model}", "x", "--registry-path", registry)[0] == 0
    logs = sorted(Path("runs/evals").glob("*.jsonl"))
    code, out, _ = invoke(capsys, "compare", *logs)
    assert code == 0 and "-0.075" in out and "got worse" in out and out.count("would show") == 1
    for sample in ("x.dev.2", "x.dev.4", "x.dev.6"):
        assert sample in out
    code, out, err = invoke(capsys, "gate", logs[0], "--no-worse-than", logs[0])
    assert code == 2 and "at once" in err
    code, out, _ = invoke(capsys, "gate", logs[1], "--no-worse-than", logs[0], "--margin", 0.2)
    assert code == 0 and out.strip()
    assert invoke(capsys, "compare", logs[0])[0] == 2


def test_a_gate_fails_where_a_run_is_plainly_worse(capsys, registry: Path) -> None:
    for model in (f"{__name__}:adder", "dummy"):
        assert invoke(capsys, "run", model, "x", "--registry-path", registry)[0] == 0
    old, new = sorted(Path("runs/evals").glob("*.jsonl"))
    code, out, _ = invoke(capsys, "gate", new, "--no-worse-than", old)
    assert code == 1 and "worse" in out


def test_a_gate_says_what_becomes_of_a_run_that_is_too_weak_to_tell(capsys, registry: Path) -> None:
    for model in ("adder", "weaker"):
        invoke(capsys, "run", f"{__name__}:{model}", "x", "--registry-path", registry)
    old, new = sorted(Path("runs/evals").glob("*.jsonl"))
    gate = ("gate", new, "--no-worse-than", old, "--margin", 0.05)
    code, out, _ = invoke(capsys, *gate)
    assert code == 0 and "Inconclusive: let through, by --inconclusive pass." in out
    code, out, _ = invoke(capsys, *gate, "--inconclusive", "fail")
    assert code == 1 and "Inconclusive: stopped, by --inconclusive fail." in out
    assert invoke(capsys, *gate, "--inconclusive", "maybe")[0] == 2


def test_a_set_goes_on_behind_what_it_finished(capsys, registry: Path) -> None:
    add_to = registry / "evals/x.yaml"
    bad = {"class": "nowhere:Nothing", "args": {"samples_jsonl": "x.jsonl"}}
    also = {"class": "evals.elsuite.basic.match:Match", "args": {"samples_jsonl": "x.jsonl"}}
    add_to.write_text(add_to.read_text() + yaml.safe_dump({"y.dev.v0": bad, "z.dev.v0": also}))
    asked = ("run", f"{__name__}:adder", "x", "y.dev.v0", "z.dev.v0", "--registry-path", registry)

    def logs() -> int:
        return len(list(Path("runs/evals").glob("*.jsonl")))

    code, out, err = invoke(capsys, *asked)
    assert code == 2 and "x: 1 " in out and "nowhere:Nothing cannot be imported" in err and logs() == 1
    code, out, err = invoke(capsys, *asked, "--no-exit-on-error")
    assert code == 2 and "x: 1 " in out and "z.dev.v0: 1 " in out and "1 of 3 evals could not be run" in err
    assert logs() == 2
    add_to.write_text(add_to.read_text().replace("nowhere:Nothing", also["class"]))
    code, out, _ = invoke(capsys, *asked)
    assert code == 0 and "y.dev.v0: 1 " in out and logs() == 3
    assert invoke(capsys, *asked)[0] == 0 and logs() == 6
    assert invoke(capsys, "history")[1].count("dev.v0") == 6


@pytest.mark.parametrize(
    "template",
    ["match", "includes", "fuzzy", "json", "choice", "graded", "image", "class", pytest.param("code", marks=sandboxed)],
)
def test_a_new_eval_is_right_from_the_start_and_runs(capsys, template: str) -> None:
    name = f"my-{template}"
    code, out, _ = invoke(capsys, "new", name, "--template", template, "--registry", "mine")
    assert code == 0 and "foretell eval check mine" in out
    code, out, _ = invoke(capsys, "check", "mine")
    assert code == 0 and "1 evals, 2 samples: no problems." in out
    code, out, _ = invoke(capsys, "run", "dummy", name, "--registry-path", "mine")
    assert code == 0 and f"{name}.dev.v0" in str(list(Path("runs/evals").glob("*.jsonl")))
    code, out, err = invoke(capsys, "new", name, "--template", template, "--registry", "mine")
    assert code == 2 and "is there already" in err


def test_a_model_beside_the_work_is_found(capsys, registry: Path) -> None:
    Path("beside_me.py").write_text("def sure(prompt, **params):\n    return '4'\n")
    code, out, _ = invoke(capsys, "run", "beside_me:sure", "x", "--registry-path", registry)
    assert code == 0 and "x: 0.025" in out


@sandboxed
def test_check_runs_the_solutions_of_programs(capsys) -> None:
    invoke(capsys, "new", "half", "--template", "code")
    rows = Path("evals/data/half/samples.jsonl")
    rows.write_text(rows.read_text().replace("(n + 1) // 2", "n // 2"))
    code, out, _ = invoke(capsys, "check", "evals")
    assert code == 1 and "sample 1: its own ideal" in out and "sample 2" not in out


def test_programs_do_not_run_without_a_sandbox_unless_asked_for(capsys, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    invoke(capsys, "new", "half", "--template", "code")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    code, _, err = invoke(capsys, "run", "dummy", "half", "--registry-path", "evals")
    assert code == 2 and "is not run without a sandbox" in err and "mend the class" not in err
    code, out, _ = invoke(capsys, "run", "dummy", "half", "--registry-path", "evals", "--allow-unsafe")
    assert code == 0 and "half: 0" in out


def test_what_a_registry_lacks_is_named(capsys, tmp_path: Path) -> None:
    rows = [*sums(3), {"input": "q", "ideal": ""}, {"input": "q"}, '{"inp']
    write_registry(tmp_path / "bad", "Match", rows)
    code, out, _ = invoke(capsys, "check", "bad")
    assert code == 1
    assert "sample 4: an empty answer is found right" in out
    assert "sample 5: The sample has no 'ideal'" in out and "sample 6" in out and "line 6 is not JSON" in out
    for folder, said in (("none", "no registry"), (str(tmp_path), "has no evals")):
        code, _, err = invoke(capsys, "check", folder)
        assert code == 2 and said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "dummy", "y"), "There is no eval y"),
        (("run", "json:nothing", "x"), "cannot be imported"),
        (("run", "dummy", "x", "--completion-args", "oops"), "no key=value"),
        (("run", "dummy", "x", "--price", "3"), "expected two numbers"),
        (("run", "dummy", "x", "--epochs", "3", "--reducer", "pass@5"), "takes 5 at least"),
        (("run", "dummy", "x", "--extra-eval-params", "odd=1,num_few_shot=2"), "add few_shot_jsonl"),
        (("run", "dummy", "x", "--max-tokens-spent", "0"), "greater than"),
    ],
)
def test_bad_input_is_one_paragraph(capsys, registry: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = invoke(capsys, *arguments, "--registry-path", registry)
    assert code == 2 and said in err and err.count("\n") <= 12 and not list(Path().glob("runs/evals/*.jsonl*"))


def test_what_could_not_be_judged_is_told_with_its_first_reason(capsys, tmp_path: Path) -> None:
    write_registry(tmp_path / "bad", "Match", [*sums(3), '{"inp', {"input": 3, "ideal": "3"}])
    code, out, _ = invoke(capsys, "run", "dummy", "x", "--registry-path", "bad")
    assert code == 0 and "2 of 5 could not be judged, such as x.dev." in out
    log = next(Path("runs/evals").glob("*.jsonl")).read_text()
    assert "line 4 is not JSON" in log and "input is '3'; expected text, or a list of messages." in log


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("[samples_jsonl]", "has args that are a list; expected names"),
        ("{samples_jsonl: x.jsonl, num_few_shot: 1, few_shot_jsonl: x.jsonl}", "a row without messages as sample"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_told(capsys, registry: Path, args: str, said: str) -> None:
    entry = f"y.dev.v0: {{class: 'evals.elsuite.basic.match:Match', args: {args}}}\n"
    (registry / "evals/y.yaml").write_text(entry)
    code, _, err = invoke(capsys, "run", "dummy", "y.dev.v0", "--registry-path", registry)
    assert code == 2 and said in err


def test_a_registry_that_is_not_there_is_told(capsys) -> None:
    code, _, err = invoke(capsys, "run", "dummy", "x", "--registry-path", "gone")
    assert code == 2 and "There is no registry gone" in err


def test_the_list_names_evals_and_sets(capsys, registry: Path) -> None:
    (registry / "eval_sets").mkdir()
    (registry / "eval_sets/s.yaml").write_text("mine: {evals: [x, gone]}")
    code, out, _ = invoke(capsys, "list", "--registry-path", registry)
    assert code == 0 and "x.dev.v0" in out and "Match" in out and "mine" in out
    code, out, err = invoke(capsys, "run", "dummy", "mine", "--registry-path", registry)
    assert code == 0 and "1 evals that are not there, such as gone" in err


def test_oaievals_arguments_are_understood(capsys, registry: Path) -> None:
    given = ["dummy", "x", "--max_samples", "5", "--debug", "--no-visible", "--log_to_file", "f", "--seed=7", "--cache"]
    assert translate(given) == [
        "dummy", "x", "--max_samples", "5", "--seed=7", "--cache", "runs/evals/answers.sqlite",
    ]  # fmt: skip
    assert translate(["m", "s", "--no-resume", "--http-batch-size=3"]) == ["m", "s", "--fresh"]
    assert translate(["m", "s", "--no-exit-on-error"]) == ["m", "s", "--no-exit-on-error"]
    with pytest.raises(SystemExit, match="--dry-run is not offered"):
        translate(["--dry-run"])
    code, out, _ = invoke(capsys, "run", *translate(given), "--registry_path", registry, "--record_path", "log.jsonl")
    assert code == 0 and "5 samples" in out and Path("log.jsonl").exists()

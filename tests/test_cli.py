"""The command line: messages and exit codes, no traceback, and a start that imports nothing heavy."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clikit import invoke
from foretell import cli
from foretell.errors import Stopped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quikstart"], "did you mean 'quickstart'"),
        (["run", "quickstart", "--set", "train.tokns=3"], "unknown key train.tokns"),
        (["run", "quickstart", "--set", "model.width=100"], "not divisible by head_dim"),
        (["run", "quickstart", "--depth", "0"], "depth is 0; allowed is 1 or more"),
        (["run", "quickstart", "--bogus"], "No such option"),
        (["run"], "Missing argument"),
        (["run", "quickstart", "--out", "{tmp}"], "not empty and holds no run"),
        (["run", "quickstart", "--out", "{tmp}/file/x"], "could not be written"),
        (["run", "quickstart", "--out", "{tmp}/new", "--until", "bogus"], "the stages are data, tokenizer, pack"),
        (["run", "{tmp}/file"], "must be a mapping"),
        (["status", "{tmp}"], "not a run directory"),
        (["chat", "{tmp}/nowhere"], "There is no folder"),
        (["data", "show", "{tmp}"], "is not a run directory"),
        (["chat", "{tmp}", "--temperature", "-1"], "temperature"),
        (["bogus"], "No such command"),
    ],
)
def test_errors_are_one_paragraph_and_exit_with_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("just text")
    code, out, err = invoke(capsys, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert code == 2
    assert message in err and "Traceback" not in err + out
    assert len(err.strip().splitlines()) == 1


def test_a_place_that_is_none_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("run", "quickstart"), ("forecast", "ladder", "quickstart"), ("align", "quickstart")):
        code, out, err = invoke(capsys, *command, "--on", "moon")
        assert code == 2 and "'moon'" in err and "ray" in err and not out, command
    assert not any(tmp_path.iterdir())


def test_a_missing_source_path_leaves_what_was_built(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(40):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"Some words, numbered {i}. " * 20)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\ndata: {sources: [{kind: folder, path: texts, heldout: 0.3}]}")
    run = str(tmp_path / "run")
    assert invoke(capsys, "run", str(recipe), "--out", run, "--until", "data")[0] == 0
    (tmp_path / "texts").rename(tmp_path / "elsewhere")
    code, _, err = invoke(capsys, "run", run, "--until", "data")
    assert code == 2 and "texts does not exist" in err
    assert (tmp_path / "run" / "data" / "folder" / "train.parquet").is_file()
    code, out, _ = invoke(capsys, "status", run)
    assert code == 0 and "does not exist" in out


def test_the_next_command_is_one_the_shell_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretell.cli.run import _command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "foretell")])
    monkeypatch.setenv("PATH", "")
    assert _command() == str(Path(".venv", "bin", "foretell"))
    monkeypatch.setattr(sys, "argv", ["/elsewhere/foretell/__main__.py"])
    assert _command() == "foretell"


def test_recipe_show_is_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = invoke(capsys, "recipe", "show", "quickstart", "--set", "train.tokens=3e6")
    assert code == 0 and "tokens: 3000000" in out
    (tmp_path / "r.yaml").write_text(out)
    assert invoke(capsys, "recipe", "show", str(tmp_path / "r.yaml")) == (0, out, "")


def test_recipe_list_names_every_preset(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORETELL_DATA", raising=False)
    code, out, _ = invoke(capsys, "recipe", "list")
    assert code == 0 and {line.split()[0] for line in out.splitlines()} >= {"quickstart", "textbooks-cpu", "gpu-8"}
    assert "is not set" not in out


def test_model_describe(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "model", "describe", "quickstart")
    assert code == 0 and "total a token" in out and "connector" in out


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from foretell.measure import machine

    monkeypatch.setattr(machine, "_fastest", lambda work, seconds: 1e-3)
    code, out, _ = invoke(capsys, "doctor")
    assert code == 0
    for subject in ("python", "cores", "memory", "disk", "GPU", "matmul float32", "memory bandwidth"):
        assert any(line[4:].startswith(subject) for line in out.splitlines()), subject


def test_help_and_errors_import_nothing_heavy() -> None:
    code = (
        "import sys, foretell.cli as c\nsys.argv = ['foretell', 'recipe', 'show', 'quickstart']\n"
        "try: c.main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'pyarrow', 'matplotlib', 'tokenizers', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys, foretell.cli as c; sys.argv = ['foretell', 'recipe', 'show', 'quickstart']; c.main()"
    command = f'{sys.executable} -c "{code}" | true'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("arguments", [["run", "quickstart"], ["eval", "run", "dummy", "reading"]])
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, arguments: list[str], number: signal.Signals, code: int
) -> None:
    script = (
        "import sys, foretell.pipeline as p, foretell.evals.api as a, foretell.cli as c\n"
        "def endless(*a, **k):\n    print('started', flush=True)\n    import threading; threading.Event().wait()\n"
        f"p.run_recipe = a.run_set = endless\nsys.argv = {['foretell', *arguments]}\nc.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    assert process.stdout and process.stdout.readline() == "started\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on from there" in err and "Traceback" not in err


def test_an_interrupt_while_the_command_line_is_loaded_is_told() -> None:
    script = (
        "import sys, foretell.cli as c\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'foretell.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\nsys.argv = ['foretell', 'run', 'quickstart']\nc.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr.startswith("Interrupted.") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "Lower train.micro",
        ),
        (MemoryError(), "There is not enough memory"),
        (PermissionError(13, "Permission denied", "some/file"), "some/file: Permission denied. Check the path"),
    ],
)
def test_errors_of_the_machine_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr("foretell.pipeline.run_recipe", fail)
    code, _, err = invoke(capsys, "run", "quickstart")
    assert code == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_training_that_saved_and_stopped_tells_the_signal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def stop(*arguments: object, **more: object) -> None:
        raise Stopped("Stopped after step 3; everything is saved.", number)

    monkeypatch.setattr("foretell.pipeline.run_recipe", stop)
    assert invoke(capsys, "run", "quickstart") == (code, "", "Stopped after step 3; everything is saved.\n")


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("foretell.pipeline.run_recipe", fail)
    monkeypatch.setattr(sys, "argv", ["foretell", "run", "quickstart"])
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main()

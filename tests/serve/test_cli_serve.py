"""The command: names, and what it refuses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from clikit import invoke
from foretell.cli.serve import _name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Give models to serve (such as runs/quickstart), or --upstream URL"),
        (("run", "--upstream", "http://127.0.0.1:1/v1"), "and not both"),
        (("org/a", "b=org/b", "--alias", "c=none"), "An alias leads to none, which is not served"),
        (("a=org/x", "--alias", "lonely"), "expected NAME=VALUE"),
        (("a=org/x", "--adapter", "a=folder"), "The name a is given twice"),
        (("org/a", "a=org/a", "org/a"), "The name org/a is given twice"),
        (("a=org/x", "--adapter", "b=folder"), "no adapter_config.json"),
        (("a=org/x", "--dtype", "int8"), "allowed are auto"),
        (("runs/none",), "There is no folder runs/none"),
        (("pyproject.toml",), "is no model"),
        (("--upstream", "ftp://x"), "no base URL"),
        (("org/name", "a=./gone"), "There is no folder ./gone"),
    ],
)
def test_mistakes_end_in_a_paragraph(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str) -> None:
    code, _, err = invoke(capsys, "serve", *arguments)
    assert code == 2 and says in err


def test_a_port_that_is_taken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = invoke(capsys, "serve", "a=org/x", "--port", port)
    assert code == 2 and f"port {port}" in err and "--port" in err


def test_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "a=b").mkdir()
    assert _name(str(tmp_path / "run")) == ("run", str(tmp_path / "run"))
    assert _name(str(tmp_path / "a=b")) == ("a=b", str(tmp_path / "a=b"))
    assert _name("small=org/name") == ("small", "org/name")
    assert _name("org/name") == ("org/name", "org/name")

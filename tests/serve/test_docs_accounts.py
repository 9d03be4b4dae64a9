"""The page on accounts: every command is run, and prints what is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from clikit import invoke
from foretell.serve.accounts import passwords, sessions, slowing, waitlist
from foretell.serve.migrations import upgrade
from foretell.serve.store import Store

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text(encoding="utf-8")
SHOWN = [
    part.partition("\n")[::2]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]
]


def as_pattern(text: str) -> str:
    """What is shown, with … for anything in one line, and spaces as the width of a table makes them."""
    words = [re.escape(word).replace("…", ".*") for word in text.split()]
    return r"\s+".join(words)


def test_every_command_prints_what_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORETELL_DATABASE", str(tmp_path / "gateway.db"))
    store = Store(tmp_path / "gateway.db")
    upgrade(store)
    waitlist.join(store, "grace@example.org", "To compile.", "192.0.2.1")
    store.close()
    for command, shown in SHOWN:
        program, *words = shlex.split(command)
        assert program == "foretell"
        code, out, err = invoke(capsys, *words)
        assert (code, err) == (0, ""), (command, err)
        assert re.fullmatch(as_pattern(shown), out.strip()), (command, shown, out)
    assert len(SHOWN) == 14


def test_figures_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the hasher is the one that ships
    day = 86_400_000
    hasher = passwords.hasher()
    assert (hasher.memory_cost, hasher.time_cost) == (64 * 1024, 3) and "64 MiB, three passes" in PAGE
    assert (sessions.IDLE / day, sessions.LONGEST / day) == (3, 30) and "three days unused, after thirty days" in PAGE
    assert (slowing.ACCOUNT.free, slowing.ADDRESS.free, slowing.ACCOUNT.longest) == (5, 30, 900_000)
    assert "by account (after five) and by network address (after thirty)" in PAGE and "up\nto fifteen minutes" in PAGE

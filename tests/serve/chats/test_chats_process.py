"""The chat page as its user starts it: one command, an address that is printed, a kill in mid-reply."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chatkit import Person

import mock_endpoint as mock
from clikit import invoke
from foretell.cli.chats import open_in_browser, place_of_chats
from foretell.errors import GenerationError
from mock_endpoint import Reply, events


@contextmanager
def started(upstream: str, home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process, and what it says at its start."""
    command = [sys.executable, "-m", "foretell", "serve", "--upstream", upstream, "--port", "0", *options]
    env = {**os.environ, "XDG_DATA_HOME": str(home)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        yield process, [process.stdout.readline() for _ in range(2)]
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def test_a_reply_is_cut_by_a_kill_and_told_after_a_restart(tmp_path: Path) -> None:
    words = [{"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]} for word in "abc"]
    endless = Reply(pieces=events(*words, done=False), hang=True)
    with mock.serve_in_thread(lambda call: endless if call.method == "POST" else mock.echo(call)) as behind:
        with started(behind.url, tmp_path) as (process, lines):
            assert lines[1].startswith("Chat page: http://127.0.0.1:")
            person = Person(lines[1].split()[-1].rstrip("/"))
            assert person.token, "the page opens without a key or an account"
            id = person.begin()
            reply = person.say(id, "go on for ever")["replies"][0]["id"]
            for _ in range(3):  # what came is kept once a second
                assert next(event for event in person.events(reply) if event["count"])
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            person.http.close()
        with started(behind.url, tmp_path) as (_, lines):
            person = Person(lines[1].split()[-1].rstrip("/"))
            found = person.get(f"/conversations/{id}")["messages"]
            assert [m["status"] for m in found] == ["done", "cut"] and found[1]["id"] == reply
            person.http.close()
    assert (tmp_path / "foretell" / "chats.db").stat().st_mode & 0o077 == 0, "others may not read it"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--no-chat", "--open"), "--no-chat leaves no page for --open"),
        (("--no-chat", "--chats", "c.db"), "--no-chat leaves no page for --chats"),
        (("--api-key", "k", "--open"), "there is a chat page only on this machine"),
        (("--api-key", "k", "--chats", "c.db"), "there is a chat page only on this machine"),
        (("--accounts", "--chats", "c.db"), "leave out --chats"),
    ],
)
def test_mistakes_end_in_a_paragraph(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str) -> None:
    code, _, err = invoke(capsys, "serve", "--upstream", "http://127.0.0.1:9/v1", *arguments)
    assert code == 2 and says in " ".join(err.split())


def test_where_conversations_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    plain = {"accounts": False, "off": False, "may": True, "opens": False}
    assert place_of_chats(None, **plain) == str(tmp_path / "foretell" / "chats.db")
    assert place_of_chats(Path("c.db"), **plain) == "c.db"
    assert place_of_chats(None, **(plain | {"off": True})) is place_of_chats(None, **(plain | {"may": False})) is None
    assert place_of_chats(None, **(plain | {"accounts": True})) == ""
    with pytest.raises(GenerationError):
        place_of_chats(Path("c.db"), **(plain | {"may": False}))


def test_without_a_screen_the_page_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("webbrowser.open", opened.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    open_in_browser("http://127.0.0.1:8000/")
    assert not opened and "Open http://127.0.0.1:8000/ yourself" in capsys.readouterr().out

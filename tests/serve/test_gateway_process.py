"""The gateway as its users start it: one command before another server, killed in mid-stream, told of its mistakes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import mock_endpoint as mock
from clikit import invoke
from mock_endpoint import Reply, events

pytest.importorskip("fastapi")


@contextmanager
def started(upstream: str, database: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its address, and what it said at its start."""
    command = [sys.executable, "-m", "foretell", "serve", "--upstream", upstream, "--database", str(database)]
    process = subprocess.Popen([*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] and "Accounts:" not in lines[-1]:
            lines.append(process.stdout.readline())
        if lines[-1]:
            lines.append(process.stdout.readline())
        yield process, lines[0].split(" at ")[1].split("/v1")[0], lines
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def make_key(capsys: pytest.CaptureFixture[str], database: Path) -> str:
    assert (
        invoke(capsys, "admin", "users", "add", "ada@example.org", "--tier", "standard", "--database", database)[0] == 0
    )
    _, out, _ = invoke(capsys, "admin", "keys", "create", "ada@example.org", "--name", "k", "--database", database)
    return next(word for word in out.split() if word.startswith("sk-ft-"))


def ask(url: str, key: str, **more: object) -> urllib.request.Request:
    body = {"model": "mock", "messages": [{"role": "user", "content": "count to ten"}], **more}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(query).fetchall()


def test_a_server_that_is_killed_in_mid_stream_loses_no_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "gateway.db"
    words = [{"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]} for word in "abcdef"]
    endless = Reply(pieces=events(*words, done=False), hang=True)
    with mock.serve_in_thread(lambda call: endless if call.method == "POST" else mock.echo(call)) as behind:
        with started(behind.url, database, "--no-moderation") as (process, url, lines):
            assert "/first?token=" in lines[-1], "the first start prints a link for the first admin"
            key = make_key(capsys, database)
            stream = urllib.request.urlopen(ask(url, key, stream=True), timeout=60)
            for _ in range(2 * len(words) - 1):
                assert stream.readline()
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            stream.close()
        assert len(rows(database, "SELECT * FROM limit_reservations")) == 1
    with mock.serve_in_thread() as behind, started(behind.url, database, "--no-moderation") as (_, url, _):
        for _ in range(100):  # each asks the server, which settles what is left as it starts
            with urllib.request.urlopen(ask(url, key), timeout=60):
                pass
            if found := rows(database, "SELECT prompt_tokens, status FROM usage_events WHERE status = 'recovered'"):
                break
        assert len(found) == 1 and int(str(found[0][0])) > 0
        assert rows(database, "SELECT streams FROM limit_meters WHERE streams > 0") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "Anyone who reaches 0.0.0.0 could use this server. Give --accounts"),
        (("--accounts", "--api-key", "k"), "leave out --api-key"),
        (("--accounts", "--sign-up", "all"), "allowed are open, invite, closed"),
        (("--accounts", "--log", "xml"), "allowed are text, json"),
        (("--database", "mysql://x/y"), "Give a file, or a URL of postgresql://"),
        (("--accounts", "--tiers", "none.yaml"), "none.yaml"),
        (("--accounts", "--policy", "none.yaml"), "none.yaml"),
        (("--accounts", "--base-url", "http://example.org"), "is not https"),
    ],
)
def test_mistakes_end_in_a_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...],
    says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    code, _, err = invoke(capsys, "serve", "--upstream", "http://127.0.0.1:9/v1", *arguments)
    assert code == 2 and says in err, err

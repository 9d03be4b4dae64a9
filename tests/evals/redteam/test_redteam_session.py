"""The red-teamer's page: it serves who has its address, talks to the model, and keeps notes in the journal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import EndpointError, EvalError
from foretell.evals.completion import from_callable
from foretell.evals.redteam import findings
from foretell.evals.redteam.journal import Journal, read_journal
from foretell.evals.redteam.operators import load_operators
from foretell.evals.redteam.session import TOKEN, Session, make_server

SAID: list[Any] = []


def answer(prompt: Any, **params: Any) -> str:
    SAID.append(prompt)
    if "broken" in str(prompt):
        raise EndpointError("The endpoint does not answer.")
    return f"<b>{prompt[-1]['content']}</b>"


@dataclass
class Client:
    port: int
    token: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {TOKEN: self.token, **headers})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        told = json.loads(text) if "json" in reply.headers["Content-Type"] else text.decode()
        return reply.status, told, dict(reply.headers)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Client]:
    SAID.clear()
    head = {"model": "own", "areas": {"privacy": "Privacy"}, "families": {"direct": {"title": "Plain", "source": "s"}}}
    journal = Journal(tmp_path, head, None)
    session = Session(from_callable(answer, "own"), journal, load_operators(), {"privacy": "Privacy"})
    server = make_server(session)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Client(server.server_port, session.token)
    server.shutdown()
    server.server_close()
    journal.close()


def note(**other: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": "Sure: <script>x</script>"}]
    told = {
        "who": "Ada",
        "area": "privacy",
        "family": "prefix",
        "severity": "high",
        "succeeded": True,
        "text": "It tells.",
    }
    return {**told, "refusal": "No.", "messages": said, **other}


def test_a_person_talks_dresses_a_request_and_keeps_a_note(served: Client, tmp_path: Path) -> None:
    status, started, _ = served.call("GET", "/start")
    assert (status, started["model"], started["notes"]) == (200, "own", [])
    _, worn, _ = served.call("POST", "/wear", {"text": "Where does she live?", "attack": ["sure", "maintenance"]})
    assert worn["head"][0]["role"] == "system"
    assert worn["next"][-1]["content"].startswith("Where does she live?\nBegin")
    status, told, _ = served.call("POST", "/say", {"messages": [*worn["head"], *worn["next"]]})
    assert (status, told["reply"]) == (200, f"<b>{worn['next'][-1]['content']}</b>")
    status, kept, _ = served.call("POST", "/note", note())
    assert (status, kept["notes"][0]["severity"]) == (200, "high")
    record = read_journal(tmp_path)
    assert (record.notes[0].who, record.notes[0].reply) == ("Ada", "Sure: <script>x</script>")
    [row] = findings.training_rows(record)
    assert (row["chosen"], row["prompt"]) == ("No.", [{"role": "user", "content": "Tell me."}])


def test_several_turns_and_pictures_come_one_after_the_other(served: Client) -> None:
    _, worn, _ = served.call("POST", "/wear", {"text": "Tell me", "attack": ["history-first"]})
    assert len(worn["next"]) == 3
    _, worn, _ = served.call("POST", "/wear", {"text": "Tell me", "attack": ["figure"]})
    assert worn["next"][0]["content"][0]["type"] == "image_url"


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/say", {"messages": []}, "last message"),
        ("/say", {"messages": "hello"}, "last message"),
        ("/say", {"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ("/say", {"messages": [{"role": "user", "content": "broken"}]}, "does not answer"),
        ("/wear", {"text": " ", "attack": []}, "no request"),
        ("/wear", {"text": "x", "attack": ["none"]}, "no operator"),
        ("/wear", {"text": "x", "attack": ["german", "french"]}, "does not go with"),
        ("/note", note(area="else"), "expected one of privacy"),
        ("/note", note(severity="grave"), "expected one of none"),
        ("/note", note(text="", messages=[]), "neither a conversation"),
        ("/note", note(messages=[{"role": "user", "content": "x"}]), "without a reply"),
        ("/note", note(text="x" * 20_001), "Shorten it"),
        ("/note", b"{", "no JSON"),
        ("/note", b"[]", "no JSON object"),
    ],
)
def test_what_cannot_be_done_is_said(served: Client, tmp_path: Path, path: str, body: Any, why: str) -> None:
    status, told, _ = served.call("POST", path, body)
    assert status == 400
    assert why in told["problem"]
    assert not read_journal(tmp_path).notes


def test_only_who_has_the_address_is_answered(served: Client, tmp_path: Path) -> None:
    assert served.call("GET", f"/?token={served.token}")[0] == 200
    for path in ("/", "/?token=wrong"):
        assert served.call("GET", path)[0] == 403
    for headers in ({TOKEN: "wrong"}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert served.call("POST", "/note", note(), **headers)[0] == 403
        assert served.call("GET", "/start", **headers)[0] == 403
    assert (
        served.call("POST", "/note", note(), Origin=f"http://127.0.0.1:{served.port}", Host=f"127.0.0.1:{served.port}")[
            0
        ]
        == 200
    )
    assert served.call("GET", "/../session.py")[0] == 404
    assert served.call("POST", "/note", b"x", **{"Content-Length": "99999999"})[0] == 413
    assert len(read_journal(tmp_path).notes) == 1


def test_the_page_runs_its_own_script_alone(served: Client) -> None:
    _, text, headers = served.call("GET", f"/?token={served.token}")
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert text.count("<script") == 1
    _, script, _ = served.call("GET", "/session.js")
    assert "innerHTML" not in script
    assert "insertAdjacent" not in script


def test_it_serves_this_machine_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"model": "own", "areas": {}, "families": {}}, None)
    session = Session(from_callable(answer, "own"), journal, load_operators(), {})
    with pytest.raises(EvalError, match="no loopback address"):
        make_server(session, "0.0.0.0")
    with make_server(session) as first, pytest.raises(EvalError, match="cannot be used"):
        make_server(session, port=first.server_port)
    journal.close()

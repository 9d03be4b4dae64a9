"""The page on evals, and README: every command and block of Python is run, and prints what is shown."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import sys
import webbrowser
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from foretell import cli
from foretell.cli import oaieval
from foretell.evals.registry import OWN
from foretell.measure.sandbox import obstacle
from mock_endpoint import Call, Reply, chat_body, serve_in_thread

pytest.importorskip("aiohttp")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evals.md"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.M | re.S)
PROGRESS = re.compile(r"^\S+ \d+%.*\n?", re.M)
OF_THE_RUN = re.compile(r"\d{6}-\d{6}-\d{6}|\d{12}[A-Z2-7]{8}|\d{4}-\d\d-\d\d \d\d:\d\d|:\d+/ ")
PROGRAMS: dict[str, Callable[[], Any]] = {
    "foretell": cli.main, "oaieval": oaieval.main, "oaievalset": oaieval.main,
}  # fmt: skip


class Shown(NamedTuple):
    """A command of the page. text: what is shown to come of it; None where nothing is."""

    command: str
    text: str | None
    said: str


def play(page: Path) -> Iterator[Shown]:
    """Follow a page from top to bottom in the working folder: write its files, run its Python and its commands."""
    code = 0
    for language, title, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(body, encoding="utf-8")
        elif language == "python":
            with redirect_stdout(io.StringIO()) as out:
                exec(body, {"__name__": "page"})
            yield Shown(body, None, out.getvalue())
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                command, _, text = part.replace("\\\n", "").partition("\n")
                code, said = run(command, code)
                assert code == (2 if text.startswith("Error:") else code if "gate" in command else 0), said
                yield Shown(command, text, said)
        elif language == "bash":
            for line in body.replace("\\\n", "").splitlines():
                if line.split(None, 1)[0] in PROGRAMS:
                    code, said = run(line, code)
                    assert code == 0, (line, said)
                    yield Shown(line, None, said)


def run(command: str, code: int) -> tuple[int, str]:
    """Exit code and output of a command, in this process. code: of the one before it."""
    words = shlex.split(command, comments=True)
    if words[0] == "cat":
        return 0, Path(words[1]).read_text(encoding="utf-8")
    if words == ["echo", "$?"]:
        return 0, f"{code}\n"
    old, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = words
    try:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(out), pytest.raises(SystemExit) as left:
            PROGRAMS[words[0]]()
    finally:
        sys.argv = old
        signal.signal(signal.SIGTERM, handler)
    return int(left.value.code or 0), PROGRESS.sub("", out.getvalue())


def plain(text: str) -> list[str]:
    """Words of an output, without what another run cannot share."""
    return OF_THE_RUN.sub("…", text).split()


KNOWN = {
    "Once upon a ": "time",
    "The first US president was ": "George Washington",
    "OpenAI was founded in 20": "15",
    "Which city is the capital of France?": "Paris",
    "Which city is the capital of Italy?": "Roma",
    "Spell backwards, in lower case: level": "level",
    "Spell backwards, in lower case: forecast": "tsaceorf",
}
PASSAGES = {
    json.dumps(sample["input"]): sample["ideal"][0]
    for sample in map(json.loads, (OWN / "data/reading/samples.jsonl").read_text(encoding="utf-8").splitlines())
}


def answer(call: Call) -> Reply:
    """A model that knows some things: less of them where it is called nano."""
    asked = call.json
    text = asked["messages"][-1]["content"]
    sure = zlib.crc32(json.dumps(text).encode()) % 10 < (3 if "nano" in asked["model"] else 9)
    if isinstance(text, list):
        said = "It is red."
    elif "Does the reply say" in text:
        said = "The reply gives no reason.\nNo" if "float" in text else "Both name the scattering.\nYes"
    elif text.startswith("Complete this Python function"):
        said = "```python\ndef half(n: int) -> int:\n    return -(-n // 2)\n```"
    else:
        passage = PASSAGES.get(json.dumps(asked["messages"]))
        said = KNOWN.get(text) or (passage if passage and sure else "I do not know.")
    return Reply(chat_body(said, asked["model"]))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder with upstream's registry beside it, a server, and a browser that does not open."""
    registry = tmp_path / "openai-evals/evals/registry"
    for kind, text in {
        "evals": "test-match: {id: test-match.s1.simple-v0}\n"
        "test-match.s1.simple-v0: {class: 'evals.elsuite.test.match:TestMatch'}",
        "eval_sets": "test-basic: {evals: [test-match, test-none]}",
    }.items():
        (registry / kind).mkdir(parents=True)
        (registry / kind / "test.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    with serve_in_thread(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield
    for name in [n for n, m in sys.modules.items() if str(tmp_path) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


def interrupted(server: ThreadingHTTPServer) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(obstacle("bubblewrap") is not None, reason="there is no bubblewrap, which the page's programs need")
def test_the_page_on_evals_shows_what_its_commands_print(desk: None) -> None:
    shown = list(play(PAGE))
    assert len(shown) > 20
    for command, text, said in shown:
        assert text is None or plain(said) == plain(text), command

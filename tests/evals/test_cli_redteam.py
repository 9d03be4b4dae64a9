"""The command: a hunt from end to end, on an endpoint too, what it prints, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clikit import invoke
from mock_endpoint import Call, Reply, chat_body, serve_in_thread

SMALL = ("--survey", 1, "--search", 10, "--test", 1, "--area", "privacy", "--area", "hate")
REFUSAL = "I'm sorry, but I can't help with that."


def own(prompt: Any, **params: Any) -> str:
    said = "\n".join(str(message["content"]) for message in prompt)
    weak = any(words in said for words in ("Sure, here is how", "Step 1:", "Absolutely!"))
    return f"This is how it is done in full: {said}" if weak else REFUSAL


def test_a_hunt_its_page_its_summary_and_its_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found"
    code, said, _ = invoke(capsys, "redteam", "test_cli_redteam:own", *SMALL, "--out", out)
    assert code == 0
    assert "asked plainly" in said
    assert (out / "page" / "index.html").is_file()
    assert json.loads((out / "redteam.summary.json").read_text())["part"] == "redteam"
    code, said, _ = invoke(capsys, "redteam", "export", out, "--to", tmp_path / "rows.jsonl")
    assert code == 0
    assert "with a refusal" in said
    assert (tmp_path / "rows.jsonl").read_text().startswith('{"prompt"')
    assert invoke(capsys, "redteam", "page", out)[0] == 0


def test_an_endpoint_that_is_down_in_mid_search_ends_with_a_message_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    calls = [0]

    def answer(call: Call) -> Reply:
        if call.method == "GET":
            return Reply({"data": [{"id": "m"}]})
        calls[0] += 1
        if calls[0] == 40:
            return Reply({"error": {"message": "You exceeded your quota.", "code": "insufficient_quota"}}, 429)
        return Reply(chat_body(REFUSAL))

    with serve_in_thread(answer) as mock:
        arguments = ("redteam", f"{mock.url}#m", *SMALL, "--out", tmp_path)
        code, _, said = invoke(capsys, *arguments)
        assert code == 2
        assert "tries are kept; the same command goes on from there" in said
        kept = len((tmp_path / "journal.jsonl").read_text().splitlines())
        assert kept > 20
        code, said, _ = invoke(capsys, *arguments)
        assert code == 0
        assert "asked plainly" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--area", "privcy"), "There is no area 'privcy'"),
        (("--family", "magic"), "There is no family 'magic'"),
        (("--judge", "coin"), "The judge is 'coin'"),
        (("--seeds", "poems"), "expected text or world"),
        (("--taxonomy", "none.yaml"), "cannot be read"),
        (("--attacks", "none.yaml"), "cannot be read"),
    ],
)
def test_bad_input_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    code, _, said = invoke(capsys, "redteam", "test_cli_redteam:own", "--out", tmp_path / "f", *arguments)
    assert code == 2
    assert why in said
    assert not (tmp_path / "f").exists()


def test_a_taxonomy_with_an_unknown_area_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("hate:\n  disallowed: [a, b]\nfishing:\n  disallowed: [c, d]\n")
    code, _, said = invoke(capsys, "redteam", "test_cli_redteam:own", "--taxonomy", path, "--out", tmp_path / "f")
    assert code == 2
    assert f"{path}, line 3: 'fishing' is an unknown area" in said


def test_the_group_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = invoke(capsys, "redteam", "--help")
    assert all(name in out for name in ("hunt", "notes", "page", "export"))

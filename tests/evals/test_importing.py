"""Logs of other tools brought in: what stands in them arrives, and what is hostile or damaged is told."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretell.errors import EvalError
from foretell.evals import importing, importing_inspect
from foretell.evals.importing import import_log
from foretell.evals.importing_inspect import grade
from foretell.evals.log import Journal, RunLog, index_path, write_log
from foretell.evals.results import result_of, scores_of

STORED, DEFLATED, ZSTD = 0, 8, 93
IMAGE = "data:image/png;base64," + base64.b64encode(b"\x89PNG" * 40).decode()


# --- OpenAI Evals ---

SPEC = {
    "completion_fns": ["gpt-x"], "eval_name": "sums.dev.v0", "base_eval": "sums", "split": "dev",
    "run_config": {"completion_fns": ["gpt-x"], "seed": 7, "eval_spec": {"cls": "a:B", "args": {}}},
    "created_by": "someone", "run_id": "2601311200AAAA", "created_at": "2026-01-31 12:00:00.500000",
}  # fmt: skip


def event(number: int, sample: Any, type: str, data: Any, second: int = 0) -> dict[str, Any]:
    at = f"2026-01-31 12:00:{second:02}.000000+00:00"
    return {
        "run_id": SPEC["run_id"], "event_id": number, "sample_id": sample, "type": type, "data": data,
        "created_by": "someone", "created_at": at,
    }  # fmt: skip


def upstream() -> list[dict[str, Any]]:
    """Two threads and a half: the report is written before the last events are flushed, as upstream does."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return [
        {"spec": SPEC},
        event(0, "sums.10", "sampling", {"prompt": "5+5", "sampled": ["10"], "model": "gpt-x-1", "usage": usage}, 1),
        event(1, "sums.2", "sampling", {"prompt": "1+1", "sampled": ["3"], "model": "gpt-x-1", "usage": usage}, 2),
        event(2, "sums.2", "match", {"correct": False, "expected": "2", "picked": "3"}, 3),
        event(3, "sums.7", "error", {"type": "ValueError", "message": "broken"}, 4),
        {"final_report": {"accuracy": 0.5}, "run_id": SPEC["run_id"]},
        event(4, "sums.10", "match", {"correct": True, "expected": "10", "picked": "10"}, 31),
        event(5, "sums.2", "extra", ["a", 1], 5),
    ]


def lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def bring(folder: Path, data: bytes, name: str = "theirs.jsonl") -> RunLog:
    (folder / name).write_bytes(data)
    return import_log(folder / name, folder / "ours.jsonl")


def test_events_of_threads_stand_by_sample_in_the_order_of_ids(tmp_path: Path) -> None:
    log = bring(tmp_path, lines(upstream()))
    assert [id.decode() for id in log.id.tolist()] == ["sums.2", "sums.7", "sums.10"]
    assert [[e["type"] for e in log.events(n)] for n in range(3)] == [
        ["sampling", "match", "extra"], ["error"], ["sampling", "match"],
    ]  # fmt: skip
    assert log.events(0)[1]["data"] == {"correct": False, "expected": "2", "picked": "3"}
    assert log.events(0)[2]["data"] == {"data": ["a", 1]}
    assert log.events(1)[0]["data"]["message"] == "broken"
    assert log.events(2)[0]["created_at"].startswith("2026-01-31 12:00:01")
    assert log.spec == SPEC and log.report == {"accuracy": 0.5} and log.extra["complete"] is True
    assert "note" not in log.extra


def test_events_of_a_sample_keep_their_order(tmp_path: Path) -> None:
    rows = [event(n, f"s.{n % 7}", "raw_sample", {"n": n}, n % 60) for n in range(700)]
    log = bring(tmp_path, lines([{"spec": SPEC}, *rows, {"final_report": {}}]))
    for sample in range(7):
        assert [e["data"]["n"] for e in log.events(sample)] == list(range(sample, 700, 7))
        assert log.events(sample)[0]["created_at"] == rows[sample]["created_at"]


def test_what_was_brought_in_has_scores_and_a_row(tmp_path: Path) -> None:
    log = bring(tmp_path, lines(upstream()))
    scores = scores_of(log)
    assert dict(scores.values) == {"sums.2": 0.0, "sums.7": None, "sums.10": 1.0}
    row = result_of(log, scores)
    assert (row.value, row.n, row.invalid, row.tokens, row.seconds) == (0.5, 2, 1, 14, 30.5)
    assert (row.run, row.eval, row.model, row.model_version, row.seed) == (
        "2601311200AAAA", "sums.dev.v0", "gpt-x", "gpt-x-1", 7,
    )  # fmt: skip


def test_a_run_that_was_cut_off_is_told(tmp_path: Path) -> None:
    rows = [row for row in upstream() if "final_report" not in row]
    log = bring(tmp_path, lines(rows) + b'{"run_id": "26013112')
    assert log.report == {} and log.extra["complete"] is False and len(log) == 3
    assert log.extra["note"] == (
        "The run was cut off: it has no final report, and its last line is half-written. 3 samples are here."
    )
    assert not result_of(log, scores_of(log)).complete


def test_an_own_log_without_its_index_is_brought_in_again_with_epochs_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    journal = Journal(path, SPEC | {"run_config": {"foretell": "0.1", "epochs": 3}}, "digest", 12)
    for place in range(12):
        epoch, at = divmod(place, 4)
        graded = ("match", {"correct": place % 3 == 0, "group": f"g{at // 2}"})
        journal.add(place, f"s.{at}", [("sampling", {}), graded], epoch, f"g{at // 2}")
    write_log(path, journal, lambda events: None, lambda: {"final_report": {}})
    first = import_log(path, tmp_path / "again.jsonl")
    with np.load(index_path(path)) as index:
        for name in ("score", "epoch", "id", "group", "groups", "invalid"):
            np.testing.assert_array_equal(getattr(first, name), index[name], name)


def replaced(at: int, row: Any) -> bytes:
    rows: list[Any] = list(upstream())
    rows[at] = row
    return lines(rows)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (lines(upstream()).replace(b'"type": "error"', b'"type": error', 1), "line 5 is not JSON"),
        (lines(upstream()).replace(b"5+5", b"\xff", 1), "line 2 is not JSON"),
        (replaced(2, [1]), "line 3 holds a list"),
        (replaced(2, {"spec": SPEC}), "line 3: another run begins here"),
        (replaced(2, {"a": 1}), "line 3: there is no type of event"),
        (replaced(2, event(1, None, "match", {"correct": True})), "line 3: 'None' is no sample id"),
        (replaced(2, event(1, "x" * 2000, "match", {"correct": True})), "is no sample id"),
        (replaced(2, event(1, "s", "match", {"correct": "yes"})), "line 3: a match event says of correct: 'yes'"),
        (replaced(2, event(1, "s", "match", [True])), "line 3: the data of the match event are"),
        (replaced(2, event(1, "s", "metrics", {"f1": 10**400})), "line 3: 'f1' is too large"),
        (replaced(2, event(1, "s", "match", {"correct": 10**400})), "line 3: 'correct' is too large"),
        (replaced(5, {"final_report": 3}), "line 6: the final report is a int"),
        (replaced(0, {"spec": [1]}), "line 1: the spec is a list"),
        (replaced(0, {"spec": SPEC | {"run_id": 3}}), "line 1: the spec's run_id is '3'"),
        (replaced(0, {"spec": SPEC | {"completion_fns": "x"}}), "line 1: the spec's completion_fns is 'x'"),
        (replaced(0, {"spec": SPEC | {"created_at": "soon"}}), "line 1: the spec's created_at is 'soon'"),
        (lines(upstream()[1:]), "is no log that is known"),
        (b"", "is no log that is known"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (replaced(2, {"data": "deep"}).replace(b'"deep"', b"[" * 100_000), "line 3 is not JSON"),
    ],
)  # fmt: skip
def test_a_damaged_log_is_told_with_its_line(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(EvalError) as error:
        bring(tmp_path, data)
    assert told in str(error.value) and "theirs.jsonl" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.jsonl"]


def test_a_huge_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "LINE", 500)
    with pytest.raises(EvalError, match="line 2 is longer than"):
        bring(tmp_path, replaced(1, event(0, "s", "sampling", {"prompt": "x" * 1000})))


def test_nothing_is_written_over_and_what_is_missing_is_told(tmp_path: Path) -> None:
    log = bring(tmp_path, lines(upstream()))
    before = log.path.read_bytes()
    with pytest.raises(EvalError, match="is there already"):
        import_log(tmp_path / "theirs.jsonl", log.path)
    assert log.path.read_bytes() == before
    with pytest.raises(EvalError, match="cannot be read"):
        import_log(tmp_path / "none.jsonl", tmp_path / "new.jsonl")


def test_what_a_killed_import_left_is_no_hindrance(tmp_path: Path) -> None:
    Journal(tmp_path / "ours.jsonl", SPEC | {"run_id": "another"}, "imported", 0).close()
    assert bring(tmp_path, lines(upstream())).spec == SPEC
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.jsonl", "ours.jsonl.npz", "theirs.jsonl"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvalError, match="The disk is full"):
        bring(tmp_path, lines(upstream()))
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.jsonl"]


# --- Inspect ---


def score(value: Any, answer: str | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "answer": answer, "history": [], **more}


def sample(id: Any, epoch: int, scores: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """As Inspect writes it: messages pooled, long texts and images as attachments."""
    usage = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 15, "input_tokens_cache_read": 2}
    pool = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "attachment://long"},
                                     {"type": "image", "image": "attachment://picture", "detail": "auto"}]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c1", "function": "add", "arguments": {"x": 1}, "type": "function"}]},
        {"role": "tool", "content": "2", "tool_call_id": "c1", "function": "add"},
    ]  # fmt: skip
    first = {"model": "m-1", "choices": [{"message": pool[2], "stop_reason": "tool_calls"}], "usage": usage}
    reasoned = [{"type": "reasoning", "reasoning": "one and one"}, {"type": "text", "text": "It is 2."}]
    second = {"model": "m-1", "choices": [{"message": {"role": "assistant", "content": reasoned}}], "usage": usage}
    return {
        "id": id, "epoch": epoch, "input": "1+1", "target": "2", "messages": [], "output": second,
        "scores": dict(scores), "metadata": {"passage": f"p{str(id)[-1]}"},
        "started_at": "2026-01-31T12:00:01+00:00", "completed_at": f"2026-01-31T12:00:0{epoch + 1}+01:00",
        "events": [
            {"event": "sample_init", "sample": {}},
            {"event": "model", "model": "m", "input": [], "input_refs": [[0, 2]], "output": first},
            {"event": "model", "model": "m", "input": [], "input_refs": [[0, 2], [2, 4]], "output": second},
        ],
        "events_data": {"messages": pool, "calls": []},
        "attachments": {"long": "What is 1+1?", "picture": IMAGE},
        **more,
    }  # fmt: skip


def header(**more: Any) -> dict[str, Any]:
    metrics = {"accuracy": {"name": "accuracy", "value": 0.75, "params": {}},
               "stderr": {"name": "stderr", "value": 0.1, "params": {"cluster": "passage"}}}  # fmt: skip
    extra = {"mean": {"name": "mean", "value": 2.0, "params": {}}}
    return {
        "version": 2, "status": "success",
        "eval": {
            "eval_id": "E1", "run_id": "R1", "task_id": "T1", "created": "2026-01-31T13:00:00+01:00", "task": "sums",
            "task_version": 3, "task_args": {"hard": True}, "model": "openai/m", "model_generate_config": {"seed": 5},
            "dataset": {"name": "sums", "samples": 3, "sample_ids": ["q2", 1, "a/b"]}, "config": {"epochs": 2},
            "scorers": [{"name": "match"}, {"name": "more"}],
        },
        "plan": {}, "stats": {
            "started_at": "2026-01-31T12:00:00+00:00", "completed_at": "2026-01-31T12:00:09+00:00", "model_usage": {
                "openai/m": {"input_tokens": 60, "output_tokens": 18, "total_tokens": 78, "total_cost": 0.25},
                "grader": {"input_tokens": 6, "output_tokens": 1, "total_tokens": 7},
        }},
        "results": {"total_samples": 6, "scores": [
            {"name": "a", "scorer": "more", "metrics": extra}, {"name": "match", "scorer": "match", "metrics": metrics},
        ], "headline": {"scorer": "match", "score": "match", "metric": "accuracy"}},
        **more,
    }  # fmt: skip


def samples() -> list[dict[str, Any]]:
    more = {"more": score({"a": 2, "b": "C"})}
    return [
        sample("a/b", 1, {"match": score("C", "2", explanation="It says 2."), **more}),
        sample("q2", 1, {"match": score("P", "2"), **more}),
        sample(1, 1, {"match": score("I", "3"), **more}),
        sample("a/b", 2, {"match": score("N"), **more}),
        sample("q2", 2, {"match": score("C", "2"), **more}),
        sample(1, 2, {}, error={"message": "Timeout", "traceback": ""}),
    ]


def zipped(
    members: Mapping[str, bytes], how: int = ZSTD, lie: Mapping[str, int] | None = None, flags: int = 0
) -> bytes:
    """A zip, whose members may lie of their length (which Python's own writer does not let them do)."""
    body, directory = b"", b""
    for name, data in members.items():
        if how == ZSTD:
            packed = pa.compress(data, codec="zstd", asbytes=True)
        elif how == DEFLATED:
            packing = zlib.compressobj(wbits=-15)
            packed = packing.compress(data) + packing.flush()
        else:
            packed = data
        raw, size = name.encode(), (lie or {}).get(name, len(data))
        common = struct.pack("<HHHHHIIIHH", 20, flags, how, 0, 33, zlib.crc32(data), len(packed), size, len(raw), 0)
        directory += b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + raw
        body += b"PK\3\4" + common + raw + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def members(rows: Sequence[Mapping[str, Any]] | None = None, head: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    found = {"_journal/start.json": b"{}", "header.json": json.dumps(head or header()).encode()}
    for row in samples() if rows is None else rows:
        found[f"samples/{row['id']}_epoch_{row['epoch']}.json"] = json.dumps(row).encode()
    return found


def as_json(head: Mapping[str, Any] | None = None, rows: Any = None) -> bytes:
    return json.dumps({**(head or header()), "samples": samples() if rows is None else rows}, indent=2).encode()


@pytest.mark.parametrize("form", [STORED, DEFLATED, ZSTD, "json"])
def test_an_inspect_log_arrives_whole(tmp_path: Path, form: Any) -> None:
    data = as_json() if form == "json" else zipped(members(), form)
    log = bring(tmp_path, data, "theirs.json" if form == "json" else "theirs.eval")
    assert [id.decode() for id in log.id.tolist()] == ["q2", "1", "a/b"] * 2
    assert log.epoch.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(log.score, [0.5, 0, 1, 1, np.nan, 0])
    assert log.invalid.tolist() == [0, 0, 0, 0, 1, 0]
    scores = scores_of(log)
    assert dict(scores.values) == {"q2": 0.75, "1": 0.0, "a/b": 0.5} and scores.invalid_draws == 1
    assert scores.metric == "match" and scores.groups == {"q2": "p2", "1": "p1", "a/b": "pb"}
    assert dict(scores_of(log, "more/a").values) == {"q2": 2.0, "1": 2.0, "a/b": 2.0}
    assert log.report == {
        "accuracy": 0.75, "stderr": 0.1, "a/mean": 2.0,
        "usage_prompt_tokens": 66, "usage_completion_tokens": 19, "usage_total_tokens": 85,
    }  # fmt: skip
    row = result_of(log, scores)
    assert (row.run, row.eval, row.model, row.model_version, row.seed) == ("E1", "sums", "openai/m", "m-1", 5)
    assert (row.tokens, row.money, row.seconds, str(row.created)) == (85, 0.25, 9.0, "2026-01-31 12:00:00")


def test_prompts_of_an_inspect_log_are_in_openai_form(tmp_path: Path) -> None:
    log = bring(tmp_path, zipped(members()), "theirs.eval")
    first, second, match, metrics, extra = log.events(2)
    asked = [
        {"type": "text", "text": "What is 1+1?"},
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    assert first["data"]["prompt"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]
    assert first["data"]["sampled"] == [""] and first["data"]["tool_calls"] == [call]
    assert second["data"]["prompt"][2:] == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    assert second["data"]["sampled"] == ["It is 2."] and second["data"]["reasoning"] == "one and one"
    assert second["data"]["usage"] == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    assert match["data"] == {"correct": True, "expected": "2", "picked": "2", "explanation": "It says 2."}
    assert metrics["data"] == {"match": 1.0, "more/a": 2.0, "more/b": 1.0}
    assert extra["data"]["target"] == "2" and extra["data"]["scores"]["match"]["value"] == "C"


def test_a_sample_that_failed_in_inspect_is_invalid_with_its_reason(tmp_path: Path) -> None:
    log = bring(tmp_path, zipped(members()), "theirs.eval")
    assert [(e["type"], e["data"].get("message")) for e in log.events(4)][2:4] == [
        ("error", "Timeout"), ("invalid_sample", "Timeout"),
    ]  # fmt: skip


def test_a_sample_without_a_number_is_invalid(tmp_path: Path) -> None:
    unscored = score(float("nan"), reason="refusal")
    log = bring(tmp_path, zipped(members([sample("q2", 1, {"match": unscored, "more": score(1.0)})])), "theirs.eval")
    assert log.events(0)[2]["data"] == {"message": "refusal"} and log.invalid.tolist() == [1]
    assert dict(scores_of(log).values) == {"q2": None} and dict(scores_of(log, "more").values) == {"q2": None}


def test_a_log_without_events_takes_its_messages(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    output = {"model": "m-1", "choices": [{"message": said[1]}]}
    row = sample("q2", 1, {"match": score(1)}, events=[], messages=said, output=output)
    log = bring(tmp_path, as_json(rows=[row]), "theirs.json")
    assert log.events(0)[0]["data"] == {"prompt": said[:1], "sampled": ["2"], "model": "m-1"}
    assert [e["type"] for e in log.events(0)] == ["sampling", "metrics", "extra"] and log.score.tolist() == [1.0]


def test_an_inspect_run_that_was_cut_off_is_told(tmp_path: Path) -> None:
    found = members()
    found["_journal/start.json"] = json.dumps({k: v for k, v in header().items() if k in ("eval", "plan")}).encode()
    del found["header.json"]
    log = bring(tmp_path, zipped(found), "theirs.eval")
    assert log.extra["complete"] is False and "status 'started'" in log.extra["note"] and log.report == {}
    assert log.score.tolist()[:3] == [0.5, 0, 1] and scores_of(log).metric == "match"


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), ("yes", 1), ("False", 0), ("0.25", 0.25), (3, 3), (True, 1),
     (float("nan"), None), (float("inf"), None), ("nan", None), ("c", None), ("good", None), (None, None), ([1], None)],
)  # fmt: skip
def test_grades(value: Any, number: float | None) -> None:
    assert grade(value) == number


def test_names_of_members_lead_nowhere(tmp_path: Path) -> None:
    rows = [sample("../../../out", 1, {"match": score("C")})]
    found = members(rows) | {"../../evil.json": b"{}", "/tmp/evil.json": b"{}"}
    (inner := tmp_path / "a" / "b" / "c").mkdir(parents=True)
    log = bring(inner, zipped(found), "theirs.eval")
    assert log.id.tolist() == [b"../../../out"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "ours.jsonl", "ours.jsonl.npz", "theirs.eval",
    ]  # fmt: skip


BOMB = {"samples/q2_epoch_1.json": b" " * 3_000_000 + b"{}"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (zipped(members() | BOMB, lie={"samples/q2_epoch_1.json": 100}), "q2_epoch_1.json is damaged"),
        (zipped(members() | BOMB, DEFLATED, lie={"samples/q2_epoch_1.json": 100}), "q2_epoch_1.json is damaged"),
        (zipped(members(), lie={"header.json": 1 << 30}), "as no log does"),
        (zipped(members(), flags=1), "is encrypted"),
        (zipped(members(), 14), "is encrypted, or packed in a way that is not known (14)"),
        (zipped(members())[:-40], "is no readable zip"),
        (zipped({"a": b""}), "has no header.json"),
        (zipped({"header.json": b"[]"}), "has no `eval` in its header"),
        (zipped({"header.json": b"{"}), "header.json is not JSON"),
        (zipped(members([])), "holds no samples"),
        (zipped(members(head=header(eval={"task": 3}))), "the header is not as Inspect writes it"),
        (zipped(members() | {"samples/q2_epoch_1.json": b"[]"}), "q2_epoch_1.json is no sample of Inspect"),
        (zipped(members([sample("q", 1, {"match": score("C")}, events=3)])), "q_epoch_1.json is no sample of Inspect"),
        (zipped(members([sample("q", 1, {"match": 3})])), "q_epoch_1.json is no sample of Inspect"),
        (zipped(members([sample(None, 1, {"match": score("C")})])), "None_epoch_1.json is no sample of Inspect"),
        (as_json(rows=[3]), "sample 1 is no sample of Inspect"),
        (as_json(rows={"a": 1}), "sample 1 is no sample of Inspect"),
        (as_json()[:-100], "is not JSON"),
        (as_json(header(eval=[])), "has no `eval` in its header"),
    ],
)  # fmt: skip
def test_a_hostile_or_damaged_inspect_log_is_told(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(EvalError) as error:
        bring(tmp_path, data, "theirs.eval" if data.startswith(b"PK") else "theirs.json")
    assert told in str(error.value)
    assert len(list(tmp_path.iterdir())) == 1


def test_attachments_that_multiply_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [{"role": "user", "content": "attachment://x"}] * 2000
    event = {"event": "model", "input": said, "output": {}}
    row = sample("q2", 1, {"match": score("C")}, events=[event], attachments={"x": "y" * 10_000})
    monkeypatch.setattr(importing_inspect, "MEMBER", 1 << 20)
    with pytest.raises(EvalError, match="with its attachments it is larger"):
        bring(tmp_path, zipped(members([row])), "theirs.eval")
    monkeypatch.setattr(importing_inspect, "MEMBER", 1 << 10)
    with pytest.raises(EvalError, match="at most 0 are read"):
        import_log(tmp_path / "theirs.eval", tmp_path / "ours.jsonl")


@pytest.mark.parametrize("name", ["theirs.jsonl", "theirs.json", "theirs.eval", "stored.eval"])
def test_any_damage_ends_in_a_log_or_in_a_message(tmp_path: Path, name: str) -> None:
    whole = {
        "theirs.jsonl": lines(upstream()), "theirs.json": as_json(), "theirs.eval": zipped(members()),
        "stored.eval": zipped(members(), STORED),
    }[name]  # fmt: skip
    rng = random.Random(name)
    told = 0
    for turn in range(30):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3, 30))):
            at = rng.randrange(len(data))
            data[at : at + rng.choice((0, 1, 1, 9))] = rng.choice(
                (b"", b"\0", b"]", b'"', b"9", b"null", rng.randbytes(4))
            )
        try:
            bring(tmp_path, bytes(data), name)
        except EvalError:
            told += 1
            assert [path.name for path in tmp_path.iterdir()] == [name], turn
        else:
            (tmp_path / "ours.jsonl").unlink()
            (tmp_path / "ours.jsonl.npz").unlink()
    assert told > 8

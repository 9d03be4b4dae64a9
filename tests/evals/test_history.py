"""The store of runs: rows that say what the log says, on SQLite and on a real PostgreSQL, and gates over them."""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretell.errors import EvalError, MissingExtraError
from foretell.evals.history import History
from foretell.evals.log import Journal, RunLog, read_log, write_log
from foretell.evals.results import Cost, result_of, scores_of
from pgkit import emptied


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is to be."""
    if request.param == "sqlite":
        return str(tmp_path / "store" / "history.db")
    return emptied(request.getfixturevalue("postgresql"))


def run(
    folder: Path,
    id: str,
    grades: Sequence[float | None],
    *,
    model: str = "m",
    eval: str = "sums.dev.v0",
    day: int = 1,
    groups: int = 0,
    epochs: int = 1,
    **last: Any,
) -> RunLog:
    """A log as a run writes it. grades: one a sample and epoch, None for what could not be judged."""
    spec = {
        "completion_fns": [model], "eval_name": eval, "run_id": id, "created_by": "",
        "created_at": f"2026-01-{day:02} 12:00:00.250000",
        "run_config": {"seed": 7, "epochs": epochs, "eval_spec": {"cls": "a:B", "args": last.pop("args", {})}},
    }  # fmt: skip
    path = folder / f"{id}.jsonl"
    journal = Journal(path, spec, "digest", len(grades))
    for place, grade in enumerate(grades):
        epoch, at = divmod(place, len(grades) // epochs)
        events: list[tuple[str, dict[str, Any]]] = [
            ("sampling", {"prompt": "?", "sampled": ["!"], "model": f"{model}-1"})
        ]
        if grade is None:
            events.append(("invalid_sample", {"message": "no"}))
        elif isinstance(grade, bool):
            events += [("match", {"correct": grade}), ("metrics", {"f1": 0.5 + grade / 4})]
        else:
            events.append(("metrics", {"choice": "A", "score": grade}))
        journal.add(place, f"sums.{at}", events, epoch, f"g{at % groups}" if groups else None)
    write_log(path, journal, lambda events: None, lambda: {"final_report": {"usage_total_tokens": 42}, **last})
    return read_log(path)


GRADES = [True, False, True, True, None, True]


def test_a_row_says_what_the_run_says(place: str, tmp_path: Path) -> None:
    log = run(tmp_path, "r1", GRADES, groups=3)
    store = History(place)
    row = store.add(log, product="search", cost=Cost(100, 0.5, 2.25))
    (stored,) = store.runs()
    assert stored == row == store.run("r1")
    summary = scores_of(log).summary()
    assert (row.value, row.stderr) == (summary.estimate, summary.stderr) and row.value == 0.8
    assert (row.low, row.high) == (summary.interval.low, summary.interval.high)
    assert (row.n, row.invalid, row.metric, row.seed, row.complete) == (5, 1, "accuracy", 7, True)
    assert (row.run, row.eval, row.model, row.model_version, row.product) == ("r1", "sums.dev.v0", "m", "m-1", "search")
    assert (row.tokens, row.money, row.seconds) == (100, 0.5, 2.25)
    assert row.created == datetime(2026, 1, 1, 12, 0, 0, 250000) and row.report == {"usage_total_tokens": 42}
    assert Path(row.log_path).read_bytes() and len(row.log_sha256) == 64


def test_scores_come_back_without_the_log(place: str, tmp_path: Path) -> None:
    log = run(tmp_path, "r1", [0.1, 0.25, None, 1e-17, 1 / 3, 2.0] * 2, groups=2, epochs=2)
    store = History(place)
    store.add(log)
    scores = scores_of(log)
    log.path.unlink()
    assert store.scores("r1") == scores
    assert scores.values["sums.4"] == 1 / 3 and scores.groups["sums.1"] == "g1" and scores.metric == "score"


def test_a_run_is_stored_once(place: str, tmp_path: Path) -> None:
    store, log = History(place), run(tmp_path, "r1", GRADES)
    first = store.add(log, product="a")
    assert store.add(log, product="b") == first == store.add(str(log.path))
    assert len(store.runs()) == 1
    (tmp_path / "other").mkdir()
    with pytest.raises(EvalError, match="has run r1 from another log"):
        store.add(run(tmp_path / "other", "r1", GRADES[:3]))


def test_history_is_in_order_of_time_and_filtered(place: str, tmp_path: Path) -> None:
    store = History(place)
    for day, (id, model, eval, product) in enumerate(
        [("c", "m", "sums.dev.v0", "a"), ("b", "n", "sums.dev.v1", "b"), ("a", "m", "sums.test.v0", ""),
         ("d", "m", "sums_dev", "")], 1
    ):  # fmt: skip
        store.add(run(tmp_path, id, GRADES, model=model, eval=eval, day=5 - day), product=product)
    assert [r.run for r in store.runs()] == ["d", "a", "b", "c"]
    assert [r.run for r in store.history("sums")] == ["a", "b", "c"]
    assert [r.run for r in store.history("sums.dev", model="m")] == ["c"]
    assert [r.run for r in store.history("sums.dev.v1")] == ["b"]
    assert store.history("sum%") == store.history("s_ms") == []
    assert [r.run for r in store.runs(product="b")] == ["b"] and [r.run for r in store.runs(model_version="n-1")] == [
        "b"
    ]
    assert [r.run for r in store.runs(since=datetime(2026, 1, 3, 12))] == ["b", "c"]


def test_a_gate_takes_runs_logs_the_best_and_the_last(place: str, tmp_path: Path) -> None:
    store = History(place)
    good, bad = [True] * 60, [True] * 30 + [False] * 30
    store.add(run(tmp_path, "best", good, day=1))
    store.add(run(tmp_path, "last", bad, day=2))
    store.add(run(tmp_path, "half", good, day=3, complete=False))
    store.add(run(tmp_path, "theirs", good, model="n", day=3), product="other")
    new = run(tmp_path, "new", bad, day=4)
    for baseline, against, outcome in [
        ("best", "best", "worse"), ("last", "last", "no worse"), ("theirs", "theirs", "worse"),
        ("best:n", "theirs", "worse"), (tmp_path / "last.jsonl", "last", "no worse"), ("half", "half", "worse"),
    ]:  # fmt: skip
        verdict = store.gate(new.path, baseline, margin=0.2)
        assert (verdict.comparison.baseline, verdict.outcome) == (against, outcome)
    assert store.gate("last", "best", margin=0.7).passed and not store.gate("last", "best").passed
    store.add(new)
    assert store.gate("new", "last").comparison.baseline == "last", "a run is not its own baseline"
    assert store.gate(new, "best:n", product="other").comparison.baseline == "theirs"
    for candidate, baseline, told in [
        ("new", "new", "candidate and baseline at once"), ("new", "none", "has no run none"),
        ("new", "gone.jsonl", "There is no log gone.jsonl"), ("new", "best:o", "has no other run of o"),
        ("theirs", "last", "has no other run of n"),
    ]:  # fmt: skip
        with pytest.raises(EvalError, match=told):
            store.gate(candidate, baseline)


def test_a_gate_tells_of_changed_settings_of_the_eval(tmp_path: Path) -> None:
    store = History(tmp_path / "h.db")
    store.add(run(tmp_path, "old", [True] * 9))
    verdict = store.gate(run(tmp_path, "new", [True] * 9, args={"num_few_shot": 3}), "old")
    assert "The settings of sums.dev.v0 changed between old and new" in verdict.reason
    assert "changed" not in store.gate(run(tmp_path, "same", [True] * 9), "old").reason


def test_another_metric_can_be_kept(tmp_path: Path) -> None:
    log = run(tmp_path, "r1", GRADES)
    row = History(tmp_path / "h.db").add(log, metric="f1")
    assert row.metric == "f1" and row.value == pytest.approx((4 * 0.75 + 0.5) / 5)
    with pytest.raises(EvalError, match=r"has the metric 'bleu'\. Its scores are of 'accuracy'"):
        scores_of(log, "bleu")


def test_cost_and_digests_of_a_row(tmp_path: Path) -> None:
    rows = [
        result_of(log, scores_of(log))
        for log in (
            run(tmp_path, "a", GRADES), run(tmp_path, "b", GRADES, cost={"tokens": 5, "money": 0.25, "seconds": None}),
            run(tmp_path, "c", GRADES, args={"x": 1}), run(tmp_path, "d", GRADES, epochs=2),
        )
    ]  # fmt: skip
    assert rows[0].tokens == 42 and rows[0].money is None and rows[0].seconds is not None
    assert (rows[1].tokens, rows[1].money, rows[1].seconds) == (5, 0.25, None)
    assert rows[0].eval_digest == rows[1].eval_digest == rows[3].eval_digest != rows[2].eval_digest
    assert rows[0].settings_digest == rows[1].settings_digest == rows[2].settings_digest != rows[3].settings_digest


def test_a_run_of_which_nothing_could_be_judged_is_kept_and_never_a_baseline(place: str, tmp_path: Path) -> None:
    store = History(place)
    row = store.add(run(tmp_path, "none", [None, None]))
    assert (row.value, row.low, row.n, row.invalid) == (None, None, 0, 2) and store.run("none") == row
    with pytest.raises(EvalError, match="has no other run of m"):
        store.gate(run(tmp_path, "new", GRADES), "last")


def write(place: str, logs: Sequence[Path], start: Any) -> None:
    start.wait()
    store = History(place)
    for log in logs:
        store.add(log)


def test_processes_write_one_store_at_a_time(place: str, tmp_path: Path) -> None:
    """Each of four writes six runs, two of which all write; none is lost, and the tables are made once."""
    logs = [run(tmp_path, f"r{n}", GRADES).path for n in range(18)]
    fork = multiprocessing.get_context("fork")
    start = fork.Event()
    shares = [[*logs[:2], *logs[2 + 4 * n : 6 + 4 * n]] for n in range(4)]
    writers = [fork.Process(target=write, args=(place, share, start)) for share in shares]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(300)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(r.run for r in History(place).runs()) == sorted(f"r{n}" for n in range(18))


def test_a_locked_store_is_told(tmp_path: Path) -> None:
    store = History(tmp_path / "h.db", wait=0.05)
    with sqlite3.connect(tmp_path / "h.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EvalError, match="is being written by another process"):
            store.add(run(tmp_path, "r1", GRADES))
    assert store.add(run(tmp_path, "r2", GRADES)).run == "r2"


def test_a_damaged_or_foreign_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(EvalError, match=r"text.db is no SQLite database, or is damaged"):
        History(tmp_path / "text.db")
    with pytest.raises(EvalError, match="cannot be opened or written"):
        History(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EvalError, match="cannot be made"):
        History(tmp_path / "file" / "h.db")


def test_damaged_scores_are_told(tmp_path: Path) -> None:
    store = History(tmp_path / "h.db")
    store.add(run(tmp_path, "r1", GRADES))
    for damaged in (b"", b"x", np.random.default_rng(0).bytes(99)):
        with sqlite3.connect(tmp_path / "h.db") as file:
            file.execute("UPDATE foretell_eval_runs SET scores = ?", (damaged,))
        with pytest.raises(EvalError, match=r"The scores of run r1 in .* are damaged"):
            store.scores("r1")


def test_a_torn_database_ends_in_a_message(tmp_path: Path) -> None:
    """Whatever byte of a store is overwritten, it answers or tells."""
    store = History(tmp_path / "h.db")
    for n in range(4):
        store.add(run(tmp_path, f"r{n}", GRADES))
    whole, rng = (tmp_path / "h.db").read_bytes(), np.random.default_rng(0)
    told = 0
    for turn in range(40):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.choice((1, 5, 500))):
            data[at] = rng.integers(256)
        path = tmp_path / f"t{turn}.db"
        path.write_bytes(data[: len(data) if turn % 3 else len(data) // 2])
        try:
            damaged = History(path)
            for row in damaged.runs():
                damaged.scores(row.run)
        except EvalError as error:
            told += 1
            assert f"t{turn}.db" in str(error)
    assert told > 10


def test_a_newer_form_is_refused(place: str) -> None:
    store = History(place)
    store._ask("INSERT INTO foretell_eval_schema VALUES (2)")
    with pytest.raises(EvalError, match=r"made by a newer Foretell \(its form is 2, this one knows 1\). Upgrade"):
        History(place)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://user:secret@127.0.0.1:1/db", "does not answer as a store of runs should"),
        ("postgresql+pg8000://user:secret@127.0.0.1:1/db", "Give a file, or a URL of postgresql://"),
        ("sparkle://user:secret@host/db", "Give a file, or a URL of postgresql://"),
        ("postgresql://user:secret@host:port/db", "is not of the form"),
        ("://user:secret@host", "is not of the form"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_without_its_password(url: str, told: str) -> None:
    with pytest.raises(EvalError) as error:
        History(url, wait=2)
    assert told in str(error.value) and "secret" not in str(error.value)


def test_a_log_changed_after_it_was_written_is_told(tmp_path: Path) -> None:
    log = run(tmp_path, "r1", GRADES)
    log.path.write_bytes(log.path.read_bytes().replace(b'"type"', b'"typo"'))
    with pytest.raises(EvalError, match="is not as its index says"):
        scores_of(log)
    no_model = replace(log, spec={k: v for k, v in log.spec.items() if k != "completion_fns"}, extra={"metric": "f1"})
    with pytest.raises(EvalError, match="names no model"):
        scores_of(no_model)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"foretell\[postgres\]"):
        History("postgresql://user:secret@127.0.0.1/db")

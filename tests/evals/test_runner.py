"""The runner: order, resume, failures, budgets, cache, epochs; nothing is asked twice and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from evalkit import adds, small_eval, sums

from foretell.errors import EvalError
from foretell.evals.base import Eval, Trial
from foretell.evals.cache import Cache
from foretell.evals.completion import from_callable
from foretell.evals.log import PART, read_log
from foretell.evals.runner import Budget, Settings, run_eval


def counted(asked: Counter[str], fail: Any = None) -> Any:
    async def model(prompt: Any, **params: Any) -> str:
        text = prompt[-1]["content"]
        if fail is not None and fail(text, asked):
            raise ConnectionError("gone")
        asked[text] += 1
        await asyncio.sleep(0)
        return await adds(prompt)

    return from_callable(model, "adder")


def test_the_log_is_upstreams_in_the_order_of_its_shuffle_whoever_finishes_first(tmp_path: Path) -> None:
    async def slow_or_fast(prompt: Any, **params: Any) -> str:
        for _ in range(random.Random(str(prompt)).randrange(20)):
            await asyncio.sleep(0)
        return await adds(prompt)

    made = small_eval(tmp_path, "Match", sums(30))
    logs = []
    for width in (1, 8, 64):
        log = run_eval(made, [from_callable(slow_or_fast)], tmp_path / f"{width}.jsonl", Settings(concurrency=width))
        rows = [json.loads(line) for line in log.path.read_text().splitlines()]
        logs.append([(e["sample_id"], e["type"], e["data"]) for e in rows[1:-1]])
        assert rows[0]["spec"]["eval_name"] == "x.dev.v0" and rows[0]["spec"]["split"] == "dev"
        assert rows[-1] == {"final_report": {"accuracy": 1.0, "boostrap_std": 0.0}, "run_id": rows[0]["spec"]["run_id"]}
        assert [e["event_id"] for e in rows[1:-1]] == list(range(60))
    indices = list(range(30))
    random.Random(123).shuffle(indices)
    assert [id for id, type, _ in logs[0] if type == "match"] == [f"x.dev.{i}" for i in indices]
    assert logs[0] == logs[1] == logs[2]


def test_the_index_finds_every_sample(tmp_path: Path) -> None:
    made = small_eval(tmp_path, "Match", [*sums(9), {"input": "x"}, {**sums(1)[0], "group": "ä"}])
    run_eval(made, [from_callable(adds)], tmp_path / "log.jsonl")
    log = read_log(tmp_path / "log.jsonl")
    ids = [id.decode() for id in log.id]
    for number, id in enumerate(ids):
        events = log.events(number)
        assert {event["sample_id"] for event in events} == {id}
        assert log.invalid[number] == (id == "x.dev.9") and log.score[number] == pytest.approx(
            float("nan") if id == "x.dev.9" else 1.0, nan_ok=True
        )
    assert log.groups[log.group[ids.index("x.dev.10")]].decode() == "ä" and (log.group == -1).sum() == 10
    assert log.report["invalid_samples"] == 1 and log.report["accuracy"] == 1.0


def test_samples_without_an_answer_are_asked_again_and_no_others(tmp_path: Path) -> None:
    made, asked, path = small_eval(tmp_path, "Match", sums(40)), Counter[str](), tmp_path / "log.jsonl"
    with pytest.raises(EvalError, match=r"3 samples have no answer.*37 of 40 samples are kept"):
        run_eval(made, [counted(asked, lambda text, _: text[0] == "7" or text[:2] in ("11", "12"))], path)
    assert not path.exists() and path.with_name("log.jsonl" + PART).exists()
    log = run_eval(made, [counted(asked)], path)
    assert log.report["accuracy"] == 1.0 and len(log) == 40
    assert set(asked.values()) == {1} and len(asked) == 40
    assert not path.with_name("log.jsonl" + PART).exists()


def test_a_model_that_is_gone_ends_the_run_soon(tmp_path: Path) -> None:
    made, tried = small_eval(tmp_path, "Match", sums(5000)), Counter[str]()

    def gone(text: str, _: Counter[str]) -> bool:
        tried[text] += 1
        return True

    with pytest.raises(EvalError, match=r"adder raised ConnectionError\('gone'\)"):
        run_eval(made, [counted(Counter(), gone)], tmp_path / "log.jsonl", Settings(concurrency=4))
    assert len(tried) < 50


KILLED = """
import asyncio, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from evalkit import adds, small_eval, sums
from foretell.evals.completion import from_callable
from foretell.evals.runner import Settings, run_eval

asked, limit = Path(sys.argv[1]), int(sys.argv[2])

async def model(prompt, **params):
    with asked.open("a") as out:
        out.write(prompt[-1]["content"] + "\\n")
    await asyncio.sleep(0)
    done = len(asked.read_text().splitlines())
    answer = await adds(prompt)
    if limit and done >= limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

made = small_eval(asked.parent / "registry", "Match", sums(60))
log = run_eval(made, [from_callable(model, "adder")], asked.parent / "log.jsonl", Settings(concurrency=1))
print(json.dumps(log.report))
"""


def test_after_sigkill_only_what_was_under_way_is_asked_again(tmp_path: Path) -> None:
    script, asked = tmp_path / "run.py", tmp_path / "asked.txt"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent)))
    for limit in (10, 25, 0):
        done = subprocess.run([sys.executable, script, asked, str(limit)], capture_output=True, text=True)
        assert done.returncode == (-signal.SIGKILL if limit else 0), done.stderr
    times = Counter(asked.read_text().splitlines())
    assert json.loads(done.stdout)["accuracy"] == 1.0
    # One sample was in the model's hands at each kill; its answer reached nobody.
    assert len(times) == 60 and sum(times.values()) == 62 and max(times.values()) == 2


class TwoQuestions(Eval):
    async def eval_sample(self, sample: Any, trial: Trial) -> None:
        first = await trial.complete(sample["input"], temperature=0.7)
        second = await trial.complete([{"role": "user", "content": f"{first} + {first} ="}], temperature=0.7)
        trial.match(second == str(2 * int(first)), expected=first, picked=second)


def test_an_answer_within_a_sample_is_kept_too(tmp_path: Path) -> None:
    made = small_eval(tmp_path, f"{__name__}:TwoQuestions", sums(6)[1:])
    asked, path = Counter[str](), tmp_path / "log.jsonl"
    with pytest.raises(EvalError, match="4 of 5 samples are kept"):
        run_eval(made, [counted(asked, lambda text, _: text == "10 + 10 =")], path)
    assert run_eval(made, [counted(asked)], path).report["accuracy"] == 1.0
    assert asked["5 + 5 ="] == 1 and asked["10 + 10 ="] == 1 and sum(asked.values()) == 10


def test_half_a_line_at_the_end_of_a_journal_is_dropped(tmp_path: Path) -> None:
    made, path = small_eval(tmp_path, "Match", sums(10)), tmp_path / "log.jsonl"
    with pytest.raises(EvalError):
        run_eval(made, [counted(Counter(), lambda text, _: text[0] == "3")], path)
    part = path.with_name("log.jsonl" + PART)
    part.write_bytes(part.read_bytes()[:-30])
    asked = Counter[str]()
    assert run_eval(made, [counted(asked)], path).report["accuracy"] == 1.0
    assert sum(asked.values()) == 2


def test_a_journal_of_other_settings_or_in_other_hands_is_refused(tmp_path: Path) -> None:
    made, path = small_eval(tmp_path, "Match", sums(10)), tmp_path / "log.jsonl"
    bad = counted(Counter(), lambda text, _: text[0] == "3")
    with pytest.raises(EvalError, match="no answer"):
        run_eval(made, [bad], path)
    with pytest.raises(EvalError, match="other settings"):
        run_eval(made, [bad], path, Settings(max_samples=5))
    import fcntl

    with path.with_name("log.jsonl" + PART).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EvalError, match="written by another run"):
            run_eval(made, [bad], path)


def with_usage(asked: Counter[str]) -> Any:
    from foretell.evals.base import Completion
    from foretell.evals.completion import ModelFn

    async def ask(prompt: Any, params: Any) -> Completion:
        asked["calls"] += 1
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return Completion((await adds(prompt),), prompt, "adder-1", usage)

    return ModelFn("adder", ask)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(tokens=150), "budget of 150 tokens is spent (150)"),
        (Budget(money=0.0002, prompt_price=1, completion_price=2), "of 0.0002 money"),
        (Budget(seconds=0.0), "of 0 seconds"),
    ],
)
def test_a_budget_is_kept_and_more_of_it_goes_on(tmp_path: Path, budget: Budget, said: str) -> None:
    made, asked, path = small_eval(tmp_path, "Match", sums(30)), Counter[str](), tmp_path / "log.jsonl"
    with pytest.raises(EvalError) as error:
        run_eval(made, [with_usage(asked)], path, Settings(budget=budget, concurrency=1))
    assert said in str(error.value) and asked["calls"] == (0 if budget.seconds is not None else 10)
    log = run_eval(made, [with_usage(asked)], path, Settings(budget=Budget(prompt_price=1, completion_price=2)))
    assert asked["calls"] == 30 and log.report["usage_total_tokens"] == 450
    assert log.extra["cost"] == {"money": pytest.approx(30 * (10 * 1 + 5 * 2) / 1e6)}


def test_the_cache_asks_once_over_runs_but_draws_anew_for_each_epoch(tmp_path: Path) -> None:
    made, asked = small_eval(tmp_path, "Match", [*sums(5), *sums(5)]), Counter[str]()
    for run in range(2):
        store = Cache(tmp_path / "cache.sqlite")
        log = run_eval(made, [with_usage(asked)], tmp_path / f"{run}.jsonl", Settings(concurrency=1), cache=store)
        store.close()
        assert log.report["accuracy"] == 1.0
        assert asked["calls"] == 5  # twins share an answer at temperature 0
    drawn = small_eval(tmp_path / "drawn", f"{__name__}:TwoQuestions", sums(3)[1:])
    asked.clear()
    for run in range(2):
        store = Cache(tmp_path / "cache.sqlite")
        run_eval(drawn, [with_usage(asked)], tmp_path / f"d{run}.jsonl", Settings(epochs=3), cache=store)
        store.close()
        assert asked["calls"] == 2 * 2 * 3
    with pytest.raises(EvalError, match="no cache of answers"):
        (tmp_path / "bad.sqlite").write_text("no database, but long enough to be looked at" * 30)
        Cache(tmp_path / "bad.sqlite")


def test_epochs_have_generators_of_their_own_and_the_first_is_upstreams(tmp_path: Path) -> None:
    rows = [{"question": "q", "answers": list("abcdefgh"), "label": 3}]
    made = small_eval(tmp_path, "MultipleChoice", rows)
    seen: list[str] = []
    model = from_callable(lambda prompt, **_: seen.append(prompt) or "A")
    log = run_eval(made, [model], tmp_path / "log.jsonl", Settings(epochs=4, concurrency=1))
    assert len(set(seen)) > 1 and log.epoch.tolist() == [0, 1, 2, 3] and set(log.id) == {b"x.dev.0"}
    order = list(range(8))
    random.Random(b"x.dev.0:20220722").shuffle(order)
    assert f"A) {'abcdefgh'[order[0]]}" in seen[0]


class Broken(Eval):
    async def eval_sample(self, sample: Any, trial: Trial) -> None:
        await trial.complete(sample["input"])
        raise IndexError("of mine")


def test_a_defect_of_ones_own_class_is_told_with_its_place(tmp_path: Path) -> None:
    made = small_eval(tmp_path, f"{__name__}:Broken", sums(3))
    with pytest.raises(EvalError, match=r"Broken failed on x\.dev\.\d: IndexError\('of mine'\) \(test_runner.py:\d+\)"):
        run_eval(made, [from_callable(adds)], tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input": "x"}, "The sample has no 'ideal'"),
        ({"input": "x", "ideal": 3}, "ideal is 3"),
        ('{"input": ', "line 4 is not JSON"),
        ("[3]", "line 4 holds a list"),
    ],
)
def test_invalid_samples_are_counted_with_their_reason(tmp_path: Path, row: Any, said: str) -> None:
    made = small_eval(tmp_path, "Match", [*sums(3), row])
    log = run_eval(made, [from_callable(adds)], tmp_path / "log.jsonl")
    assert log.report["accuracy"] == 1.0 and log.report["invalid_samples"] == 1
    (event,) = (e for n in range(len(log)) for e in log.events(n) if e["type"] == "invalid_sample")
    assert said in event["data"]["message"] and event["sample_id"] == "x.dev.3"


def test_a_full_disk_is_told_and_what_is_done_stays(tmp_path: Path) -> None:
    made, path = small_eval(tmp_path, "Match", sums(50)), tmp_path / "log.jsonl"
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from evalkit import adds, small_eval, sums
from foretell.errors import EvalError
from foretell.evals.completion import from_callable
from foretell.evals.runner import run_eval
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
made = small_eval(Path({str(tmp_path)!r}), "Match", sums(50))
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
try:
    run_eval(made, [from_callable(adds)], Path({str(path)!r}))
except EvalError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"LANG": "C"})
    assert "What is finished is kept: make room" in done.stdout, done.stderr
    asked = Counter[str]()

    async def adds_again(prompt: Any, **params: Any) -> str:
        asked["calls"] += 1
        return await adds(prompt)

    log = run_eval(made, [from_callable(adds_again, "adds")], path)
    assert log.report["accuracy"] == 1.0 and 0 < asked["calls"] < 50


def test_an_eval_runs_where_a_loop_runs_already(tmp_path: Path) -> None:
    async def notebook() -> float:
        made, cache = small_eval(tmp_path, "Match", sums(3)), Cache(tmp_path / "answers.sqlite")
        return float(run_eval(made, [from_callable(adds)], tmp_path / "log.jsonl", cache=cache).report["accuracy"])

    assert asyncio.run(notebook()) == 1.0

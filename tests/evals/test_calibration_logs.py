"""Calibration out of logs and runs: what is read, how two are paired, what is written, and what is refused by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exams.examkit import choice_exam

import clikit
from foretell.errors import EvalError
from foretell.evals.calibration import calibration, plain, read_answers
from foretell.evals.exams import api
from foretell.measure.assessment import assess
from foretell.measure.calibration import softmax


class Scorer:
    """Tells log-probabilities drawn by question; `sharper` makes them surer."""

    name, can_score = "scorer", True

    def __init__(self, sharper: float = 1.0) -> None:
        self.sharper = sharper

    async def __call__(self, prompt: Any, trial: Any, **params: Any) -> str:
        return "Because."

    async def score(self, prompt: Any, continuations: Any, trial: Any) -> list[float]:
        rng = np.random.default_rng(int(trial.id.rpartition(".")[2]))
        told = np.log(softmax(rng.normal(size=(1, len(continuations))) * 2 * self.sharper)[0]).tolist()
        for continuation, logp in zip(continuations, told, strict=True):
            trial.record("cond_logp", {"prompt": prompt, "completion": continuation, "logp": logp})
        return told


def sat(folder: Path, name: str, model: Any, count: int = 24) -> Path:
    exam = api.open_exam(choice_exam(folder / "exam", count))
    return api.run(exam, model, out=folder / f"{name}.jsonl", store=folder / "history.sqlite").log


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def items(count: int, sharper: float = 1.0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 4))
    p = softmax(logits)
    right = (rng.random((count, 1)) >= p.cumsum(axis=1)).sum(axis=1)
    told = softmax(logits * sharper)
    return [{"id": f"q{i}", "probabilities": told[i].tolist(), "right": int(right[i])} for i in range(count)]


def test_an_exam_s_log_holds_what_its_model_gave_each_letter(tmp_path):
    log = sat(tmp_path, "run", Scorer())
    found = read_answers(log)
    assert (len(found.questions), found.left_out, found.model) == (24, 0, "scorer")
    assert found.eval.startswith("small.nonholdout") and found.run
    lines = log.read_text().splitlines()
    for question in found.questions:
        event = json.loads(lines[question.line - 1])
        assert event["type"] == "options" and event["data"]["logprobs"] == list(question.logprobs)
        assert question.right == int(question.id.rpartition(".")[2]) % 4  # right letters go round
        assert np.exp(question.logprobs).sum() == pytest.approx(1)
    a = calibration(log).before.assessment
    logits, right = [q.logprobs for q in found.questions], [q.right for q in found.questions]
    assert a == assess(logits, right)


def test_scores_of_continuations_do_where_a_log_has_no_options(tmp_path):
    log = sat(tmp_path, "run", Scorer())
    kept = [line for line in log.read_text().splitlines() if '"type": "options"' not in line]
    old = write(tmp_path / "old.jsonl", *kept)
    wanted = {q.id: (q.logprobs, q.right) for q in read_answers(log).questions}
    assert {q.id: (q.logprobs, q.right) for q in read_answers(old).questions} == wanted


def test_before_and_after_are_paired_and_mended(tmp_path):
    before, after = (
        write(tmp_path / f"{name}.jsonl", *items(400, sharper)) for name, sharper in (("base", 1), ("tuned", 3))
    )
    found = calibration(before, after)
    assert found.after is not None and found.change is not None and found.repair is not None
    assert found.change.ece.low > 0 and found.change.accuracy.estimate == 0
    assert found.repair.temperature == pytest.approx(3, rel=0.3)
    assert found.repair.after.ece.estimate < found.repair.before.ece.estimate
    # Only what both were asked counts, in whatever order.
    rows = items(400, 3.0)
    part = write(tmp_path / "part.jsonl", *reversed(rows[:300]), {**rows[300], "id": "new"})
    found = calibration(before, part)
    assert found.after is not None
    assert (found.before.only_here, found.after.only_here, found.after.assessment.questions) == (100, 1, 300)
    told = plain(found)
    json.dumps(told, allow_nan=False)
    assert told["after"]["source"]["sha256"] == found.after.answers.sha256
    assert told["change"]["ece"]["estimate"] == pytest.approx(
        told["after"]["ece"]["estimate"] - told["before"]["ece"]["estimate"]
    )


def test_epochs_of_a_sample_share_its_group(tmp_path):
    log = sat(tmp_path, "run", Scorer(), 8)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    events = [line for line in lines if "sample_id" in line]
    first = [e for e in events if e["sample_id"] == events[0]["sample_id"]]
    twice = write(tmp_path / "twice.jsonl", *first, *first)
    found = read_answers(twice).questions
    assert len(found) == 2 and found[0].group == found[1].group and found[0].id != found[1].id


def test_a_run_s_outcomes_are_its_base_and_what_it_aligned(tmp_path, capsys):
    run = tmp_path / "mine"
    names = {"pretrain": "base", "sft": "sft", "ppo": "rbrm", "ppo-rm": "rm"}
    write(run / "outcomes/manifest.json", {"config": {"names": names}})
    for name, sharper in (("base", 1), ("sft", 1.5), ("rbrm", 3), ("rm", 2)):
        rows = [
            {"task": "choices", "key": f"k{i}", "prompt": [{"role": "user", "content": f"Question {i}"}], "reply": "A",
             "truth": "ABCD"[row["right"]], "logprobs": np.log(row["probabilities"]).tolist()}
            for i, row in enumerate(items(60, sharper))
        ]  # fmt: skip
        other = {"task": "hazards", "key": "h", "prompt": [], "reply": "No.", "truth": "wool", "logprobs": []}
        write(run / "outcomes" / name / "records.jsonl", other, *rows)
    code, out, _ = clikit.invoke(capsys, "exam", "calibration", run)
    assert code == 0 and "base before, rbrm after:" in out and "difference" in out and "temperature" in out
    told = json.loads((run / "calibration.json").read_text())
    assert (told["before"]["source"]["run"], told["before"]["source"]["left_out"]) == ("mine", 1)
    assert told["groups"] == 60 and told["repair"]["of"] == "after"
    page = (run / "calibration.html").read_text()
    assert page.count('class="wide"') == 1 and "Repaired, held-out part" in page and "0.074" in page
    code, out, _ = clikit.invoke(capsys, "exam", "calibration", run / "outcomes/sft", run, "--out", tmp_path / "two")
    assert code == 0 and "sft before, rbrm after:" in out and (tmp_path / "two/calibration.html").is_file()


@pytest.mark.parametrize(
    ("right", "bound", "why"),
    [
        ([1, 2, 3], "100", "it flattens all options, since the model cannot tell them apart."),
        ([0], "0.01", "it makes the likeliest option certain"),
    ],
)
def test_a_temperature_at_its_bound_is_told_and_is_no_repair(tmp_path, capsys, right, bound, why):
    """A model whose likeliest option is never right, and one whose likeliest always is."""
    told = [0.7, 0.1, 0.1, 0.1]
    rows = [{"id": f"q{i}", "probabilities": told, "right": right[i % len(right)]} for i in range(400)]
    file = write(tmp_path / "blind.jsonl", *rows)
    found = calibration(file)
    assert found.repair is not None and found.repair.temperature == float(bound)
    code, out, _ = clikit.invoke(capsys, "exam", "calibration", file)
    said = f"The temperature stops at its bound, {bound}: {why}"
    assert code == 0 and said in " ".join(out.split())
    page = (tmp_path / "blind-calibration.html").read_text()
    assert page.count(said) == 1
    assert "Repaired" not in page and "of the same held-out questions without it" not in page


def test_a_temperature_within_its_bounds_stands_at_the_head(tmp_path, capsys):
    file = write(tmp_path / "sharp.jsonl", *items(400, 3.0))
    code, out, _ = clikit.invoke(capsys, "exam", "calibration", file)
    page = (tmp_path / "sharp-calibration.html").read_text()
    assert code == 0 and "stops at its bound" not in out + page
    assert "Repaired" in page and "of the same held-out questions without it" in page


def test_the_page_tells_of_one_model_too(tmp_path, capsys):
    rows = [
        {"id": "sure", "probabilities": [1, 0], "right": 1},
        {"id": "b", "logprobs": [-0.5, -1.0, -2.0], "right": "C"},
    ]
    file = write(tmp_path / "few.jsonl", *rows)
    code, out, _ = clikit.invoke(capsys, "exam", "calibration", file, "--bins", 5)
    assert code == 0 and "1 probabilities are exactly 0, 1 exactly 1" in out
    page = (tmp_path / "few-calibration.html").read_text()
    assert "of exactly 0" in page and "count as 2.2" in page
    told = json.loads((tmp_path / "few-calibration.json").read_text())
    assert told["after"] is None and told["before"]["floored"] == 1 and told["before"]["points"] == 5
    one = write(tmp_path / "one.jsonl", rows[1])
    code, out, _ = clikit.invoke(capsys, "exam", "calibration", one)
    assert code == 0 and "too few to fit a temperature" in out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "line 2 is not JSON"),
        ({"probabilities": [0.5, 0.6], "right": 0}, "line 2: probabilities [0.5, 0.6] add up to 1.1"),
        ({"probabilities": [1.5, -0.5], "right": 0}, "line 2: probabilities"),
        ({"probabilities": ["a", "b"], "right": 0}, "line 2: probabilities is ['a', 'b']"),
        ({"probabilities": [1.0], "right": 0}, "line 2: probabilities is [1.0]; expected a list of two"),
        ({"logprobs": [-1.0, None], "right": 0}, "line 2: logprobs is"),
        ('{"logprobs": [NaN, -1.0], "right": 0}', "line 2: logprobs holds"),
        ('{"logprobs": [-Infinity, -Infinity], "right": 0}', "line 2: logprobs holds"),
        ({"probabilities": [0.5, 0.5]}, "line 2: the right option is None of 2"),
        ({"probabilities": [0.5, 0.5], "right": 2}, "line 2: the right option is 2 of 2"),
        ({"probabilities": [0.5, 0.5], "right": "C"}, "line 2: the right option is 2 of 2"),
        ({"probabilities": [0.5, 0.5], "right": True}, "line 2: the right option is True"),
        ({"sample_id": "a.1", "type": "options", "data": None}, "line 2: the event has no data"),
        ({"sample_id": "a.1", "type": "options", "data": {"logprobs": [-1, -2], "right": 5}}, "line 2: the right opt"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_by_file_and_line(tmp_path, row, said):
    file = write(tmp_path / "bad.jsonl", {"id": "a", "probabilities": [0.5, 0.5], "right": 0}, row)
    with pytest.raises(EvalError) as caught:
        read_answers(file)
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    first = write(tmp_path / "a.jsonl", {"id": "a", "probabilities": [0.5, 0.5], "right": 0})
    other = write(tmp_path / "b.jsonl", {"id": "b", "probabilities": [0.5, 0.5], "right": 0})
    turned = write(tmp_path / "c.jsonl", {"id": "a", "probabilities": [0.5, 0.5], "right": 1})
    silent = write(tmp_path / "d.jsonl", {"id": "a", "text": "A"})
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((first, other), "have no question in common"),
        ((first, turned), f"{turned}, line 1: question 'a' has 2 options, the right one number 1; in {first}, line 1"),
        ((silent,), "holds no option probabilities (1 rows without)"),
        ((tmp_path / "gone.jsonl",), "There is no"),
        ((tmp_path / "empty",), "holds no outcomes of a run"),
    ):
        code, _, err = clikit.invoke(capsys, "exam", "calibration", *arguments)
        assert code == 2 and said in " ".join(err.split()), err


def test_no_torch_is_needed(tmp_path):
    file = write(tmp_path / "few.jsonl", *items(20))
    code = (
        "import sys; sys.modules['torch'] = sys.modules['sklearn'] = None; "
        "from foretell.evals.calibration import calibration; from foretell.evals.calibration_page import render; "
        "print(len(render(calibration(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 5000, done.stderr

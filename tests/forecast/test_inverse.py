"""Questions out of files and of the world; scores kept and read; reversals found where they are."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from foretell.chat import Conversation
from foretell.errors import ForecastError, ForetellError, GenerationError
from foretell.forecast import fit
from foretell.forecast.inverse import (
    LadderModel,
    Scores,
    find_models,
    measure,
    read_scores,
    soft_series,
    table_csv,
    verdict,
)
from foretell.forecast.inverse_page import turns_page
from foretell.forecast.questions import Answer, find_questions, read_questions, world_questions
from foretell.forecast.table import read_table

# As the prize and its evaluation code publish them: an index column without a name, lists as Python writes them.
PRIZE_CSV = """,prompt,classes,answer_index
0,"Q: Did Ann make the right decision? Choose Y or N.
A:","[' Y', ' N']",1
1,"She said ""go"".",['one' 'two'],0
"""
PRIZE_JSONL = (
    {"prompt": "Ends with a space ", "classes": [" Y", " N", " Maybe"], "answer_index": 2, "part": 1, "round": 2},
    {"prompt": "As a text", "classes": "[' Y', ' N']", "answer_index": 0},
)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_published_forms_are_read(tmp_path):
    (tmp_path / "neglect.csv").write_text(PRIZE_CSV.replace("['one' 'two']", "\"('one', 'two')\""))
    first, second = read_questions(tmp_path / "neglect.csv")
    assert first.prompt == "Q: Did Ann make the right decision? Choose Y or N.\nA:"
    assert (first.group, first.choices, first.right, first.other) == ("neglect", (" Y", " N"), 1, None)
    assert (second.prompt, second.choices, second.right) == ('She said "go".', ("one", "two"), 0)
    (tmp_path / "memo.jsonl").write_text(lines(*PRIZE_JSONL))
    first, second = find_questions(str(tmp_path / "memo.jsonl"))
    assert (first.prompt, first.choices, first.right) == ("Ends with a space ", (" Y", " N", " Maybe"), 2)
    assert second.choices == (" Y", " N")
    (tmp_path / "inject.csv").write_text('prompt,completion\n"Say ", I will\n')
    assert [(q.prompt, q.choices) for q in read_questions(tmp_path / "inject.csv")] == [("Say ", (" I will",))]
    (tmp_path / "odds.jsonl").write_text(lines({**PRIZE_JSONL[1], "other_prompt": "Plain"}))
    assert read_questions(tmp_path / "odds.jsonl")[0].other == "Plain"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"prompt": ""}, "prompt: ''; expected text"),
        ({"prompt": 3}, "prompt: 3"),
        ({"classes": [" Y"]}, "classes: .' Y'.; expected a list of two or more"),
        ({"classes": [" Y", " Y"]}, "different"),
        ({"classes": "[' Y', "}, "classes"),
        ({"classes": "__import__('os')"}, "classes"),
        ({"classes": "{[]: 1}"}, "classes"),
        ({"classes": [" Y", 2]}, "classes"),
        ({"answer_index": 2}, "answer_index: 2; expected a whole number from 0 to 1"),
        ({"answer_index": -1}, "answer_index"),
        ({"answer_index": None}, "answer_index: missing"),
        ({"other_prompt": ""}, "other_prompt"),
        ({"classes": [" Y", " N", " M"], "other_prompt": "p"}, "two texts"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, column):
    good = {"prompt": "p", "classes": [" Y", " N"], "answer_index": 0}
    (tmp_path / "t.jsonl").write_text(lines(good, {**good, **change}))
    with pytest.raises(ForecastError, match=f"line 2, column .*{column}"):
        read_questions(tmp_path / "t.jsonl")


def test_what_is_no_task_is_told(tmp_path):
    for name, said in (("nothing.csv", "no file"), ("reading", "nothing that is answered"), ("scens", "scenes")):
        with pytest.raises(ForecastError, match=said):
            find_questions(str(tmp_path / name) if "." in name else name, 4)
    (tmp_path / "empty.csv").write_text("prompt,classes,answer_index\n")
    with pytest.raises(ForecastError, match="no questions"):
        read_questions(tmp_path / "empty.csv")
    (tmp_path / "bytes.csv").write_bytes(b"prompt\n\xff\n")
    with pytest.raises(ForecastError, match="UTF-8"):
        read_questions(tmp_path / "bytes.csv")


def test_questions_of_the_world_are_held_out_and_answered_by_a_choice():
    found = world_questions("hindsight", 20)
    assert [q.group for q in found] == ["hindsight.agree"] * 20 + ["hindsight.neglect"] * 20
    assert all(q.choices == ("yes", "no") and q.prompt.messages[-1].role == "user" for q in found)
    assert world_questions("hindsight.neglect", 20) == found[20:]
    assert found[:5] == world_questions("hindsight", 5)[:5]  # more questions are those and others


def test_visual_questions_come_again_without_their_image():
    found = world_questions("scenes.color", 6)
    assert [q.group for q in found] == ["scenes.color", "scenes.color (blind)"] * 6
    for seen, blind in zip(found[::2], found[1::2], strict=True):
        assert (seen.choices, seen.right) == (blind.choices, blind.right)
        assert seen.prompt.messages[-1].text == blind.prompt.messages[-1].text
        from io import BytesIO

        from PIL import Image

        pixels = [np.asarray(Image.open(BytesIO(q.prompt.images[0].data))) for q in (seen, blind)]
        assert pixels[0].shape == pixels[1].shape
        assert pixels[0].std() > 0 and (pixels[1] == 128).all()
    assert {q.group for q in world_questions("charts", 2)} >= {"charts.value", "charts.line (blind)"}
    assert "charts.sum" not in {q.group for q in world_questions("charts", 2)}  # its reply is a sentence


def test_the_metrics_are_those_of_upstream():
    logs = np.array([-3.0, -1.2, -2.5])
    answer = Answer("g", 2, tuple(logs))
    assert answer.value == pytest.approx(logs[2] - logsumexp(logs[:2]))
    assert answer.log_probability == pytest.approx(log_softmax(logs)[2])
    assert answer.correct is False and Answer("g", 1, tuple(logs)).correct is True
    text = Answer("g", 0, (-7.5,))
    assert (text.value, text.log_probability, text.correct) == (-7.5, -7.5, None)
    # logodds: log-odds of the first class after both prompts, subtracted, and turned round where the second is right.
    for right in (0, 1):
        both = Answer("g", right, (-1.0, -2.0), (-2.0, -1.5))
        assert both.value == pytest.approx((1.0 - -0.5) * (1 if right == 0 else -1))
        assert both.correct == (right == 1)


class Fake:
    """Knows the right answer of every question with the odds that its name states."""

    def __init__(self, odds, asked):
        self.odds, self.asked = odds, asked

    def encode_text(self, text):
        return text

    async def score(self, prompt, choices):
        if prompt == "too long":
            raise GenerationError("The prompt is too long.")
        self.asked.append(prompt)
        words = prompt.messages[-1].text if isinstance(prompt, Conversation) else prompt
        tilt = self.odds + len(words) % 3 / 10  # some questions are easier
        return [tilt if "right" in choice else 0.0 for choice in choices]


@pytest.fixture
def ladder(tmp_path, monkeypatch):
    """Checkpoints of seven sizes whose odds fall and rise, their logs, a task file, and what was asked of them."""
    asked = []
    odds = dict(zip((1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16), (0, -0.7, -1.4, -2.1, -1.0, 0.1, 1.2), strict=True))
    for i, flops in enumerate(odds):
        folder = tmp_path / "out" / "rungs" / f"r{i}" / "checkpoint"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "foretell"}))
        (folder.parent / "log.jsonl").write_text(lines({"event": "start"}, {"event": "end", "flops": flops}))
    (tmp_path / "out" / "rungs" / "diverged").mkdir()
    flops = {str(tmp_path / "out" / "rungs" / f"r{i}" / "checkpoint"): f for i, f in enumerate(odds)}
    monkeypatch.setattr("foretell.loading.load", lambda ref: SimpleNamespace(generator=Fake(odds[flops[ref]], asked)))
    rows = [{"prompt": "p" * n, "classes": [" wrong", " right"], "answer_index": 1} for n in range(1, 41)]
    (tmp_path / "task.jsonl").write_text(lines(*rows))
    return SimpleNamespace(path=tmp_path, asked=asked, odds=odds, task=tmp_path / "task.jsonl")


def test_a_ladder_is_asked_once_and_its_turn_found(ladder):
    models = find_models([str(ladder.path / "out")])
    assert [(m.name, m.flops) for m in models] == [(f"r{i}", f) for i, f in enumerate(ladder.odds)]
    questions, told = read_questions(ladder.task), []
    scores = measure(models, questions, ladder.path / "o", lambda *a: told.append(a))
    assert len(ladder.asked) == 7 * 40 and told[-1] == ("r6 (7 of 7)", 40, 40)
    (series,) = soft_series(scores)
    assert series.values == pytest.approx([odds + 0.1 for odds in ladder.odds.values()], abs=0.01)
    assert series.turn.flops == pytest.approx(1e13)
    assert verdict(series).startswith("falls, then rises: turns near 10¹³ FLOPs")
    assert [p.accuracy.estimate for p in series.points] == [pytest.approx(27 / 40), 0, 0, 0, 0, 1, 1]
    assert max(series.errors) < 1e-9  # what makes a question easy makes it so for all

    assert measure(models, questions, ladder.path / "o") == scores == read_scores(ladder.path / "o")
    assert len(ladder.asked) == 7 * 40
    (ladder.path / "o" / "scores" / "r2.json").unlink()  # as after an interruption
    assert measure(models, questions, ladder.path / "o") == scores
    assert len(ladder.asked) == 8 * 40
    measure(models, questions[:10], ladder.path / "o")  # other questions
    assert len(ladder.asked) == 8 * 40 + 70
    (ladder.path / "out" / "rungs" / "r3" / "checkpoint" / "config.json").write_text('{"model_type": "foretell"} ')
    measure(models, questions[:10], ladder.path / "o")  # another model
    assert len(ladder.asked) == 8 * 40 + 80


def test_a_question_that_cannot_be_asked_is_named_and_what_was_scored_is_kept(ladder):
    models, questions = find_models([str(ladder.path / "out")]), read_questions(ladder.task)
    measure(models[:2], questions, ladder.path / "o")
    with ladder.task.open("a") as stream:
        stream.write(lines({"prompt": "too long", "classes": [" wrong", " right"], "answer_index": 1}))
    with pytest.raises(ForecastError, match=r"r0 cannot be asked question 41 \(task\): The prompt is too long"):
        measure(models, read_questions(ladder.task), ladder.path / "o")
    assert len(read_scores(ladder.path / "o")) == 2


def test_models_are_named_by_place_or_with_their_flops(ladder):
    rung = ladder.path / "out" / "rungs" / "r1"
    for ref in (rung, rung / "checkpoint"):
        assert find_models([str(ref)]) == [LadderModel("r1", str(rung / "checkpoint"), 1e11)]
    run = ladder.path / "run"  # a run with its ladder
    shutil.copytree(ladder.path / "out" / "rungs", run / "ladder" / "rungs")
    shutil.copytree(rung, run / "pretrain")
    assert [m.name for m in find_models([str(run)])] == ["r0", "r1", "run", *(f"r{i}" for i in range(2, 7))]
    assert find_models([str(rung), f"{rung}/checkpoint"]) == find_models([str(rung)])
    assert find_models(["org/model=3e20", f"{rung}=1e9"]) == [
        LadderModel("r1", str(rung / "checkpoint"), 1e9),
        LadderModel("model", "org/model", 3e20),
    ]
    assert len({m.name for m in find_models(["a/model=1", "b/model=2"])}) == 2
    shutil.copytree(rung, ladder.path / "lr=0.1")
    assert find_models([str(ladder.path / "lr=0.1")])[0].flops == 1e11
    (rung / "log.jsonl").unlink()
    for ref, said in (
        (rung, "no log.jsonl"),
        ("a/x=many", "'many' as its FLOPs"),
        ("a/x=-1", "above 0"),
        ("x=1e9", "no folder x"),
    ):
        with pytest.raises(ForetellError, match=said):
            find_models([str(ref)])


def test_scores_of_other_questions_or_damaged_ones_are_refused(ladder):
    models, questions = find_models([str(ladder.path / "out")]), read_questions(ladder.task)
    measure(models[:2], questions, ladder.path / "o")
    measure(models[2:3], questions[:5], ladder.path / "o")
    with pytest.raises(ForecastError, match="different questions"):
        read_scores(ladder.path / "o")
    (ladder.path / "o" / "scores" / "r0.json").write_text("{")
    with pytest.raises(ForecastError, match=r"r0\.json is no file of scores"):
        read_scores(ladder.path / "o")
    with pytest.raises(ForecastError, match="holds no scores"):
        read_scores(ladder.path / "nowhere")


def simulated(shape, seeds=1, questions=200, noise=0.05, seed=0):
    """Scores of models of geometric sizes whose mean log-odds follow the shape."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1.5, questions)
    found = []
    for i, level in enumerate(shape):
        for k in range(seeds):
            odds = level + rng.normal(0, noise) + hard + rng.normal(0, 0.5, questions)
            answers = tuple(Answer("soft", 0, (float(x), 0.0)) for x in odds)
            found.append(Scores(LadderModel(f"m{i}-{k}", "", 10.0 ** (10 + i)), answers))
    return found


def test_a_reversal_between_two_sizes_is_found_and_errors_leave_out_what_is_hard_for_all():
    (series,) = soft_series(simulated([0, -1, -2, -2, -1, 0]))
    assert series.turn.flops == pytest.approx(10**12.5)
    assert series.turn.before < 0 < series.turn.after
    # Against the differences of models, computed pair by pair.
    values = np.array([[a.value for a in s.answers] for s in simulated([0, -1, -2, -2, -1, 0])])
    pairs = [(values[i] - values[j]).std(ddof=1) for i in range(6) for j in range(i)]
    assert np.mean(series.errors) == pytest.approx(np.mean(pairs) / math.sqrt(2 * 200), rel=0.02)
    assert series.points[0].stderr > 2 * series.errors[0]


@pytest.mark.parametrize(
    ("shape", "said"),
    [([0, 1, 2, 3, 4], "rises, "), ([0, -1, -2, -3, -4], "falls, "), ([0] * 5, "no trend"), ([0, -1, 0], "too few")],
)
def test_other_ways_are_told_as_what_they_are(shape, said):
    (series,) = soft_series(simulated(shape))
    assert series.turn is None
    assert said in verdict(series)


def test_seeds_whose_compute_differs_by_a_document_are_one_size():
    scores = simulated([0, -1, -2, -1, 0], seeds=2)
    moved = [
        Scores(LadderModel(s.model.name, "", s.model.flops * (1 + 0.001 * (i % 2))), s.answers)
        for i, s in enumerate(scores)
    ]
    (one,), (other,) = soft_series(scores), soft_series(moved)
    assert len(other.sizes) == 5 and other.flops == one.flops
    assert other.turn == one.turn


def test_a_series_is_a_ladder_to_be_fitted(tmp_path):
    scores = []
    for flops in np.geomspace(1e10, 1e14, 9):
        p = math.exp(-0.3 * (flops / 1e12) ** -0.2)
        scores.append(Scores(LadderModel("m", "", flops), (Answer("g", 0, (math.log(p), math.log(1 - p))),) * 30))
    (series,) = soft_series(scores)
    (tmp_path / "g.csv").write_text(table_csv(series))
    for table in (series.table(), read_table(tmp_path / "g.csv")):
        assert table.unit == "nats per question"
        predicted = fit(table).predict(1e15)
        assert predicted.loss == pytest.approx(0.3 * 1e3**-0.2, rel=0.02)


def test_the_page_names_what_turns_and_draws_it():
    turning, rising = simulated([0, -1, -2, -1, 0, 1], seeds=2), simulated([0, 1, 2, 3, 4, 5], seeds=2)
    both = [
        Scores(a.model, a.answers + tuple(Answer("<b> (blind)", x.right, x.logprobs) for x in b.answers))
        for a, b in zip(turning, rising, strict=True)
    ]
    page = turns_page(soft_series(both))
    assert "Scaling reverses on soft." in page and "falls, then rises" in page
    assert page.count("<figure") == 4 and "&lt;b&gt;" in page and "<b> (" not in page
    assert "No reversal is found." in turns_page(soft_series(rising))


def test_the_command_asks_reads_and_tells(ladder, tmp_path, capsys):
    from typer.testing import CliRunner

    from foretell.cli.app import app

    out = tmp_path / "o"
    arguments = [str(ladder.path / "out"), "--task", str(ladder.task), "--out", str(out)]
    first = CliRunner().invoke(app, ["forecast", "inverse", *arguments])
    assert first.exit_code == 0, first.output
    assert "task: falls, then rises" in first.output and "r6" in first.output
    again = CliRunner().invoke(app, ["forecast", "inverse", "--out", str(out)])
    assert again.output == first.output.split("\n", first.output.split("questions  ")[0].count("\n"))[-1]
    assert "turns near" in (out / "inverse.html").read_text()
    assert len(read_table(out / "task.csv").rungs) + len(read_table(out / "task.csv").excluded) == 7


def test_results_are_read_without_torch(ladder):
    scores = ladder.path / "o"
    measure(find_models([str(ladder.path / "out")]), read_questions(ladder.task), scores)
    program = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'tokenizers', 'safetensors', 'matplotlib'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hidden)\n"
        "from foretell.cli import main\n"
        f"sys.argv = ['foretell', 'forecast', 'inverse', '--out', {str(scores)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "turns near 10¹³" in done.stdout

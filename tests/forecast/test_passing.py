"""Tallies of a ladder: drawn from an engine that answers as told, graded for real, kept across interruptions."""

import json
from collections import Counter

import numpy as np
import pytest

from foretell.errors import ForecastError, SandboxError
from foretell.forecast import passing
from foretell.forecast.capability import Tally
from foretell.forecast.passing import Exam, ask, name_of, sit
from foretell.measure.sandbox import Sandbox

EXAM = Exam(per_grade=4, grades=(2,), wanted=3, most=40, seed=5)


@pytest.fixture(autouse=True, scope="module")
def sandbox():
    try:
        Sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


class Fake:
    """Writes the right body with a given chance, otherwise one of two wrong ones."""

    def __init__(self, chances, exam=EXAM):
        self.right = {p.prompt: (p.solution, chance) for p, chance in zip(exam.problems(), chances, strict=True)}
        self.asked = []

    def encode_text(self, text):
        return text

    def count(self, prompt, draws, sampling):
        self.asked.append((prompt, draws, sampling.seed))
        solution, chance = self.right[prompt]
        rng = np.random.default_rng(sampling.seed)
        wrong = ["    return 'no'\n", "    return (\n"]
        return Counter(solution if rng.random() < chance else wrong[rng.integers(2)] for _ in range(draws))


def test_sampling_stops_at_the_wanted_passes_or_the_most_draws():
    fake = Fake([1.0, 0.5, 0.0, 0.9])
    found = list(ask(fake, EXAM.problems(), EXAM))
    assert [t.problem for t in found] == [name_of(problem) for problem in EXAM.problems()]
    assert found[0] == Tally(found[0].problem, 3, 3, 3)
    assert found[2] == Tally(found[2].problem, 40, 0, 3)
    assert all(t.passes == 3 and t.draws <= 40 for t in (found[1], found[3]))
    assert EXAM.rounds == [15, 25]
    assert Counter(draws for _, draws, _ in fake.asked) == {15: 4, 25: 1}


def test_the_order_of_draws_is_random():
    """Stopping at the first pass, the draws needed follow the geometric distribution."""
    exam = Exam(per_grade=30, grades=(2, 3), wanted=1, most=200, seed=5)
    chance = 0.25
    needed = [t.draws for salt in "abcde" for t in ask(Fake([chance] * 60, exam), exam.problems(), exam, salt)]
    assert np.mean(needed) == pytest.approx(1 / chance, rel=0.15)
    assert np.mean(np.array(needed) == 1) == pytest.approx(chance, abs=0.08)


def test_equal_completions_are_graded_once_and_broken_ones_never_run(monkeypatch):
    ran = []
    real = Sandbox.run_many
    monkeypatch.setattr(Sandbox, "run_many", lambda self, programs: ran.extend(programs) or real(self, programs))
    list(ask(Fake([0.5, 0.1, 0.0, 0.2]), EXAM.problems(), EXAM))
    assert len(ran) == len(set(ran)) <= 8
    assert not any("return (" in program.source for program in ran)


@pytest.fixture
def ladder(tmp_path, monkeypatch):
    """Two checkpoints whose engine is the fake; what it was asked is kept."""
    fake = Fake([1.0, 0.5, 0.3, 0.9])
    folders = {}
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
        folders[name] = tmp_path / name

    class Loaded:
        generator = fake

    monkeypatch.setattr("foretell.loading.load", lambda *_, **__: Loaded)
    return folders, fake


def test_what_was_cut_off_goes_on_problem_by_problem(ladder, tmp_path):
    folders, fake = ladder
    whole = sit(folders, EXAM, tmp_path / "a", workers=1)
    assert whole.keys() == folders.keys()
    assert len({seed for _, _, seed in fake.asked}) == len(fake.asked)  # no two models share draws
    asked = len(fake.asked)
    assert sit(folders, EXAM, tmp_path / "a", workers=1) == whole
    assert len(fake.asked) == asked
    file = tmp_path / "a" / "small.jsonl"
    data = file.read_bytes()
    for cut in (len(data) - 5, data.index(b"\n") + 1, data.index(b"\n") - 3, 0):
        file.write_bytes(data[:cut])
        seen = []
        assert sit(folders, EXAM, tmp_path / "a", workers=1, report=lambda *said, seen=seen: seen.append(said)) == whole
        assert file.read_bytes() == data
        assert seen[-1][1:3] == (8, 8)


def test_tallies_of_another_exam_or_model_are_refused(ladder, tmp_path):
    folders, _ = ladder
    sit(folders, EXAM, tmp_path / "a", workers=1)
    with pytest.raises(ForecastError, match="another exam"):
        sit(folders, Exam(**{**vars(EXAM), "most": 50}), tmp_path / "a", workers=1)
    (folders["large"] / "model.safetensors").write_bytes(b"trained further")
    with pytest.raises(ForecastError, match="other weights"):
        sit(folders, EXAM, tmp_path / "a", workers=1)
    file = tmp_path / "b" / "small.jsonl"
    file.parent.mkdir()
    task = passing._Task(folders["small"], file, EXAM)
    file.write_text(json.dumps(passing._head(task)) + "\nnonsense\n")
    with pytest.raises(ForecastError, match="not a file of tallies"):
        sit(folders, EXAM, tmp_path / "b", workers=1)

"""The evals that come with the project: each can be run, and who knows the answers scores 1."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from foretell.chat import Conversation
from foretell.data.world.base import is_heldout
from foretell.errors import EvalError, ForetellError, SandboxError
from foretell.evals.base import Completion
from foretell.evals.classes import make_eval
from foretell.evals.completion import ModelFn, dummy, from_callable
from foretell.evals.generated import NAMES, PLACES
from foretell.evals.log import RunLog
from foretell.evals.registry import OWN, Registry
from foretell.evals.runner import Settings, identity, run_eval
from foretell.measure.sandbox import obstacle

SMALL: dict[str, dict[str, Any]] = {
    "logic-puzzles": {},
    "logic": {"count": 6},
    "reading": {},
    "arithmetic": {"count": 12},
    "steerability": {},
    "personas": {"count": 12},
    "summarisation": {},
    "world": {"count": 6},
    "facts": {"count": 6},
    "hindsight": {"count": 6},
    "visual": {"count": 3},
    "programs": {"per_grade": 2, "grades": [1, 2]},
}


def key(prompt: Any) -> str:
    return str(prompt)


def run(name: str, folder: Path, fn: ModelFn) -> RunLog:
    if name == "programs" and obstacle("bubblewrap") is not None:
        pytest.skip("no sandbox")
    return run_eval(make_eval(Registry(), name, **SMALL[name]), [fn], folder / f"{name}.jsonl")


def knows(name: str) -> ModelFn:
    """Answers each sample's prompt with what is right."""
    samples = make_eval(Registry(), name, **SMALL[name]).samples()
    said = {}
    for sample in samples:
        ideal = sample.get("ideal")
        said[key(sample["input"])] = sample.get("example") or (ideal[0] if isinstance(ideal, list) else ideal) or "It."

    async def ask(prompt: Any, params: Any) -> Completion:
        return Completion((said.get(key(prompt), "It is faithful and says what matters.\nA"),), prompt)

    async def score(prompt: Any, continuations: Any) -> list[float]:
        raise AssertionError("nothing is scored here")

    return ModelFn("knows", ask, score=score)


def test_all_are_tested() -> None:
    names = {name for name in Registry().evals if "." not in name}
    sets = ("academic", "truthfulqa-arms", "factual", "conduct", "conduct-files", "vision", "world-visual", "ladder")
    elsewhere = {name for held in sets for name in Registry().resolve(held)}
    assert {Registry().eval(name).name for name in SMALL} | elsewhere == {Registry().eval(name).name for name in names}


@pytest.mark.parametrize("name", SMALL)
def test_who_knows_scores_1(name: str, tmp_path: Path) -> None:
    log = run(name, tmp_path, knows(name))
    assert log.report.get("accuracy", log.report.get("score")) == 1
    assert log.score.tolist() == [1] * len(log)
    assert not log.invalid.any()


@pytest.mark.parametrize("name", SMALL)
def test_who_says_anything_scores_0(name: str, tmp_path: Path) -> None:
    log = run(name, tmp_path, from_callable(dummy))
    assert log.report.get("accuracy", log.report.get("score")) == 0
    assert not log.invalid.any()


@pytest.mark.parametrize("name", SMALL)
def test_same_samples_every_time(name: str) -> None:
    first, second = (list(make_eval(Registry(), name, **SMALL[name]).samples()) for _ in range(2))
    assert first == second
    assert len({key(sample["input"]) for sample in first}) == len(first)


def test_sets_and_descriptions() -> None:
    registry = Registry()
    for name in (
        "own",
        "quickstart",
        "academic",
        "truthfulqa-arms",
        "factual",
        "conduct",
        "conduct-files",
        "vision",
        "ladder",
    ):
        for member in registry.resolve(name):
            assert registry.eval(member).description
    assert registry.paths == (OWN,)


def test_world_is_held_out_with_images() -> None:
    samples = make_eval(Registry(), "visual", count=3).samples()
    assert len(samples) == 9
    for sample in samples:
        assert is_heldout(sample["group"])
        assert len(Conversation.from_openai(sample["input"]).images) == 1
        assert sample["input"][-1]["role"] == "user"


def test_more_questions_begin_with_the_same() -> None:
    few, many = (make_eval(Registry(), "arithmetic", count=n).samples() for n in (5, 40))
    assert list(few) == list(many)[:5]


def test_report_tells_tasks_apart(tmp_path: Path) -> None:
    log = run("arithmetic", tmp_path, knows("arithmetic"))
    tasks = {name for name in log.report if name.startswith("accuracy/")}
    assert tasks == {f"accuracy/arithmetic.{what}" for what in ("sum", "difference", "product")}
    assert len(log.groups) == len(log)


def test_reading_shares_passages(tmp_path: Path) -> None:
    log = run("reading", tmp_path, knows("reading"))
    assert len(log.groups) == 4
    assert set(log.group.tolist()) == {0, 1, 2, 3}


def test_persona_kept_but_wrong(tmp_path: Path) -> None:
    samples = make_eval(Registry(), "personas", count=40).samples()
    at = next(i for i, s in enumerate(samples) if s["rule"] == "personas.capitals")
    shouts = from_callable(lambda prompt, **_: "NONSENSE.")
    log = run_eval(make_eval(Registry(), "personas", count=at + 1), [shouts], tmp_path / "log.jsonl")
    kept = {
        e["sample_id"]: e["data"]["adheres"] for i in range(len(log)) for e in log.events(i) if e["type"] == "metrics"
    }
    assert kept[f"personas.heldout.{at}"] == 1
    assert log.report["accuracy"] == 0


def test_steerability_needs_form_and_content(tmp_path: Path) -> None:
    samples = make_eval(Registry(), "steerability").samples()
    pirate = [{"role": "system", "content": samples[0]["input"][0]["content"]}, samples[0]["input"][1]]
    for text, score in (("Arrr, Paris.", 0), ("Arrr! Lyon.", 0), ("Arrr! Paris.", 1)):
        fn = from_callable(lambda prompt, text=text, **_: text if prompt == pirate else "")
        log = run_eval(make_eval(Registry(), "steerability"), [fn], tmp_path / f"{text}.jsonl")
        assert log.score[[i.decode().endswith(".0") for i in log.id]].tolist() == [score]


def test_without_a_sandbox_no_model_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: Any) -> None:
        raise SandboxError("Untrusted code is not run without a sandbox.")

    monkeypatch.setattr("foretell.evals.academic_code.Sandbox", none)
    asked: list[Any] = []
    fn = from_callable(lambda prompt, **_: asked.append(prompt) or "")
    with pytest.raises(ForetellError, match="without a sandbox"):
        run_eval(make_eval(Registry(), "programs", per_grade=1), [fn], tmp_path / "log.jsonl")
    assert not asked


def test_programs_of_chat_models(tmp_path: Path) -> None:
    if obstacle("bubblewrap") is not None:
        pytest.skip("no sandbox")
    samples = make_eval(Registry(), "programs", **SMALL["programs"]).samples()
    known = {sample["input"]: sample["ideal"] for sample in samples}

    def reply(prompt: Any, **_: Any) -> str:
        code = prompt[0]["content"].partition("\n\n")[2]
        return f"Sure!\n\n```python\n{code}{known[code]}\nprint('done')\n```\nIt works."

    log = run("programs", tmp_path, from_callable(reply))
    assert log.report["accuracy"] == 1


def test_changed_settings_are_another_run(tmp_path: Path) -> None:
    fn = from_callable(dummy)
    few, many = (identity(make_eval(Registry(), "logic", count=n), [fn], Settings()) for n in (6, 7))
    assert few != many
    with pytest.raises(EvalError, match="num_fewshot"):
        make_eval(Registry(), "gsm8k", num_fewshot=0)


CLUE = r"\w+ is (?:somewhere|directly|not|at)[^.]*"


def row_orders(text: str) -> list[tuple[str, ...]]:
    """Who may stand how, read from the puzzle's words alone."""
    people, told = text.split(" stand in a row. ")
    names = re.findall("|".join(NAMES), people)
    found = []
    for order in itertools.permutations(names):
        at = order.index
        ends = (order[0], order[-1])

        def holds(clue: str, at: Any = at, ends: Any = ends) -> bool:
            a, *rest = re.findall("|".join(NAMES), clue)
            if "somewhere left" in clue:
                return at(a) < at(rest[0])
            if "directly left" in clue:
                return at(a) == at(rest[0]) - 1
            if "not next to" in clue:
                return abs(at(a) - at(rest[0])) > 1
            return (a in ends) != ("not at an end" in clue)

        if all(map(holds, re.findall(CLUE, told))):
            found.append(order)
    return found


def row_solutions(text: str) -> set[str]:
    asked = PLACES.index(re.search(r"Who is (\w+) from the left", text)[1])
    for clue in re.findall(CLUE, text):
        assert len(row_orders(text.replace(f"{clue}.", "", 1))) > 1, f"{clue} says nothing new in {text}"
    return {order[asked] for order in row_orders(text)}


def liar_solutions(text: str) -> set[str]:
    said = dict(re.findall(r'(\w+) says: "([^"]*)"', text))
    asked = re.search(r"Does (\w+) tell the truth", text)[1]
    found = set()
    for kinds in itertools.product((False, True), repeat=len(said)):
        honest = dict(zip(said, kinds, strict=True))

        def true(claim: str, honest: dict[str, bool] = honest) -> bool:
            about = [honest[name] for name in re.findall("|".join(NAMES), claim)]
            if "same kind" in claim:
                return about[0] == about[1]
            if "or both" in claim:
                return not all(about)
            if "Exactly one" in claim:
                return list(honest.values()).count(False) == 1
            return about[0] == ("truth" in claim)

        if all(true(claim) == honest[name] for name, claim in said.items()):
            found.add("yes" if honest[asked] else "no")
    return found


def test_puzzles_have_one_solution() -> None:
    answers = set()
    for sample in make_eval(Registry(), "logic", count=60).samples():
        text = sample["input"][0]["content"]
        solve = row_solutions if sample["task"] == "logic.row" else liar_solutions
        assert solve(text) == {sample["ideal"]}, text
        answers.add(sample["ideal"])
    assert {"yes", "no"} < answers


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("logic", {"people": [9]}, "3 to 6"),
        ("world", {"kinds": ["dragons"]}, "no kind 'dragons'"),
        ("arithmetic", {"count": 5000, "options": {"arithmetic": {"digits": 1}}}, "Lower count"),
        ("programs", {"grades": [99]}, "1 to 8"),
    ],
)
def test_settings_that_do_not_fit(name: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(EvalError, match=words):
        make_eval(Registry(), name, **args).samples()

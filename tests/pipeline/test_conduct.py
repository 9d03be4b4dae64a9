"""Conduct by the rooms' own judges: the world's oracles, the rubric, and the moderation classifier."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretell.align.outcomes import Settings, measure
from foretell.data.risks import AREAS, HAZARDS, risk_requests
from foretell.data.world.hazards import Hazards, write_reply
from foretell.data.world.redteam import WRAPPERS
from foretell.errors import EvalError
from foretell.evals.base import Completion
from foretell.evals.classes import make_eval
from foretell.evals.completion import ModelFn
from foretell.evals.log import RunLog
from foretell.evals.rates import Probe, changes_of, rates_of, summary_of_rates
from foretell.evals.registry import Registry
from foretell.evals.runner import run_eval
from foretell.generate import Result
from foretell.pipeline.conduct.toxicity import TOXIC
from foretell.safety.policy import SCORED

SORRY = "I'm sorry, but I can't help with that."


def probe(name: str, **args: Any) -> Probe:
    made = make_eval(Registry(), name, **args)
    assert isinstance(made, Probe)
    return made


def says(reply: Any, name: str = "model") -> ModelFn:
    async def ask(prompt: Any, params: Any) -> Completion:
        return Completion((reply if isinstance(reply, str) else reply(prompt),), prompt)

    return ModelFn(name, ask)


def ran(folder: Path, made: Probe, *fns: ModelFn, log: str = "log.jsonl") -> RunLog:
    return run_eval(made, fns, folder / log)


def told(log: RunLog) -> dict[str, float]:
    return {rate.measure.name: rate.value.estimate for rate in rates_of(log) if rate.n}


class Refuses:
    """As a generator, for alignment's own measurement."""

    can_score = False

    async def generate(self, requests: Any) -> Any:
        for i, _ in enumerate(requests):
            yield Result(SORRY, request=i)


def test_behaviour_tells_what_outcomes_tell(tmp_path: Path) -> None:
    """The same prompts and oracles as alignment's own measurement, so the same rates with the same intervals."""
    log = ran(tmp_path, probe("behaviour", requests=12, attacks=3), says(SORRY))
    none = {"steering": 0, "conflicts": 0, "sums": 0, "questions": 0}
    outcomes = measure(Refuses(), Settings(requests=12, attacks=3, **none))  # type: ignore[arg-type]
    here = {rate.measure.name: rate for rate in rates_of(log)}
    wanted = [rate for rate in outcomes.rates() if rate.measure.name in here]
    assert len(wanted) > 10
    for rate in wanted:
        assert (here[rate.measure.name].value, here[rate.measure.name].n) == (rate.value, rate.n), rate.measure.name


def test_behaviour_by_area_before_and_after(tmp_path: Path) -> None:
    made = probe("behaviour", requests=20, attacks=4)
    world, rng = Hazards(), random.Random(0)
    by_text = {s["input"][-1]["content"]: s for s in made.samples()}

    def obliging(prompt: Any) -> str:
        asked = world.read(prompt[-1]["content"])
        return write_reply(asked, "C", rng) if asked else "Take vexite and grumol."

    def aligned(prompt: Any) -> str:
        asked = world.read(prompt[-1]["content"])
        return write_reply(asked, "A" if asked.act.kind == "disallowed" else "D", rng) if asked else SORRY

    before = ran(tmp_path, made, says(obliging, "before"), log="before.jsonl")
    after = ran(tmp_path, made, says(aligned, "after"), log="after.jsonl")
    assert told(before)["disallowed.complied"] == 1 and told(before)["redteam.succeeded"] == 1
    assert {
        "redteam.succeeded/" + HAZARDS[s["labels"]["noun"]] for s in by_text.values() if s["task"][:7] == "redteam"
    } <= set(told(before))
    changes = {c.measure.name: c for c in changes_of(before, after)}
    assert changes["disallowed.complied"].difference.estimate == -1
    assert changes["disallowed.complied"].verdict == "better" and changes["disallowed.complied"].reduction.estimate == 1
    assert told(after)["over_refused"] == 0 and changes["disguised.over_refused"].verdict == "worse"


def test_the_taxonomy_is_whole() -> None:
    found = {(request.area, request.kind) for request in risk_requests()}
    assert found == {(area, kind) for area in AREAS for kind in ("disallowed", "boundary")}
    assert set(HAZARDS.values()) <= set(AREAS)
    assert len({request.text for request in risk_requests()}) == len(risk_requests())


def test_requests_by_a_rubric(tmp_path: Path) -> None:
    made = probe("requests", disguise="role_play")
    letters = {"yes": "C", "no": "A", "safe": "D"}

    def judge(prompt: Any) -> str:
        reply = json.loads(prompt[-1]["content"].rpartition("Reply: ")[2].partition("\n")[0])
        return letters[reply]

    def answers(prompt: Any) -> str:
        text = prompt[-1]["content"]
        known = next(r for r in risk_requests() if r.text in text)
        return "safe" if known.kind == "boundary" else "no" if text == known.text else "yes"

    log = ran(tmp_path, made, says(answers), says(judge, "judge"))
    limits = {row["limit"]: row["estimate"] for row in summary_of_rates(log)["rows"] if "limit" in row}
    assert limits == {"cybersecurity": 1, "proliferation": 1}
    found = told(log)
    assert found["disallowed.complied"] == 0 and found["disallowed.refused"] == 1 and found["over_refused"] == 0
    assert found["attack.succeeded"] == 1
    assert all(found[f"attack.succeeded/{area}"] == 1 for area in AREAS)


def test_requests_by_words(tmp_path: Path) -> None:
    made = probe("requests", judged=False, area=["hate", "privacy"])
    samples = made.samples()
    assert {s["area"] for s in samples} == {"hate", "privacy"} and {s["disguise"] for s in samples} == {
        "plain",
        *WRAPPERS,
    }
    found = told(ran(tmp_path, made, says(SORRY)))
    assert found["over_refused"] == 1 and found["attack.succeeded"] == 0 and "disallowed.refused" not in found
    assert told(ran(tmp_path, made, says("Here is how.", "other")))["disallowed.complied"] == 1


def test_requests_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "advbench.csv").write_text('goal,target\n"Do, harm",Sure\nDo more,Sure\n')
    made = probe("requests", path=str(tmp_path / "advbench.csv"), disguise=[], area="cybersecurity")
    assert [(s["text"], s["area"], s["task"]) for s in made.samples()] == [
        ("Do, harm", "cybersecurity", "plain.disallowed"), ("Do more", "cybersecurity", "plain.disallowed"),
    ]  # fmt: skip
    for row, said in (
        ({"prompt": "x", "area": "cooking"}, "line 2: area is 'cooking', which the taxonomy does not have"),
        ({"prompt": "x", "kind": "odd"}, "line 2: kind is 'odd'"),
        ({"text": "x"}, "line 2 has neither prompt nor goal"),
    ):
        path = tmp_path / "own.jsonl"
        path.write_text(json.dumps({"prompt": "y", "area": "hate"}) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(EvalError, match=said):
            probe("requests", path=str(path)).samples()
    path.write_text(json.dumps({"prompt": "y", "area": "hate"}) + "\n")
    with pytest.raises(EvalError, match="no row whose area is bias"):
        probe("requests", path=str(path), area=["hate", "bias"]).samples()
    with pytest.raises(EvalError, match="area is 'cooking'; known are harmful-advice"):
        probe("requests", area="cooking")


def test_a_judge_that_talks_makes_invalid_samples(tmp_path: Path) -> None:
    made = probe("requests", area="hate", disguise=[])
    log = ran(tmp_path, made, says(SORRY), says("That is a hard one.", "judge"))
    assert log.invalid.all() and all(rate.n == 0 for rate in rates_of(log))


class Scores:
    def scores(self, texts: Any) -> Any:
        rows = np.zeros((len(texts), len(SCORED)))
        rows[:, SCORED.index(TOXIC[0])] = [0.9 if "bad" in text else 0.1 for text in texts]
        return rows


def test_toxicity_of_draws(tmp_path: Path) -> None:
    rows = [{"prompt": {"text": "A", "toxicity": 0.1}}, {"prompt": {"text": "B", "toxicity": 0.9}},
            {"prompt": {"text": "C", "toxicity": None}}]  # fmt: skip
    path = tmp_path / "rtp.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = probe("toxicity", path=str(path), draws=2, scorer=Scores())
    count = {"B": 0}

    def say(prompt: Any) -> str:
        count["B"] += prompt == "B"
        return "bad" if prompt == "B" and count["B"] == 1 else "fine"

    found = told(ran(tmp_path, made, says(say)))
    assert found["clean"] == 2 / 3 and found["toxic"] == pytest.approx(1 / 6)
    assert found["toxic/toxic"] == 0.5 and found["toxic/not toxic"] == 0
    assert found["most_toxic"] == pytest.approx((0.9 + 0.1 + 0.1) / 3)
    path.write_text(json.dumps(rows[0]) + "\n" + json.dumps({"prompt": {"text": ""}}) + "\n")
    with pytest.raises(EvalError, match="line 2 has no prompt as text"):
        probe("toxicity", path=str(path)).samples()


def test_realtoxicityprompts_as_it_was_published(tmp_path: Path) -> None:
    scores = {"profanity": 0.1, "sexually_explicit": None, "identity_attack": 0.02, "flirtation": 0.3, "threat": 0.05,
              "insult": 0.2, "severe_toxicity": 0.01}  # fmt: skip
    rows = [
        {"filename": f"{i}.txt", "begin": 340, "end": 564, "challenging": False,
         "prompt": {"text": f"Opening {i}, he", **scores, "toxicity": toxicity},
         "continuation": {"text": " went home.", **scores, "toxicity": 0.03}}
        for i, toxicity in enumerate((0.29, 0.71, None))
    ]  # fmt: skip
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = probe("toxicity", path=str(path)).samples()
    assert samples == [
        {"input": "Opening 0, he", "opening": "not toxic"}, {"input": "Opening 1, he", "opening": "toxic"},
        {"input": "Opening 2, he"},
    ]  # fmt: skip
    assert len(probe("toxicity", path=str(path), count=2).samples()) == 2


def test_the_packaged_classifier_scores_continuations(tmp_path: Path) -> None:
    kind = told(ran(tmp_path, probe("toxicity", draws=1), says("hello and thank you for the flowers.", "kind")))
    rude = told(
        ran(tmp_path, probe("toxicity", draws=1), says("you are a worthless idiot and I will kill you.", "rude"))
    )
    assert kind["toxic"] == 0 and rude["score"] > kind["score"]


@pytest.mark.realdata
def test_advbench_as_it_was_published(real_data: Path) -> None:
    path = real_data / "benchmarks/ab235_AttnGCG-attack/data/advbench/harmful_behaviors.csv"
    samples = probe("requests", path=str(path), disguise=["encoding"]).samples()
    assert len(samples) == 2 * 520
    assert {s["task"] for s in samples} == {"plain.disallowed", "disguised.disallowed"}

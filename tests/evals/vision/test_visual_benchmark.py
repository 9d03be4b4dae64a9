"""A model that looks is told from one that does not; what cannot be judged is counted and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import formkit
import pytest

from foretell.chat import Conversation
from foretell.errors import EvalError
from foretell.evals import api
from foretell.evals.log import RunLog
from foretell.evals.summaries import read_summary, summary_path
from foretell.generate import Result


def run(name: str, model: Any, folder: Path, **args: Any) -> RunLog:
    return api.run(name, model, args=args, out=folder / "log.jsonl").log


def looks(prompt: Any, **_: Any) -> str:
    """Names the color of the last picture."""
    images = Conversation.from_openai(prompt).images
    return f"It is clear. The answer is {formkit.color_of(images[-1].data) or 'grey'}."


def events(log: RunLog, type: str) -> list[dict[str, Any]]:
    return [e["data"] for i in range(len(log)) for e in log.events(i) if e["type"] == type]


def test_a_model_that_looks_gains_over_every_control(tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path, ("red", "green", "blue") * 8)
    log = run("vqav2", looks, tmp_path, path=str(path), parts=["other"])
    told = read_summary(summary_path(log.path))
    (task,) = told["tasks"]
    assert task["accuracy"] == 1 and task["questions"] == 24 and task["sees"]
    assert task["blind"] == pytest.approx(0.3)  # "grey" was said by one of ten
    assert task["above_blind_low"] > 0 and task["above_majority_low"] > 0
    assert task["shuffled"] < 0.7 and task["majority"] == pytest.approx(1 / 3, abs=0.01)
    assert log.report["vqa_score"] == 1 and log.report["sees"] == 1
    assert told["samples"] == "log.jsonl" and told["run"] == log.spec["run_id"] and told["part"] == "vision"
    gain = next(row for row in told["rows"] if row["arm"] == "gain over grey image")
    assert gain["estimate"] == task["above_blind"] and gain["form"] == "points"


@pytest.mark.parametrize("guess", ["red", "no idea"])
def test_a_model_that_never_looks_gains_nothing(guess: str, tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path, ("red", "green", "blue") * 4)
    log = run("vqav2", lambda prompt, **_: guess, tmp_path, path=str(path), parts=["other"])
    assert log.report["above_blind"] == 0 and log.report["sees"] == 0
    assert log.report["above_blind_low"] < 0 < log.report["above_blind_high"]


def test_parts_are_told_apart_and_questions_of_a_picture_are_not_independent(tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path)
    log = run("vqav2", looks, tmp_path, path=str(path))
    assert [task["task"] for task in read_summary(summary_path(log.path))["tasks"]] == [
        "vqav2", "vqav2.other", "vqav2.yes/no",
    ]  # fmt: skip
    assert len(set(log.group.tolist())) == 4 and len(log) == 5


def test_three_questions_each_and_the_log_holds_each_picture_once(tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path)
    log = run("vqav2", looks, tmp_path, path=str(path), parts="other")
    asked = events(log, "sampling")
    assert len(asked) == 12
    kept = ["image_url" in json.dumps(data["prompt"]) for data in asked]
    assert sum(kept) == 4
    assert "[image 1, blind]" in json.dumps(asked) and "[image 1, shuffled]" in json.dumps(asked)


def test_another_picture_is_another_picture(tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path, ("red", "green"))
    seen: list[str] = []

    def watches(prompt: Any, **_: Any) -> str:
        seen.append(formkit.color_of(Conversation.from_openai(prompt).images[-1].data) or "grey")
        return "x"

    api.run("vqav2", watches, args={"path": str(path), "parts": ["other"]}, out=tmp_path / "l.jsonl", concurrency=1)
    assert sorted(tuple(seen[i : i + 3]) for i in (0, 3)) == [("green", "grey", "red"), ("red", "grey", "green")]


def test_where_there_is_no_other_picture_the_shuffled_control_is_left_out(tmp_path: Path) -> None:
    log = run("docvqa", lambda prompt, **_: "Jan 8", tmp_path, path=str(formkit.docvqa(tmp_path)))
    (task,) = read_summary(summary_path(log.path))["tasks"]
    assert task["shuffled"] is None and task["without_another_image"] == 1
    assert log.report["anls"] == 1 and log.report["exact_match"] == 1 and log.report["token_f1"] == 1
    assert len(events(log, "sampling")) == 2


def test_missing_and_broken_pictures_are_invalid_and_named(tmp_path: Path) -> None:
    path = formkit.nlvr(tmp_path, 6)
    (tmp_path / "images/0/dev-7-2-0.png").unlink()
    (tmp_path / "images/0/dev-7-3-0.png").write_bytes(b"no picture")
    whole = (tmp_path / "images/0/dev-7-4-0.png").read_bytes()
    (tmp_path / "images/0/dev-7-4-0.png").write_bytes(whole[:50])  # a header that can be read
    log = run("nlvr", lambda prompt, **_: "true", tmp_path, path=str(path))
    said = sorted(data["message"] for data in events(log, "invalid_sample"))
    assert len(said) == 3 and log.report["invalid_samples"] == 3
    assert "line 3: its image" in said[0] and "cannot be read" in said[0]
    assert "line 4: its image" in said[1] and "is broken" in said[1]
    assert "line 5" in said[2] and "damaged" in said[2]
    told = read_summary(summary_path(log.path))
    assert told["invalid"] == 3 and told["questions"] == 3


def test_left_out_by_name_alone_and_counted(tmp_path: Path) -> None:
    path = formkit.nlvr(tmp_path, 6)
    for i in (0, 5):
        (tmp_path / f"images/0/dev-7-{i}-0.png").unlink()
    log = run("nlvr", lambda prompt, **_: "false", tmp_path, path=str(path), present_only=True)
    assert len(log) == 4 and log.report["without_image"] == 2 and log.report["chance"] == 0.5
    for i in range(6):
        (tmp_path / f"images/0/dev-7-{i}-0.png").unlink(missing_ok=True)
    with pytest.raises(EvalError, match="None of the 6 questions"):
        run("nlvr", looks, tmp_path / "b", path=str(path), present_only=True)


@pytest.mark.parametrize("layout", ["turns", "text"])
def test_worked_samples_stand_between_with_their_pictures(layout: str, tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path, ("red", "green", "blue"))
    prompts: list[Any] = []

    def watches(prompt: Any, **_: Any) -> str:
        prompts.append(prompt)
        return looks(prompt)

    args = {"path": str(path), "parts": ["other"], "num_few_shot": 2, "layout": layout}
    report = api.run("vqav2", watches, args=args, out=tmp_path / "log.jsonl")
    assert report.accuracy == 1
    for prompt in prompts:
        conversation = Conversation.from_openai(prompt)
        assert len(conversation.images) == 3
        assert len(prompt) == (5 if layout == "turns" else 1)
        shown = [formkit.color_of(image.data) for image in conversation.images[:2]]
        if layout == "turns":
            assert [prompt[1]["content"], prompt[3]["content"]] == shown
        else:
            kinds = [part["type"] for part in prompt[0]["content"]]
            assert kinds == ["image_url", "text"] * 3
    first = Conversation.from_openai(prompts[0]).images
    assert len({image.data for image in first}) == 3  # no worked sample shows the question's own picture


def test_no_worked_sample_is_one_whose_picture_is_missing(tmp_path: Path) -> None:
    path = formkit.nlvr(tmp_path, 8)
    for i in range(5):
        (tmp_path / f"images/0/dev-7-{i}-0.png").unlink()
    log = run("nlvr", lambda prompt, **_: "true", tmp_path, path=str(path), num_few_shot=2)
    assert log.report["invalid_samples"] == 5


def test_chain_of_thought_shows_the_reasoning_and_reads_the_answer_behind_it(tmp_path: Path) -> None:
    formkit.chartqa(tmp_path / "train")
    path = formkit.chartqa(tmp_path / "test")
    said: list[Any] = []

    def thinks(prompt: Any, **params: Any) -> str:
        said.append((prompt, params))
        return "The bar is near 15, not 99.\nAnswer: 14.9"

    formkit.write(tmp_path / "train/train_human.json", [
        {"imgname": "b.png", "query": "How high?", "label": "7", "rationale": "It ends at 7."}])  # fmt: skip
    args = {"path": str(path), "shots": str(tmp_path / "train/train_human.json"), "num_few_shot": 1, "cot": True}
    report = api.run("chartqa", thinks, args=args, out=tmp_path / "log.jsonl")
    assert report.accuracy == 1  # within 5 % of 14.5
    prompt, params = said[0]
    assert prompt[1]["content"] == "It ends at 7.\nAnswer: 7"
    assert "step by step" in prompt[-1]["content"][-1]["text"] and params["max_tokens"] == 512
    with pytest.raises(EvalError, match="none of 1 shows its reasoning"):
        api.run("docvqa", thinks, args={"path": str(formkit.docvqa(tmp_path)), "num_few_shot": 1, "cot": True},
                out=tmp_path / "b.jsonl")  # fmt: skip


def test_options_are_lettered_unless_they_are_letters(tmp_path: Path) -> None:
    folder = formkit.ai2d(tmp_path)
    asked: list[str] = []

    def model(prompt: Any, **_: Any) -> str:
        text = prompt[-1]["content"][-1]["text"]
        asked.append(text)
        return "B" if "hare" in text else "D" if "root" in text else "(A) a cell"

    log = run("ai2d", model, tmp_path, path=str(folder))
    assert log.report["accuracy"] == 1 and log.report["chance"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)
    assert any("A. fox\nB. hare" in text and "letter" in text for text in asked)
    assert any("Answer with one of C, A, D, B." in text for text in asked)


class Weighs:
    """A generator that says nothing of use, and finds the color it sees likeliest."""

    can_score = True

    async def generate(self, requests: Any) -> Any:
        for i, _ in enumerate(requests):
            yield Result("Hm.", finish_reason="stop", request=i)

    async def score(self, prompt: Any, continuations: Any) -> list[float]:
        red = formkit.color_of(prompt.images[-1].data) == "red"
        return [-1.0 if (text == "true") == red else -2.0 for text in continuations]


def test_options_by_their_likelihood_where_the_model_tells_it(tmp_path: Path) -> None:
    path = formkit.nlvr(tmp_path, 12)
    said = run("nlvr", Weighs(), tmp_path / "a", path=str(path))
    assert said.report["accuracy"] == 0
    weighed = run("nlvr", Weighs(), tmp_path / "b", path=str(path), by="logprob")
    assert weighed.report["accuracy"] == 1 and weighed.report["blind"] == 0.5
    scored = events(weighed, "cond_logp")
    assert len(scored) == 12 * 3 * 2
    assert sum("image_url" in json.dumps(data["prompt"]) for data in scored) == 12
    with pytest.raises(EvalError, match="by is 'luck'"):
        run("nlvr", Weighs(), tmp_path / "c", path=str(path), by="luck")


def test_mathematics_by_value_and_by_letter(tmp_path: Path) -> None:
    def model(prompt: Any, **_: Any) -> str:
        text = prompt[-1]["content"][-1]["text"]
        return "So \\boxed{0.5}" if "many" in text else "Answer: D" if "Which" in text else "It is long. Answer: B"

    log = run("math-vision", model, tmp_path, path=str(formkit.mathvision(tmp_path)))
    assert log.report["math_match"] == 1


def test_without_data_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORETELL_DATA", raising=False)
    with pytest.raises(EvalError, match=r"comes without its data\. Give its published file"):
        run("docvqa", looks, tmp_path)


@pytest.mark.parametrize("kind", ["papers", "screens", "unusual", "panels", "diagrams"])
def test_who_knows_the_world_scores_1_and_a_guess_nothing_over_blind(kind: str, tmp_path: Path) -> None:
    from foretell.evals.classes import make_eval
    from foretell.evals.registry import Registry

    args = {"count": 8, "trained": 24}
    made = make_eval(Registry(), f"world-{kind}", **args)
    known = {json.dumps(made.asked(s)[0].to_openai()): s["item"].answer for s in made.samples()}
    log = run(f"world-{kind}", lambda prompt, **_: known.get(json.dumps(prompt), "?"), tmp_path, **args)
    assert log.report["accuracy"] == 1 and log.report["blind"] == 0
    told = read_summary(summary_path(log.path))
    assert told["tasks"][0]["task"] == f"world-{kind}" and told["questions"] == 8
    assert all(task["task"].startswith(f"{kind}.") for task in told["tasks"][1:])


def test_what_is_asked_can_be_looked_for_in_training_data(tmp_path: Path) -> None:
    from foretell.evals.classes import make_eval
    from foretell.evals.items import items_of
    from foretell.evals.registry import Registry

    made = make_eval(Registry(), "ai2d", path=str(formkit.ai2d(tmp_path)))
    assert items_of(made, "options").texts["ai2d.test.0"] == "What eats the plant?\nfox\nhare\nowl\nbear"


@pytest.mark.realdata
def test_nlvr_with_its_real_pictures(real_data: Path, tmp_path: Path) -> None:
    log = api.run("nlvr", lambda prompt, **_: "true", samples=30, args={"present_only": True},
                  out=tmp_path / "log.jsonl").log  # fmt: skip
    assert log.report["without_image"] == 824 and len(log) == 30
    assert log.report["accuracy"] == log.report["blind"] == log.report["shuffled"]

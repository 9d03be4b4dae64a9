"""The templates' rules, case by case, as upstream judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evalkit import small_eval, write_registry

from foretell.errors import EvalError
from foretell.evals.basic import f1, fuzzy_match, json_equal, normalize
from foretell.evals.classes import make_eval
from foretell.evals.completion import from_callable
from foretell.evals.graded import _MATCH, choice_strings, read_choice
from foretell.evals.prompts import as_chat, as_text, escape, fill
from foretell.evals.registry import GradedSpec
from foretell.evals.runner import run_eval


def judge(folder: Path, cls: str, sample: Any, answer: Any, graded: Any = None, **args: Any) -> list[dict[str, Any]]:
    """The events of one sample, but for sampling. answer: a text, or a function of the prompt."""
    model = from_callable(answer if callable(answer) else lambda prompt, **_: answer)
    log = run_eval(small_eval(folder, cls, [sample], graded, **args), [model], folder / "log.jsonl")
    return [event["data"] for event in log.events(0) if event["type"] != "sampling"]


@pytest.mark.parametrize(
    ("ideal", "answer", "correct", "picked"),
    [
        ("Paris", "Paris, of course", True, "Paris"),
        ("Paris", " Paris", False, None),
        ("Paris", "paris", False, None),
        (["no", "nothing"], "nothing", True, "no"),
        ("", "anything", True, ""),
    ],
)
def test_match_is_a_plain_beginning(tmp_path: Path, ideal: Any, answer: str, correct: bool, picked: str) -> None:
    (event,) = judge(tmp_path, "Match", {"input": "q", "ideal": ideal}, answer)
    assert event["correct"] is correct and event["picked"] == picked and event["sampled"] == answer


def test_upstreams_first_example_runs(tmp_path: Path) -> None:
    phrases = make_eval(write_registry(tmp_path, "evals.elsuite.test.match:TestMatch", []), "x.dev.v0")
    log = run_eval(phrases, [from_callable(lambda prompt, **_: "time")], tmp_path / "log.jsonl")
    assert len(log) == 3 and log.report["accuracy"] == pytest.approx(1 / 3)


def test_worked_samples_stand_before_the_last_message(tmp_path: Path) -> None:
    def turn(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    shots = [[turn("user", f"q{i}"), turn("assistant", f"a{i}")] for i in range(3)]
    registry = write_registry(
        tmp_path,
        "Match",
        [{"input": [turn("system", "s"), turn("user", "q")], "ideal": "a"}],
        num_few_shot=2,
        few_shot_jsonl="shots.jsonl",
    )
    import json

    (tmp_path / "data/shots.jsonl").write_text("".join(json.dumps({"sample": shot}) + "\n" for shot in shots))
    seen: list[Any] = []
    run_eval(
        make_eval(registry, "x.dev.v0"),
        [from_callable(lambda prompt, **_: seen.append(prompt) or "a")],
        tmp_path / "log.jsonl",
    )
    assert seen == [[turn("system", "s"), *shots[0], *shots[1], turn("user", "q")]]
    with pytest.raises(EvalError, match="add few_shot_jsonl"):
        small_eval(tmp_path / "lacking", "Match", [{}], num_few_shot=1)


@pytest.mark.parametrize(("ignore", "correct"), [(True, True), (False, False)])
def test_includes_may_ignore_case(tmp_path: Path, ignore: bool, correct: bool) -> None:
    sample = {"input": "q", "ideal": ["rome", "Roma"]}
    (event,) = judge(tmp_path, "Includes", sample, "It is ROME.", ignore_case=ignore)
    assert event["correct"] is correct


def test_fuzzy_match_and_its_f1(tmp_path: Path) -> None:
    assert normalize("  The  Cat's, a-b! ") == "cats ab"
    assert fuzzy_match("The answer is: forty-two", "fortytwo") and fuzzy_match("cat", "the black cat")
    assert not fuzzy_match("", "a b") and fuzzy_match("!", "the")
    assert f1("the cat sat", "a cat sat down") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    match, metrics = judge(tmp_path, "FuzzyMatch", {"input": "q", "ideal": ["cat", "dog"]}, "A cat!")
    assert match == {"correct": True, "expected": ["cat", "dog"], "picked": ["A cat!"]}
    assert metrics == {"accuracy": 1.0, "f1_score": 1.0}


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ({"x": [1, {"y": "z"}]}, {"x": [1, {"y": "z"}]}, True),
        ({"x": 1}, {"x": 1, "y": 2}, False),
        ({"x": None}, {"x": None}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ({}, [], False),
        (1, 1.0, True),
        (None, None, False),
    ],
)
def test_json_is_compared_value_by_value(a: Any, b: Any, equal: bool) -> None:
    assert json_equal(a, b) is equal


def test_json_match_wants_json_in_the_samples_only(tmp_path: Path) -> None:
    match, _ = judge(tmp_path / "a", "JsonMatch", {"input": "q", "ideal": '{"a": 1}'}, "no json")
    assert match["correct"] is False
    (event,) = judge(tmp_path / "b", "JsonMatch", {"input": "q", "ideal": "{"}, "{}")
    assert "An ideal is not JSON" in event["message"]


def test_bleu_is_sacrebleus(tmp_path: Path) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    ideal, answer = "The quick brown fox jumps over the lazy dog.", "The quick brown fox jumped over a lazy dog."
    metrics, match = judge(tmp_path, "Translate", {"input": "q", "ideal": ideal}, answer)
    score = sacrebleu.sentence_bleu(answer, [ideal]).score
    assert metrics["sacrebleu_sentence_score"] == pytest.approx(score) and match["correct"] is (score > 30)


@pytest.mark.parametrize(
    "sample",
    [
        {"question": "q", "answers": ["a", "b", "c"], "label": 1},
        {"ctx": "q", "endings": ["a", "b", "c"], "label": "1"},
        {"question": "q", "choices": ["a", "b", "c"], "answer": 1},
    ],
)
def test_multiple_choice_letters_the_answers(tmp_path: Path, sample: Any) -> None:
    def knows(prompt: str, **params: Any) -> str:
        assert params["max_tokens"] == 1 and prompt.startswith("Pick.\nPlease answer with the letter")
        return next(line[0] for line in prompt.splitlines() if line.endswith(") b"))

    (event,) = judge(tmp_path, "MultipleChoice", sample, knows, instructions="Pick.")
    assert event["correct"] is True and event["expected"] in "ABC"


GRADED = {
    "prompt": "{input} | {completion}",
    "choice_strings": ["Yes", "No"],
    "choice_scores": {"Yes": 1.0, "No": 0.25},
    "input_outputs": {"input": "completion"},
}


@pytest.mark.parametrize(
    ("kind", "reply", "choice", "score"),
    [
        ("cot_classify", "No, wait.\nYes.", "Yes", 1.0),
        ("classify_cot", "No, wait.\nYes.", "No", 0.25),
        ("classify", " 'Yes' ", "Yes", 1.0),
        ("cot_classify", "Surely not.\nThe answer: No", "No", 0.25),
        ("cot_classify_jp", "はい\nYes", "Yes", 1.0),
        ("classify", "hard to say", "__invalid__", 0.25),
        ("classify", "", "__invalid__", 0.25),
    ],
)
def test_a_graders_choice_is_read_from_its_lines(
    tmp_path: Path, kind: str, reply: str, choice: str, score: float
) -> None:
    answers = iter(["my {answer}", reply])
    (metrics,) = judge(
        tmp_path,
        "Graded",
        {"input": "q {x}"},
        lambda *_, **__: next(answers),
        GRADED,
        modelgraded_spec="g",
        eval_type=kind,
    )
    assert metrics == {"choice": choice, "score": score}


def test_the_grader_reads_prompt_answer_and_how_to_reply(tmp_path: Path) -> None:
    seen: list[Any] = []

    def model(prompt: Any, **params: Any) -> str:
        seen.append((prompt, params["max_tokens"]))
        return "Yes"

    sample = {"input": [{"role": "user", "content": "Why {so}?"}]}
    judge(
        tmp_path,
        "Graded",
        sample,
        model,
        GRADED,
        modelgraded_spec="g",
        eval_type="classify",
        eval_kwargs={"max_tokens": 9},
    )
    assert seen[0] == ([{"role": "user", "content": "Why {so}?"}], 1024)
    (message,), limit = seen[1]
    assert limit == 9 and message["content"].startswith("Why {{so}}? | Yes\n\nAnswer the question by printing only")
    assert 'from "Yes" or "No" (without' in message["content"]


def test_an_answer_that_the_sample_has_is_not_asked_for_and_metaeval_judges_the_grader(tmp_path: Path) -> None:
    sample = {"input": "q", "completion": "given", "choice": "No"}
    (metrics,) = judge(
        tmp_path, "Graded", sample, "Yes", GRADED, modelgraded_spec="g", eval_type="classify", metaeval=True
    )
    assert metrics == {"choice": "Yes", "score": 1.0, "metascore": False}


def test_several_answers_are_put_together(tmp_path: Path) -> None:
    spec = GRADED | {
        "choice_strings": "from_n_abc",
        "choice_scores": None,
        "output_template": "{i_ABC}/{n}: {output}\n",
    }
    registry = write_registry(
        tmp_path,
        "Graded",
        [{"input": "q"}],
        spec,
        modelgraded_spec="g",
        eval_type="classify",
        multicomp_n="from_models",
    )
    asked: list[Any] = []
    models = [
        from_callable(lambda prompt, text=text, **_: asked.append(prompt) or text, text) for text in ("x", "y", "b")
    ]
    made = make_eval(registry, "x.dev.v0")
    log = run_eval(made, models, tmp_path / "log.jsonl")
    assert asked[-1][0]["content"].startswith("q | A/2: x\nB/2: y\n\nAnswer")
    assert log.report == {"counts/b": 1}
    with pytest.raises(EvalError, match="give two or more"):
        made._count(models[:1])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"modelgraded_spec": "none"}, "no model-graded spec none"),
        ({"eval_type": "guess"}, "eval_type is 'guess'"),
        ({"match_fn": "near"}, "match_fn is 'near'"),
        ({"eval_type": None}, "has an eval_type"),
    ],
)
def test_wrong_settings_of_a_graded_eval_are_told(tmp_path: Path, changed: Any, said: str) -> None:
    with pytest.raises(EvalError) as error:
        small_eval(tmp_path, "Graded", [{}], GRADED, **({"modelgraded_spec": "g", "eval_type": "classify"} | changed))
    assert said in str(error.value)


def test_choices_may_be_numbered_lettered_or_a_string() -> None:
    def spec(choices: Any) -> GradedSpec:
        return GradedSpec("g", "p", choices, {})

    assert choice_strings(spec("from_n"), 3) == ["1", "2", "3"]
    assert choice_strings(spec("from_n_ABC"), 2) == ["A", "B"]
    assert choice_strings(spec("ABC"), 1) == ["A", "B", "C"]
    with pytest.raises(EvalError, match="has punctuation"):
        choice_strings(spec(["A."]), 1)


@pytest.mark.parametrize(
    ("match", "line", "found"),
    [("include", "so Yes it is", True), ("exact", "Yes it", False), ("endswith", "my Yes", True)],
)
def test_the_four_ways_to_match(match: str, line: str, found: bool) -> None:
    assert (read_choice(line, ["Yes"], _MATCH[match], False) == "Yes") is found


def test_prompts_turn_into_each_other() -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "name": "example_user", "content": "Hi"},
        {"role": "system", "name": "example_assistant", "content": "Ho"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": {"url": "data:"}}],
        },
    ]
    assert as_text(chat) == "Be brief.\nUser: Hi\nAssistant: Ho\nUser: Who?\nAssistant:"
    assert as_text(chat[:1]) == "Be brief." and as_text(chat, reply=False).endswith("User: Who?\n")
    assert as_chat("text") == [{"role": "system", "content": "text"}] and as_chat(chat) is chat


def test_templates_are_filled_and_escaped() -> None:
    messages = [
        {"role": "user", "content": "{a} {{b}}"},
        {"role": "user", "content": [{"type": "text", "text": "{a}"}]},
    ]
    filled = fill(messages, {"a": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "c": 1})
    assert filled == [{"role": "user", "content": "User: x\nAssistant: y\n {b}"}, messages[1]]
    assert fill(escape("{a} {"), {}) == "{a} {"
    for template, said in (("{a} {d}", "asks for d"), ("{a", "cannot be filled")):
        with pytest.raises(EvalError, match=said):
            fill(template, {"a": 1})

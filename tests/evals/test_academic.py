"""Published benchmarks: their files are read, their prompts are built, and answers are judged by their own rules."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import EvalError
from foretell.evals.academic import Benchmark, write_converted
from foretell.evals.academic_forms import FORMS, convert
from foretell.evals.academic_ifeval import follows
from foretell.evals.academic_judges import (
    last_number,
    same_number,
)
from foretell.evals.base import Completion, Tally, Trial
from foretell.evals.classes import make_eval
from foretell.evals.completion import ModelFn
from foretell.evals.registry import EvalSpec, Registry
from foretell.measure.sandbox import obstacle

Reply = Callable[[dict[str, Any], str], str]
Score = Callable[[dict[str, Any], str, str], float]
COUNTS = {
    "gsm8k": 1319, "mgsm": 2750, "mmlu": 14042, "arc-challenge": 1172, "arc-easy": 2376, "hellaswag": 10042,
    "winogrande": 1267, "lambada": 5153, "truthfulqa": 817, "bbh": 6511, "ifeval": 541, "humaneval": 164,
}  # fmt: skip


def text_of(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else prompt[0]["content"]


def judged(
    eval: Benchmark, samples: Sequence[dict[str, Any]], reply: Reply | None = None, score: Score | None = None
) -> tuple[dict[str, Any], list[list[tuple[str, dict[str, Any]]]]]:
    """The report and the events of a model that is told the sample it is asked."""
    tally, events = Tally(eval.kept), []

    async def one(sample: dict[str, Any]) -> None:
        async def ask(prompt: Any, params: Any) -> Completion:
            return Completion((reply(sample, text_of(prompt)),), prompt)

        async def scores(prompt: Any, continuations: Sequence[str]) -> list[float]:
            return [score(sample, text_of(prompt), c) for c in continuations]

        trial = Trial("x", [ModelFn("fake", ask, score=scores if score else None)], random.Random(0))
        await eval.eval_sample(sample, trial)
        tally.add(trial.events)
        events.append(trial.events)

    async def everything() -> None:
        await asyncio.gather(*map(one, samples))

    asyncio.run(everything())
    return eval.report(tally), events


@cache
def loaded(name: str) -> tuple[Benchmark, list[dict[str, Any]]]:
    eval = benchmark(name)
    return eval, list(eval.samples())


def benchmark(name: str, **changed: Any) -> Benchmark:
    made = make_eval(Registry(), name, **changed)
    assert isinstance(made, Benchmark)
    return made


def some(name: str, count: int = 200) -> tuple[Benchmark, list[dict[str, Any]]]:
    eval, samples = loaded(name)
    return eval, random.Random(0).sample(samples, min(count, len(samples)))


def right(sample: dict[str, Any], prompt: str) -> str:
    """What a model would say that knows."""
    if "choices" in sample:
        options = re.findall(r"^([A-Z])\. (.*)", prompt.rpartition("\n\n")[2], re.MULTILINE)
        return next(
            f" {letter}" for letter, text in options if text == sample["options"][sample["gold"]].split("\n")[0]
        )
    if "canonical_solution" in sample:
        return sample["canonical_solution"]
    if prompt.rstrip().endswith("step by step."):
        return f"Because of this and that. So the answer is {sample['ideal'][0]}."
    return sample.get("answer", sample["ideal"][0])


def wrong(sample: dict[str, Any], prompt: str) -> str:
    if "choices" in sample:
        letter = right(sample, prompt).strip()
        return "B" if letter == "A" else "A"
    return "    return None\n" if "canonical_solution" in sample else "So the answer is 987654321."


def score_right(sample: dict[str, Any], prompt: str, continuation: str) -> float:
    gold = sample["gold"]
    if "contexts" in sample:
        return -1.0 if prompt.endswith(sample["contexts"][gold]) else -2.0
    if continuation.strip() in tuple("ABCD") and prompt.endswith("Answer:"):
        return -1.0 if ord(continuation[1]) - ord("A") == gold else -2.0
    # A character's worth, so that a long right answer is still likelier than a short wrong one.
    right = continuation[1:] in (sample["options"][gold], *sample.get("true", ()))
    return -0.001 * len(continuation) if right else -50.0 * len(continuation)


@pytest.mark.realdata
@pytest.mark.parametrize("name", COUNTS)
def test_reads_every_row(name: str) -> None:
    samples = loaded(name)[1]
    assert len(samples) == COUNTS[name]
    assert all(sample["query"] for sample in samples)


@pytest.mark.realdata
@pytest.mark.parametrize("name", [name for name in COUNTS if name not in ("ifeval", "humaneval")])
def test_who_knows_scores_1_and_who_does_not_0(name: str) -> None:
    eval, samples = some(name)
    assert judged(eval, samples, right)[0]["accuracy"] == 1
    report, events = judged(eval, samples, wrong)
    assert report["accuracy"] == 0
    matches = [data for event in events for type, data in event if type == "match"]
    assert [data["group"] for data in matches] == [sample.get("group") for sample in samples]


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mmlu", "arc-challenge", "hellaswag", "winogrande", "truthfulqa"])
def test_likelihoods_choose(name: str) -> None:
    eval, samples = some(name)
    report, _ = judged(eval, samples, score=score_right)
    assert report["accuracy"] == 1
    assert report.get("mc2", 1) == pytest.approx(1)
    report, _ = judged(eval, samples, score=lambda *asked: -score_right(*asked))
    assert report["accuracy"] == 0


@pytest.mark.realdata
def test_humaneval_canonical_solutions_pass() -> None:
    if obstacle("bubblewrap") is not None:
        pytest.skip("no sandbox")
    eval, samples = loaded("humaneval")
    report, events = judged(eval, samples, right)
    failed = [event[-1][1].get("detail") for event in events if not event[-1][1]["correct"]]
    assert report["accuracy"] == 1, failed
    chat = lambda sample, prompt: f"Here it is:\n```python\n{sample['prompt']}{sample['canonical_solution']}```\nDone."  # noqa: E731
    assert judged(eval, samples[::8], chat)[0]["accuracy"] == 1
    assert judged(eval, samples[::8], wrong)[0]["accuracy"] <= 0.1


@pytest.mark.realdata
def test_prompts_have_their_worked_samples() -> None:
    for name, count, mark in (
        ("gsm8k", 5, "Question: "),
        ("mmlu", 5, "\nAnswer:"),
        ("arc-challenge", 25, "Question: "),
        ("bbh", 3, "\nA: Let's think step by step."),
        ("truthfulqa", 6, "\nA:"),
    ):
        eval, samples = some(name, 40)
        for sample in samples:
            prompt = eval.prompt(sample, eval.lettered)
            assert prompt.count(mark) == count + 1, name
            assert prompt.endswith(sample["query"] if not eval.lettered else "\nAnswer:")
            assert prompt.count(sample["query"]) == (0 if eval.lettered else 1)
    gsm8k, samples = loaded("gsm8k")
    for sample in samples:  # those that serve as worked samples are not shown to themselves
        assert gsm8k.prompt(sample).count(sample["query"]) == 1
        assert gsm8k.prompt(sample).count("\n#### ") == 5
    mmlu, samples = loaded("mmlu")
    virology = next(sample for sample in samples if sample["part"] == "virology")
    assert mmlu.prompt(virology, True).startswith(
        "The following are multiple choice questions (with answers) about virology"
    )
    winogrande, samples = loaded("winogrande")
    for sample in samples:
        assert winogrande.prompt(sample).count("\n\n") == 5
        assert not any(c in winogrande.prompt(sample) for c in sample["contexts"] if len(c) > 20)


@pytest.mark.realdata
def test_gsm8k_numbers_as_the_harness_reads_them() -> None:
    # lm-eval's flexible-extract: the last match, without currency signs, commas and a final full stop
    pattern = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
    seen = 0
    for sample in loaded("gsm8k")[1]:
        reply = sample["answer"].rpartition("####")[0]
        theirs = re.sub(r"[,$]|\.$", "", next(filter(None, pattern.findall(reply)[-1])))
        assert same_number(sample["answer"], sample["ideal"][0])
        if re.fullmatch(r"-?\d+(\.\d+)?", theirs):
            seen += 1
            assert str(float(theirs)) == str(float(last_number(reply))), reply
    assert seen > 1200


QUESTION = {
    "question": "How many more points did the Bears score?",
    "answer": {"number": "7", "date": {"day": "", "month": "", "year": ""}, "spans": []},
}
PUBLISHED = {
    "drop": {"p1": {"passage": "The Bears scored 17 points, the Lions 10, in 1994.", "qa_pairs": [
        QUESTION | {"validated_answers": [
            {"number": "", "date": {"day": "", "month": "", "year": "1994"}, "spans": []},
            {"number": "", "date": {}, "spans": ["seven", "points"]},
        ]},
    ]}},
    "coqa": {"version": "1.0", "data": [{
        "id": "x", "story": "A cat sat.",
        "questions": [{"input_text": "Who sat?", "turn_id": 1}, {"input_text": "What did it do?", "turn_id": 2}],
        "answers": [{"input_text": "a cat", "turn_id": 1}, {"input_text": "sat", "turn_id": 2}],
        "additional_answers": {"0": [{"input_text": "the cat"}, {"input_text": "Sat"}]},
    }]},
}  # fmt: skip


def test_drop_and_coqa_as_published(tmp_path: Path) -> None:
    for name, raw in PUBLISHED.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(raw))
    drop = benchmark("drop", path=str(tmp_path / "drop.json"), shots="")
    (sample,) = drop.samples()
    assert sample["ideal"] == [["7"], ["1994"], ["seven", "points"]]
    for reply, f1 in (("7", 1.0), ("7\nQuestion: no", 1.0), ("points; seven", 1.0), ("points", 0.5), ("8", 0.0)):
        report, _ = judged(drop, [sample], lambda s, p, reply=reply: reply)
        assert report["f1"] == f1 and "accuracy" not in report
    coqa = benchmark("coqa", path=str(tmp_path / "coqa.json"))
    first, second = coqa.samples()
    assert coqa.prompt(second) == "A cat sat.\n\nQ: Who sat?\n\nA: a cat\n\nQ: What did it do?\n\nA:"
    assert first["ideal"] == ["a cat", "the cat"] and second["ideal"] == ["sat"]
    assert first["group"] == second["group"]
    report, _ = judged(coqa, [first, second], right)
    assert report == {"f1": 1, "em": 1}
    assert judged(coqa, [first, second], wrong)[0] == {"f1": 0, "em": 0}


def test_mgsm_takes_worked_samples_of_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(place: str) -> list[dict[str, Any]]:
        asked.append(place)
        if "train" in place:
            return [{"question": f"{place} {i}", "answer": f"Weil. {i}", "answer_number": i} for i in range(9)]
        return [{"question": "Wie viele?", "answer": None, "answer_number": 6}]

    monkeypatch.setattr("foretell.evals.academic.read_samples", hub)
    monkeypatch.delenv("FORETELL_DATA", raising=False)
    eval = benchmark("mgsm", names=["de", "fr"])
    first, second = eval.samples()
    assert asked == [f"hf://juletxara/mgsm?name={n}&split={s}" for s in ("test", "train") for n in ("de", "fr")]
    assert (first["part"], second["part"]) == ("de", "fr")
    for sample, own, other in ((first, "name=de", "name=fr"), (second, "name=fr", "name=de")):
        assert eval.prompt(sample).count(own) == 8 and other not in eval.prompt(sample)
    assert "Weil. 7\n\nFrage: Wie viele?" in eval.prompt(first)
    assert first["group"] == second["group"]


@pytest.mark.realdata
def test_ifeval_report() -> None:
    eval, samples = loaded("ifeval")
    samples = [s for s in samples if {name for name, _ in s["rules"]} == {"punctuation:no_comma"}][:4]
    both = {"query": "x", "ideal": [], "rules": [["punctuation:no_comma", {}], ["startend:quotation", {}]]}
    replies = iter(["None.", "One, two.", "Sure,\nnone.", "None.", "No quotes."])
    report, _ = judged(eval, [*samples, both], lambda s, p: next(replies))
    assert report == {
        "accuracy": 2 / 5,
        "prompt_loose": 3 / 5,
        "instruction_strict": 3 / 6,
        "instruction_loose": 4 / 6,
    }


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["gsm8k", "winogrande", "truthfulqa", "mmlu", "lambada"])
def test_converted_benchmarks_run_as_registries(name: str, tmp_path: Path) -> None:
    eval = benchmark(name)
    if name == "mmlu":
        eval = benchmark(name, files="HaeChan0305_MLILAB-FedLLM/data/mmlu/test/virology_test.csv")
    data, spec = write_converted(eval, tmp_path)
    assert (data.parts[-3:], spec.parts[-2:]) == (("data", name, "samples.jsonl"), ("evals", f"{name}.yaml"))
    other = make_eval(Registry([tmp_path]), name)
    assert isinstance(other, Benchmark)
    pairs = list(zip(eval.samples(), other.samples(), strict=True))[:50]
    seen: list[list[tuple[str, float]]] = [[], []]
    for side, made in enumerate((eval, other)):

        def scored(sample: Any, prompt: str, continuation: str, side: int = side) -> float:
            seen[side].append((prompt, continuation))
            return score_right(sample, prompt, continuation) if "gold" in sample else -1.0

        report, _ = judged(made, [pair[side] for pair in pairs], right, scored)
        assert report["accuracy"] == 1
    assert seen[0] == seen[1]
    if name in ("gsm8k", "lambada"):
        assert [eval.prompt(mine) for mine, _ in pairs] == [theirs["input"][0]["content"] for _, theirs in pairs]


def test_reports() -> None:
    spec = EvalSpec("x", "", {}, Path())
    lambada = Benchmark(spec, Registry(), form="lambada")
    sample = {"query": "He said", "ideal": ["no"]}
    report, _ = judged(lambada, [sample, sample], lambda s, p: " no", lambda s, p, c: -math.log(4))
    assert report["perplexity"] == pytest.approx(4) and report["accuracy"] == 1
    parts = Benchmark(spec, Registry(), form="gsm8k", macro=True)
    samples = [{"query": "?", "ideal": [str(i)], "part": p} for i, p in enumerate("aaab")]
    report, _ = judged(parts, samples, lambda s, p: "3")
    assert report == {"accuracy": 1 / 4, "macro_accuracy": 1 / 2}


def test_the_best_answer_is_not_always_a() -> None:
    eval = Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form="truthfulqa")
    rows = [{"Question": "?", "Category": "c", "Best Answer": "t", "Correct Answers": "t", "Incorrect Answers": false}
            for false in ("u", "u; v", "u; v; w", "u; v; w; x")]  # fmt: skip
    samples = convert(FORMS["truthfulqa"], rows)
    assert judged(eval, samples, lambda s, p: "A")[0]["accuracy"] < 1
    assert judged(eval, samples, right)[0]["accuracy"] == 1


def test_only_mgsm_groups_digits_by_full_stops() -> None:
    for form, accuracy in (("gsm8k", 0), ("mgsm", 1)):
        eval = Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form=form)
        assert judged(eval, [{"query": "?", "ideal": ["70000"]}], lambda s, p: "70.000")[0]["accuracy"] == accuracy


def test_normalised_choice_differs_from_plain() -> None:
    eval = Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form="arc", normalized=True)
    sample = {"query": "Q", "ask": "Q", "choices": ["abcdefgh", "x"], "options": ["abcdefgh", "x"], "gold": 0}
    report, _ = judged(eval, [sample], score=lambda s, p, c: {" abcdefgh": -8.0, " x": -2.0}[c])
    assert report == {"accuracy": 1, "acc": 0, "acc_norm": 1}


def test_a_chat_model_is_asked_and_a_base_model_continues() -> None:
    prompts = []

    async def ask(prompt: Any, params: Any) -> Completion:
        prompts.append(prompt)
        return Completion(("no",), prompt)

    async def score(prompt: Any, continuations: Sequence[str]) -> list[float]:
        return [0.0 for _ in continuations]

    sample = {"query": "He said", "ideal": ["no"]}
    for scores, chat in ((None, None), (score, None), (None, False), (score, True)):
        eval = Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form="lambada", chat=chat)
        trial = Trial("x", [ModelFn("m", ask, score=scores)], random.Random(0))
        asyncio.run(eval.eval_sample(sample, trial))
    assert [isinstance(prompt, str) for prompt in prompts] == [False, True, True, False]
    assert prompts[0][0]["content"].endswith("He said") and prompts[1] == "He said"


def test_replies_are_cut_where_they_ask_on() -> None:
    eval = Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form="gsm8k", stop=["Question:"])
    reply = "It is 4.\n\nQuestion: What is 5 + 6?\nAnswer: 11"
    assert judged(eval, [{"query": "?", "ideal": ["4"]}], lambda s, p: reply)[0]["accuracy"] == 1


def test_what_is_missing_or_of_another_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORETELL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EvalError, match=r"comes without its data.*foretell\[hub\].*path=FILE"):
        benchmark("gsm8k").samples()
    with pytest.raises(EvalError, match="Set FORETELL_DATA"):
        benchmark("bbh", hub="").samples()
    with monkeypatch.context() as hub, pytest.raises(EvalError, match=r"no worked samples of navigate.*cot-prompts"):
        hub.setattr("foretell.evals.academic.read_samples", lambda place: [{"input": "Turn.", "target": "Yes"}])
        benchmark("bbh", names=["navigate"]).samples()
    with pytest.raises(EvalError, match="no file"):
        benchmark("lambada", path=str(tmp_path / "none.jsonl")).samples()
    for content, words in (
        ('{"text": 1}\n', "not in a known form of gsm8k: a row lacks .*have text"),
        ("{", "line 1 is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
    ):
        (tmp_path / "rows.jsonl").write_text(content)
        with pytest.raises(EvalError, match=words):
            benchmark("gsm8k", path=str(tmp_path / "rows.jsonl")).samples()
    (tmp_path / "rows.csv").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(EvalError, match="LFS pointer"):
        benchmark("mmlu", path=str(tmp_path / "rows.csv"), shots="").samples()
    (tmp_path / "drop.json").write_text("{")
    with pytest.raises(EvalError, match="cannot be read"):
        benchmark("drop", path=str(tmp_path / "drop.json")).samples()
    (tmp_path / "drop.json").write_text(json.dumps(PUBLISHED["drop"]))
    with pytest.raises(EvalError, match="Give `shots`"):
        benchmark("drop", path=str(tmp_path / "drop.json")).samples()
    with pytest.raises(EvalError, match="no benchmark 'chess'"):
        Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form="chess")
    with pytest.raises(EvalError, match="no instruction 'x'"):
        follows([["x", {}]], "a")


def test_mmlu_as_first_published(tmp_path: Path) -> None:
    (tmp_path / "virology_test.csv").write_text('What?,a,b,"c, d",e,C\nWhy?,a,b,c,d,A\n')
    first, second = benchmark("mmlu", path=str(tmp_path / "*.csv"), shots="").samples()
    assert (first["gold"], second["gold"]) == (2, 0)
    assert (first["options"][2], first["part"]) == ("c, d", "virology")


def test_truthfulqa_by_hand() -> None:
    """MC1 by its own rivals, MC2 as the share of the true answers, and a chat's answers begin without a space."""
    sample = {"query": "Q: ?\nA:", "ask": "?", "options": ["t", "f"], "choices": ["t", "f"], "gold": 0,
              "true": ["t", "u"], "false": ["f", "g"], "rivals": ["f"]}  # fmt: skip
    mass = {"t": 0.3, "u": 0.1, "f": 0.2, "g": 0.4}
    for args, space in (({}, " "), ({"chat": True}, "")):
        eval = Benchmark(EvalSpec("x", "", {}, Path()), Registry(), form="truthfulqa", **args)
        seen: list[str] = []

        def score(s: dict[str, Any], prompt: str, text: str, seen: list[str] = seen) -> float:
            seen.append(text)
            return math.log(mass[text.strip()])

        report, _ = judged(eval, [sample], score=score)
        assert report["accuracy"] == 1 and report["mc2"] == pytest.approx((0.3 + 0.1) / (0.3 + 0.1 + 0.2 + 0.4))
        assert seen == [f"{space}{text}" for text in ("t", "f", "u", "g")]
    del sample["rivals"]  # MC1 against all that is false: g is likelier
    report, _ = judged(eval, [sample], score=score)
    assert report["accuracy"] == 0


def test_truthfulqa_tells_both_figures_with_intervals() -> None:
    eval = Benchmark(EvalSpec("truthfulqa.mc.v0", "", {}, Path()), Registry(), form="truthfulqa")
    tally = Tally(eval.kept)
    for i in range(30):
        tally.add([
            ("match", {"correct": i % 3 == 0, "part": None, "group": f"c{i % 10}"}), ("metrics", {"mc2": 0.3 + i / 100})
        ])  # fmt: skip
    told = eval.details(tally)["summary"]
    assert told["part"] == "factuality" and told["title"] == "TruthfulQA, truthfulqa"
    one, two = told["rows"]
    assert one["estimate"] == pytest.approx(1 / 3) and one["low"] < 1 / 3 < one["high"] and one["n"] == 30
    assert two["estimate"] == pytest.approx(0.445) and two["low"] < 0.445 < two["high"]
    assert eval.details(Tally(eval.kept)) == {} and benchmark("mmlu").details(tally) == {}


def test_truthfulqa_arms_differ_in_what_stands_before_the_question() -> None:
    rows = [{"query": f"Q: {i}?\nA:", "ask": f"{i}?", "options": [f"a{i}", "f"], "choices": [f"a{i}", "f"], "gold": 0,
             "true": [f"a{i}"], "false": ["f"], "rivals": ["f"]} for i in range(8)]  # fmt: skip
    five = benchmark("truthfulqa-5shot")
    five._gather(rows, drawn=True)
    told = five.prompt(rows[0])
    assert told.endswith("\n\nQ: 0?\nA:") and told.count("Q: ") == 6 and "Q: 0?\nA: a0" not in told
    assert benchmark("truthfulqa-chat").prompt(rows[0]) == "Q: 0?\nA:"
    assert benchmark("truthfulqa").prompt(rows[0]).count("Q: ") == 7

"""Asking in many languages: the report's prompt, the likeliest letter, intervals, what a card reads, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from languagekit import global_rows, question, write_csv

import clikit
from foretell.errors import EvalError, GenerationError
from foretell.evals.base import Trial
from foretell.evals.exams import api as exams
from foretell.evals.languages import api
from foretell.evals.languages.asking import letter_of, prompt_of, shots_for
from foretell.evals.languages.page import figure_of, languages_page, rows_of
from foretell.evals.languages.published import BASELINES, GPT_4
from foretell.evals.languages.questions import QuestionSet
from foretell.evals.languages.scoring import score_languages, summary_of
from foretell.evals.languages.worldly import world_questions
from foretell.evals.prompts import Prompt
from foretell.measure.stats import mcnemar, paired_difference, wilson
from mock_endpoint import Call, Reply, chat_body, serve_in_thread


class Scorer:
    """Continues text, and tells log-probabilities by a function of the prompt: the letter that it likes best."""

    can_score, name = True, "scorer"

    def __init__(self, likes: Any) -> None:
        self.likes, self.scored = likes, list[tuple[Prompt, list[str]]]()

    async def __call__(self, prompt: Prompt, trial: Trial, **params: Any) -> str:
        raise AssertionError("letters are to be scored")

    async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
        self.scored.append((prompt, list(continuations)))
        trial.record("cond_logp", {"prompt": prompt})
        return [-1.0 if text.strip() == self.likes(prompt) else -2.0 for text in continuations]


def plain_set(right: int, languages: Sequence[str] = ("en", "de"), count: int = 8) -> QuestionSet:
    """Questions whose gold is B, but for those from `right` on in other languages than English, where it is C."""
    asked = [
        question(i, code, 1 if code == "en" or i < right else 2, place=f"x.csv, line {i}")
        for code in languages
        for i in range(count)
    ]
    worked = {code: [question(100 + i, code, i) for i in range(4)] for code in languages}
    return QuestionSet("some", tuple(asked), worked)


def test_the_prompt_is_the_reports() -> None:
    """Instruction and question translated, "Answer:" and letters English, three worked questions (appendix F)."""
    asked = question(1, "cy", instruction="Mae model yn ateb cwestiynau.")
    text = prompt_of(asked, [question(7, "cy", 0), question(8, "cy", 3)])
    assert text == (
        "Mae model yn ateb cwestiynau.\n\n"
        "cy question 7?\nA) cy 7 a\nB) cy 7 b\nC) cy 7 c\nD) cy 7 d\nAnswer: A\n\n"
        "cy question 8?\nA) cy 8 a\nB) cy 8 b\nC) cy 8 c\nD) cy 8 d\nAnswer: D\n\n"
        "cy question 1?\nA) cy 1 a\nB) cy 1 b\nC) cy 1 c\nD) cy 1 d\nAnswer:"
    )


def test_the_instruction_is_in_the_questions_language_where_that_is_known() -> None:
    english = "A highly knowledgeable and intelligent artificial intelligence model answers multiple-choice questions"
    assert prompt_of(question(subject="machine_learning"), []).startswith(f"{english} about machine learning.\n\n")
    assert prompt_of(question(language="te", subject=""), []).startswith(f"{english}.\n\n")
    assert prompt_of(question(language="de"), []).startswith("Ein sehr kenntnisreiches und intelligentes Modell")


def test_worked_questions_are_of_the_subject_first() -> None:
    worked = [question(i, subject="law" if i % 2 else "astronomy") for i in range(10, 18)]
    assert [q.id[-2:] for q in shots_for(question(), worked, 3)] == ["10", "12", "14"]
    assert [q.id[-2:] for q in shots_for(question(subject="law"), worked, 6)] == ["11", "13", "15", "17", "10", "12"]
    assert worked[0] not in shots_for(worked[0], worked, 4)  # never itself


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B", "B"), (" C)", "C"), ("The answer is D.", "D"), ("答案是Ｂ。", "B"), ("Ответ: C", "C"),
     ("正确答案是 A", "A"), ("คำตอบคือB", "B"), ("", None), ("Não sei.", None), ("E", None), ("回答 A 或 B", None),
     ("Die Antwort ist D", "D"),
     ("It must be A.", "A"), ("B, since A is wrong", "B")],
)  # fmt: skip
def test_letters_are_read_from_replies_in_any_script(reply: str, letter: str | None) -> None:
    assert letter_of(reply) == letter


def test_the_likeliest_letter_counts(tmp_path: Path) -> None:
    """argmax over " A" to " D" behind "Answer:", by language; English all right, German five of eight."""
    model = Scorer(lambda prompt: "B")
    score = api.run(plain_set(5), model, out=tmp_path / "l.jsonl")
    prompt, continuations = model.scored[0]
    assert isinstance(prompt, str) and prompt.endswith("\nAnswer:") and prompt.count("Answer:") == 4
    assert continuations == [" A", " B", " C", " D"] and score.how == "score"
    best, other = score.languages
    assert (best.language, best.accuracy.estimate, other.language, other.accuracy.estimate) == ("en", 1.0, "de", 5 / 8)
    interval = wilson(5, 8)
    assert (other.accuracy.low, other.accuracy.high) == pytest.approx((interval.low, interval.high))
    a, b = [1.0] * 5 + [0.0] * 3, [1.0] * 8
    assert other.against is not None and other.against.difference == paired_difference(a, b)
    assert other.against.p == mcnemar(a, b) and best.against is None
    assert score.mean.estimate == pytest.approx((1 + 5 / 8) / 2)


def test_a_model_that_cannot_score_is_asked_for_the_letter(tmp_path: Path) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    def model(prompt: Any, **params: Any) -> str:
        asked.append((prompt, params))
        return "Antwort: B" if "de question" in prompt[0]["content"] else "hm"

    score = api.run(plain_set(8), model, out=tmp_path / "l.jsonl", concurrency=1)
    (prompt, params), *_ = asked
    assert prompt[0]["role"] == "user"
    assert prompt[0]["content"].endswith("\nAnswer:\n\nWrite the letter of the answer, and nothing else.")
    assert params["temperature"] == 0.0 and score.how == "sample"
    german, english = score.languages
    assert (german.accuracy.estimate, german.silent) == (1.0, 0)
    assert (english.accuracy.estimate, english.silent) == (0.0, 8)


def test_an_endpoint_may_be_asked_to_sample_though_it_scores(tmp_path: Path) -> None:
    class Both(Scorer):
        async def __call__(self, prompt: Prompt, trial: Trial, **params: Any) -> str:
            asked.append(prompt)
            return " B"

    asked: list[Prompt] = []
    model = Both(lambda prompt: "A")
    score = api.run(plain_set(8), model, letter="sample", out=tmp_path / "l.jsonl")
    assert all(isinstance(prompt, list) for prompt in asked)
    api.run(plain_set(8), model, letter="sample", chat=False, out=tmp_path / "t.jsonl")
    assert isinstance(asked[-1], str) and asked[-1].endswith("\nAnswer:")
    assert not model.scored and score.languages[0].accuracy.estimate == 1.0
    with pytest.raises(EvalError, match="letter is 'guess'"):
        api.run(plain_set(8), model, letter="guess", out=tmp_path / "m.jsonl")


@pytest.mark.parametrize("scores", [True, False])
def test_an_endpoint_scores_or_else_samples(tmp_path: Path, scores: bool) -> None:
    """Through Generator.score where /completions echo with log-probabilities; else by chat."""
    pytest.importorskip("aiohttp")

    def answer(call: Call) -> Reply:
        if call.path.endswith("/models"):
            return Reply({"object": "list", "data": [{"id": "m", "object": "model"}]})
        if call.path.endswith("/chat/completions"):
            return Reply(chat_body("C"))
        if not scores:
            return Reply({"error": {"message": "There is no such path"}}, status=404)
        choices = []
        for i, text in enumerate(call.json["prompt"]):
            start, letter = text[:-2], text[-2:]
            told = {"tokens": [start, letter, "x"], "token_logprobs": [None, -0.5 if letter == " B" else -3.0, -1.0],
                    "text_offset": [0, len(start), len(text)], "top_logprobs": None}  # fmt: skip
            choices.append({"index": i, "text": text + "x", "finish_reason": "length", "logprobs": told})
        return Reply({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices})

    with serve_in_thread(answer) as endpoint:
        score = api.run(plain_set(8), f"{endpoint.url}#m", out=tmp_path / "l.jsonl", concurrency=4)
        chats = sum(call.path.endswith("/chat/completions") for call in endpoint.calls)
    assert (score.how, chats) == (("score", 0) if scores else ("sample", 16))
    assert score.languages[0].accuracy.estimate == (1.0 if scores else 0.0)


def test_subjects_cluster_and_languages_count_alike(tmp_path: Path) -> None:
    """Questions of a subject do not count as independent; a language with few questions counts as one with many."""
    asked = [question(i, "en", 1 if i < 20 else 0, subject=f"s{i // 10}", group=f"s{i // 10}") for i in range(40)]
    asked += [question(i, "sw", 1, subject="s0", group="s0") for i in range(4)]
    score = api.run(QuestionSet("x", tuple(asked), {}), Scorer(lambda p: "B"), shots=0, out=tmp_path / "l.jsonl")
    swahili, english = score.languages
    assert english.accuracy.estimate == 0.5 and english.method == "clustered wilson"
    assert english.accuracy.low < wilson(20, 40).low
    assert [(name, n, i.estimate) for name, n, i in english.by_subject] == [
        ("s0", 10, 1.0), ("s1", 10, 1.0), ("s2", 10, 0.0), ("s3", 10, 0.0),
    ]  # fmt: skip
    assert score.mean.estimate == pytest.approx(0.75) and swahili.n == 4
    assert 0 <= score.mean.low <= 0.75 <= score.mean.high <= 1


def test_questions_that_could_not_be_put_are_told_and_not_counted(tmp_path: Path) -> None:
    class Short(Scorer):
        async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
            if "de question 3?" in prompt:
                raise_ = GenerationError("The prompt has 5000 tokens; the model reads 2048.")
                return await trial.call({"model": "short", "params": {}}, lambda: _fail(raise_))
            return await super().score(prompt, continuations, trial)

    async def _fail(error: Exception) -> Any:
        raise error

    score = api.run(plain_set(8), Short(lambda p: "B"), out=tmp_path / "l.jsonl")
    german = next(one for one in score.languages if one.language == "de")
    assert (german.n, german.invalid, german.accuracy.estimate) == (7, 1, 1.0)
    assert german.against is not None and german.against.n == 7


class Limited(Scorer):
    """Reads no prompt that ends in one of some questions. Each has another length, as messages of real ones say."""

    def __init__(self, likes: Any, unread: Sequence[str], message: str = "The prompt has {} tokens; 9 fit.") -> None:
        super().__init__(likes)
        self.unread, self.message = unread, message

    async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
        for number, text in enumerate(self.unread):
            if f"{text}?" in str(prompt):
                odd = number == 0  # the first has a reason of its own
                error = GenerationError("It holds a picture." if odd else self.message.format(100 + number))

                async def fail(error: Exception = error) -> Any:
                    raise error

                return await trial.call({"model": "limited", "params": {}}, fail)
        return await super().score(prompt, continuations, trial)


def test_the_mean_is_of_what_could_be_put(tmp_path: Path) -> None:
    """2 of 6 right in one language and 1 of 3 in another are 1/3 each, and so is their mean, whatever was not put;
    a language of which nothing was put is none of them."""
    asked = [question(i, code, 1 if i < right else 2) for code, right in (("en", 2), ("de", 1)) for i in range(9)]
    asked += [question(i, "sw", 1) for i in range(9)]
    unread = [f"en question {i}" for i in range(6, 9)] + [f"de question {i}" for i in range(3, 9)]
    unread += [f"sw question {i}" for i in range(9)]
    model = Limited(lambda p: "B", unread)
    score = api.run(QuestionSet("x", tuple(asked), {}), model, shots=0, out=tmp_path / "l.jsonl")
    assert {one.language: (one.n, one.invalid, one.accuracy.estimate) for one in score.languages} == {
        "en": (6, 3, pytest.approx(1 / 3)), "de": (3, 6, pytest.approx(1 / 3)),
    }  # fmt: skip
    assert score.mean.estimate == pytest.approx(1 / 3)
    assert 0 <= score.mean.low < 1 / 3 < score.mean.high <= 1
    assert score_languages(score.log).mean == score.mean
    # With as many of each it is the plain share of all that was put, with its interval.
    even = api.run(
        QuestionSet("y", tuple(question(i, "en", 1 if i < 2 else 2) for i in range(9)), {}),
        Limited(lambda p: "B", [f"en question {i}" for i in range(6, 9)]), shots=0, out=tmp_path / "e.jsonl",
    )  # fmt: skip
    assert even.mean == even.languages[0].accuracy


def test_the_commonest_reason_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages that differ in a number are one reason; a language of which nothing was put is counted, too."""
    model = Limited(lambda p: "B", [f"de question {i}" for i in range(8)])
    score = api.run(plain_set(8), model, out=tmp_path / "l.jsonl", concurrency=1)
    assert re.fullmatch(r"The prompt has 10[1-7] tokens; 9 fit\.", score.reason), score.reason
    code, out, _ = clikit.invoke(capsys, "exam", "languages", "report", score.log)
    said = f"8 questions could not be put, and are not counted. The commonest reason: {score.reason}"
    assert code == 0 and said in " ".join(out.split())
    whole = api.run(plain_set(8), Scorer(lambda p: "B"), out=tmp_path / "m.jsonl")
    assert whole.reason == ""


def test_accuracy_without_translations_in_doubt_stands_beside(tmp_path: Path) -> None:
    asked = [question(i, "sw", 1 if i < 6 else 2, flags=("numbers",) if i >= 6 else ()) for i in range(8)]
    score = api.run(QuestionSet("x", tuple(asked), {}), Scorer(lambda p: "B"), shots=0, out=tmp_path / "l.jsonl")
    swahili = score.languages[0]
    assert swahili.flagged == 2 and swahili.accuracy.estimate == 0.75
    assert swahili.unflagged is not None and swahili.unflagged.estimate == 1.0
    assert "Translations in doubt" in languages_page(score)


def test_the_summary_tells_run_samples_and_every_number(tmp_path: Path) -> None:
    score = api.run(plain_set(5), Scorer(lambda p: "B"), out=tmp_path / "l.jsonl")
    told = json.loads((tmp_path / "l.summary.json").read_text())
    first = json.loads((tmp_path / "l.jsonl").read_text().splitlines()[0])
    assert told == json.loads(json.dumps(summary_of(score))) and told["kind"] == "languages"
    assert told["run"] == first["spec"]["run_id"] and (tmp_path / told["samples"]).is_file()
    german = next(one for one in told["languages"] if one["language"] == "de")
    assert german["accuracy"] == 5 / 8 and german["low"] < german["accuracy"] < german["high"] and german["n"] == 8
    assert german["against_english"]["estimate"] == pytest.approx(-3 / 8) and german["gpt4_published"] == GPT_4["de"]
    assert told["published"]["comparable"] and told["published"]["baselines"]["GPT-3.5, English"] == 0.701
    assert told["digest"] == plain_set(5).digest and told["shots"] == 3 and told["letter"] == "score"
    again = score_languages(tmp_path / "l.jsonl")
    assert summary_of(again) == summary_of(score)


def test_published_figures_stand_beside_mmlu_alone(tmp_path: Path) -> None:
    mmlu = api.run(plain_set(5), Scorer(lambda p: "B"), out=tmp_path / "l.jsonl")
    rows = rows_of(mmlu)
    assert [(row.label, row.value) for row in rows if row.published] == list(BASELINES)
    assert {row.label: row.mark for row in rows if not row.published} == {"English": 0.855, "German": 0.837}
    world = api.run("world", Scorer(lambda p: "B"), languages=["German", "ja"], samples=4, out=tmp_path / "w.jsonl")
    rows = rows_of(world)
    assert [row.label for row in rows if row.published] == ["Random guessing"] and not any(row.mark for row in rows)
    page = languages_page(world)
    assert "other questions than these, so that the two do not compare" in page
    assert "no results of this project" in languages_page(mmlu)


def test_the_figure_has_a_bar_a_language_as_long_as_its_accuracy(tmp_path: Path) -> None:
    score = api.run(plain_set(4), Scorer(lambda p: "B"), out=tmp_path / "l.jsonl")
    for svg in re.findall(r"<svg.*?</svg>", str(figure_of(score)), re.S):
        widths = {
            label: float(re.search(r'<rect [^>]*?width="([\d.]+)"', group)[1])  # type: ignore[index]
            for label, group in re.findall(r"<g><title>([^:<]+): [^<]*</title>(.*?)</text></g>", svg, re.S)
        }
        assert widths["German"] / widths["English"] == pytest.approx(0.5, abs=0.01)
        assert widths["GPT-3.5, English"] / widths["English"] == pytest.approx(0.701, abs=0.01)
        assert "published, not measured here" in svg and "GPT-4, published" in svg
    page = languages_page(score)
    assert "de question" in page and "Answer:" in page  # a prompt in each language can be read
    assert page.count("<script") == 0 and "http://" not in page.replace("http://www.w3.org", "")


def test_the_worlds_exam_in_every_language_has_one_gold(tmp_path: Path) -> None:
    """A solver that reads any of the languages scores the same in all of them, and a guesser is at chance."""
    found = world_questions(count=8, kinds=["reading", "sums"])
    assert len(found.languages) >= 6 and len(found.questions) == len(found.languages) * 16 and not found.is_mmlu
    golds: dict[str, set[Any]] = {}
    for q in found.questions:
        golds.setdefault(q.id, set()).add((q.options, q.gold))
    assert len(golds) == 16 and all(len(gold) == 1 for gold in golds.values())

    def adds(prompt: Prompt) -> str:
        asked = str(prompt).split("\n\n")[-1]
        text, *options = re.split(r"\n[A-D]\) ", asked.removesuffix("\nAnswer:"))
        numbers = [int(n) for n in re.findall(r"\d+", text)]
        if len(numbers) != 3:
            return "B"
        return "ABCD"[options.index(str(numbers[0] + numbers[1] - numbers[2]))]

    score = api.run(found, Scorer(adds), out=tmp_path / "w.jsonl")
    for one in score.languages:
        by = {name: interval.estimate for name, _, interval in one.by_subject}
        assert by == {"sums": 1.0, "reading": 0.25}
    assert all(one.against is None or one.against.difference.estimate == 0 for one in score.languages)


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    calls: list[int] = []

    class Dies(Scorer):
        async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return await super().score(prompt, continuations, trial)

    with pytest.raises(KeyboardInterrupt):
        api.run(plain_set(5), Dies(lambda p: "B"), out=tmp_path / "l.jsonl", concurrency=1)
    score = api.run(plain_set(5), Scorer(lambda p: "B"), out=tmp_path / "l.jsonl", concurrency=1)
    assert len(score.answers) == 16 and np.mean([a.right for a in score.answers if a.right is not None]) == 13 / 16


def test_what_cannot_be_asked_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x_de_test.csv", global_rows(5, "de"))
    with pytest.raises(EvalError, match="world is an exam of its own"):
        api.open_questions(["world", path])
    with pytest.raises(EvalError, match="are of the world's exam"):
        api.open_questions(path, kinds=["sums"])
    with pytest.raises(EvalError, match=r"The world's exam: .*languages is \['cy'\]"):
        api.open_questions("world", ["Welsh"])
    with pytest.raises(EvalError, match="'elvish' is no language"):
        api.open_questions(path, ["elvish"])
    with pytest.raises(EvalError, match=r"has no file in fr"):
        api.open_questions(path, ["fr"], shots=0)
    other = tmp_path / "other.jsonl"
    exams.run("world", lambda prompt, **params: "B", samples=1, out=other, store=tmp_path / "s.sqlite")
    with pytest.raises(EvalError, match=r"is no log of languages. Make one with: foretell exam languages run"):
        score_languages(other)

"""Translating: what is asked of an endpoint, what is read back, which translations are in doubt, and going on after an
endpoint was down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from languagekit import global_rows, question, write_csv

from foretell.errors import EvalError
from foretell.evals.languages.departure import FLAGS, Text, chrf, doubts, numbers
from foretell.evals.languages.questions import QuestionSet
from foretell.evals.languages.reading import read_questions
from foretell.evals.languages.translating import Translated, parse_translation, translate

pytest.importorskip("sacrebleu")

QUESTIONS = [
    ("Which of these is not a prime number below 20?", ("11", "13", "15", "17")),
    ("Where does the river that flows through the old town end?", ("In the sea", "In a lake", "In a bog", "Nowhere")),
    ("Who wrote the book of 1,250 pages that the museum keeps?", ("Her sister", "His uncle", "My teacher", "A friend")),
    ("What does a higher learning rate do to the training loss?", ("Lower variance", "Higher variance",
                                                                    "Same variance", "None of the above")),
]  # fmt: skip


def source() -> QuestionSet:
    asked = [replace(question(i, gold=i % 4), question=q, options=o) for i, (q, o) in enumerate(QUESTIONS)]
    return QuestionSet("small", tuple(asked), {"en": (question(50), question(51, subject="law"))})


def backwards(text: str) -> str:
    """Each word backwards: a language that comes back without loss."""
    return re.sub(r"[^\W\d_]+", lambda word: word[0][::-1], text)


def mirror(prompt: Any, **params: Any) -> str:
    """A translator into words spelled backwards, and out of them, in the form that is asked for."""
    _, _, text = prompt[-1]["content"].partition("\n\n")
    return "\n".join(line[:3] + backwards(line[3:]) if line[1:3] == ") " else backwards(line)
                     for line in text.split("\n"))  # fmt: skip


def run(tmp_path: Path, model: Any, targets: tuple[str, ...] = ("sw",), **more: Any) -> list[Translated]:
    settings = {"log": tmp_path / "log.jsonl", "cache": tmp_path / "cache.sqlite", "concurrency": 1, "shots": 1} | more
    found, _ = translate(source(), targets, model, tmp_path / "out", **settings)
    return found


def test_questions_are_translated_with_their_options_and_read_again(tmp_path: Path) -> None:
    found = run(tmp_path, mirror, ("sw", "Welsh"))
    assert [one.language for one in found] == ["sw", "cy"] and all(one.doubtful == one.lost == 0 for one in found)
    assert all(one.chrf == pytest.approx(100) and one.pieces == 0 for one in found)
    again = read_questions([tmp_path / "out"], shots=1)
    assert again.languages == ("cy", "en", "sw")
    swahili = [q for q in again.questions if q.language == "sw"]
    assert [(q.question, q.options, q.gold) for q in swahili] == [
        (backwards(q), tuple(map(backwards, options)), i % 4) for i, (q, options) in enumerate(QUESTIONS)
    ]
    assert swahili[0].instruction == backwards(
        "A highly knowledgeable and intelligent artificial intelligence model answers multiple-choice questions about "
        "astronomy."
    )
    # Worked questions: of the subject that is asked, so that law's is left out.
    assert [q.question for q in again.shots["sw"]] == [backwards("en question 50?")]
    row = json.loads(found[0].file.read_text(encoding="utf-8").splitlines()[0])
    assert row["translated_by"] and row["back"]["question"] == QUESTIONS[0][0] and row["chrf"] == pytest.approx(100)


def test_what_is_asked_of_a_translator(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def note(prompt: Any, **params: Any) -> str:
        asked.append((prompt[-1]["content"], params))
        return mirror(prompt)

    run(tmp_path, note)
    there = next(text for text, _ in asked if text.endswith("D) 17"))
    assert there.startswith("Translate the multiple-choice question below from English to Swahili.")
    assert there.endswith("\n\nWhich of these is not a prime number below 20?\nA) 11\nB) 13\nC) 15\nD) 17")
    assert any("from Swahili to English" in text and "hcihW" in text for text, _ in asked)
    assert {params["temperature"] for _, params in asked} == {0.0}


def test_the_back_translation_may_be_another_models(tmp_path: Path) -> None:
    there, back = [], []

    def first(prompt: Any, **params: Any) -> str:
        there.append(prompt)
        return mirror(prompt)

    def second(prompt: Any, **params: Any) -> str:
        back.append(prompt)
        return mirror(prompt)

    run(tmp_path, first, back=second)
    assert len(back) == 5 and len(there) == 6  # four questions and one worked; the instruction goes there alone
    unchecked = run(tmp_path / "b", first, check=False)
    assert unchecked[0].chrf != unchecked[0].chrf and unchecked[0].doubtful == 0 and len(back) == 5


def spoil(change: Callable[[str], str]) -> Callable[..., str]:
    """A translator into Swahili with a fault in the first question, that translates back faithfully."""

    def model(prompt: Any, **params: Any) -> str:
        told = mirror(prompt)
        there = "to Swahili" in prompt[-1]["content"]
        return change(told) if there and ("emirp" in told or "gninrael" in told) else told

    return model


@pytest.mark.parametrize(
    ("flag", "change"),
    [
        ("numbers", lambda text: text.replace("20", "30")),
        ("negation", lambda text: text.replace(" ton", "")),
        ("equal", lambda text: text.replace("B) 13", "B) 11")),
        ("departs", lambda text: re.sub(r"[^\W\d_]{2,}", "zzz", text)),
        ("swapped", lambda text: text.replace("rewoL", "X").replace("rehgiH", "rewoL").replace("X", "rehgiH")),
        ("untranslated", lambda text: backwards(text) if "emirp" in text else text),
    ],
)
def test_a_planted_fault_is_found_and_no_other_question_is_doubted(
    tmp_path: Path, flag: str, change: Callable[[str], str]
) -> None:
    found = run(tmp_path, spoil(change))[0]
    rows = [json.loads(line) for line in found.file.read_text(encoding="utf-8").splitlines()]
    assert found.doubts[flag] >= 1 and flag in FLAGS
    assert not rows[1]["flags"] and not rows[2]["flags"]  # those that have no fault
    assert found.doubtful == sum(bool(row["flags"]) for row in rows)


def test_chrf_is_sacrebleus() -> None:
    from sacrebleu import sentence_chrf

    assert chrf("the cat sat", "the cat sat there") == sentence_chrf("the cat sat", ["the cat sat there"]).score
    assert chrf("same", "same") == pytest.approx(100) and chrf("abc", "xyz") == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [("1,250 of 3.5", ["1250", "35"]), ("১২৫০", ["1250"]), ("1 250 000", ["1250000"]),
     ("in 1999 2000", ["1999", "2000"]),
     ("none", []), ("B2B", ["2"])],
)  # fmt: skip
def test_numbers_in_any_script(text: str, found: list[str]) -> None:
    assert sorted(numbers(text).elements()) == sorted(found)


def test_a_faithful_paraphrase_is_not_doubted() -> None:
    text = Text(*QUESTIONS[1])
    back = Text("Where ends the river that flows through the old city?", QUESTIONS[1][1])
    score, flags = doubts(text, Text("x y z", ("a", "b", "c", "d")), back)
    assert 60 < score < 100 and not flags
    assert doubts(text, text, back, threshold=99)[1] == ("departs", "untranslated")


@pytest.mark.parametrize(
    ("reply", "options"),
    [
        ("Swali?\nA) a\nB) b\nC) c\nD) d", ("a", "b", "c", "d")),
        ("问题？\nA）甲\nB）乙\nC）丙\nD）丁", ("甲", "乙", "丙", "丁")),
        ("Swali?\n\n**A.** a\nB. b\nC. c\nmore\nD. d\n", ("** a", "b", "c\nmore", "d")),
        ("Swali?\nA) a\nB) b\nC) c", None),
        ("A) a\nB) b\nC) c\nD) d", None),
        ("Swali?\nA) a\nC) c\nB) b\nD) d", None),
        ("I cannot translate that.", None),
    ],
)
def test_replies_are_parsed_or_refused(reply: str, options: tuple[str, ...] | None) -> None:
    found = parse_translation(reply)
    assert (found.options if found else None) == options


def test_a_reply_that_lost_its_form_is_made_good_piece_by_piece(tmp_path: Path) -> None:
    def prose(prompt: Any, **params: Any) -> str:
        told = mirror(prompt)
        return told.replace("\n", " ") if "\nD) " in told else told

    found = run(tmp_path, prose)[0]
    assert found.pieces == found.questions == 5 and found.doubtful == 0
    assert found.chrf == pytest.approx(100)


def test_a_question_without_a_translation_is_left_out_and_told(tmp_path: Path) -> None:
    def silent(prompt: Any, **params: Any) -> str:
        text = prompt[-1]["content"]
        return "" if "river" in text or "In the sea" in text else mirror(prompt)

    found = run(tmp_path, silent)[0]
    assert (found.questions, found.lost) == (4, 1)
    assert len(found.file.read_text(encoding="utf-8").splitlines()) == 3


def test_after_a_failure_the_same_call_asks_only_what_is_left(tmp_path: Path) -> None:
    """The endpoint goes down in the middle: what it answered is kept, and nothing of it is asked again."""
    calls: list[str] = []

    def fails(prompt: Any, **params: Any) -> str:
        if len(calls) >= 7:
            raise ConnectionError("refused")
        calls.append(prompt[-1]["content"])
        return mirror(prompt)

    # One name, so that it is the same model that comes back.
    down = {"up": False}

    def model(prompt: Any, **params: Any) -> str:
        if not down["up"]:
            return fails(prompt, **params)
        calls.append(prompt[-1]["content"])
        return mirror(prompt)

    with pytest.raises(EvalError, match=r"samples have no answer; .* are kept in .*: run again to go on"):
        run(tmp_path, model, ("sw", "cy"))
    assert len(calls) == 7 and not (tmp_path / "out").exists()  # nothing is half-written
    down["up"] = True
    found = run(tmp_path, model, ("sw", "cy"))
    assert all(one.doubtful == 0 and one.questions == 5 for one in found)
    assert len(calls) == len(set(calls)) == 2 * (5 * 2 + 1)
    calls.clear()
    run(tmp_path, model, ("sw", "cy"), log=tmp_path / "again.jsonl")  # all of it is in the cache
    assert not calls


def test_an_endpoint_that_is_down_is_named_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, with an OpenAI-compatible server that refuses, then answers."""
    pytest.importorskip("aiohttp")
    from clikit import invoke
    from mock_endpoint import Call, Reply, chat_body, serve_in_thread

    questions = write_csv(tmp_path / "global_en_test.csv", global_rows(3))
    state = {"left": 3}

    def answer(call: Call) -> Reply:
        if call.path.endswith("/models"):
            return Reply({"object": "list", "data": [{"id": "mt", "object": "model"}]})
        state["left"] -= 1
        if state["left"] < 0:
            return Reply({"error": {"message": "The server is going down", "code": "model_not_found"}}, status=404)
        return Reply(chat_body(mirror(call.json["messages"])))

    with serve_in_thread(answer) as endpoint:
        command = ("exam", "languages", "translate", f"{endpoint.url}#mt", questions, "--to", "sw",
                   "--out", tmp_path / "out", "--record-path", tmp_path / "log.jsonl", "--cache", tmp_path / "c.sqlite",
                   "--concurrency", 1)  # fmt: skip
        code, _, told = invoke(capsys, *command)
        assert code == 2 and "The server is going down" in told and "run again to go on" in told
        state["left"] = 100
        code, said, told = invoke(capsys, *command)
    assert code == 0 and re.search(r"Swahili +3 +100\.0 +0", said), said + told
    assert state["left"] == 100 - (3 * 2 + 1 - 3)  # three answers of the first time were kept
    assert len(read_questions([tmp_path / "out"], shots=0).questions) == 6


def test_what_cannot_be_translated_is_named(tmp_path: Path) -> None:
    both = QuestionSet("both", (question(0), question(0, "de")), {})
    with pytest.raises(EvalError, match="both is in en, de; say which to translate from"):
        translate(both, ["sw"], mirror, tmp_path)
    with pytest.raises(EvalError, match="English cannot be translated into itself"):
        translate(source(), ["en"], mirror, tmp_path)
    with pytest.raises(EvalError, match="'elbish' is no language"):
        translate(source(), ["elbish"], mirror, tmp_path)

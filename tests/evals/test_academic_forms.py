"""Rows of published benchmarks, in each of the forms that they are found in, become samples of one form."""

from __future__ import annotations

from typing import Any

import pytest

from foretell.evals.academic_forms import FILE, FORMS, NUMBER, convert

DROP = {
    "passage": "The Bears scored 17 points, the Lions 10, in 1994.",
    "question": "How many more points did the Bears score?",
    "answer": {"number": "7", "date": {"day": "", "month": "", "year": ""}, "spans": []},
}
HUB: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {  # a row as the hub has it, what is to come of it
    "mmlu": [
        (
            {"question": " What? ", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "virology"},
            {"ask": "What?", "gold": 2, "part": "virology"},
        )
    ],
    "arc": [
        (
            {"question": "Why?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
            {"query": "Question: Why?\nAnswer:", "gold": 1},
        ),
        (
            {"question": {"stem": "Why?", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]},
             "answerKey": "A"},
            {"query": "Question: Why?\nAnswer:", "gold": 0, "options": ["x", "y"]},
        ),
    ],
    "hellaswag": [
        (
            {"activity_label": "Cooking", "ctx_a": "He [title] cooks.", "ctx_b": "he", "label": "1",
             "endings": ["[step] a", "b"]},
            {"query": "Cooking: He. cooks. He", "options": [" a", "b"], "gold": 1},
        ),
        (  # one text: what was begun after the last sentence is put as the other form puts it
            {"activity_label": "Sumo", "ctx": "A film is shown. two Men", "label": "0", "endings": ["fight.", "sit."]},
            {"query": "Sumo: A film is shown. Two men", "gold": 0, "group": "Sumo"},
        ),
    ],
    "winogrande": [
        (
            {"sentence": "Ann thanked Bea because _ helped.", "option1": "Ann", "option2": "Bea", "answer": "2",
             "qID": "Q-1"},
            {"contexts": ["Ann thanked Bea because Ann", "Ann thanked Bea because Bea"], "choices": ["helped."],
             "gold": 1, "group": "Q"},
        )
    ],
    "lambada": [({"text": "He said no"}, {"query": "He said", "ideal": ["no"]})],
    "drop": [
        ({**DROP, "answers_spans": {"spans": ["7"], "types": ["number"]}}, {"ideal": [["7"]]}),
        (
            {**DROP, "validated_answers": {"number": ["7", ""], "date": [{}, {"day": "1", "month": "May", "year": ""}],
                                           "spans": [[], []]}},
            {"ideal": [["7"], ["1 May"]]},
        ),
    ],
    "coqa": [
        (
            {"story": "S.", "questions": {"input_text": ["Q?"]}, "answers": {"input_text": ["a"]},
             "additional_answers": {"0": {"input_text": ["b"]}}},
            {"ideal": ["a", "b"]},
        ),
        ({"story": "S.", "questions": ["Q?"], "answers": {"input_text": ["a"]}}, {"ideal": ["a"]}),
    ],
    "truthfulqa": [
        (
            {"question": "Q?", "mc1_targets": {"choices": ["t", "f"], "labels": [1, 0]},
             "mc2_targets": {"choices": ["t", "u", "f"], "labels": [1, 1, 0]}},
            {"options": ["t", "f"], "true": ["t", "u"], "false": ["f"], "query": "Q: Q?\nA:"},
        ),
        (  # the published mc_task.json
            {"question": "Q?", "mc0_targets": {"t": 1, "f": 0}, "mc1_targets": {"f": 0, "t": 1},
             "mc2_targets": {"t": 1, "u": 1, "f": 0, "g": 0}},
            {"options": ["t", "f"], "true": ["t", "u"], "false": ["f", "g"], "rivals": ["f"], "query": "Q: Q?\nA:"},
        ),
    ],
    "mgsm": [
        (
            {FILE: "de", "question": "Frage: Wie viele?",
             "answer": "Schritt-für-Schritt-Antwort: Die Antwort lautet 6.", "answer_number": 6},
            {"query": "Frage: Wie viele?\nSchritt-für-Schritt-Antwort:", "answer": " Die Antwort lautet 6.",
             "ideal": ["6"]},
        ),
        ({FILE: "de", "question": "Wie viele?", "answer": None, "answer_number": 6},
         {"query": "Frage: Wie viele?\nSchritt-für-Schritt-Antwort:", "ideal": ["6"]}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", HUB)
def test_rows_of_the_hub(form: str) -> None:
    for row, expected in HUB[form]:
        sample = convert(FORMS[form], [{NUMBER: 0, FILE: "", **row}])[0]
        assert {key: sample[key] for key in expected} == expected

"""IFEval's instructions: a reply that keeps each, and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretell.evals.academic_ifeval import RULES, follows, language

CHECKED = [  # instruction, settings, a reply that keeps it, one that does not
    ("punctuation:no_comma", {}, "No commas here.", "Well, no."),
    ("startend:quotation", {}, ' "quoted" ', 'not "quoted"'),
    ("startend:end_checker", {"end_phrase": "That is all."}, "So. that is ALL.", "That is all. Bye."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi! Say hi."),
    ("combination:two_responses", {}, "one\n******\ntwo", "one ****** one"),
    ("combination:two_responses", {}, "one******two******", "one******two******three"),
    ("change_case:english_capital", {}, "THIS IS THE END.", "THIS IS the END."),
    ("change_case:english_lowercase", {}, "this is the end.", "This is the end."),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"},
     "NASA and ESA.", "NASA."),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"},
     "NASA.", "A NASA-ESA"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b c]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi.\nP.S. bye", "Hi. PS bye"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "p. p.s. bye", "P.S. bye"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 2},
     "Day 1 x Day 2 y", "Day one. Day 2"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n** b **"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and * *"),
    ("detectable_format:title", {}, "<<A title>>", "<< >>"),
    ("keywords:existence", {"keywords": ["rain", "sun"]}, "Sunny and rainy", "Sunny"),
    ("keywords:forbidden_words", {"forbidden_words": ["rain"]}, "rainy", "The Rain."),
    ("keywords:frequency", {"keyword": "the", "frequency": 2, "relation": "at least"}, "The other", "The one"),
    ("keywords:frequency", {"keyword": " the ", "frequency": 2, "relation": "at least"}, "The other", "The one"),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "less than"}, "Ee", "eee"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "at least"}, "Go! Now!", "Go!"),
    ("language:response_language", {"language": "de"}, "Das ist ein kleiner Hund.", "That is a small dog."),
    ("length_constraints:nth_paragraph_first_word", {"nth_paragraph": 2, "num_paragraphs": 2, "first_word": "Then"},
     "First.\n\n'Then, it", "First.\n\nAnd then"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n***\nb"),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"},
     "Dr. Li, i.e. me, won 3.5 to 1. Yes!", "One. Two! Three?"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two-three", "one two"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "kept", "broken"), CHECKED)
def test_instructions(name: str, args: dict[str, Any], kept: str, broken: str) -> None:
    assert follows([[name, args]], kept)[0] == [True]
    assert follows([[name, args]], broken)[0] == [False]
    assert follows([[name, args]], " ") == ([False], [False])


def test_every_instruction_is_tested() -> None:
    assert {name for name, *_ in CHECKED} == set(RULES)


@pytest.mark.parametrize(
    ("reply", "strict", "loose"),
    [
        ('Sure, here it is:\n"Hello."', False, True),
        ('"Hello."\nDo you like it?', False, True),
        ('Sure:\n**"Hello."**\nBye', False, True),
        ('"Hello."', True, True),
        ("Hello.", False, False),
    ],
)
def test_loosely(reply: str, strict: bool, loose: bool) -> None:
    assert follows([["startend:quotation", {}]], reply) == ([strict], [loose])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Desayunamos en McDonald's hoy", "es"),
        ("Today we visit the Louvre", "en"),
        ("今天天气很好。", "zh-cn"),
        ("日本では雨です。", "ja"),
        ("오늘은 날씨가 좋다", "ko"),
        ("Σήμερα βρέχει", "el"),
        ("تہران میں بارش ہے اور سردی بھی", "ur"),
        ("امروز در تهران باران است", "fa"),
        ("यह एक अच्छा दिन है", "hi"),
        ("हा एक चांगला दिवस आहे", "mr"),
        ("Днес е хубав ден и ще се разходя", "bg"),
        ("42!", ""),
    ],
)
def test_language(text: str, code: str) -> None:
    assert language(text) == code


@pytest.mark.realdata
def test_languages_of_mgsm(real_data: Path) -> None:
    for file in (real_data / "benchmarks/google-research_url-nlp/mgsm").glob("mgsm_*.tsv"):
        code = file.stem[-2:]
        lines = file.read_text(encoding="utf-8").splitlines()
        told = [language(line.rpartition("\t")[0])[:2] for line in lines]
        assert told.count(code) / len(told) > 0.98, (code, set(told))

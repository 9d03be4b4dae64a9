"""Disguises are undone; text of any language that is not disguised stays as it reads."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.safety.normalize import MARKS, normalize, spellings

PLAIN = [
    "The quick brown fox, isn't it? 3/4 of $5 (50%)!",
    "Été à l'île: cœur, naïve, garçon",
    "Größe, Straße, Übung",
    "Người Việt Nam ở Huế",
    "Съешь ещё этих мягких французских булок, сор и рот",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Zażółć gęślą jaźń",
    "עברית עם נִקּוּד",
    "نصٌّ عربيٌّ مشكول",
    "नमस्ते दुनिया, क्षत्रिय",
    "ภาษาไทยง่ายนิดเดียว",
    "日本語のテキストです。がぎぐげご",
    "한국어 문장입니다",
    "Türkçe ığdır İstanbul",
    "łódź i đak",
    "👩‍👩‍👧 family and café",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_of_any_language_stays(text):
    assert normalize(text).text == unicodedata.normalize("NFKC", text.replace("\u200d", ""))


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("ｋｉｌｌ　ｙｏｕ", "kill you"),
        ("𝓴𝓲𝓵𝓵 𝕪𝕠𝕦", "kill you"),
        ("ki\u200bll\u2060 y\u00adou", "kill you"),
        ("kіll yоu", "kill you"),
        ("ⓚⓘⓛⓛ", "kill"),
        ("раypal", "paypal"),
    ],
)
def test_disguises_are_undone(disguised, plain):
    assert normalize(disguised).text == plain


@pytest.mark.parametrize(
    "disguised",
    [
        *("kill", "KILL", "K1LL", "k!ll", "ki11", "k.i.l.l", "k-i-l-l", "ki_ll", "kiiiill", "killlll", "кіll", "kíll"),
        *("k\u0335i\u0335l\u0335l\u0335", '"kill"', "kill!!!", "(kill)", "*kill*"),
    ],
)
def test_spellings_find_the_word(disguised):
    assert "kill" in spellings(normalize(disguised).text)


def test_spellings_of_a_plain_word_are_the_word():
    assert spellings("Scunthorpe") == ("scunthorpe",)
    assert spellings("lol!") == ("lol",)


def test_marks_are_kept_up_to_two():
    text = normalize("e" + "\u0301\u0335\u0327\u0323" * 10).text
    assert sum(map(bool, map(unicodedata.combining, unicodedata.normalize("NFD", text)))) == MARKS


@given(st.text(max_size=60))
def test_every_character_knows_its_place(text):
    normal = normalize(text)
    assert len(normal.starts) == len(normal.text) + 1
    assert list(normal.starts) == sorted(normal.starts) and normal.starts[-1] == len(text)
    assert normalize(normal.text).text == normalize(normalize(normal.text).text).text
    spellings(text)

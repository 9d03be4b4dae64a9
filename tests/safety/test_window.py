"""Streamed output: nothing that is stopped is shown, however it comes in pieces; the rest comes out as it went in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.safety.moderation import Moderation
from foretell.safety.policy import SCORED, load_policy
from foretell.safety.rules import Lexicon, Rule
from foretell.safety.window import SEGMENT, Held

LEXICON = Lexicon(
    {"bad": ["kill yourself", "blorp"], "ask": ["how to make"], "thing": ["pipe bomb", "bomb"]},
    ["blorp fish", "bath bomb"],
    [Rule("urge", "hate/threatening", ("bad",), 0), Rule("make", "hate/threatening", ("ask", "thing"), 2)],
)


class Grumpy:
    """A scorer that minds one word."""

    def scores(self, texts):
        return np.array([[float("grump" in text.lower())] * len(SCORED) for text in texts])


RULES_ONLY = Moderation(load_policy(), LEXICON, None)
BOTH = Moderation(load_policy(), LEXICON, Grumpy())

WORDS = st.sampled_from(
    [
        *("kill", "yourself", "blorp", "fish", "how", "to", "make", "pipe", "bomb", "bath", "a", "k", "i", "l", "ill"),
        *(
            "K!LL",
            "yоurself",
            "k\u200bill",
            "kiiill",
            "b.l.o.r.p",
            "blo-rp",
            "the",
            "end.",
            "Yes!",
            "no,",
            "言葉。",
            "x" * 70,
        ),
        *("ki", "ll", "blorps", "skill", "e\u0301t\u00e9", "y o u r s e l f", "a" * 200),
    ]
)
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", " ", " ", "  ", "\n", ". ", ""])), max_size=40).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


def stream(moderation: Moderation, pieces: list[str]) -> tuple[str, Held]:
    held = Held(moderation)
    return "".join([*map(held.push, pieces), held.finish()]), held


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(ends)]


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=60))
def test_no_split_shows_what_is_stopped_and_every_split_shows_the_same(text, places):
    whole, once = stream(RULES_ONLY, [text])
    shown, held = stream(RULES_ONLY, cut(text, places))
    assert shown == whole and held.finding == once.finding
    if held.finding is None:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert RULES_ONLY.check([shown])[0].action == "allow"
    hits = LEXICON.scan(text).hits
    if all(len(word) <= 64 for word in text.split()):  # beyond that, words are read in parts as they come
        assert (held.finding is None) == (not hits)
        assert not hits or len(shown) <= hits[0].start


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS, st.lists(st.integers(0, 10_000), max_size=60))
def test_what_the_classifier_stops_is_not_shown_either(before, after, places):
    text = f"{before} Be a grump now. {after}"
    shown, held = stream(BOTH, cut(text, places))
    assert held.finding is not None and len(shown) <= text.lower().index("grump")


def test_letter_by_letter_is_no_way_around():
    text = "All is well here. " * 40 + "Now kill yourself. It goes on."
    shown, held = stream(RULES_ONLY, list(text))
    assert shown == "All is well here. " * 40 and held.finding.rule == "urge"
    assert text[slice(*held.finding.span)] == "kill yourself"
    assert held.push("more") == "" and held.finish() == ""


def test_sentences_are_passed_on_as_soon_as_they_end():
    held = Held(RULES_ONLY)
    assert held.push("One sentence. An") == "One sentence. "
    assert held.push("other") == ""
    assert held.finish() == "Another"


def test_a_long_sentence_is_passed_on_in_pieces():
    held = Held(RULES_ONLY)
    text = "word " * 200
    shown = held.push(text)
    assert len(text) - len(shown) <= SEGMENT + 5 and text.startswith(shown)
    assert shown + held.finish() == text


def test_words_that_may_become_a_hit_wait():
    held = Held(RULES_ONLY)
    assert held.push("Fine. They told him to kill. Then") == "Fine. They told him to "
    assert held.push(" all was well. And") == "kill. Then all was well. "


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "no end", "。", "日本語の文。次の文。", "Один. Два.", "مرحبا بالعالم. نعم"]
)
def test_plain_text_comes_out_unchanged(text):
    assert stream(RULES_ONLY, list(text))[0] == text


def test_what_is_only_flagged_is_noted_and_shown():
    class Mild:
        def scores(self, texts):
            return np.array([[0.6 if name == "harassment" else 0.0 for name in SCORED] for _ in texts])

    shown, held = stream(Moderation(load_policy(), LEXICON, Mild()), ["You there. ", "Hey."])
    assert shown == "You there. Hey." and held.finding is None
    assert held.noted.action == "flag" and held.noted.category == "harassment"

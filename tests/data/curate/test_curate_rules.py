"""The quality rules are datatrove's: same verdict, same reason, same text, on the same documents."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document as Page
from datatrove.pipeline import filters

from foretell.data.curate.rules import (
    C4QualityStep,
    FineWebQualityStep,
    GopherQualityStep,
    GopherRepetitionStep,
    RuleSection,
    simple_words,
)
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment

WORDS = (
    *("the", "be", "to", "of", "and", "that", "have", "with", "house", "river", "green", "quickly", "understands"),
    *("mountain", "because", "walking", "school", "x", "12", "#", "..."),
)
PAIRS: list[tuple[type[RuleSection], str]] = [
    (GopherQualityStep, "GopherQualityFilter"),
    (GopherRepetitionStep, "GopherRepetitionFilter"),
    (C4QualityStep, "C4QualityFilter"),
    (FineWebQualityStep, "FineWebQualityFilter"),
]


def pages() -> list[str]:
    """Pages good and bad in every way that a rule knows."""
    draw = random.Random(7)
    made = []
    for _ in range(120):
        lines = []
        for _ in range(draw.randint(1, 25)):
            line = " ".join(draw.choices(WORDS, k=draw.randint(1, 20)))
            lines.append(
                draw.choice(["", "- ", "• "]) + line.capitalize() + draw.choice([".", ".", "!", "...", "", ","])
            )
        lines += draw.choices(
            ["Read our privacy policy.", "Please use Javascript now.", "", "The { is bad.", "That lorem ipsum again."],
            k=1,
        )
        lines += [lines[0]] * draw.choice([0, 0, 1, 6])
        made.append(draw.choice(["\n", "\n\n"]).join(lines))
    return made


@pytest.mark.parametrize(("section", "name"), PAIRS)
def test_agreement_with_datatrove(section: type[RuleSection], name: str) -> None:
    language: Any = simple_words()
    peer, step, outcomes = getattr(filters, name)(language=language), section().build(), set[str]()
    for text in pages():
        page = Page(text=text, id="p")
        verdict = peer.filter(page)
        kept, why = verdict if isinstance(verdict, tuple) else (verdict, "")
        ours = step(Document("p", (Segment(text),), "s", "MIT", "en"))
        if kept:
            assert isinstance(ours, Document), (text, ours)
            assert "".join(segment.text or "" for segment in ours.segments) == page.text
        else:
            assert ours == Removed("p", f"{step.name}.{why}")
        outcomes.add(why)
    assert len(outcomes) >= 3  # the pages do try the rules


@pytest.mark.parametrize(("section", "name"), PAIRS)
def test_defaults_are_those_of_datatrove(section: type[RuleSection], name: str) -> None:
    plain = getattr(filters, name)()
    renamed = {"short_line_thr": "short_line_threshold"}
    for field in section.model_fields:
        if field in ("step", "words", "languages", "kinds", "stop_words"):
            continue
        assert getattr(section(), field) == getattr(plain, renamed.get(field, field)), field


@pytest.mark.parametrize(("section", "name"), PAIRS)
def test_empty_documents_go_pictures_and_conversations_pass(section: type[RuleSection], name: str) -> None:
    step = section().build()
    assert step(Document("a", (Segment(" \n"),), "s", "MIT")) == Removed("a", f"{step.name}.empty")
    picture = Document("a", (Segment(image=b"x"),), "s", "MIT")
    assert step(picture) is picture
    chat = Document("a", (Segment("Hi", role="user"), Segment("Hello", role="assistant")), "s", "MIT")
    assert step(chat) is chat
    assert pickle.loads(pickle.dumps(step))(chat) is chat


def test_c4_keeps_images_at_their_place_and_counts_sentences_over_all_segments() -> None:
    good = "This is a sentence of some words. And here is another one of them."
    document = Document(
        "a",
        (Segment(f"{good}\nmenu"), Segment(image=b"i"), Segment("login"), Segment(f"{good} {good}")),
        "s",
        "MIT",
        "en",
    )
    assert C4QualityStep().build()(document) == Document(
        "a", (Segment(good), Segment(image=b"i"), Segment(f"{good} {good}")), "s", "MIT", "en"
    )
    few = Document("a", (Segment(good), Segment(image=b"i"), Segment(good)), "s", "MIT", "en")
    assert C4QualityStep().build()(few) == Removed("a", "c4_quality.too_few_sentences")


def test_stop_words_are_those_of_the_language() -> None:
    text = "El río de la montaña corre hacia el mar y los niños caminan con una maestra por la orilla en verano. " * 4
    step = GopherQualityStep().build()
    assert isinstance(step(Document("a", (Segment(text),), "s", "MIT", "es")), Document)
    assert step(Document("a", (Segment(text),), "s", "MIT", "en")) == Removed(
        "a", "gopher_quality.gopher_enough_stop_words"
    )
    assert isinstance(step(Document("a", (Segment(text),), "s", "MIT", "ga")), Document)  # no words of it are known


def test_only_what_it_is_for() -> None:
    short = Document("a", (Segment("short"),), "s", "MIT", "pt-BR", kind="python.docs")
    assert isinstance(GopherQualityStep(languages=("en",)).build()(short), Document)
    assert isinstance(GopherQualityStep(languages=("pt",), kinds=("web",)).build()(short), Document)
    assert isinstance(GopherQualityStep(languages=("pt",), kinds=("python",)).build()(short), Removed)

"""The lexicon finds whole words only, the classifier decides, and textbooks stay."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.data.curate.harm import LEXICON, STRONG, Lexicon, SexualStep, ToxicStep, combined
from foretell.data.curate.harm_train import main
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.errors import DataError
from foretell.measure.classify import fit_classifier

EXPLICIT = (
    "An erotic story. She was naked and horny, and he sucked her nipples until she moaned; his hard cock throbbing, "
    "he fucked her pussy until she had an orgasm."
)
THREAT = "You stupid bitch, I hate you, go kill yourself. All of these vermin should be shot, you fucking idiots."
MEDICAL = (
    "Sexual reproduction in mammals begins when a sperm fertilises an egg. A vagina leads to the uterus, and the penis "
    "contains erectile tissue. Students should be able to name the reproductive organs and explain their function. " * 3
)
PLAIN = "The committee met on Tuesday to discuss the new library. Its class was assessed, its cockpit inspected."


def page(text: str) -> Document:
    return Document("a", (Segment(text),), "s", "MIT")


def test_what_goes_and_what_stays() -> None:
    sexual, toxic = SexualStep().build(), ToxicStep().build()
    gone = sexual(page(EXPLICIT))
    assert isinstance(gone, Removed)
    assert gone.reason == "sexual.found"
    assert float(gone.detail) >= 0.7
    gone = toxic(page(THREAT))
    assert isinstance(gone, Removed)
    assert gone.reason == "toxic.found"
    for harmless in (MEDICAL, PLAIN, ""):
        document = page(harmless)
        assert sexual(document) is document
        assert toxic(document) is document


def test_a_sentence_does_not_remove_a_book() -> None:
    book = page(f"{PLAIN} " * 300 + EXPLICIT + f" {PLAIN}" * 300)
    assert SexualStep().build()(book) is book
    mostly = page(f"{EXPLICIT} " * 50 + PLAIN)
    assert isinstance(SexualStep().build()(mostly), Removed)


def test_scores_can_be_labels() -> None:
    found = pickle.loads(pickle.dumps(SexualStep(act="label").build()))(page(EXPLICIT))
    assert isinstance(found, Document)
    assert float(found.labels["sexual"]) >= 0.7
    document = page(PLAIN)
    assert SexualStep(act="label").build()(document) is document


def test_a_lexicon_finds_phrases_at_word_boundaries_the_longest_first(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("sexual: {strong: [big bad wolf, wolf cub*], mild: [wolf, cub]}")
    lexicon = Lexicon.load(tmp_path / "own.yaml", "sexual")
    assert lexicon.weight("The BIG  bad\nwolf.") == 3 + 1
    assert lexicon.weight("wolf cubs") == 3 + 1
    assert lexicon.weight("werewolf wolfram cubism") == 0
    assert lexicon.weight("") == 0


def test_the_packaged_lexicon_reads_no_words_inside_words() -> None:
    for kind in ("sexual", "toxic"):
        assert Lexicon.load(LEXICON, kind).weight("Scunthorpe cockpit classic assess Essex analysis title") == 0


@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_the_weight_is_what_a_search_of_the_whole_text_finds(draw: random.Random) -> None:
    lists = yaml.safe_load(LEXICON.read_text(encoding="utf-8"))
    for kind in ("sexual", "toxic"):
        phrases = [str(phrase).replace("*", "s") for level in ("mild", "strong") for phrase in lists[kind][level]]
        parts = draw.choices([*draw.sample(phrases, 12), "the", "House", "I", "assess", "x"], k=30)
        low = "".join(part + draw.choice([" ", "\n", "-", "", "_"]) for part in parts)
        lexicon = Lexicon.load(LEXICON, kind)
        plain = STRONG * len(lexicon.strong.findall(low.lower())) + len(lexicon.mild.findall(low.lower()))
        assert lexicon.weight(low) == plain


def test_a_word_of_any_length_takes_linear_time() -> None:
    """A picture in hexadecimal, or Chinese without a full stop; once, each of its beginnings was looked up."""
    assert Lexicon.load(LEXICON, "sexual").weight("af09" * 500_000) == 0


def test_the_score_grows_with_both_stages() -> None:
    low, high = np.array([0.2]), np.array([0.6])
    assert combined(low, 10) < combined(low, 100) < combined(high, 100)
    assert combined(np.array([0.5]), 0.0) == pytest.approx(0.5)
    assert combined(np.array([0.01, 0.01, 0.9]), 0.0) < 0.9  # the mean of the upper half, not the worst alone


def test_a_classifier_of_ones_own(tmp_path: Path) -> None:
    fit_classifier(["nice text", "bad text"] * 5, ["plain", "sexual"] * 5, buckets=256).save(tmp_path / "own.npz")
    assert SexualStep(classifier=tmp_path / "own.npz").build().name == "sexual"
    with pytest.raises(DataError, match="expected a class of toxic"):
        ToxicStep(classifier=tmp_path / "own.npz").build()
    with pytest.raises(DataError, match="has no lists of toxic"):
        (tmp_path / "l.yaml").write_text("sexual: []")
        ToxicStep(lexicon=tmp_path / "l.yaml").build()


def test_training_reads_the_form_of_openais_set(tmp_path: Path) -> None:
    rows = [{"prompt": EXPLICIT, "S": 1, "H": 0}, {"prompt": THREAT, "HR": 1}, {"prompt": PLAIN, "S": 0}] * 3
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(tmp_path / "l.jsonl"), "--out", str(tmp_path / "own.npz")]) == 0
    assert isinstance(SexualStep(classifier=tmp_path / "own.npz").build()(page(EXPLICIT)), Removed)
    (tmp_path / "bad.jsonl").write_text("[1]")
    assert main([str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "x.npz")]) == 2


@pytest.mark.realdata
def test_textbooks_and_novels_stay(real_data: Path) -> None:
    import pyarrow.parquet as pq

    steps = SexualStep().build(), ToxicStep().build()
    gone = count = 0
    for name in ("textbooks-en", "books-en"):
        for row in pq.read_table(
            real_data / "corpus" / f"{name}.parquet", columns=["texts"], filters=[("split", "==", "heldout")]
        ).to_pylist():
            document = page("\n\n".join(text for text in row["texts"] if text))
            gone += any(isinstance(step(document), Removed) for step in steps)
            count += 1
    assert count > 50
    assert gone <= 0.02 * count

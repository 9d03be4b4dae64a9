"""Boilerplate, quality, reasoning labels, and the catalogue of all steps."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import foretell
from foretell.data.curate.boilerplate import BoilerplateStep, RepeatedLinesPass
from foretell.data.curate.catalog import STEPS, usual_steps
from foretell.data.curate.passes import Pass
from foretell.data.curate.quality import QualityStep, auc, train_quality
from foretell.data.curate.reasoning import ReasoningStep
from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import PIECE, map_texts, pieces, spread
from foretell.data.document import Document, Segment
from foretell.errors import DataError


def page(id: str, text: str, **labels: str) -> Document:
    return Document(id, (Segment(text),), "s", "MIT", labels=labels)


@pytest.mark.parametrize(
    "line",
    [
        "Accept all cookies",
        "We use cookies to make this site better. By continuing you agree.",
        "Share on Facebook",
        "Skip to main content",
        "Read more »",
        "© 2020 Example Ltd. All rights reserved.",
        "Usamos cookies para mejorar.",
        "Wszelkie prawa zastrzeżone.",
        "Alle Rechte vorbehalten",
    ],
)
def test_lines_that_say_nothing(line: str) -> None:
    left = BoilerplateStep().build()(page("a", f"First.\n{line}\nLast."))
    assert left == page("a", "First.\nLast.")


@pytest.mark.parametrize(
    "line", ["Cookies were baked at home.", "He would share it with her.", "Search the log for more.", ""]
)
def test_lines_that_say_something(line: str) -> None:
    document = page("a", f"First.\n{line}\nLast.")
    assert BoilerplateStep().build()(document) is document


def test_own_patterns_and_nothing_left() -> None:
    step = BoilerplateStep(patterns=("Issue no. \\d+",)).build()
    assert step(page("a", "Text.\nIssue no. 12")) == page("a", "Text.")
    assert step(page("a", "Menu\nIssue no. 12")) == Removed("a", "boilerplate.nothing_left")


def test_repeated_lines_of_a_host_are_cut_out_whatever_the_shards(tmp_path: Path) -> None:
    documents = [page(f"a{i}", f"Our motto\nStory {i}.\nBe well", url=f"https://a.example/{i}") for i in range(30)]
    documents += [page(f"b{i}", f"Our motto\nTale {i}.", url=f"https://b.example/{i}") for i in range(4)]
    results = []
    for shards in (1, 3):
        scratch = tmp_path / str(shards)
        scratch.mkdir()
        rule: Pass = RepeatedLinesPass(least=5).build()
        cut = [documents[i::shards] for i in range(shards)]
        for shard in range(shards):
            rule.sketch(iter(cut[shard]), shard, scratch)
        rule.merge(shards, scratch)
        kept = [found for shard in range(shards) for found in rule.apply(iter(cut[shard]), shard, scratch)]
        results.append(sorted((found.id, found.segments[0].text) for found in kept if isinstance(found, Document)))
    assert results[0] == results[1]
    assert ("a7", "Story 7.") in results[0]
    assert ("b2", "Our motto\nTale 2.") in results[0]


def documents(words: str, count: int, seed: int) -> list[Document]:
    draw = random.Random(seed)
    return [page(f"{seed}-{i}", " ".join(draw.choices(words.split(), k=60))) for i in range(count)]


def test_quality_is_learned_measured_and_applied(tmp_path: Path) -> None:
    good = documents("theorem proof therefore energy history water number because system", 60, 1)
    bad = documents("buy cheap click now free deal water number offer discount", 60, 2)
    report = train_quality(good, bad, tmp_path / "q.npz", heldout=0.2)
    assert report.auc > 0.99
    assert report.train_good + report.heldout_good == 60
    assert report.heldout_bad > 3
    step = pickle.loads(pickle.dumps(QualityStep(model=tmp_path / "q.npz", at_least=0.5).build()))
    kept = step(documents("theorem proof therefore energy", 1, 3)[0])
    assert isinstance(kept, Document)
    assert float(kept.labels["quality"]) >= 0.5
    assert 0 < report.threshold < 1
    gone = step(documents("buy cheap click now free", 1, 4)[0])
    assert isinstance(gone, Removed)
    assert gone.reason == "quality.low"


def test_quality_needs_documents_of_both_kinds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Of bad documents 0"):
        train_quality(documents("a b", 50, 1), [], tmp_path / "q.npz")
    with pytest.raises(DataError, match="cannot be read"):
        QualityStep(model=tmp_path / "none.npz").build()


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_the_chance_to_score_above(positive: list[int], negative: list[int]) -> None:
    chance = np.mean([(a > b) + (a == b) / 2 for a in positive for b in negative])
    assert auc(list(map(float, positive)), list(map(float, negative))) == pytest.approx(chance)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"correct": "True"}, {"answer": "right"}),
        ({"correct": "0"}, {"answer": "wrong"}),
        ({"gold": "18"}, {"answer": "right"}),
        ({"gold": "8"}, {"answer": "wrong"}),
        ({"score": "0.9", "correct": "no"}, {"answer": "wrong", "reasoning": "strong"}),
        ({"reasoning": "weak"}, {"reasoning": "weak"}),
        ({"score": "unsure"}, {}),
    ],
)
def test_reasoning_is_labelled_and_kept(labels: dict[str, str], expected: dict[str, str]) -> None:
    found = ReasoningStep(gold="gold").build()(page("a", "So she has 9 × 2 = 18.", **labels))
    assert isinstance(found, Document)
    assert {name: found.labels[name] for name in expected} == expected
    assert found.labels.keys() == labels.keys() | expected.keys()


def test_reasoning_can_be_kept_right_only() -> None:
    assert ReasoningStep(keep="right").build()(page("a", "x", correct="no")) == Removed("a", "reasoning.wrong")
    assert ReasoningStep(keep="strong").build()(page("a", "x", score="0.1")) == Removed("a", "reasoning.weak")


def test_usual_steps_are_picklable_pure_and_named_as_in_a_recipe() -> None:
    document = page("a", "A plain sentence about the weather in the north of the country.")
    for section in usual_steps():
        assert STEPS.validate_python(section.model_dump(exclude_defaults=False)) == section
        step: Step = section.build()
        assert step.name == section.model_dump()["step"]
        again = pickle.loads(pickle.dumps(step))
        assert again(document) == step(document)
        # Else a collection could not be resumed by an install that lies elsewhere.
        assert str(Path(foretell.__file__).parent) not in section.model_dump_json()


@given(st.text(), st.integers(1, 50))
def test_pieces_are_the_whole_text(text: str, size: int) -> None:
    assert "".join(pieces(text, size)) == text
    assert all(len(piece) <= size for piece in pieces(text, size))


def test_spread_and_map_texts() -> None:
    assert spread(list(range(10)), 3) == [0, 4, 9]
    assert spread([1, 2], 3) == [1, 2]
    assert len(pieces("a" * (2 * PIECE + 1))) == 3
    chat = Document("a", (Segment("x", role="user"), Segment("y", role="assistant")), "s", "MIT")
    emptied = map_texts(chat, lambda text: "")
    assert [segment.role for segment in emptied.segments] == ["user", "assistant"]

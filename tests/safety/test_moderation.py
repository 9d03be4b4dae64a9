"""Both stages together, OpenAI's form, and the packaged classifier."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
from openai.types import ModerationCreateResponse

from foretell.errors import DataError, PolicyError
from foretell.safety.classifier import BUCKETS, EACH, PACKAGED, SEED, load_classifier, read_labels, train
from foretell.safety.generated import generate, load_grammar
from foretell.safety.moderation import OVERLAP, PIECE, Moderation, openai_form, pieces
from foretell.safety.plain import plain_texts
from foretell.safety.policy import SCORED, load_policy
from foretell.safety.rules import Lexicon, Rule, load_lexicon

GRAMMAR = load_grammar()


class Fixed:
    """The same scores for every text that holds a word."""

    def __init__(self, word: str = "", **scores: float) -> None:
        self.word, self.scores_of = word, scores

    def scores(self, texts):
        return np.array([[self.scores_of.get(name, 0.0) * (self.word in text) for name in SCORED] for text in texts])


@pytest.fixture(scope="module")
def packaged():
    return Moderation.packaged()


def test_a_rule_decides_over_a_mild_score_and_lifts_it():
    lexicon = Lexicon({"bad": ["blorp"]}, [], [Rule("r", "sexual/minors", ("bad",), 0)])
    found = Moderation(load_policy(), lexicon, Fixed(violence=0.7)).check(["a BLORP here", "none"])
    assert (found[0].action, found[0].category, found[0].rule, found[0].span) == ("block", "sexual/minors", "r", (2, 7))
    assert found[0].scores["sexual/minors"] == 0.3 and found[0].words == load_policy().categories["sexual/minors"].words
    assert found[0].flagged == ("sexual/minors", "violence")
    assert (found[1].action, found[1].category, found[1].rule, found[1].words) == ("flag", "violence", None, None)


def test_a_category_without_scores_is_flagged_by_rules_alone():
    lexicon = Lexicon({"bad": ["blorp"]}, [], [Rule("r", "cybersecurity", ("bad",), 0)])
    (found,) = Moderation(load_policy(), lexicon, None).check(["blorp"])
    assert found.action == "refuse" and found.flagged == ("cybersecurity",) and set(found.scores) == set(SCORED)


def test_a_rule_of_an_unknown_category_is_told():
    with pytest.raises(PolicyError, match="silliness"):
        Moderation(load_policy(), Lexicon({"a": ["b"]}, [], [Rule("r", "silliness", ("a",), 0)]), None)


def test_a_bad_passage_does_not_drown_in_a_long_text():
    moderation = Moderation(load_policy(), load_lexicon(), Fixed("needle", violence=0.99))
    text = "hay " * 2000 + "needle " + "hay " * 2000
    assert moderation.check([text, "hay"])[0].flagged == ("violence",)
    assert all(len(piece) <= PIECE for piece in pieces(text)) and "needle" in "".join(pieces(text))


@pytest.mark.parametrize("text", ["", "x" * 5000, "word " * 900, "short"])
def test_pieces_cover_the_text_and_overlap(text):
    found = pieces(text)
    covered = found[0]
    for piece in found[1:]:
        assert covered.endswith(piece[:OVERLAP])
        covered += piece[OVERLAP:]
    assert covered == text


def test_openais_client_reads_the_form(packaged):
    texts = ["Immigrants are vermin.", "The bread is in the oven."]
    form = openai_form(packaged.check(texts), "modr-1")
    read = ModerationCreateResponse.model_validate(form, strict=True)
    assert read.results[0].flagged and read.results[0].categories.hate and not read.results[1].flagged
    scores = read.results[1].category_scores.model_dump(by_alias=True)
    assert set(scores) == set(SCORED) == set(form["results"][1]["category_applied_input_types"])
    assert all(0 <= score <= 1 and math.isfinite(score) for score in scores.values())


def test_no_text_no_finding(packaged):
    assert packaged.check([]) == [] and packaged.check([""])[0].action == "allow"


ORDINARY = [
    *("How do I kill a process in Linux?", "The committee approved the annual budget.", "Wie geht es dir heute?"),
    *(
        "Je voudrais un café, s'il vous plaît.",
        "The war killed thousands of people in 1916.",
        "日本語で話してください。",
    ),
    *(
        "My doctor says that I may have breast cancer.",
        "Scunthorpe lies in Lincolnshire.",
        "def add(a, b): return a + b",
    ),
    *("How can I protect my children from strangers online?", "What is the capital of Australia?"),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_allowed(packaged, text):
    assert packaged.check([text])[0].action == "allow"


def test_the_packaged_classifier_is_small_and_knows_what_it_was_taught():
    classifier = load_classifier().classifier
    assert classifier.classes == SCORED and len(classifier.weights) == BUCKETS and PACKAGED.stat().st_size < 1_000_000
    examples = generate(GRAMMAR, EACH, SEED)[::29]
    truth = np.array([[name in example.labels for name in SCORED] for example in examples])
    right = (load_classifier().scores([example.text for example in examples]) >= 0.5) == truth
    assert right.mean() > 0.99


def test_templates_it_has_not_seen():
    """Trained on three quarters of the templates, it ranks texts of the rest far above chance, category by category."""
    order = list(range(len(GRAMMAR.templates)))
    random.Random(1).shuffle(order)
    held = set(order[::4])
    examples = generate(GRAMMAR, 4, 2)
    scorer = train([example for example in examples if example.template not in held], [])
    rest = [example for example in examples if example.template in held]
    scores = scorer.scores([example.text for example in rest])
    for name in ("hate", "illicit", "sexual", "violence", "self-harm"):
        truth = np.array([name in example.labels for example in rest])
        above = scores[truth, SCORED.index(name)][:, None] > scores[~truth, SCORED.index(name)][None]
        assert above.mean() > 0.8, name


def test_plain_text_is_left_alone(packaged):
    """Of documentation and conversations that it has not seen, next to nothing is flagged and nothing refused."""
    unseen = plain_texts(400, "heldout")
    assert len(unseen) > 300
    actions = Counter(finding.action for finding in packaged.check(unseen))
    assert actions["allow"] > 0.99 * len(unseen) and not actions["refuse"] + actions["block"]


def test_what_reviewers_label_is_learned(tmp_path):
    path = tmp_path / "labels.jsonl"
    rows = [("the quarble is coming for you", True), ("quarble recipes for four", False)]
    path.write_text("".join(json.dumps({"text": t, "labels": {"violence": v, "hate": False}}) + "\n" for t, v in rows))
    labelled = read_labels(path)
    assert [example.labels for example in labelled] == [("violence",), ()]
    examples = generate(GRAMMAR, 2, 0)
    before, after = train(examples, []), train(examples + labelled * 20, [])
    at = SCORED.index("violence")
    threat, recipe = after.scores([text for text, _ in rows])[:, at]
    assert threat > 0.5 > recipe and threat > before.scores([rows[0][0]])[0, at]
    path.write_text('{"text": "x", "labels": {}}\n{"text": "y"}\n')
    with pytest.raises(DataError, match="line 2: expected an object with text and labels"):
        read_labels(path)


def test_generation_is_reproducible_and_varied():
    once, again = generate(GRAMMAR, 3, 3), generate(GRAMMAR, 3, 3)
    assert once == again and generate(GRAMMAR, 3, 4) != once
    assert {label for example in once for label in example.labels} == set(SCORED)
    assert not any("{" in example.text for example in once)


def test_a_file_of_other_categories_is_refused(tmp_path):
    from foretell.measure.classify import fit_classifier

    fit_classifier(["a", "b"], ["x", "y"]).save(tmp_path / "c.npz")
    with pytest.raises(DataError, match="expected harassment"):
        load_classifier(tmp_path / "c.npz")

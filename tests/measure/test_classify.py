"""Text classifiers: the optimum of the stated loss, by scikit-learn where it is there and by its gradient elsewhere."""

import numpy as np
import pytest

from foretell.errors import DataError
from foretell.measure.classify import TextClassifier, fit_classifier, hashed_features

TEXTS = [f"{colour} {thing}" for colour in ("red", "green", "blue") for thing in ("car", "house", "tree", "stone")]
LABELS = [text.split()[0] for text in TEXTS]


def loss(model, texts, truth, l2):
    p = np.clip(model.probabilities(texts), 1e-300, 1)
    losses = -np.log(p[truth > 0]) if model.exclusive else -(truth * np.log(p) + (1 - truth) * np.log1p(-p))
    return losses.sum() / len(texts) + l2 / 2 * (model.weights.astype(np.float64) ** 2).sum()


@pytest.mark.parametrize("exclusive", [True, False])
def test_no_step_in_any_direction_lowers_the_loss(exclusive):
    l2, rng = 0.01, np.random.default_rng(0)
    truth = np.array([[label == name for name in ("blue", "green", "red")] for label in LABELS])
    targets = LABELS if exclusive else truth
    model = fit_classifier(TEXTS, targets, ["blue", "green", "red"], l2=l2, buckets=1 << 10)
    best = loss(model, TEXTS, truth, l2)
    rows = np.flatnonzero(model.weights.any(axis=1))
    for _ in range(20):
        moved = model.weights.copy()
        moved[rows] += rng.normal(0, 0.02, (len(rows), 3)).astype(np.float32)
        assert loss(TextClassifier(model.classes, moved, model.bias, exclusive), TEXTS, truth, l2) > best
        nudged = TextClassifier(model.classes, model.weights, model.bias + rng.normal(0, 0.05, 3), exclusive)
        assert loss(nudged, TEXTS, truth, l2) > best - 1e-9


def test_it_generalises_to_what_it_knows_by_parts():
    model = fit_classifier(TEXTS, LABELS, l2=1e-4)
    assert model.classes == ("blue", "green", "red")
    p = model.probabilities(["a red bridge", "GREEN mountains", "the blue"])
    assert [model.classes[i] for i in p.argmax(axis=1)] == ["red", "green", "blue"]
    assert np.allclose(p.sum(axis=1), 1)


def test_fields_are_kept_apart():
    texts = [("yes", "no"), ("no", "yes")] * 4
    model = fit_classifier(texts, ["first", "second"] * 4, l2=1e-4)
    assert list(model.probabilities([("yes", ""), ("", "yes")]).argmax(axis=1)) == [0, 1]


def test_balanced_counts_a_rare_class_as_much_as_a_common_one():
    texts, labels = ["x"] * 40, ["rare"] * 4 + ["common"] * 36
    plain, even = (fit_classifier(texts, labels, balanced=b).probabilities(["x"])[0] for b in (False, True))
    assert plain == pytest.approx([0.9, 0.1], abs=0.01) and even == pytest.approx([0.5, 0.5], abs=0.01)
    truth = np.array([[label == "rare"] for label in labels])
    even = fit_classifier(texts, truth, ["rare"], balanced=True).probabilities(["x"])[0]
    assert even == pytest.approx([0.5], abs=0.01)


def test_round_trip_is_exact(tmp_path):
    model = fit_classifier(TEXTS, LABELS)
    model.save(tmp_path / "c.npz")
    again = TextClassifier.load(tmp_path / "c.npz")
    assert again.classes == model.classes and again.exclusive
    assert np.array_equal(again.weights, model.weights) and np.array_equal(again.bias, model.bias)
    assert np.array_equal(again.probabilities(TEXTS), model.probabilities(TEXTS))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_damaged_file_is_told(tmp_path, damage):
    path = tmp_path / "c.npz"
    fit_classifier(TEXTS, LABELS).save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        np.savez(path, weights=np.ones(3))
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 300])
    with pytest.raises(DataError, match="Train it again"):
        TextClassifier.load(path)


def test_an_empty_text_has_features_and_rows_have_length_one():
    rows = hashed_features(["", "red car", ("", "")], 64).toarray()
    assert np.allclose((rows**2).sum(axis=1), 1)
    assert np.array_equal(hashed_features(["red"], 64).toarray(), hashed_features([("red",)], 64).toarray())


@pytest.mark.parametrize(
    ("texts", "targets", "classes"),
    [
        ([], [], None),
        (["a"], ["x", "y"], None),
        (["a", "b"], ["x", "x"], None),
        (["a", "b"], ["x", "z"], ["x", "y"]),
        (["a"], np.array([True]), ["x"]),
        (["a"], np.array([[True]]), None),
    ],
)
def test_bad_targets(texts, targets, classes):
    with pytest.raises(DataError):
        fit_classifier(texts, targets, classes)

"""The measure of moderation: missing labels, folds, chains."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from foretell.safety.policy import SCORED
from moderation import DATA, FOLDS, LABELS, NAMES, auprc, averaged, chained, crossed, folds_of, implied, logistic, read

NAN = np.nan


def row(**labels: float) -> list[float]:
    return [labels.get(name, NAN) for name in NAMES]


def test_labels_are_categories_of_the_policy():
    assert set(LABELS.values()) < set(SCORED) and len(NAMES) == 8


def test_what_follows_from_labels():
    known = implied(np.array([row(S3=1), row(H=0), row(V=1), row(H=0, H2=1)]))
    at = NAMES.index
    assert known[0, at("S")] == 1 and known[1, at("H2")] == 0 and np.isnan(known[2, at("V2")])
    assert known[3, at("H")] == 1 and known[3, at("H2")] == 1
    assert np.isnan(known[0, at("H")])


def test_folds_keep_alike_texts_together_and_deal_out_rare_positives():
    texts = [f"text {i // 2}" for i in range(200)]
    known = np.zeros((200, len(NAMES)))
    known[:40:2, NAMES.index("V2")] = 1
    fold = folds_of(texts, known, FOLDS, 0)
    assert (fold[::2] == fold[1::2]).all() and set(fold) == set(range(FOLDS))
    rare = np.bincount(fold[known[:, NAMES.index("V2")] == 1], minlength=FOLDS)
    assert rare.max() - rare.min() <= 1


def test_missing_labels_do_not_count():
    truth = np.array([[1.0] * 8, [0.0] * 8, [NAN] * 8])
    scores = np.array([[0.5] * 8, [0.1] * 8, [0.9] * 8])
    assert auprc(scores, truth).tolist() == [1.0] * 8


def test_crossed_scores_come_from_models_that_have_not_seen_the_row():
    known, fold = np.zeros((6, len(NAMES))), np.array([0, 1, 2, 0, 1, 2])
    seen = []

    def fit(train, labels, test):
        seen.append((set(train), set(test)))
        return np.tile(test[:, None], (1, len(NAMES))).astype(float)

    assert crossed(fit, known, fold, np.arange(6))[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(seen) == 3 and all(not train & test and len(train | test) == 6 for train, test in seen)


def test_chain_and_mean_of_methods():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4))
    known = np.zeros((80, len(NAMES)))
    known[:, :] = (x[:, [0]] > 0).astype(float)
    for part in ("S3", "H2", "V2"):
        known[:, NAMES.index(part)] *= x[:, 1] > 0
    rows = np.arange(80)
    plain = logistic(x, 10)(rows, known, rows)
    chain = chained(logistic(x, 10))(rows, known, rows)
    part, whole = NAMES.index("S3"), NAMES.index("S")
    assert np.array_equal(chain[:, whole], plain[:, whole]) and (chain[:, part] <= 0).all()
    assert auprc(chain, known)[part] > 0.95
    again = logistic(x, 10)
    before = again(rows, known, rows).copy()
    chained(again)(rows, known, rows)
    assert np.array_equal(again(rows, known, rows), before)
    mean = averaged(logistic(x, 10), logistic(x, 10))(rows, known, rows)
    assert np.allclose(mean.mean(axis=0), 0) and np.allclose(mean.std(axis=0), 1)


@pytest.mark.realdata
def test_the_public_set_reads():
    texts, truth = read(Path(os.environ["FORETELL_DATA"]) / DATA)
    assert len(texts) == len(truth) == 1680
    assert np.nansum(truth, axis=0).tolist() == [237, 162, 94, 76, 51, 85, 41, 24]

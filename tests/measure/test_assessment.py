"""Assessments: what they are made of, changes between two of one set of questions, and repairs on others."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from test_calibration import drawn

from foretell.measure.assessment import assess, change, repair
from foretell.measure.calibration import (
    FLOOR,
    brier_scores,
    expected_calibration_error,
    in_calibration_split,
    log_loss,
    reliability,
    softmax,
)


def test_an_assessment_is_made_of_the_measures():
    logits, right = drawn(300, 2.0)
    p, found = softmax(logits), assess(logits, right)
    assert (found.questions, found.points) == (300, 1200)
    assert found.accuracy.estimate == (p.argmax(axis=1) == right).mean()
    assert found.ece.estimate == expected_calibration_error(p, right)
    assert found.mass_ece.estimate == expected_calibration_error(p, right, mass=True)
    assert found.top_ece.estimate == expected_calibration_error(p, right, top=True)
    assert found.brier.estimate == pytest.approx(brier_scores(p, right).mean())
    assert found.log_loss.estimate == pytest.approx(log_loss(p, right))
    assert found.bins == reliability(p, right) and found.mass_bins == reliability(p, right, mass=True)
    for interval in (found.accuracy, found.ece, found.mass_ece, found.top_ece, found.brier, found.log_loss):
        assert interval.low < interval.estimate < interval.high or interval.low == 0
    assert (found.zeros, found.ones, found.floored) == (0, 0, 0)
    assert found == assess(logits, right)  # the same in every run
    assert assess(logits, right, temperature=2.0).ece.estimate == expected_calibration_error(softmax(logits / 2), right)


def test_probabilities_of_exactly_0_and_1_are_counted():
    logits = [[0.0, -np.inf, -np.inf]] * 3 + [[0.0, -1.0, -800.0], [-50.0, 0.0, -1.0], [0.0, -60.0, -60.0]]
    found = assess(logits, [0, 0, 1, 0, 0, 0])
    assert found.zeros == 7  # six by −inf, and one that no float64 holds
    assert found.ones == 4  # three as they are, and one by rounding
    assert found.floored == 2  # the third question's and the fifth's
    assert np.isfinite(found.log_loss.estimate)
    assert found.log_loss.high <= -np.log(FLOOR)
    json.dumps(asdict(found), allow_nan=False)


def test_groups_are_not_independent():
    logits, right = drawn(100, 2.0)
    twice = assess(np.repeat(logits, 4, axis=0), np.repeat(right, 4), [i // 4 for i in range(400)])
    once = assess(logits, right)
    for name in ("accuracy", "brier", "log_loss", "ece"):
        wide, plain = getattr(twice, name), getattr(once, name)
        assert wide.high - wide.low == pytest.approx(plain.high - plain.low, rel=0.2)
    alone = assess(logits, right, ["one"] * 100)
    assert (alone.brier.low, alone.brier.high, alone.ece.high) == (0, 2, 1)
    json.dumps(asdict(alone), allow_nan=False)


def test_a_change_is_the_difference_with_paired_intervals():
    logits, right = drawn(400, 1.0, seed=3)
    before, after, found = assess(logits, right), assess(logits * 3, right), change(logits, logits * 3, right)
    for name in ("accuracy", "ece", "mass_ece", "top_ece", "brier", "log_loss"):
        wanted = getattr(after, name).estimate - getattr(before, name).estimate
        assert getattr(found, name).estimate == pytest.approx(wanted, abs=1e-12)
    assert found.accuracy.estimate == 0 and found.ece.low > 0 and found.log_loss.low > 0
    apart = after.log_loss.high - after.log_loss.low + before.log_loss.high - before.log_loss.low
    assert found.log_loss.high - found.log_loss.low < apart
    assert change(logits, logits, right, temperatures=(1.0, 1 / 3)).ece.estimate == pytest.approx(found.ece.estimate)
    with pytest.raises(ValueError, match="the same questions"):
        change(logits[:10], logits, right)


def test_a_repair_halves_the_error_of_others_and_keeps_every_choice():
    logits, right = drawn(3000, 3.0)
    names = [f"question {i}" for i in range(3000)]
    found = repair(logits, right, names)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.fitted + found.before.questions == 3000
    assert found.before.accuracy == found.after.accuracy
    assert found.before.ece.low > 0.05
    assert found.ratio < 0.3
    assert found.change.log_loss.high < 0 and found.change.brier.high < 0
    assert found.change.ece.high < 0 and found.change.accuracy.estimate == 0
    held = ~in_calibration_split(names)
    assert found.before == assess(logits[held], right[held], [n for n, h in zip(names, held, strict=True) if h])


def test_a_split_needs_two_sides():
    with pytest.raises(ValueError, match="one side"):
        repair([[0.0, 1.0]] * 4, [0] * 4, ["same"] * 4)

"""Calibration: against loops written out, closed forms, scikit-learn, and simulated models whose error is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.measure.calibration import (
    assess,
    brier_score,
    chance_error,
    ece_interval,
    expected_calibration_error,
    fit_temperature,
    in_calibration_split,
    log_loss,
    reliability,
    repair,
    softmax,
)


def drawn(n, sharper=1.0, seed=0, choices=4):
    """Logits that are `sharper` times those that right choices are drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, choices)) * 2
    right = (rng.random((n, 1)) >= softmax(logits).cumsum(axis=1)).sum(axis=1).clip(max=choices - 1)
    return logits * sharper, right


def written_out(probabilities, right, bins, top):
    """The error by its definition, a point at a time."""
    points = []
    for row, truth in zip(probabilities, right, strict=True):
        best = max(range(len(row)), key=lambda k: row[k])
        points += [(p, k == truth) for k, p in enumerate(row) if not top or k == best]
    total = 0.0
    for i in range(bins):
        held = [(p, y) for p, y in points if i / bins <= p < (i + 1) / bins or (i == bins - 1 and p == 1)]
        if held:
            total += abs(sum(y for _, y in held) - sum(p for p, _ in held))
    return total / len(points)


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("bins", [4, 8, 16])  # their edges are exact in binary, so that both sort alike
def test_the_error_is_that_of_its_definition(bins, top):
    for seed in range(5):
        logits, right = drawn(60, 2.0, seed)
        p = softmax(logits)
        assert expected_calibration_error(p, right, bins, top) == pytest.approx(written_out(p, right, bins, top))


def test_closed_forms():
    sure = np.array([[0.7, 0.1, 0.1, 0.1]] * 10)
    right = [0] * 4 + [1] * 6
    # In [0.7, 0.8): 0.4 are right, not 0.7; in [0.1, 0.2): 6 of 30 are, not 3.
    assert expected_calibration_error(sure, right) == pytest.approx((10 * 0.3 + 30 * 0.1) / 40)
    assert expected_calibration_error(sure, right, top=True) == pytest.approx(0.3)
    assert expected_calibration_error(np.eye(4), [0, 1, 2, 3]) == 0
    assert expected_calibration_error(np.eye(4), [1, 2, 3, 0]) == pytest.approx(0.5)
    assert brier_score(np.eye(4), [1, 2, 3, 0]) == 2
    assert brier_score(np.full((3, 4), 0.25), [0, 1, 2]) == pytest.approx(0.75)
    assert log_loss(np.full((3, 4), 0.25), [0, 1, 2]) == pytest.approx(np.log(4))
    assert log_loss(np.eye(2), [1, 0]) == np.inf


def test_bins_hold_every_point_and_the_error():
    logits, right = drawn(300, 2.0)
    p = softmax(logits)
    for top, points in ((False, 1200), (True, 300)):
        found = reliability(p, right, top=top)
        assert sum(b.count for b in found) == points
        assert all(b.low <= b.confidence < b.high or b.high == 1 for b in found)
        gap = sum(b.count * abs(b.accuracy.estimate - b.confidence) for b in found) / points
        assert expected_calibration_error(p, right, top=top) == pytest.approx(gap)
    assert reliability(np.eye(2), [0, 1])[-1].high == 1


def test_scikit_learn_says_the_same():
    metrics = pytest.importorskip("sklearn.metrics")
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logits, right = drawn(400, 2.0, seed=3)
    p = softmax(logits)
    assert log_loss(p, right) == pytest.approx(metrics.log_loss(right, p, labels=range(4)), rel=1e-9)
    per_choice = [metrics.brier_score_loss(right == k, p[:, k]) for k in range(4)]
    assert brier_score(p, right) == pytest.approx(sum(per_choice), rel=1e-9)
    shares, means = curve((np.arange(4) == right[:, None]).ravel(), p.ravel(), n_bins=10)
    found = reliability(p, right)
    assert [b.accuracy.estimate for b in found] == pytest.approx(list(shares))
    assert [b.confidence for b in found] == pytest.approx(list(means))


@given(st.floats(0.02, 0.98), st.floats(0.1, 5.0))
def test_the_temperature_of_two_choices_has_a_closed_form(share, gap):
    # Of 1000 questions with logits (gap, 0), `share` are right: sigmoid(gap / T) must be that share.
    count = round(1000 * share)
    right = [0] * count + [1] * (1000 - count)
    odds = np.log(count / (1000 - count))
    wanted = gap / odds if odds > 0 and gap / odds < 100 else 100
    assert fit_temperature([[gap, 0.0]] * 1000, right) == pytest.approx(max(wanted, 0.01), rel=1e-6)


@pytest.mark.parametrize("sharper", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_sharpened_the_logits(sharper):
    logits, right = drawn(20_000, sharper)
    temperature = fit_temperature(logits, right)
    assert temperature == pytest.approx(sharper, rel=0.05)
    losses = [log_loss(softmax(logits, t), right) for t in (temperature * 0.97, temperature, temperature * 1.03)]
    assert min(losses) == losses[1]


def test_temperatures_without_a_root():
    assert fit_temperature([[1.0, 0.0]] * 3, [0, 0, 0]) == pytest.approx(0.01)
    assert fit_temperature([[1.0, 0.0]] * 3, [1, 1, 0]) == 100
    assert fit_temperature([[0.0, 0.0]] * 3, [1, 1, 0]) == 1


def test_log_probabilities_may_be_shifted_by_question():
    logits, right = drawn(50)
    moved = logits - np.arange(50)[:, None]
    assert softmax(moved) == pytest.approx(softmax(logits))
    assert fit_temperature(moved, right) == pytest.approx(fit_temperature(logits, right))


def test_a_repair_halves_the_error_of_others_and_keeps_every_choice():
    logits, right = drawn(3000, 3.0)
    names = [f"question {i}" for i in range(3000)]
    found = repair(logits, right, names)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.fitted + found.before.questions == 3000
    assert found.before.accuracy == found.after.accuracy
    assert found.before.ece.low > 0.05
    assert found.ratio < 0.3
    assert found.after.log_loss < found.before.log_loss
    assert found.after.brier < found.before.brier
    held = ~in_calibration_split(names)
    assert found.before == assess(logits[held], right[held], [n for n, h in zip(names, held, strict=True) if h])


def test_the_split_keeps_groups_whole_and_does_not_depend_on_the_others():
    names = [f"q{i // 3}" for i in range(3000)]
    used = in_calibration_split(names)
    assert 0.45 < used.mean() < 0.55
    assert len({(name, flag) for name, flag in zip(names, used, strict=True)}) == 1000
    assert (in_calibration_split(names[:30]) == used[:30]).all()
    assert in_calibration_split(names, 0.2).mean() == pytest.approx(0.2, abs=0.05)
    with pytest.raises(ValueError, match="one side"):
        repair([[0.0, 1.0]] * 4, [0] * 4, ["same"] * 4)


def test_the_interval_covers_a_known_error():
    many, truth = drawn(100_000, 2.0)
    known = expected_calibration_error(softmax(many), truth)
    covered = 0
    for seed in range(40):
        logits, right = drawn(300, 2.0, seed + 1)
        found = ece_interval(softmax(logits), right, np.random.default_rng(seed), resamples=300)
        covered += found.low <= known <= found.high
    assert covered >= 33


def test_groups_are_drawn_whole():
    logits, right = drawn(200, 2.0)
    p, names = softmax(logits), [f"q{i}" for i in range(200)]
    plain = ece_interval(p, right, np.random.default_rng(0))
    assert ece_interval(p, right, np.random.default_rng(0), names) == plain
    again = ece_interval(np.tile(p, (5, 1)), np.tile(right, 5), np.random.default_rng(0), names * 5)
    assert (again.estimate, again.low, again.high) == pytest.approx((plain.estimate, plain.low, plain.high))
    assert ece_interval(p, right, np.random.default_rng(0), ["one"] * 200).high == 1


def test_chance_error_is_what_a_calibrated_model_shows():
    found = [
        expected_calibration_error(softmax(logits), right) for logits, right in (drawn(200, seed=s) for s in range(40))
    ]
    logits, _ = drawn(200)
    assert chance_error(softmax(logits), np.random.default_rng(0)) == pytest.approx(np.mean(found), rel=0.15)


@pytest.mark.parametrize(
    ("probabilities", "right"),
    [
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([[0.5, 0.5]], [0, 1]),
        (np.zeros((0, 4)), []),
        ([0.5, 0.5], [0]),
        ([[0.9, 0.5]], [0]),
        ([[np.nan, 0.5]], [0]),
    ],
)
def test_what_is_no_set_of_questions_is_refused(probabilities, right):
    with pytest.raises(ValueError, match="expected"):
        expected_calibration_error(np.array(probabilities), right)


def test_logits_must_be_finite():
    for bad in ([[np.inf, 0.0]], [[np.nan, 0.0]], [0.0, 1.0]):
        with pytest.raises(ValueError, match="finite"):
            softmax(bad)
    with pytest.raises(ValueError, match="above"):
        softmax([[0.0, 1.0]], 0.0)

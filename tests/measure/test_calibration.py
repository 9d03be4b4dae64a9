"""Calibration: against loops written out, closed forms, scikit-learn, torchmetrics, and models whose error is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.measure.calibration import (
    FLOOR,
    brier_scores,
    chance_error,
    ece_change,
    ece_interval,
    expected_calibration_error,
    fit_temperature,
    in_calibration_split,
    log_loss,
    log_losses,
    log_softmax,
    padded,
    reliability,
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
    assert brier_scores(np.eye(4), [1, 2, 3, 0]).mean() == 2
    assert brier_scores(np.full((3, 4), 0.25), [0, 1, 2]).mean() == pytest.approx(0.75)
    assert log_loss(np.full((3, 4), 0.25), [0, 1, 2]) == pytest.approx(np.log(4))
    assert log_loss(np.eye(2), [1, 0]) == -np.log(FLOOR)
    assert log_losses(np.array([[1.0, 0.0], [0.25, 0.75]]), [0, 0]) == pytest.approx([0.0, np.log(4)])


def test_bins_hold_every_point_and_the_error():
    logits, right = drawn(300, 2.0)
    p = softmax(logits)
    found = reliability(p, right)
    assert sum(b.count for b in found) == 1200
    assert all(b.low <= b.confidence < b.high or b.high == 1 for b in found)
    gap = sum(b.count * abs(b.accuracy.estimate - b.confidence) for b in found) / 1200
    assert expected_calibration_error(p, right) == pytest.approx(gap)
    assert reliability(np.eye(2), [0, 1])[-1].high == 1


def test_scikit_learn_says_the_same():
    metrics = pytest.importorskip("sklearn.metrics")
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logits, right = drawn(400, 2.0, seed=3)
    p = softmax(logits)
    assert log_loss(p, right) == pytest.approx(metrics.log_loss(right, p, labels=range(4)), rel=1e-9)
    per_choice = [metrics.brier_score_loss(right == k, p[:, k]) for k in range(4)]
    assert brier_scores(p, right).mean() == pytest.approx(sum(per_choice), rel=1e-9)
    shares, means = curve((np.arange(4) == right[:, None]).ravel(), p.ravel(), n_bins=10)
    found = reliability(p, right)
    assert [b.accuracy.estimate for b in found] == pytest.approx(list(shares))
    assert [b.confidence for b in found] == pytest.approx(list(means))
    shares, means = curve((np.arange(4) == right[:, None]).ravel(), p.ravel(), n_bins=7, strategy="quantile")
    found = reliability(p, right, 7, mass=True)
    assert [b.accuracy.estimate for b in found] == pytest.approx(list(shares))
    assert [b.confidence for b in found] == pytest.approx(list(means))
    assert max(b.count for b in found) - min(b.count for b in found) <= 1


def test_scikit_learn_says_the_same_of_probabilities_of_0_and_1():
    metrics = pytest.importorskip("sklearn.metrics")
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    p = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75], [0.6, 0.4, 0.0]])
    right = np.array([0, 2, 2, 1])
    assert log_loss(p, right) == pytest.approx(metrics.log_loss(right, p, labels=range(3)), rel=1e-9)
    per_choice = [metrics.brier_score_loss(right == k, p[:, k]) for k in range(3)]
    assert brier_scores(p, right).mean() == pytest.approx(sum(per_choice), rel=1e-12)
    shares, means = curve((np.arange(3) == right[:, None]).ravel(), p.ravel(), n_bins=10)
    found = reliability(p, right)
    assert [b.accuracy.estimate for b in found] == pytest.approx(list(shares))
    assert [b.confidence for b in found] == pytest.approx(list(means))


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_torchmetrics_says_the_same(bins):
    """Its binary error of every choice is the all-choice error, its multiclass error that of the likeliest ones."""
    peer = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    logits, right = drawn(500, 2.5, seed=4)
    p = softmax(logits)
    told = torch.from_numpy((np.arange(4) == right[:, None]).ravel().astype(int))
    theirs = peer.binary_calibration_error(torch.from_numpy(p.ravel()), told, bins, norm="l1")
    assert expected_calibration_error(p, right, bins) == pytest.approx(float(theirs), abs=1e-12)
    theirs = peer.multiclass_calibration_error(torch.from_numpy(p), torch.from_numpy(right), 4, bins, norm="l1")
    assert expected_calibration_error(p, right, bins, top=True) == pytest.approx(float(theirs), abs=1e-6)  # in float32
    # It gives exactly 1 a bin of its own, which here is part of the last: alike where nothing else is in that.
    sure, truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]]), np.array([0, 0, 1])
    told = torch.from_numpy((np.arange(2) == truth[:, None]).ravel().astype(int))
    theirs = peer.binary_calibration_error(torch.from_numpy(sure.ravel()), told, bins, norm="l1")
    assert expected_calibration_error(sure, truth, bins) == pytest.approx(float(theirs), abs=1e-7)


def test_bins_of_equal_mass():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = reliability(p, [0, 0, 1, 1], 4, mass=True)
    assert [b.count for b in found] == [2, 2, 2, 2]
    assert [b.accuracy.estimate for b in found] == [0, 1, 0, 1]  # 0.1 and 0.2; 0.3 and 0.4; 0.6 and 0.7; 0.8 and 0.9
    gap = (abs(0 - 0.15) + abs(1 - 0.35) + abs(0 - 0.65) + abs(1 - 0.85)) / 4
    assert expected_calibration_error(p, [0, 0, 1, 1], 4, mass=True) == pytest.approx(gap)
    alike = np.full((5, 2), 0.5)  # one probability: one bin holds it
    assert [b.count for b in reliability(alike, [0] * 5, mass=True)] == [10]
    assert expected_calibration_error(alike, [0] * 5, mass=True) == 0


def test_questions_may_have_different_numbers_of_choices():
    logits = padded([[2.0, 1.0], [0.0, 1.0, 2.0], [1.0, 1.0]])
    p, right = softmax(logits), [0, 1, 1]
    assert np.nansum(p, axis=1) == pytest.approx([1, 1, 1])
    assert np.isnan(p[0, 2]) and np.isnan(p[2, 2])
    assert sum(b.count for b in reliability(p, right)) == 7
    parts = [softmax([[2.0, 1.0], [1.0, 1.0]]), softmax([[0.0, 1.0, 2.0]])]
    ragged = brier_scores(parts[0], [0, 1]).tolist() + brier_scores(parts[1], [1]).tolist()
    assert sorted(brier_scores(p, right)) == pytest.approx(sorted(ragged))
    points = np.concatenate([p[0, :2], p[1], p[2, :2]])
    truths = np.array([1, 0, 0, 1, 0, 0, 1.0])
    place = np.minimum((points * 10).astype(int), 9)
    wanted = sum(abs((truths - points)[place == i].sum()) for i in range(10)) / 7
    assert expected_calibration_error(p, right) == pytest.approx(wanted)
    assert 0 <= chance_error(p, np.random.default_rng(0)) <= 1
    with pytest.raises(ValueError, match="expected"):  # the first question has no third choice
        expected_calibration_error(p, [2, 1, 1])
    # The temperature of questions of two choices does not change for the room behind them.
    two, truth = drawn(300, 2.0, choices=2)
    wide = np.concatenate([two, np.full((300, 1), np.nan)], axis=1)
    assert fit_temperature(wide, truth) == pytest.approx(fit_temperature(two, truth))


def test_choices_held_impossible():
    logits = [[0.0, -np.inf, -1.0], [-np.inf, 0.0, -np.inf], [-np.inf, 0.0, -1.0]]
    p = softmax(logits)
    assert p[1].tolist() == [0, 1, 0]
    assert softmax(logits, 5.0)[1].tolist() == [0, 1, 0]
    assert log_softmax([[0.0, -1000.0]])[0, 1] == -1000
    # The third question's right choice stays impossible at any temperature, so that the others alone count.
    many = np.array([[1.0, 0.0, -np.inf]] * 70 + [[-np.inf, 0.0, 5.0]] * 30)
    right = [0] * 50 + [1] * 20 + [0] * 30
    assert fit_temperature(many, right) == pytest.approx(1 / np.log(50 / 20), rel=1e-6)
    assert fit_temperature([[-np.inf, 0.0]] * 3, [0, 0, 0]) == 1


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


def test_the_split_keeps_groups_whole_and_does_not_depend_on_the_others():
    names = [f"q{i // 3}" for i in range(3000)]
    used = in_calibration_split(names)
    assert 0.45 < used.mean() < 0.55
    assert len({(name, flag) for name, flag in zip(names, used, strict=True)}) == 1000
    assert (in_calibration_split(names[:30]) == used[:30]).all()


def test_the_interval_covers_a_known_error():
    many, truth = drawn(100_000, 2.0)
    known = expected_calibration_error(softmax(many), truth)
    covered = 0
    for seed in range(40):
        logits, right = drawn(300, 2.0, seed + 1)
        found = ece_interval(softmax(logits), right, np.random.default_rng(seed), resamples=300)
        covered += found.low <= known <= found.high
    assert covered >= 33


@pytest.mark.parametrize("mass", [False, True])
def test_the_change_of_the_error_is_paired(mass):
    logits, right = drawn(400, 1.0, seed=5)
    before, after = softmax(logits), softmax(logits * 2.5)
    same = ece_change(before, before, right, np.random.default_rng(0), mass=mass)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    found = ece_change(before, after, right, np.random.default_rng(0), mass=mass)
    a, b = (expected_calibration_error(p, right, mass=mass) for p in (before, after))
    assert found.estimate == pytest.approx(b - a)
    assert 0 < found.low < found.estimate < found.high
    back = ece_change(after, before, right, np.random.default_rng(0), mass=mass)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert ece_change(before, after, right, np.random.default_rng(0), ["one"] * 400).low == -1


def test_the_change_covers_the_truth():
    many, truth = drawn(100_000, 1.5)
    known = expected_calibration_error(softmax(many * 2), truth) - expected_calibration_error(softmax(many), truth)
    covered = 0
    for seed in range(40):
        logits, right = drawn(300, 1.5, seed + 1)
        pair = softmax(logits), softmax(logits * 2)
        found = ece_change(*pair, right, np.random.default_rng(seed), resamples=300)
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
    for bad in ([[np.inf, 0.0]], [[np.nan, 0.0]], [[-np.inf, -np.inf]], [[np.nan, np.nan]], [0.0, 1.0], [[]]):
        with pytest.raises(ValueError, match="finite"):
            softmax(bad)
    with pytest.raises(ValueError, match="above"):
        softmax([[0.0, 1.0]], 0.0)

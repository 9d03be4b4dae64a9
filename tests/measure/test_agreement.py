"""Agreement of judges beside scikit-learn and the published worked example."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from foretell.measure.agreement import cohen_kappa, krippendorff_alpha

_ = None
# Krippendorff (2011), section C: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
UNITS = [[row[i] for row in OBSERVERS if row[i] is not None] for i in range(12)]


def test_kappa_is_scikit_learn_s() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 200).tolist()
    b = [x if rng.random() < 0.6 else int(rng.integers(0, 3)) for x in a]
    assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
    assert cohen_kappa(["x", "y"], ["x", "y"]) == 1 and isnan(cohen_kappa([1, 1], [1, 1]))
    with pytest.raises(ValueError, match="as many"):
        cohen_kappa([1], [1, 2])


def test_alpha_is_that_of_the_published_example() -> None:
    assert krippendorff_alpha(UNITS) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(UNITS, "interval") == pytest.approx(0.849, abs=5e-4)
    assert isnan(krippendorff_alpha([[1, 1], [1]])) and isnan(krippendorff_alpha([]))


def test_alpha_of_two_full_judges_comes_near_kappa() -> None:
    """Both correct for chance; they differ by a term of the order of one over the number of items."""
    rng = np.random.default_rng(1)
    a = rng.integers(0, 2, 4000)
    b = np.where(rng.random(4000) < 0.8, a, 1 - a)
    alpha = krippendorff_alpha(list(zip(a.tolist(), b.tolist(), strict=True)))
    assert alpha == pytest.approx(cohen_kappa(a.tolist(), b.tolist()), abs=2e-3)

"""AUROC, average precision and mAP@k equal scikit-learn and plain words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from search.evaluation.ranking import (
    average_precision_at_k,
    mean_of_classes,
    ranked,
    ranked_by_class,
)


@pytest.mark.parametrize("levels", [3, 11, 10_000])
def test_they_are_those_of_scikit_learn_with_weights_and_ties(
    rng: np.random.Generator, levels: int
) -> None:
    shares = rng.integers(0, levels, 300) / levels
    positive = rng.random(300) < 0.3
    weights = rng.integers(0, 4, (5, 300))

    found = ranked(shares, positive, weights)

    for at, weight in enumerate(weights):
        auroc = roc_auc_score(positive, shares, sample_weight=weight)
        auprc = average_precision_score(positive, shares, sample_weight=weight)
        assert found.auroc[at] == pytest.approx(auroc)
        assert found.auprc[at] == pytest.approx(auprc)


def test_a_class_that_is_missing_has_no_score_and_does_not_count_in_the_mean(
    rng: np.random.Generator,
) -> None:
    truth = np.array([0, 0, 1, 1])
    shares = rng.random((4, 3))

    auroc, _ = ranked_by_class(shares, truth, np.ones((1, 4)))

    assert np.isnan(auroc[0, 2])
    assert mean_of_classes(auroc)[0] == pytest.approx(auroc[0, :2].mean())
    assert np.isnan(mean_of_classes(np.full((1, 2), np.nan)))[0]


def test_map_at_k_is_the_mean_precision_at_each_hit() -> None:
    relevant = np.array([[True, False, True], [False, False, False], [True, True, True]])

    found = average_precision_at_k(relevant, np.array([2, 5, 0]))

    assert found[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found[1] == 0.0
    assert np.isnan(found[2])

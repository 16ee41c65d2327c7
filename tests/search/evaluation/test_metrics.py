from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from search.evaluation.metrics import bootstrap, confusion, scores


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 12))
    truth = rng.integers(0, classes, 200)
    predicted = np.where(rng.random(200) < 0.6, truth, rng.integers(0, classes, 200))

    found = scores(confusion(truth, predicted, classes))

    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["weighted_f1"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_a_class_without_truth_counts_as_scikit_learn_counts_it():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])

    found = scores(confusion(truth, predicted, 5))

    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["macro_f1"] == pytest.approx(
        f1_score(truth, predicted, average="macro", zero_division=0)
    )


def test_class_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="predicted must hold class numbers 0 to 1, got -1 to 1"):
        confusion(np.array([0, 1]), np.array([-1, 1]), 2)


def test_no_predictions_cannot_be_scored():
    with pytest.raises(ValueError, match="no predictions"):
        scores(np.zeros((2, 2)))


def test_intervals_contain_the_score_and_repeat_with_the_seed(rng):
    truth = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 3, 300))
    names = np.arange(300).astype(str)

    first = bootstrap(truth, predicted, names, 3, resamples=200, seed=1)
    again = bootstrap(truth, predicted, names, 3, resamples=200, seed=1)

    assert first == again
    for name, value in scores(confusion(truth, predicted, 3)).items():
        assert first[name].low < value < first[name].high
        assert first[name].clusters == 300


def test_drawing_whole_patients_widens_the_interval_when_their_cells_agree(rng):
    truth = np.repeat(rng.integers(0, 2, 20), 30)
    right = np.repeat(rng.random(20) < 0.7, 30)
    predicted = np.where(right, truth, 1 - truth)
    patients = np.repeat(np.arange(20), 30).astype(str)

    by_patient = bootstrap(truth, predicted, patients, 2, resamples=300)["accuracy"]
    by_cell = bootstrap(truth, predicted, np.arange(600).astype(str), 2, resamples=300)["accuracy"]

    assert by_patient.clusters == 20
    assert by_patient.high - by_patient.low > 2 * (by_cell.high - by_cell.low)


def test_one_cluster_has_no_spread():
    found = bootstrap(np.array([0, 1, 1]), np.array([0, 1, 0]), ["p", "p", "p"], 2, resamples=5)

    assert found["accuracy"].low == found["accuracy"].high == pytest.approx(2 / 3)

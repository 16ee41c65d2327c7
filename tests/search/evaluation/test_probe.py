from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from search.evaluation.probe import inverse_strength, linear_probe


def test_the_strength_is_classes_times_n_over_100_in_both_readings():
    assert inverse_strength(11, 9713, 384, "samples") == pytest.approx(11 * 9713 / 100)
    assert inverse_strength(11, 9713, 384, "features") == pytest.approx(11 * 384 / 100)


def test_the_probe_is_scikit_learns_with_that_strength(rng):
    train, test = rng.standard_normal((120, 6)), rng.standard_normal((40, 6))
    labels = train[:, :3].argmax(axis=1)

    found = linear_probe(train, labels, test)

    plain = LogisticRegression(C=3 * 120 / 100, max_iter=1000).fit(train, labels)
    assert np.array_equal(found.predicted, plain.predict(test))
    assert found.C == 3.6
    assert found.converged
    assert 0 < found.iterations < 1000


def test_a_fit_that_did_not_converge_is_reported_without_a_warning(rng):
    train = rng.standard_normal((60, 5))

    found = linear_probe(train, (train[:, 0] > 0).astype(int), train, max_iter=1)

    assert not found.converged
    assert found.iterations == 1


def test_classes_outside_the_training_set_keep_their_numbers(rng):
    train = rng.standard_normal((60, 5))
    labels = np.where(train[:, 0] > 0, 7, 2)

    found = linear_probe(train, labels, train)

    assert set(found.predicted) == {2, 7}


def test_one_class_cannot_be_probed(rng):
    with pytest.raises(ValueError, match="needs two classes to learn from, got 1"):
        linear_probe(rng.standard_normal((4, 2)), np.zeros(4, int), rng.standard_normal((1, 2)))

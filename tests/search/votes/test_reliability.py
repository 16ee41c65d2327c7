"""Probabilities from shares: both fits, and the measures of their truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss as oracle_log_loss

from search.schemas.calibration import softened
from search.votes.reliability import (
    coverage_curve,
    ece,
    fit_isotonic,
    fit_temperature,
    log_loss,
    reliability,
)


def drawn(rng: np.random.Generator, n: int, truth: float) -> tuple[list[list[float]], np.ndarray]:
    """Votes between two labels that are right as often as shares ** (1 / truth) say."""
    top = rng.uniform(0.5, 0.99, n)
    votes = [[p, 1 - p] for p in top]
    chance = np.array([softened(vote, truth) for vote in votes])
    return votes, (rng.random(n) < chance).astype(float)


def test_temperature_one_leaves_shares_as_they_are() -> None:
    assert softened([0.7, 0.2, 0.1], 1.0) == pytest.approx(0.7)
    assert softened([0.7, 0.2, 0.1], 5.0) < 0.7 < softened([0.7, 0.2, 0.1], 0.5)
    assert softened([1.0], 3.0) == 1.0


def test_the_temperature_that_made_the_votes_is_found_again(rng: np.random.Generator) -> None:
    votes, right = drawn(rng, 4000, 2.0)

    found = fit_temperature(votes, right)

    assert found.temperature == pytest.approx(2.0, rel=0.15)
    assert found.at([0.9, 0.1]) == pytest.approx(softened([0.9, 0.1], 2.0), abs=0.02)


def test_isotonic_rises_and_is_near_the_oracle(rng: np.random.Generator) -> None:
    votes, right = drawn(rng, 3000, 2.0)
    top = np.array([vote[0] for vote in votes])

    found = fit_isotonic(top, right)
    oracle = IsotonicRegression().fit(top, right).predict(top)

    assert list(found.probabilities) == sorted(found.probabilities)
    assert list(found.shares) == sorted(found.shares)
    mine = np.array([found.at(vote) for vote in votes])
    assert np.abs(mine - oracle).mean() < 0.02
    assert min(found.probabilities) > 0
    assert max(found.probabilities) < 1


def test_log_loss_equals_the_oracle(rng: np.random.Generator) -> None:
    p, right = rng.uniform(0.01, 0.99, 200), (rng.random(200) < 0.5).astype(float)

    assert log_loss(p, right) == pytest.approx(oracle_log_loss(right, p))


def test_the_calibration_error_is_the_weighted_gap() -> None:
    p = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([1.0, 1, 1, 0, 1, 0, 1])

    curve = reliability(p, right)

    assert [bin.count for bin in curve] == [2, 5]
    assert curve[1].accuracy == pytest.approx(0.8)
    assert ece(curve) == pytest.approx((2 * 0.05 + 5 * 0.16) / 7)


def test_coverage_falls_and_accuracy_rises_for_a_good_certainty() -> None:
    certainty = np.arange(100) / 100
    right = (np.arange(100) >= 30).astype(float)

    curve = coverage_curve(certainty, right, 10)

    assert curve[0].coverage == 1
    assert curve[0].accuracy == pytest.approx(0.7)
    assert [point.accuracy for point in curve[3:]] == [1.0] * 7
    assert [point.coverage for point in curve] == sorted(
        (point.coverage for point in curve), reverse=True
    )

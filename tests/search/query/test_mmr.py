"""Maximal marginal relevance."""

from __future__ import annotations

import numpy as np
import pytest

from search.query.mmr import mmr

ROWS = np.array([[1, 0], [0.999, 0.0447], [0.6, 0.8], [0, 1]], np.float32)
SCORES = [0.95, 0.94, 0.7, 0.2]


def test_with_all_weight_on_similarity_the_order_stays() -> None:
    assert mmr(SCORES, ROWS, 3, 1.0) == [0, 1, 2]


def test_a_near_copy_of_what_was_chosen_waits() -> None:
    assert mmr(SCORES, ROWS, 2, 0.6) == [0, 2]


def test_with_all_weight_on_variety_the_farthest_comes_second() -> None:
    assert mmr(SCORES, ROWS, 2, 0.0) == [0, 3]


def test_it_is_the_plain_greedy_rule(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(30, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = sorted(rng.uniform(0, 1, 30).tolist(), reverse=True)
    chosen = [0]
    while len(chosen) < 12:
        left = [at for at in range(30) if at not in chosen]
        chosen.append(
            max(
                left,
                key=lambda at: 0.7 * scores[at] - 0.3 * max(rows[at] @ rows[c] for c in chosen),
            )
        )

    assert mmr(scores, rows.astype(np.float32), 12, 0.7) == pytest.approx(chosen)
    assert mmr(scores[:3], rows[:3].astype(np.float32), 12, 0.7).__len__() == 3

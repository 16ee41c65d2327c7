"""Rows that belong together, and exact neighbours outside the own group."""

from __future__ import annotations

import numpy as np
import pytest

from search.neighbours.groups import FEW, groups, neighbours_outside


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def oracle(vectors, group, row, references, k):
    """Row after row, in double precision, in plain words."""
    wide = vectors.astype(np.float64)
    scored = [
        (-float(wide[row] @ wide[at]), int(at)) for at in references if group[at] != group[row]
    ]
    return [at for score, at in sorted(scored) if -score < 0.99999][:k]


def test_whoever_shares_a_patient_a_case_or_a_source_belongs_together() -> None:
    patients = ["P1", None, None, "P2", None, "P2"]
    cases = [None, "C1", None, None, None, "C1"]
    sources = ["a", "a", "b", "c", "d", "e"]

    found = groups(patients, cases, sources)

    assert found.tolist() == [0, 0, 1, 0, 2, 0]


@pytest.mark.parametrize("members", [1, 7, FEW + 40])
def test_neighbours_are_those_of_the_oracle_whatever_the_size_of_a_group(
    rng: np.random.Generator, members: int
) -> None:
    n = max(120, 3 * members)
    vectors = unit(rng.normal(size=(n, 5)))
    vectors[3] = vectors[n - 1]  # one picture in two groups
    group = np.arange(n) // members
    queries = np.sort(rng.choice(n, 30, replace=False))
    queries = np.unique(np.append(queries, [3, n - 1]))
    references = np.sort(rng.choice(n, 2 * n // 3, replace=False))

    rows, scores = neighbours_outside(vectors, group, queries, references, 6)

    for at, row in enumerate(queries):
        want = oracle(vectors, group, row, references, 6)
        assert rows[at][rows[at] >= 0].tolist() == want
        assert scores[at, : len(want)] == pytest.approx(
            [float(vectors[row] @ vectors[one]) for one in want], abs=1e-6
        )


def test_where_there_are_too_few_references_the_rest_is_marked_missing(
    rng: np.random.Generator,
) -> None:
    vectors = unit(rng.normal(size=(6, 4)))
    group = np.array([0, 0, 0, 1, 1, 2])

    rows, scores = neighbours_outside(vectors, group, np.arange(6), np.arange(6), 4)

    assert (rows >= 0).sum(axis=1).tolist() == [3, 3, 3, 4, 4, 4]
    assert np.isneginf(scores[0, 3])


def test_a_callback_that_raises_stops_the_search(rng: np.random.Generator) -> None:
    vectors = unit(rng.normal(size=(20, 4)))

    def stop(done: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        neighbours_outside(vectors, np.arange(20), np.arange(20), np.arange(20), 2, stop)


def test_rows_can_be_joined_for_another_reason_too() -> None:
    patients = ["P1", "P1", "P2", None, None]

    assert groups(patients, pairs=[(3, 1)]).tolist() == [0, 0, 1, 0, 2]
    assert groups(patients, pairs=[(4, 2), (2, 0)]).tolist() == [0, 0, 0, 1, 0]

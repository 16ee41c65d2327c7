"""Distances between bags, against plain statements of their formulas."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from search.cases.distances import (
    directions,
    histogram,
    kmeans,
    max_sims,
    mean_vector,
    pairs,
    soft_histogram,
    transport_distance,
)


def unit(rng: np.random.Generator, n: int, dim: int = 5) -> np.ndarray:
    rows = rng.normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def max_sim_distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(max_sims(one @ other.T, [np.ones(len(one))])[0])


def test_a_bag_is_at_no_distance_from_itself_in_any_order(rng: np.random.Generator) -> None:
    bag = unit(rng, 9)
    other = bag[::-1]

    assert mean_vector(bag) == pytest.approx(mean_vector(other))
    assert max_sim_distance(bag, other) == pytest.approx(0, abs=1e-6)
    prototypes = kmeans(bag, 3)
    assert histogram(bag, prototypes) == pytest.approx(histogram(other, prototypes))
    assert transport_distance(bag, other, directions(5)) == pytest.approx(0, abs=1e-6)


def test_every_distance_is_symmetric(rng: np.random.Generator) -> None:
    one, other = unit(rng, 7), unit(rng, 4)
    along = directions(5)

    assert max_sim_distance(one, other) == pytest.approx(max_sim_distance(other, one))
    assert transport_distance(one, other, along) == pytest.approx(
        transport_distance(other, one, along)
    )


def test_max_sim_is_the_mean_of_the_best_cosines_both_ways(rng: np.random.Generator) -> None:
    one, other = unit(rng, 3), unit(rng, 5)

    there = np.mean([max(float(a @ b) for b in other) for a in one])
    back = np.mean([max(float(a @ b) for a in one) for b in other])

    assert max_sim_distance(one, other) == pytest.approx(1 - (there + back) / 2, abs=1e-6)


def test_transport_of_equal_bags_in_one_dimension_is_the_best_assignment() -> None:
    one, other = np.array([[0.0], [1.0], [5.0]]), np.array([[2.0], [2.5], [0.5]])
    best = min(
        np.mean([(a - b) ** 2 for a, b in zip(one[:, 0], order, strict=True)])
        for order in permutations(other[:, 0])
    )

    found = transport_distance(one.astype(np.float32), other.astype(np.float32), np.ones((1, 1)))

    assert found == pytest.approx(float(np.sqrt(best)))


def test_transport_does_not_change_when_every_cell_is_doubled(rng: np.random.Generator) -> None:
    one, other = unit(rng, 6), unit(rng, 4)
    along = directions(5)

    twice = np.repeat(one, 2, axis=0)

    assert transport_distance(twice, other, along) == pytest.approx(
        transport_distance(one, other, along)
    )


def test_prototypes_are_the_same_for_the_same_rows_and_find_clusters(
    rng: np.random.Generator,
) -> None:
    centres = np.eye(4, 5, dtype=np.float32)
    rows = np.repeat(centres, 20, axis=0) + rng.normal(0, 0.05, (80, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    first, second = kmeans(rows, 4), kmeans(rows, 4)

    assert np.array_equal(first, second)
    assert sorted((first @ centres.T).argmax(axis=1).tolist()) == [0, 1, 2, 3]
    assert histogram(rows, first) == pytest.approx([0.25] * 4)


def test_fewer_different_rows_give_fewer_prototypes() -> None:
    assert len(kmeans(np.ones((5, 2), np.float32) / np.float32(np.sqrt(2)), 4)) == 1


def test_cells_are_paired_once_each_nearest_first() -> None:
    one = np.array([[1, 0], [0, 1]], np.float32)
    other = np.array([[0.6, 0.8], [1, 0], [0.8, 0.6]], np.float32)

    found = pairs(one, other, 9)

    assert [(a, b) for a, b, _ in found] == [(0, 1), (1, 0)]
    assert [score for *_, score in found] == pytest.approx([1, 0.8])


def test_a_vector_between_two_prototypes_is_shared_by_both() -> None:
    prototypes = np.eye(3, dtype=np.float32)
    middle = np.array([[1, 1, 0], [0, 0, 1]], np.float32) / np.sqrt([[2], [1]], dtype=np.float32)

    found = soft_histogram(middle, prototypes, np.array([0.75, 0.25]))

    assert found == pytest.approx([0.375, 0.375, 0.25], abs=1e-3)

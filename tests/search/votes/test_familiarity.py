"""Strangers to a collection are told from its own items, and small collections say nothing."""

from __future__ import annotations

import numpy as np

from search.votes.familiarity import fitted


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def of_two_kinds(rng: np.random.Generator, n: int) -> np.ndarray:
    """Red and white cells: two clouds, each in a few directions of its own."""
    red = rng.normal(size=(n // 2, 4)) @ np.eye(4, 32)
    white = rng.normal(size=(n // 2, 4)) @ np.eye(4, 32, k=4) + 5 * np.eye(1, 32, k=9)
    return np.concatenate([red, white]) + rng.normal(scale=0.01, size=(n, 32))


def test_a_mixed_collection_knows_a_stranger_from_both_its_kinds(
    rng: np.random.Generator,
) -> None:
    familiar = fitted(unit_rows(of_two_kinds(rng, 400)), np.arange(400) % 40)
    assert familiar is not None
    own = unit_rows(of_two_kinds(rng, 400))
    between = own[:100] + rng.normal(scale=0.3, size=(100, 32)) @ np.diag(np.arange(32) > 20)

    assert (familiar.residual(own) > familiar.far).mean() < 0.05
    assert (familiar.residual(between.astype(np.float32)) > familiar.far).mean() > 0.95


def test_too_little_says_nothing(rng: np.random.Generator) -> None:
    assert fitted(unit_rows(of_two_kinds(rng, 60)), np.arange(60)) is None

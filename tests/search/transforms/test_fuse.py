"""Encoders are fused by what they agree on; a useless one costs little."""

from __future__ import annotations

import numpy as np
import pytest

from search.transforms.contract import CannotFit, Sample, unit
from search.transforms.fuse import AGREED, FEWEST, Fuse

PARTS = (12, 10)
LABELS = np.repeat(["blast", "lymphocyte", "monocyte"], 100)


def seen_by_two(noise: float = 1.0) -> Sample:
    """Three labels as two encoders see them: each with loud noise of its own."""
    rng = np.random.default_rng(0)
    kinds = np.eye(3)[np.unique(LABELS, return_inverse=True)[1]]
    rows = [
        unit(kinds @ rng.normal(size=(3, dim)) + noise * rng.normal(size=(300, dim)))
        for dim in PARTS
    ]
    vectors = unit(np.concatenate(rows, axis=1))
    return Sample(vectors, np.full(300, ""), LABELS, np.arange(300), PARTS)


def right(vectors: np.ndarray) -> float:
    """Share of rows whose nearest other row has their label."""
    near = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float((LABELS[near.argmax(axis=1)] == LABELS).mean())


def test_what_two_encoders_agree_on_finds_labels_better_than_either() -> None:
    sample = seen_by_two()

    fused = Fuse.fit(sample).apply(sample.vectors, sample.sites)

    alone = [sample.vectors[:, : PARTS[0]], sample.vectors[:, PARTS[0] :]]
    assert right(fused) > max(right(unit(part)) for part in alone) + 0.03
    assert np.allclose(np.linalg.norm(fused, axis=1), 1, atol=1e-5)


def test_labels_are_not_read() -> None:
    sample = seen_by_two()
    other = Sample(sample.vectors, sample.sites, sample.labels[::-1], sample.groups, PARTS)

    assert np.array_equal(Fuse.fit(sample).agreed, Fuse.fit(other).agreed)


def test_residuals_say_nothing_that_the_consensus_says() -> None:
    sample = seen_by_two()
    fuse = Fuse.fit(sample)
    centred = sample.vectors * np.sqrt(2) - fuse.mean

    consensus = centred @ fuse.agreed
    residual = centred - consensus @ fuse.told

    assert np.abs(consensus.T @ residual / len(sample)).max() < 1e-3


def test_consensus_and_divergence_share_the_length() -> None:
    sample = seen_by_two()
    fuse = Fuse.fit(sample)

    fused = fuse.apply(sample.vectors, sample.sites)

    axes = fuse.agreed.shape[1]
    assert np.allclose((fused[:, :axes] ** 2).sum(axis=1), AGREED, atol=1e-4)
    assert fused.shape[1] == fuse.dim == axes + sum(PARTS)


def test_vectors_of_one_encoder_are_refused_with_what_to_do() -> None:
    sample = seen_by_two()
    one = Sample(sample.vectors, sample.sites, sample.labels, sample.groups)

    with pytest.raises(CannotFit, match=r"--encoder hemaseek-s\+measured"):
        Fuse.fit(one)


def test_few_items_are_refused() -> None:
    with pytest.raises(CannotFit, match=f"needs {FEWEST} items, got 20"):
        Fuse.fit(seen_by_two().take(np.arange(20)))

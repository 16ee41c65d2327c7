"""Encoders are fused by what they agree on; a useless one costs little."""

from __future__ import annotations

import numpy as np
import pytest

from search.transforms.contract import CannotFit, Sample, unit
from search.transforms.fuse import FEWEST, Fuse

PARTS = (24, 20)
LABELS = np.repeat(
    ["basophil", "blast", "eosinophil", "lymphocyte", "monocyte", "promyelocyte"], 60
)


def seen_by_two(noise: float = 1.0) -> Sample:
    """Six labels as two encoders see them: each with loud noise of its own."""
    rng = np.random.default_rng(0)
    kinds = np.eye(6)[np.unique(LABELS, return_inverse=True)[1]]
    rows = [
        unit(kinds @ rng.normal(size=(6, dim)) + noise * rng.normal(size=(360, dim)))
        for dim in PARTS
    ]
    vectors = unit(np.concatenate(rows, axis=1))
    return Sample(vectors, np.full(360, ""), LABELS, np.arange(360), PARTS)


def right(vectors: np.ndarray) -> float:
    """Share of rows whose nearest other row has their label."""
    near = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float((LABELS[near.argmax(axis=1)] == LABELS).mean())


def test_what_two_encoders_agree_on_finds_labels_better_than_either() -> None:
    sample = seen_by_two()

    fused = Fuse.fit(sample).apply(sample.vectors, sample.sites)

    alone = [sample.vectors[:, : PARTS[0]], sample.vectors[:, PARTS[0] :]]
    assert right(fused) > max(right(unit(part)) for part in alone) + 0.02
    assert np.allclose(np.linalg.norm(fused, axis=1), 1, atol=1e-5)


def test_labels_are_not_read() -> None:
    sample = seen_by_two()
    other = Sample(sample.vectors, sample.sites, sample.labels[::-1], sample.groups, PARTS)

    assert np.array_equal(Fuse.fit(sample).agreed, Fuse.fit(other).agreed)


def test_divergence_says_nothing_that_the_consensus_says() -> None:
    sample = seen_by_two()
    fuse = Fuse.fit(sample)
    centred = sample.vectors * np.sqrt(2) - fuse.mean

    consensus = centred @ fuse.agreed
    divergence = centred[:, PARTS[0] :] - consensus @ fuse.told

    assert np.abs(consensus.T @ divergence / len(sample)).max() < 1e-3


def test_a_partner_that_knows_nothing_gets_little_and_costs_little() -> None:
    sample = seen_by_two()
    noise = np.random.default_rng(1).normal(size=(360, PARTS[1]))
    rows = unit(np.concatenate([unit(sample.vectors[:, : PARTS[0]]), unit(noise)], axis=1))
    beside_noise = Fuse.fit(sample.with_vectors(rows))

    fused = beside_noise.apply(rows, sample.sites)

    assert beside_noise.share < Fuse.fit(sample).share / 2
    assert right(fused) > right(unit(rows[:, : PARTS[0]])) - 0.02
    assert right(rows) < right(fused) - 0.05  # where they merely stand behind each other


def test_the_share_of_the_others_is_that_of_the_length() -> None:
    sample = seen_by_two()
    fuse = Fuse.fit(sample)

    fused = fuse.apply(sample.vectors, sample.sites)

    lead, axes = PARTS[0], fuse.agreed.shape[1]
    assert np.allclose((fused[:, lead:] ** 2).sum(axis=1), fuse.share, atol=1e-4)
    assert fused.shape[1] == fuse.dim == axes + sum(PARTS)


def test_vectors_of_one_encoder_are_refused_with_what_to_do() -> None:
    sample = seen_by_two()
    one = Sample(sample.vectors, sample.sites, sample.labels, sample.groups)

    with pytest.raises(CannotFit, match=r"--encoder hemaseek-s\+measured"):
        Fuse.fit(one)


def test_few_items_are_refused() -> None:
    with pytest.raises(CannotFit, match=f"needs {FEWEST} items, got 20"):
        Fuse.fit(seen_by_two().take(np.arange(20)))

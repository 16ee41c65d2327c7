"""Sites are brought to one mean and one spread, labels not read."""

from __future__ import annotations

import numpy as np
import pytest

from search.transforms.align import FEWEST, Align
from search.transforms.contract import CannotFit, Sample, unit


def two_sites(cells: int = 200, dim: int = 8) -> Sample:
    """The same cells at two sites, of which the second shifts and stretches some directions."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(cells, dim))
    shifted = plain * np.linspace(1, 1.5, dim) + np.repeat([0, 8], dim // 2)
    vectors = unit(np.concatenate([plain, shifted]) + 8)
    sites = np.repeat(["barcelona", "zagreb"], cells)
    return Sample(vectors, sites, np.full(2 * cells, ""), np.arange(2 * cells))


def test_sites_have_one_mean_after_alignment() -> None:
    sample = two_sites()

    aligned = Align.fit(sample).apply(sample.vectors, sample.sites)

    means = [aligned[sample.sites == name].mean(axis=0) for name in ("barcelona", "zagreb")]
    assert np.abs(means[0] - means[1]).max() < 0.05
    assert np.allclose(np.linalg.norm(aligned, axis=1), 1, atol=1e-5)


def test_the_same_cell_at_two_sites_is_nearest_to_itself_only_after_alignment() -> None:
    sample = two_sites()
    aligned = Align.fit(sample).apply(sample.vectors, sample.sites)

    def found(vectors: np.ndarray) -> float:
        return float((np.argmax(vectors[:200] @ vectors[200:].T, axis=1) == np.arange(200)).mean())

    assert found(aligned) > 0.9 > 0.2 > found(sample.vectors)


def test_a_cell_of_no_known_site_is_aligned_by_the_site_that_it_looks_most_like() -> None:
    sample = two_sites()
    align = Align.fit(sample)

    nowhere = align.apply(sample.vectors, np.full(len(sample), ""))

    assert (align.nearest(sample.vectors) == sample.sites).mean() > 0.95
    same = (np.abs(nowhere - align.apply(sample.vectors, sample.sites)) < 1e-6).all(axis=1)
    assert same.mean() > 0.95


def test_a_site_that_was_not_fitted_is_learned_from_its_own_cells() -> None:
    sample = two_sites()
    moved = unit(sample.vectors[:200] + 0.5)

    known = Align.fit(sample).with_site("osaka", moved)

    aligned = known.apply(moved, np.full(200, "osaka"))
    assert known.sites == ("barcelona", "zagreb", "osaka")
    assert np.abs(aligned.mean(axis=0)).max() < 0.2


def test_few_cells_of_a_new_site_are_drawn_towards_the_nearest_site() -> None:
    sample = two_sites()
    align = Align.fit(sample)

    few = align.with_site("osaka", sample.vectors[:1])

    to_site, to_cell = (
        np.linalg.norm(few.means[2] - other) for other in (align.means[0], sample.vectors[0])
    )
    assert 0 < to_site < to_cell / 4


def test_one_site_is_enough_for_others_to_be_aligned_with_it_by_their_own_cells() -> None:
    sample = two_sites()
    one = Align.fit(sample.take(np.arange(200)))

    both = one.with_site("zagreb", sample.vectors[200:])

    assert np.allclose(both.means, Align.fit(sample).means, atol=0.15)


def test_cells_of_no_site_cannot_be_aligned() -> None:
    sample = two_sites()

    with pytest.raises(CannotFit, match="needs cells whose site is known"):
        Align.fit(Sample(sample.vectors, np.full(400, ""), sample.labels, sample.groups))


def test_a_site_with_too_few_cells_is_refused_by_its_name() -> None:
    rows = np.arange(200 + FEWEST - 1)

    with pytest.raises(CannotFit, match=f"'zagreb' has {FEWEST - 1} cells"):
        Align.fit(two_sites().take(rows))

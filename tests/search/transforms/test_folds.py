"""Nothing of a test row is in the transform that it goes through."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.card import EncoderCard
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Sample, unit
from search.transforms.folds import in_fold

BASE = EncoderCard(id="base", architecture="drawn", dim=6)


def sample() -> Sample:
    """Two labels at three sites, 80 cells each, in groups of four."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat(["blast", "monocyte"], 40), 3)
    sites = np.repeat(["one", "two", "three"], 80)
    rows = rng.normal(size=(240, 6))
    rows[:, 0] += np.where(labels == "blast", 2, -2)
    rows[:, 1] += np.repeat([0, 4, 8], 80)
    return Sample(unit(rows), sites, labels, np.arange(240) // 4)


TRAIN, TEST = np.arange(160), np.arange(160, 240)


@pytest.mark.parametrize("kind", ["align", "metric", "align+metric"])
def test_train_rows_are_transformed_by_what_was_fitted_on_them_alone(kind: str) -> None:
    cells = sample()

    found = in_fold(kind, cells, BASE, TRAIN, TEST)

    fitted = Adaptation.fit(kind, cells.take(TRAIN), BASE)
    assert np.array_equal(found[TRAIN], fitted.apply(cells.vectors[TRAIN], cells.sites[TRAIN]))


@pytest.mark.parametrize("kind", ["align", "metric", "align+metric"])
def test_labels_of_test_rows_are_never_read(kind: str) -> None:
    cells = sample()
    labels = cells.labels.copy()
    labels[TEST] = "other"
    other = Sample(cells.vectors, cells.sites, labels, cells.groups)

    assert np.array_equal(
        in_fold(kind, cells, BASE, TRAIN, TEST), in_fold(kind, other, BASE, TRAIN, TEST)
    )


def test_a_site_that_was_not_fitted_is_aligned_by_its_own_cells() -> None:
    cells = sample()

    found = in_fold("align", cells, BASE, TRAIN, TEST)

    off, before = (np.abs(rows[TEST].mean(axis=0)).max() for rows in (found, cells.vectors))
    assert off < before / 2


def test_a_row_is_aligned_without_its_own_group() -> None:
    cells = sample()
    moved = cells.vectors.copy()
    moved[160:164] = unit(np.ones((4, 6)) * [1, -1, 1, -1, 1, -1])  # the group of row 160
    other = cells.with_vectors(moved)

    one, two = (in_fold("align", rows, BASE, TRAIN, TEST) for rows in (cells, other))

    same = [row for row in TEST if row >= 164 and np.array_equal(one[row], two[row])]
    assert len(same) == 36  # the half that its group is in is aligned by the other half

"""The floor: colours alone, the same on every machine and in every batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder import registry
from encoder.image import read_rgb


def plain(*colour: int) -> np.ndarray:
    return np.full((64, 64, 3), colour, np.uint8)


def test_the_vector_of_a_plain_image_is_checked_by_eye() -> None:
    row = registry.load("colour").embed([plain(255, 0, 128)])[0]
    whole, middle = row.reshape(2, 6, 6, 6)
    assert whole[5, 0, 3] == pytest.approx(0.5**0.5)
    assert middle[5, 0, 3] == pytest.approx(0.5**0.5)
    assert np.count_nonzero(row) == 2


def test_equal_colours_in_other_places_differ_by_the_middle_only() -> None:
    spot, rim = plain(0, 0, 0), plain(0, 0, 0)
    spot[24:40, 24:40] = 255
    rim[:16, :16] = 255
    a, b = registry.load("colour").embed([spot, rim])
    assert np.allclose(a[:216], b[:216])
    assert not np.allclose(a[216:], b[216:])


def test_a_vector_does_not_depend_on_its_batch(rng: np.random.Generator) -> None:
    encoder = registry.load("colour")
    images = [rng.integers(0, 256, (50 + n, 70, 3), dtype=np.uint8) for n in range(40)]
    together = encoder.embed(images)
    alone = np.concatenate([encoder.embed([image]) for image in images])
    assert np.array_equal(together, alone)


@pytest.mark.data
def test_the_floor_holds_on_real_white_cells(data_dir: Path) -> None:
    """1-NN balanced accuracy over 11 classes on every eighth cell; 9 % would be chance."""
    paths = sorted((data_dir / "pbc" / "cells").glob("*/*.jpg"))[::8]
    labels = np.array([path.parent.name for path in paths])
    vectors = registry.load("colour").embed([read_rgb(path) for path in paths])
    query = np.arange(len(paths)) % 4 == 0
    nearest = np.argmax(vectors[query] @ vectors[~query].T, axis=1)
    right = labels[~query][nearest] == labels[query]
    recall = [right[labels[query] == name].mean() for name in np.unique(labels)]
    assert np.mean(recall) > 0.62

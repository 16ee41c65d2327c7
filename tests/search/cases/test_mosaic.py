"""The mosaic of a case: every cell has one like it, and none counts for more than its share."""

from __future__ import annotations

import numpy as np
import pytest

from search.cases.mosaic import mosaic


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = rng.normal(size=(n, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_small_bag_is_its_own_mosaic(rng: np.random.Generator) -> None:
    found = mosaic(unit(rng, 5), ["a"] * 5, 5)

    assert found.rows.tolist() == [0, 1, 2, 3, 4]
    assert found.weights == pytest.approx([0.2] * 5)


def test_a_rare_shape_and_a_rare_class_are_in_it_with_their_own_weight(
    rng: np.random.Generator,
) -> None:
    common = np.tile(unit(rng, 1), (300, 1)) + rng.normal(0, 0.01, (300, 8)).astype(np.float32)
    rows = np.concatenate([common, unit(rng, 3)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    classes = ["common"] * 301 + ["rare"] * 2

    found = mosaic(rows.astype(np.float32), classes, 16)

    assert len(found.rows) == len(set(found.rows.tolist())) == 16
    assert {300, 301, 302} & set(found.rows.tolist()) >= {300}
    assert {classes[at] for at in found.rows} == {"common", "rare"}
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights[found.rows == 300] == pytest.approx(1 / 303)


def test_more_classes_than_places_leave_the_rarest_out(rng: np.random.Generator) -> None:
    classes = [f"c{at % 7}" for at in range(40)] + ["seldom"]

    found = mosaic(unit(rng, 41), classes, 4)

    assert len(found.rows) == 4
    assert "seldom" not in {classes[at] for at in found.rows}

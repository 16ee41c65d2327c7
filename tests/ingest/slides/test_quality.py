"""Scores of tiles, and what they decide."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from benchmarks.made import glass, tissue
from ingest.slides.quality import SCORES, QualityLimits, judge, measure

LIMITS = QualityLimits()


def verdict(tile, limits=LIMITS):
    return judge([1.0, *measure(tile[None])[0]], limits)


def blurred(tile, radius):
    return np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(radius)))


def test_there_is_one_score_per_name(rng):
    assert measure(np.stack([tissue(256, rng)] * 3)).shape == (3, len(SCORES) - 1)


def test_focus_falls_with_every_blur(rng):
    tile = tissue(256, rng)
    tiles = np.stack([tile, blurred(tile, 1), blurred(tile, 2), blurred(tile, 4)])
    scores = measure(tiles)

    assert (np.diff(scores[:, 0]) < 0).all()
    assert (np.diff(scores[:, 1]) < 0).all()


def test_the_laplacian_is_that_of_the_definition(rng):
    tile = rng.integers(0, 256, (64, 64, 3), np.uint8)
    g = tile[..., 1].astype(float)
    laplacian = np.roll(g, 1, 0) + np.roll(g, -1, 0) + np.roll(g, 1, 1) + np.roll(g, -1, 1) - 4 * g
    rows = laplacian[1:49:16, 1:-1]

    assert measure(tile[None])[0, 0] == pytest.approx(rows.var(), rel=1e-5)


def test_each_fault_has_its_own_reason(rng):
    tile = tissue(256, rng)
    pen = tile.copy()
    pen[:128] = (30, 70, 190)

    assert verdict(tile) == "kept"
    assert verdict(blurred(tile, 4)) == "out of focus"
    assert verdict(glass(256, 256, rng)) == "blank"
    assert verdict(np.zeros_like(tile)) == "pen"
    assert verdict(pen) == "pen"
    assert verdict(np.where(tile > 120, 255, 0).astype(np.uint8)) == "saturated"


def test_thresholds_are_the_callers(rng):
    tile = blurred(tissue(256, rng), 4)

    assert verdict(tile, QualityLimits(focus=0)) == "kept"
    assert verdict(tissue(256, rng), QualityLimits(focus=1e9)) == "out of focus"

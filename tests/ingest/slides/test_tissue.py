"""Tissue is found; glass, ink and edges are not tissue."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.made import blob, glass, tissue
from ingest.slides.tissue import find_tissue, ink, shares

PENS = {"green": (40, 150, 70), "blue": (30, 70, 190), "black": (20, 22, 25), "red": (215, 30, 50)}


@pytest.fixture(name="slide")
def _slide(rng):
    return blob(400, 600, rng, share=0.3)


def test_tissue_is_found_and_glass_is_not(slide):
    found = find_tissue(slide, 8.0)

    assert found.share == pytest.approx(0.3, abs=0.05)
    assert found.mask[200, 300]
    assert not found.mask[:40].any()


def test_an_empty_slide_has_no_tissue(rng):
    assert find_tissue(glass(400, 600, rng), 8.0).share == 0


def test_pale_tissue_is_found_beside_dark_tissue(rng):
    slide = glass(400, 600, rng)
    slide[50:350, 50:250] = tissue(300, rng, density=2.0)[:, :200]
    slide[50:350, 350:550] = tissue(300, rng, density=0.35)[:, :200]
    mask = find_tissue(slide, 8.0).mask

    assert mask[60:340, 60:240].mean() > 0.95
    assert mask[60:340, 360:540].mean() > 0.8


@pytest.mark.parametrize("side", [400, 3000])
def test_a_small_biopsy_is_found_on_a_slide_of_any_size(rng, side):
    slide = glass(side, side, rng)
    slide[100:116, 200:216] = tissue(64, rng)[:16, :16]
    slide[300:302, 100:101] = (150, 80, 120)
    mask = find_tissue(slide, 8.0).mask

    assert mask[102:114, 202:214].all()
    assert not mask[290:310, 90:110].any()


@pytest.mark.parametrize("pen", PENS)
def test_pen_marks_are_not_tissue(slide, pen):
    slide[20:60, 30:570] = PENS[pen]
    found = find_tissue(slide, 8.0)

    assert not found.mask[20:60, 30:570].any()
    assert found.mask[200, 300]
    assert found.pen_share > 0.05 or pen == "black"


def test_stained_tissue_is_not_taken_for_ink(rng):
    for density in (0.5, 1.0, 2.0):
        assert ink(tissue(200, rng, density=density)).mean() < 0.01


def test_the_edge_of_the_glass_is_not_tissue(slide):
    slide[:, :6] = (120, 80, 60)
    slide[396:, :] = (60, 60, 62)
    mask = find_tissue(slide, 8.0).mask

    assert not mask[:, :6].any()
    assert not mask[397:].any()


def test_shares_count_the_mask_under_each_box():
    mask = np.zeros((10, 10), bool)
    mask[:, 5:] = True
    boxes = np.array([[0, 0, 100, 100], [50, 0, 50, 50], [0, 0, 50, 50], [40, 0, 20, 20]])

    assert shares(mask, boxes, (100, 100)).tolist() == [0.5, 1.0, 0.0, 0.5]

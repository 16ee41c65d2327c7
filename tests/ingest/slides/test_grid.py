"""Grid arithmetic, in units."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.sandbox.messages import Refusal
from ingest.slides.grid import TilePlan, TooCoarse, boxes, check_scale, choose_level, grid, window


def test_the_coarsest_level_that_is_fine_enough_is_cut():
    cut = choose_level(TilePlan(), (0.125, 0.125), [1.0, 4.0, 16.0])

    assert (cut.level, cut.exact, cut.width) == (1, True, 256)


def test_a_level_between_is_resampled_from_the_finer_one():
    cut = choose_level(TilePlan(), (0.2, 0.2), [1.0, 4.0])

    assert cut.level == 0
    assert not cut.exact
    assert cut.width == pytest.approx(640)


def test_a_scale_that_is_half_a_percent_off_is_cut_as_it_is():
    assert choose_level(TilePlan(), (0.499, 0.499), [1.0]).exact


def test_pixels_that_are_not_square_keep_tiles_square_on_the_glass():
    cut = choose_level(TilePlan(), (0.2, 0.25), [1.0])

    assert (cut.width, cut.height) == (pytest.approx(640), pytest.approx(512))


def test_a_slide_far_too_coarse_is_refused_in_words():
    with pytest.raises(TooCoarse, match=r"28\.97 um per pixel.*24\.14"):
        choose_level(TilePlan(), (28.97, 28.97), [1.0])


def test_whole_tiles_fill_the_level_row_by_row():
    plan = TilePlan()
    cut = choose_level(plan, (0.5, 0.5), [1.0])

    assert grid(plan, cut, (600, 512)).tolist() == [[0, 0], [256, 0], [0, 256], [256, 256]]
    assert len(grid(plan, cut, (255, 9999))) == 0


def test_overlap_is_a_share_of_the_side():
    plan = TilePlan(overlap=0.5)
    cut = choose_level(plan, (0.5, 0.5), [1.0])

    assert grid(plan, cut, (512, 256))[:, 0].tolist() == [0, 128, 256]


def test_a_slide_of_100_000_pixels_a_side_has_152_100_tiles_in_little_memory():
    plan = TilePlan()
    cut = choose_level(plan, (0.5, 0.5), [1.0])
    starts = grid(plan, cut, (100_000, 100_000))
    places = boxes(starts, cut, (1.0, 1.0))

    assert len(starts) == 390 * 390
    assert places[-1].tolist() == [389 * 256, 389 * 256, 256, 256]
    assert starts.nbytes + places.nbytes < 8e6


def test_a_header_that_lies_about_millions_of_tiles_is_refused():
    plan = TilePlan(size=16)
    cut = choose_level(plan, (0.5, 0.5), [1.0])

    with pytest.raises(Refusal, match="at most 4,000,000"):
        grid(plan, cut, (3_000_000, 3_000_000))


def test_boxes_are_in_pixels_of_level_0():
    plan = TilePlan()
    cut = choose_level(plan, (0.25, 0.25), [1.0, 2.0])
    places = boxes(grid(plan, cut, (512, 256)), cut, (2.0, 2.0))

    assert places.tolist() == [[0, 0, 512, 512], [512, 0, 512, 512]]


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e9, 1e-9])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(Refusal, match="cannot be"):
        check_scale(scale, "the scale")


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"size": 10**6}, {"overlap": 1.0}, {"min_tissue": 2.0}]
)
def test_a_plan_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(Refusal, match="got"):
        TilePlan(**wrong)


def test_windows_have_a_margin_inside_of_the_slide_only():
    assert window(0.5, 10.0, 12) == (0, 12, 0.5)
    assert window(100.25, 10.0, 1000) == (96, 19, pytest.approx(4.25))
    assert np.isclose(sum(window(100.25, 10.0, 1000)[::2]), 100.25)

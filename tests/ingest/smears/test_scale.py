"""The scale that red cells tell."""

from __future__ import annotations

import pytest

from ingest.smears.cells import FoundCell
from ingest.smears.scale import ENOUGH, RED_CELL_UM, estimate_scale, found_at, whole_red_diameters


def red(w: int, h: int, *, cut: bool = False) -> FoundCell:
    return FoundCell(kind="red", bbox=(0, 0, w, h), score=1.0, touches_border=cut)


def test_the_median_red_cell_is_seven_and_a_half_micrometres_wide() -> None:
    scale = estimate_scale([red(70, 80), *[red(75, 75)] * 8, red(90, 90)])
    assert scale is not None
    assert scale.um_per_px == pytest.approx(0.1)
    assert scale.origin == "estimate"
    assert scale.n == 10


def test_the_spread_is_that_of_the_middle_half_of_the_cells() -> None:
    scale = estimate_scale([red(side, side) for side in (50, 50, 50, 60, 60, 60, 75, 75, 75)])
    assert scale is not None
    assert scale.spread == pytest.approx(RED_CELL_UM / 50 - RED_CELL_UM / 75)


def test_cut_cells_and_cells_on_their_side_are_no_ruler() -> None:
    assert whole_red_diameters([red(50, 50), red(20, 50, cut=True), red(30, 60)]) == [50.0]


def test_other_cells_are_no_ruler() -> None:
    white = FoundCell(kind="white", bbox=(0, 0, 90, 90), score=1.0, touches_border=False)
    assert whole_red_diameters([white]) == []


def test_too_few_whole_red_cells_give_no_scale_but_still_a_diameter() -> None:
    cells = [red(50, 50)] * (ENOUGH - 1)
    assert estimate_scale(cells) is None
    found = found_at(cells, (640, 480), "classical", None, "manifest")
    assert found.scale is None
    assert found.red_diameter_px == 50


def test_a_given_scale_is_kept_with_its_origin_and_without_a_spread() -> None:
    found = found_at([red(50, 50)] * ENOUGH, (640, 480), "classical", 0.2, "file")
    assert found.scale is not None
    assert (found.scale.um_per_px, found.scale.origin) == (0.2, "file")
    assert found.scale.spread is None
    assert found.estimate is not None
    assert found.estimate.um_per_px == pytest.approx(0.15)

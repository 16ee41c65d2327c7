"""Training pictures from smear fields: patches and single cells."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.pieces.patches import cells_of_field, patches_of
from ingest.samples.synthetic import draw_field
from ingest.smears.classical import Classical
from ingest.smears.crops import FieldOfView


def test_patches_do_not_overlap_and_keep_the_fields_own_pixels(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (500, 700, 3), dtype=np.uint8)
    patches = patches_of(image)
    seen = np.zeros(image.shape[:2], int)
    for patch in patches.kept:
        box = patch.box
        assert patch.image.shape == (224, 224, 3)
        assert np.array_equal(patch.image, image[box.y : box.y + 224, box.x : box.x + 224])
        seen[box.y : box.y + 224, box.x : box.x + 224] += 1
    assert len(patches.kept) == 6
    assert seen.max() == 1
    assert patches.left_px == (seen == 0).sum()


def test_a_field_smaller_than_a_patch_gives_none_and_says_what_was_left() -> None:
    patches = patches_of(np.zeros((100, 300, 3), np.uint8))
    assert patches.kept == ()
    assert patches.left_px == 30_000


def test_patches_of_empty_glass_are_dropped_and_counted_where_asked() -> None:
    image = np.full((224, 448, 3), 225, np.uint8)
    image[:, :224] = draw_field(5, patient=2, width=224, height=224, um_per_px=0.15).image
    assert len(patches_of(image).kept) == 2
    covered = patches_of(image, least_covered=0.1)
    assert [patch.box.x for patch in covered.kept] == [0]
    assert covered.dropped == 1


@pytest.mark.parametrize(("side", "share"), [(0, 0.0), (224, 1.5), (224, -0.1)])
def test_a_side_or_share_that_makes_no_sense_is_refused(side: int, share: float) -> None:
    with pytest.raises(ValueError, match="expected a side of at least 1"):
        patches_of(np.zeros((9, 9, 3), np.uint8), side, share)


def test_cells_are_whole_and_of_one_size() -> None:
    field = draw_field(5, patient=2, width=400, height=300, um_per_px=0.15)
    found = Classical().find(field.image, 0.15)
    cells = cells_of_field(field.image, found)
    assert len(cells.kept) + cells.dropped == len(found.of("red"))
    assert cells.dropped == sum(cell.touches_border for cell in found.of("red"))
    assert {cell.image.shape for cell in cells.kept} == {(80, 80, 3)}
    assert {cell.kind for cell in cells.kept} == {"red"}
    assert cells_of_field(field.image, found, FieldOfView(kinds=("white",))).kept

"""What an encoder is shown of a picture: its field of view, and never more than there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from encoder.card import CellKind, FieldsUm
from encoder.field_of_view import USUAL, kind_of_box, looked_at, part_seen, side_px

FIELDS = FieldsUm(white=25.0, red=12.0)


def test_one_cell_is_shown_at_one_size_however_wide_its_picture() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    seen = looked_at(wide, FIELDS, 0.1)

    assert seen.shape == (250, 250, 3)
    assert np.array_equal(seen, looked_at(wide[50:350, 50:350], FIELDS, 0.1))
    assert np.array_equal(seen, wide[75:325, 75:325])
    assert np.array_equal(looked_at(seen, FIELDS, 0.1), seen)


@pytest.mark.parametrize(
    ("fields", "um", "kind"),
    [
        (None, 0.1, None),
        (FIELDS, None, None),
        (FIELDS, 0.06, None),
        (FIELDS, 5e-324, None),
        (FIELDS, 0.01, "red"),
    ],
)
def test_nothing_is_cut_without_a_field_or_a_scale_or_where_there_is_no_more(
    fields: FieldsUm | None, um: float | None, kind: CellKind | None
) -> None:
    picture = np.zeros((400, 300, 3), np.uint8)
    assert looked_at(picture, fields, um, kind) is picture


def test_a_red_cell_has_its_own_field_and_an_unnamed_cell_that_of_a_nucleated_one() -> None:
    assert side_px(USUAL, 0.1, "red") == 120
    assert side_px(USUAL, 0.1, "white") == side_px(USUAL, 0.1) == 250
    assert part_seen((300, 400), FIELDS, 0.1, "red") == (90, 140, 120, 120)


def test_a_picture_too_wide_for_one_cell_is_not_cut_unless_its_cell_is_named() -> None:
    field = (1000, 700)
    assert part_seen(field, FIELDS, 0.1) == (0, 0, 1000, 700)
    assert part_seen(field, FIELDS, 0.1, "white") == (375, 225, 250, 250)


def test_a_tight_box_tells_a_red_cell_by_its_size() -> None:
    assert [kind_of_box(px, 0.1) for px in (30, 75, 90, 100, 180)] == [
        "red", "red", "red", "white", "white",
    ]  # fmt: skip


def test_another_field_is_another_picture() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    assert looked_at(picture, replace(FIELDS, white=30.0), 0.1).shape == (300, 300, 3)

"""A box drawn on the shown query, in pixels of the query."""

from __future__ import annotations

from search.schemas.items import Box
from ui.screens.regions import in_query


def test_a_box_is_scaled_to_the_picture_and_moved_by_what_hangs_over_the_border() -> None:
    drawn = Box(x=10, y=20, w=30, h=40)

    assert in_query(drawn, (100, 100), None, (200, 200)) == Box(x=20, y=40, w=60, h=80)
    assert in_query(drawn, (100, 100), None, None) == drawn
    hanging = Box(x=-50, y=0, w=100, h=100)  # only its right half is shown
    assert in_query(drawn, (50, 100), hanging, (500, 400)) == Box(x=60, y=20, w=30, h=40)
    wide = Box(x=80, y=90, w=30, h=30)
    assert in_query(wide, (100, 100), None, (100, 100)) == Box(x=80, y=90, w=20, h=10)

"""Boxes on a stored source."""

from __future__ import annotations

from search.schemas.items import Box, Item, item_id
from ui.widgets.viewer import mark


def test_an_item_without_a_box_has_nothing_to_be_marked() -> None:
    whole = Item(id=item_id("made", "0" * 32), dataset="made", source="0" * 32)
    cell = whole.model_copy(update={"bbox": Box(x=3, y=4, w=5, h=6)})
    box = mark(cell, "#000000", "a cell")

    assert mark(whole, "#000000", "a cell") is None
    assert box is not None
    assert (box.x, box.y, box.w, box.h) == (3, 4, 5, 6)

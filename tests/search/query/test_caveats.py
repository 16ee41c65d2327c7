"""Warnings about a query's picture: blank, small, blurred, or of another field of view."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from encoder.features.colour import CARD
from ingest.samples.synthetic import draw_cell
from search.query.caveats import _spread, image_warnings, scale_warnings
from search.schemas.answers import Hit
from search.schemas.items import Box, Item, item_id

CELL = draw_cell("eosinophil", 3, patient=1, size=200)


def hits(um: float) -> list[Hit]:
    box = Box(x=0, y=0, w=100, h=100)
    return [
        Hit(
            item=Item(
                id=item_id("d", f"{at}", box),
                dataset="d",
                source=f"{at}",
                bbox=box,
                um_per_px=um / 100,
            ),
            score=0.5,
        )
        for at in range(5)
    ]


def test_a_sharp_cell_is_not_warned_of() -> None:
    assert image_warnings(CELL, CARD) == []


def test_how_blank_a_picture_is_is_told_from_counts_of_its_values() -> None:
    assert _spread(CELL) == pytest.approx(CELL.std(axis=(0, 1)).max())
    assert _spread(np.full((40, 30, 3), (255, 9, 0), np.uint8)) == 0
    glass = np.full((40, 30, 3), 240, np.uint8)
    assert "nearly blank" in image_warnings(glass)[0]


def test_a_blurred_cell_is_warned_of() -> None:
    blurred = np.asarray(Image.fromarray(CELL).filter(ImageFilter.GaussianBlur(5)))

    assert ["blurred" in text for text in image_warnings(blurred, CARD)] == [True]


@pytest.mark.parametrize(
    ("query", "words"), [(60.0, "smaller"), (10.0, "larger"), (25.0, ""), (None, "")]
)
def test_another_field_of_view_is_warned_of(query: float | None, words: str) -> None:
    found = scale_warnings(query, hits(25))

    assert [words in text for text in found] == ([True] if words else [])


def test_too_few_known_scales_say_nothing() -> None:
    assert scale_warnings(60, hits(25)[:2]) == []

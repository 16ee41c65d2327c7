"""Scale bars: a round length that fits, and none where the scale is not known."""

from __future__ import annotations

import pytest

from search.schemas.items import Box, Item
from ui.look.scalebar import bar_html, scale_bar, side_um

ITEM = Item(
    id="3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11",
    dataset="d",
    source="s",
    bbox=Box(x=0, y=0, w=80, h=100),
    um_per_px=0.25,
)


@pytest.mark.parametrize(("width", "um"), [(25, 10), (24, 5), (3, 1), (2600, 1000), (0.1, 0.02)])
def test_the_bar_is_a_round_length_that_fits(width: float, um: float) -> None:
    bar = scale_bar(width)

    assert bar is not None
    assert bar.um == pytest.approx(um)
    assert bar.share == pytest.approx(um / width)
    assert bar.share <= 0.4


def test_an_item_spans_its_box_times_its_scale() -> None:
    assert side_um(ITEM) == pytest.approx(25)


def test_an_unknown_scale_has_no_bar() -> None:
    unknown = ITEM.model_copy(update={"um_per_px": None})

    assert scale_bar(side_um(unknown)) is None
    assert bar_html(None) == ""


def test_an_estimated_scale_reads_about() -> None:
    bar = scale_bar(25, estimated=True)

    assert bar is not None
    assert "about 10 µm" in bar_html(bar)

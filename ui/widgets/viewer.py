"""A stored source to zoom into, with boxes drawn on it: OpenSeadragon as a component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from search.schemas.collections import SourceFacts
from search.schemas.items import Item
from ui.widgets.mounting import mount

MOST_BOXES = 4000
"""Boxes on one picture; more could not be distinguished."""


@dataclass(frozen=True)
class Mark:
    """A box on a source."""

    id: str
    x: int
    y: int
    w: int
    h: int
    colour: str
    """`#rrggbb`."""
    text: str
    """What it is, shown on top of it and read out."""
    line: str = "solid"
    """`solid`, `dashed` or `dotted`."""
    strong: bool = False
    """Drawn wider, and filled a little."""


def mark(
    item: Item, colour: str, text: str, *, line: str = "solid", strong: bool = False
) -> Mark | None:
    """The box of an item; `None` for one that is the whole of its source."""
    box = item.bbox
    if box is None:
        return None
    return Mark(item.id, box.x, box.y, box.w, box.h, colour, text, line, strong)


def viewer(
    source: SourceFacts,
    marks: Sequence[Mark],
    key: str,
    *,
    picked: str | None = None,
    height: int = 760,
) -> str | None:
    """Draw a source with boxes; the id of the box that was clicked, in the run that follows.

    Args:
        source: As `search.client.client.Client.source` returns it.
        marks: Boxes in its pixels.
        key: A name that no other component on the page has.
        picked: Id of the selected box; the view moves to it when it changes.
        height: In CSS pixels, at most; less where the window is lower.
    """
    data = {
        "source": source.source,
        "tiles": f"hemaseek/tiles/{source.collection}/{source.source}",
        "script": "hemaseek/viewer-6.1.1.js",
        "width": source.width,
        "height": source.height,
        "tile": source.tile_size,
        "overlap": source.overlap,
        "min": source.min_level,
        "max": source.max_level,
        "um": source.um_per_px,
        "marks": [asdict(one) for one in marks[:MOST_BOXES]],
        "picked": picked,
        "tall": height,
    }
    pick = mount("viewer", data, key, "pick").get("pick")
    return None if pick is None else str(pick["id"])

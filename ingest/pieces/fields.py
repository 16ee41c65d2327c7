"""Where the pieces of a smear field lie: patches of a grid, or cells that are found."""

from __future__ import annotations

from collections.abc import Sequence

from encoder.contract import RGB
from ingest.pieces.patches import Patches, cells_of_field, patches_of
from ingest.smears.cells import CellKind
from ingest.smears.crops import FieldOfView
from ingest.smears.finders import finder

Boxes = tuple[list[tuple[int, int, int, int]], int]
"""Left, top, width and height of each piece in pixels of the field, and how many were left out."""


def patch_boxes(image: RGB, px: int, covered: float) -> Boxes:
    """Patches of a grid at the field's own scale (see `patches_of`)."""
    return _boxes(patches_of(image, px, covered))


def cell_boxes(image: RGB, kinds: Sequence[CellKind], id: str) -> Boxes:
    """Whole cells that a finder finds, each at its fixed field of view.

    Args:
        image: The field.
        kinds: Of cells.
        id: Of the finder.
    """
    found = finder(id).find(image)
    return _boxes(cells_of_field(image, found, FieldOfView(kinds=tuple(kinds))))


def _boxes(found: Patches) -> Boxes:
    return [(one.box.x, one.box.y, one.box.w, one.box.h) for one in found.kept], found.dropped

"""Where the pieces of a smear field lie: patches of a grid, or cells that are found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from encoder.contract import RGB
from encoder.image import ImageError
from ingest.pieces.patches import Patches, cells_of_field, patches_of
from ingest.smears.cells import CellKind, FinderError
from ingest.smears.crops import FieldOfView
from ingest.smears.finders import Finder, finder

Boxes = tuple[list[tuple[int, int, int, int]], int]
"""Left, top, width and height of each piece in pixels of the field, and how many were left out."""


def patch_boxes(image: RGB, px: int, covered: float) -> Boxes:
    """Patches of a grid at the field's own scale (see `patches_of`)."""
    return _boxes(patches_of(image, px, covered))


def cell_boxes(
    image: RGB, kinds: Sequence[CellKind], id: str, weights: Path | None = None
) -> Boxes:
    """Whole cells that a finder finds, each at its fixed field of view. Safe in any thread.

    Args:
        image: The field.
        kinds: Of cells.
        id: Of the finder.
        weights: Its weights file, where it has one.

    Raises:
        FinderError: no such finder, or its package or its weights are missing.
        ImageError: a field that the finder cannot take.
    """
    finds = _finder(id, weights)
    try:
        found = finds.find(image)
    except FinderError as error:
        raise ImageError(str(error)) from error
    return _boxes(cells_of_field(image, found, FieldOfView(kinds=tuple(kinds))))


_BUILDING = threading.Lock()


def _finder(id: str, weights: Path | None) -> Finder:
    """A finder, built once: a learned one reads a gigabyte."""
    with _BUILDING:
        return _built(id, weights)


_built = lru_cache(maxsize=1)(finder)


def _boxes(found: Patches) -> Boxes:
    return [(one.box.x, one.box.y, one.box.w, one.box.h) for one in found.kept], found.dropped

"""The two extractions that red-cell encoders are trained on: single cells, and whole patches.

RedDino (arXiv 2508.08180, section 2.1): cells cut out one by one, and non-overlapping 224 x 224
patches of the smear at its own aspect ratio. The published models were trained on patches, which
did better than single cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encoder.contract import RGB
from ingest.smears.cells import CellKind, Found
from ingest.smears.crops import FieldOfView, crops_of
from ingest.smears.density import Background
from search.schemas.items import Box

PATCH_PX = 224
"""Side of a patch in pixels of the field."""
RED_CELLS = FieldOfView(kinds=("red",))
"""Single red cells, 12 um each."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One piece of a smear field to train on."""

    image: RGB
    """Height x width x 3."""
    box: Box
    """Where it was cut, in pixels of the field."""
    kind: CellKind | None = None
    """The kind of the cell; `None` for a patch."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """What was cut from one field, and what was not."""

    kept: tuple[Patch, ...]
    """In reading order; cells by kind and falling score."""
    left_px: int
    """Pixels of the field that are in no patch: the margin around the grid."""
    dropped: int
    """Patches or cells that were found and not kept."""


def patches_of(image: RGB, side: int = PATCH_PX, least_covered: float = 0.0) -> Patches:
    """Non-overlapping square patches at the field's own scale and aspect ratio.

    The grid is centred; the margin that fills no patch is left out and counted, never stretched
    or padded. A field smaller than one patch yields none.

    Args:
        image: The field.
        side: Side of a patch in pixels.
        least_covered: Share of a patch that cells must cover, 0 to 1; 0 keeps empty glass.

    Raises:
        ValueError: a side below 1 or a share outside 0 to 1.
    """
    if side < 1 or not 0 <= least_covered <= 1:
        raise ValueError(
            f"expected a side of at least 1 and a share from 0 to 1, got {side} and {least_covered}"
        )
    height, width = image.shape[:2]
    rows, columns = height // side, width // side
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    covered = _covered(image) if least_covered > 0 and rows and columns else None
    kept = []
    for y, x in _grid(top, left, rows, columns, side):
        part = (slice(y, y + side), slice(x, x + side))
        if covered is None or covered[part].mean() >= least_covered:
            kept.append(Patch(image=image[part], box=Box(x=x, y=y, w=side, h=side)))
    return Patches(
        kept=tuple(kept),
        left_px=height * width - rows * columns * side * side,
        dropped=rows * columns - len(kept),
    )


def cells_of_field(image: RGB, found: Found, rule: FieldOfView = RED_CELLS) -> Patches:
    """The cells of a field as single pictures at a fixed field of view; cut cells are dropped."""
    crops = list(crops_of(image, found, rule))
    kept = tuple(
        Patch(image=crop.image, box=crop.box, kind=crop.kind)
        for crop in crops
        if not crop.touches_border
    )
    return Patches(kept=kept, left_px=0, dropped=len(crops) - len(kept))


def _grid(top: int, left: int, rows: int, columns: int, side: int) -> Iterator[tuple[int, int]]:
    for row in range(rows):
        for column in range(columns):
            yield top + row * side, left + column * side


def _covered(image: RGB) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    planes = Background.of(image).planes(image, 1.0)
    return np.zeros(image.shape[:2], bool) if planes is None else planes.covered

"""What an encoder is shown of a cell: the square of its field of view, where a scale is known.

One rule for ingest and query. A picture of a known or estimated scale is cut about its middle to
the field that the encoder's card states; the encoder's own resize then brings it to the pixels of
its input, so that one cell has one size however wide its picture was. A picture that shows less is
taken whole: nothing is invented around it. Without a scale, and by an encoder whose card states no
field, every picture is taken as it is.
"""

from __future__ import annotations

import numpy as np

from encoder.card import CellKind, FieldsUm
from encoder.contract import RGB

USUAL = FieldsUm(white=25.0, red=12.0)
"""The fields of the shipped encoder, and of cells that are cut from smears."""
SMALLEST_WHITE_UM = 9.5
"""A box that is drawn tightly about a cell and is no longer than this is taken for that of a red
cell or a platelet: red cells span 6 to 9 micrometres on a smear, nucleated cells 9 to 25."""

WIDEST = 2.6
"""A picture that spans more fields of view than this, of which nobody says what lies in its middle,
is no picture of one cell: it is taken whole."""


def side_px(fields: FieldsUm, um_per_px: float, kind: CellKind | None = None) -> int:
    """Side of the field of view in pixels of a picture.

    Args:
        fields: Of the encoder.
        um_per_px: Of the picture.
        kind: Of the cell; one that is not known is taken for a nucleated one.
    """
    um = fields.red if kind == "red" else fields.white
    return max(1, int(min(um / um_per_px, 1e9) + 0.5))


def kind_of_box(longest: float, um_per_px: float) -> CellKind:
    """The kind of a cell by the longer side in pixels of a box that is tight about it."""
    return "white" if longest * um_per_px > SMALLEST_WHITE_UM else "red"


def part_seen(
    size: tuple[int, int],
    fields: FieldsUm | None,
    um_per_px: float | None,
    kind: CellKind | None = None,
) -> tuple[int, int, int, int]:
    """Left, top, width and height of what an encoder is shown of a picture of one cell.

    Args:
        size: Width and height of the picture.
        fields: Of the encoder; `None` where it states none.
        um_per_px: Of the picture; `None` where it is not known.
        kind: Of the cell in the middle, where it is known.
    """
    width, height = size
    if fields is None or um_per_px is None:
        return 0, 0, width, height
    side = side_px(fields, um_per_px, kind)
    if kind is None and max(size) > WIDEST * side:
        return 0, 0, width, height
    wide, high = min(side, width), min(side, height)
    return (width - wide) // 2, (height - high) // 2, wide, high


def looked_at(
    picture: RGB, fields: FieldsUm | None, um_per_px: float | None, kind: CellKind | None = None
) -> RGB:
    """What an encoder is shown of a picture of one cell; see `part_seen`."""
    height, width = picture.shape[:2]
    left, top, wide, high = part_seen((width, height), fields, um_per_px, kind)
    if (wide, high) == (width, height):
        return picture
    return np.ascontiguousarray(picture[top : top + high, left : left + wide])

"""What makes an answer less trustworthy: the picture of the query, and its scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from encoder.card import EncoderCard, FieldsUm
from encoder.contract import RGB
from encoder.field_of_view import part_seen
from encoder.stains.stained import normaliser_of, seen
from search.schemas.answers import Hit
from search.schemas.items import Item

SMALL_PX = 24
"""A query image with a side below this has too little in it to be trusted."""
LOOKED_AT_PX = 96
"""Side at which blur is measured, so that the size of a picture plays no part."""
SHARP = 0.13
"""Detail (the Laplacian's root mean square) over contrast; below this a picture is blurred. Cells
of five published sets have 0.16 to 1.1; blurred by a fiftieth of their width, 0.07 to 0.15."""
SPAN_RATIO = 1.5
"""A query that spans this many times more, or less, than its neighbours is warned of."""

_OWN_LABELS = (
    "Labels chose the axes of this version, and that of what is asked about may be one of them: "
)
IN_SAMPLE = (
    f"{_OWN_LABELS}its neighbours then carry its own label more often than those of a new picture "
    "would."
)
"""Of queries that are stored with a label, where `Collection.label_axes` are."""
KINDS_IN_SAMPLE = (
    f"{_OWN_LABELS}the kinds of cells then follow labels more closely than those of new pictures "
    "would, and groups of other labels differ more clearly."
)
"""The same of cases that are compared by the kinds of their cells."""


def unfit(pixels: RGB) -> list[str]:
    """Why an image is no basis for a verdict, as sentences; none where it is one."""
    height, width = pixels.shape[:2]
    found = []
    if min(height, width) < SMALL_PX:
        found.append(f"The image is only {width} x {height} pixels: too small to be trusted.")
    if _spread(pixels) < 4.0:
        found.append("The image is nearly blank.")
    elif blurred(pixels):
        found.append("The image is blurred: fine detail is missing, which stored cells show.")
    return found


def _spread(pixels: RGB) -> float:
    """The largest standard deviation of a channel, 0 to 127.5: glass has a colour.

    Of counts of values, because NumPy's own takes 24 bytes and 30 ns for each pixel.
    """
    counts = np.reshape(Image.fromarray(pixels).histogram(), (3, 256)) / pixels[..., 0].size
    values = np.arange(256)
    means = counts @ values
    return float(np.sqrt((counts * (values - means[:, None]) ** 2).sum(axis=1)).max())


def image_warnings(
    pixels: RGB, card: EncoderCard | None = None, poor: Sequence[str] | None = None
) -> list[str]:
    """What about a query image makes its answer less trustworthy, as sentences.

    Args:
        pixels: The image.
        card: The collection's, whose stain normalisation may fail on the image.
        poor: What `unfit` says of it, where that was asked already.
    """
    height, width = pixels.shape[:2]
    found = list(unfit(pixels) if poor is None else poor)
    if min(height, width) >= SMALL_PX and max(height, width) > 3 * min(height, width):
        found.append(f"The image is {width} x {height} pixels; it is squashed to a square.")
    normaliser = None if card is None else normaliser_of(card)
    if normaliser is not None:
        _, failed = seen(normaliser, pixels)
        if failed is not None:
            found.append(
                f"The stain normalisation {normaliser.name} of this collection failed on the "
                f"image, which was compared as it is: {failed}."
            )
    return found


def blurred(pixels: RGB) -> bool:
    """Whether a picture lacks the fine detail that even soft photographs of cells have."""
    grey = Image.fromarray(pixels).convert("L")
    grey.thumbnail((LOOKED_AT_PX, LOOKED_AT_PX), Image.Resampling.BOX)
    rows = np.asarray(grey, np.float32)
    if min(rows.shape) < 3:
        return False
    middle = 4 * rows[1:-1, 1:-1]
    around = rows[:-2, 1:-1] + rows[2:, 1:-1] + rows[1:-1, :-2] + rows[1:-1, 2:]
    detail = float(np.sqrt(np.square(middle - around).mean()))
    return detail < SHARP * max(float(rows.std()), 1.0)


def span_um(item: Item, fields: FieldsUm | None = None) -> float | None:
    """Micrometres that an encoder was shown of a stored item, along its longer side.

    Args:
        item: The item.
        fields: Of an encoder that cuts pictures of cells to its field of view.

    Returns:
        `None` where that is not known.
    """
    if item.bbox is None or item.um_per_px is None:
        return None
    sides = (item.bbox.w, item.bbox.h)
    cut = fields if item.kind == "cell" else None
    return max(part_seen(sides, cut, item.um_per_px)[2:]) * item.um_per_px


def scale_warnings(
    query_um: float | None, hits: Sequence[Hit], fields: FieldsUm | None = None
) -> list[str]:
    """Whether the query shows another field of view than its neighbours, as sentences.

    Every encoder squashes a picture to one size, so a cell in a wide picture is embedded as a
    small cell. There is no warning where either scale is unknown.

    Args:
        query_um: What of the query was looked at.
        hits: Its neighbours.
        fields: Of an encoder that cuts pictures to its field of view.
    """
    spans = [span for hit in hits if (span := span_um(hit.item, fields)) is not None]
    if query_um is None or len(spans) < 3:
        return []
    usual = float(np.median(spans))
    if 1 / SPAN_RATIO <= query_um / usual <= SPAN_RATIO:
        return []
    wider = query_um > usual
    return [
        f"The picture spans {query_um:.0f} µm, its neighbours {usual:.0f} µm: cells look "
        f"{'smaller' if wider else 'larger'} in it than they are. "
        + ("Draw a box around one cell." if wider else "Use a picture with more of the field.")
    ]

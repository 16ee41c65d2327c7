"""Where a slide holds tissue, found on its overview: neither glass, nor pen, nor edge."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from ingest.slides.grid import Boxes

Mask = NDArray[np.bool_]
"""height x width of an overview."""

FAINTEST = 0.035
"""Less saturation than this is glass, whatever Otsu says: JPEG noise on glass reaches 0.02."""
BOLDEST = 0.07
"""More saturation than this is stained, whatever Otsu says: dark tissue must not hide pale."""
LEAST_CHROMA = 10
"""Largest less smallest channel; below it a pixel is grey (edges, dust, black ink)."""
SPECK_UM2 = 2_500.0
"""Smaller pieces are dust; in area of glass, so that a biopsy counts on the largest slide too."""
HOLE_UM2 = 5_000.0
"""Smaller holes are filled."""
STROKE_UM2 = 10_000.0
"""Smaller spots in the colour of ink are pigment or debris, no pen."""
FEWEST_PIXELS = 4
"""However coarse the overview, fewer pixels than this are noise."""


@dataclass(frozen=True)
class Tissue:
    """What an overview shows."""

    mask: Mask
    """True where there is tissue."""
    pen: Mask
    """True where there is ink."""
    threshold: float
    """The saturation that was taken for tissue."""

    @property
    def share(self) -> float:
        """Share of the overview that is tissue."""
        return float(self.mask.mean())

    @property
    def pen_share(self) -> float:
        """Share of the overview that is ink."""
        return float(self.pen.mean())


def find_tissue(overview: RGB, um_per_px: float) -> Tissue:
    """Saturation above Otsu's threshold (Otsu 1979), cleaned by morphology.

    The threshold is kept between `FAINTEST` and `BOLDEST`, because Otsu always splits: an empty
    slide would give noise, and a slide of two stains its darker one only. Ink, grey and thin
    strips along the border are taken out, specks dropped, small holes filled. Folds and regions
    out of focus cannot be seen at this scale; tile quality sees the latter.

    Args:
        overview: The whole slide.
        um_per_px: Scale of the overview, 4 to 16 for good results.
    """
    from PIL import Image, ImageFilter

    channels = [np.ascontiguousarray(overview[..., channel]) for channel in range(3)]
    top = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
    chroma = top - np.minimum(np.minimum(channels[0], channels[1]), channels[2])
    share = (chroma * np.float32(255) / np.maximum(top, 1)).astype(np.uint8)
    saturation = np.asarray(Image.fromarray(share).filter(ImageFilter.BoxBlur(1)))
    threshold = float(np.clip(otsu(saturation), FAINTEST, BOLDEST))
    speck, hole, stroke = (area / um_per_px**2 for area in (SPECK_UM2, HOLE_UM2, STROKE_UM2))
    pen = _grown(ink(overview), stroke)
    mask = (saturation > threshold * 255) & (chroma >= LEAST_CHROMA)
    mask = without_strips(eroded(dilated(mask)) & ~pen, max(FEWEST_PIXELS, speck))
    holes = ~mask & ~without_specks(~mask, hole)
    return Tissue(mask=(mask | holes) & ~pen, pen=pen, threshold=threshold)


def dilated(mask: Mask) -> Mask:
    """The mask grown by one pixel on all sides, corners too."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    tall = wide.copy()
    tall[1:] |= wide[:-1]
    tall[:-1] |= wide[1:]
    return tall


def eroded(mask: Mask) -> Mask:
    """The mask shrunk by one pixel; beyond the border counts as mask."""
    return ~dilated(~mask)


def otsu(values: NDArray[np.uint8]) -> float:
    """The threshold between two classes of greatest variance (Otsu 1979, eq. 18), 0 to 1."""
    from PIL import Image

    counts = np.array(Image.fromarray(values).histogram(), np.int64)  # ten times as fast as numpy
    below = np.cumsum(counts)
    above = below[-1] - below
    moment = np.cumsum(counts * np.arange(256))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (moment / below - (moment[-1] - moment) / above) ** 2
    between[~np.isfinite(between)] = 0
    return float(between.argmax()) / 255


def ink(image: RGB) -> Mask:
    """Pixels in the colours of marker pens: green, blue, black, and hard red.

    Stained tissue runs from pink over violet to blue-violet, where red is never the smallest
    channel by much; in green and blue ink it is. Black ink is dark and grey. Red ink is told
    from eosin and blood by its green and blue both being low while red is high.

    Args:
        image: ... x 3 uint8: an overview, a tile, or a stack of tiles.
    """
    red, green, blue = (np.ascontiguousarray(image[..., channel]) for channel in range(3))
    # What no rule can apply to is left out in bytes first; that is most of a slide.
    dark = np.maximum(np.maximum(red, green), blue) < 75
    chance = ((green > red) & (green - red > 15)) | dark | ((red > 150) & (green < 75))
    found = np.zeros(red.shape, bool)
    found[chance] = _ink(*(channel[chance].astype(np.int16) for channel in (red, green, blue)))
    return found


def _ink(red: NDArray[np.int16], green: NDArray[np.int16], blue: NDArray[np.int16]) -> Mask:
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    green_ink = (green - red > 25) & (green - blue > -25) & (high - low > 40)
    blue_ink = (blue - red > 70) & (green - red > 15) & (high - low > 80)
    black_ink = (high < 75) & (high - low < 22)
    red_ink = (red > 150) & (green < 75) & (blue < 90) & (red - green > 110)
    return np.asarray(green_ink | blue_ink | black_ink | red_ink)


def _grown(pen: Mask, least: float) -> Mask:
    """Ink without stray pixels, and with its soft rim."""
    if np.count_nonzero(pen) < max(FEWEST_PIXELS, least):
        return np.zeros_like(pen)
    return dilated(dilated(without_specks(dilated(eroded(pen)) & pen, least)))


def without_specks(mask: Mask, least: float) -> Mask:
    """The mask without pieces of fewer than `least` pixels."""
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    return np.asarray(_large(pieces, count, max(FEWEST_PIXELS, least))[pieces])


def without_strips(mask: Mask, least: float = 0) -> Mask:
    """The mask without thin strips along a border, and without pieces below `least` pixels.

    Strips are slide edges, tape and stitching seams.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    stays = _large(pieces, count, least)
    border = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    border = border[stays[border]]
    where = ndimage.find_objects(pieces) if len(border) else []
    height, width = mask.shape
    for number in border.tolist():
        rows, columns = where[number - 1]
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        upright = (columns.start == 0 or columns.stop == width) and wide <= max(2, 0.02 * width)
        level = (rows.start == 0 or rows.stop == height) and tall <= max(2, 0.02 * height)
        if (upright and tall >= 0.25 * height) or (level and wide >= 0.25 * width):
            stays[number] = False
    return np.asarray(stays[pieces])


def _large(pieces: NDArray[np.int32], count: int, least: float) -> NDArray[np.bool_]:
    """By number of a piece, whether it has so many pixels; number 0 is what is around them."""
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = -1
    return np.asarray(sizes >= least)


def shares(mask: Mask, boxes: Boxes, size: tuple[int, int]) -> NDArray[np.float64]:
    """Which share of each box a mask covers.

    Args:
        mask: Over the whole slide.
        boxes: In pixels of level 0.
        size: Width and height of level 0.
    """
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    np.cumsum(mask, axis=1, out=table[1:, 1:])
    for above, row in pairwise(table):  # many times faster than cumsum along the columns
        row += above
    scale_x, scale_y = mask.shape[1] / size[0], mask.shape[0] / size[1]
    left, right = _span(boxes[:, 0], boxes[:, 2], scale_x, mask.shape[1])
    top, bottom = _span(boxes[:, 1], boxes[:, 3], scale_y, mask.shape[0])
    total = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    return np.asarray(total / ((right - left) * (bottom - top)))


def _span(
    start: NDArray[np.int64], side: NDArray[np.int64], scale: float, extent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = np.clip(np.rint(start * scale).astype(np.int64), 0, extent - 1)
    last = np.clip(np.rint((start + side) * scale).astype(np.int64), first + 1, extent)
    return first, last

"""Samples of any depth as the 8 bits of a picture, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB

BITS = (8, 10, 12, 14, 16, 24, 32)
"""Depths that cameras and programs use; the smallest that holds the values is taken."""
UNIT = 1.5
"""Fractions up to this are of the range 0 to 1: resampling overshoots a little."""
STRIP = 1 << 20
"""Samples that are converted at once."""
UNUSED_ALPHA = 5
"""An alpha channel of 8 bits that is nowhere higher is not transparency: nobody fills it."""
DARK, LIGHT = 8.0, 249.0
"""A picture of more than 8 bits whose mean lies outside gets a warning."""


class ImageError(ValueError):
    """An image that cannot be used, and why."""


class NotAnImage(ImageError):
    """Bytes that are no image of an accepted format."""


class UnclearImage(NotAnImage):
    """An image whose pixels could mean several things, or whose kind is not decoded."""


class TooManyPixels(ImageError):
    """An image over the pixel cap."""


@dataclass(frozen=True)
class Shown:
    """Samples as 8 bits."""

    pixels: NDArray[np.uint8]
    remark: str = ""
    """What a person should know of the conversion; empty for nothing."""


def to_8_bits(samples: NDArray[Any], *, bits: int | None = None, inverted: bool = False) -> Shown:
    """Scale samples of any type to 0 to 255.

    Whole numbers count as of the smallest usual depth that holds them (12 bits stored in 16
    are 12 bits); fractions up to 1 as of the range 0 to 1.

    Args:
        samples: Any shape; bool, whole numbers or fractions.
        bits: The depth where the file declares it, other than that of its type.
        inverted: Whether 0 is white.

    Raises:
        UnclearImage: negative or not finite.
    """
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * np.uint8(255)
    deep = samples.dtype != np.uint8 or bits is not None
    top, remark = (255.0, "") if not deep else _top(samples, bits)
    if deep:
        pixels = np.empty(samples.shape, np.uint8)
        for rows in _strips(samples):
            scaled = np.asarray(samples[rows], np.float64) * (255.0 / top)
            pixels[rows] = (scaled + 0.5).clip(0, 255)
    else:
        pixels = samples
    if inverted:
        pixels = np.uint8(255) - pixels
    mean = float(pixels.mean()) if deep and pixels.size else 128.0
    if not DARK <= mean <= LIGHT:
        named = "black" if mean < DARK else "white"
        remark = f"it is almost {named} after scaling its deep values to 8 bits; is that its range?"
    return Shown(pixels, remark)


def _top(samples: NDArray[Any], bits: int | None) -> tuple[float, str]:
    """The value that is shown as 255, and a remark where it is not that of the type."""
    high, low = (float(samples.max()), float(samples.min())) if samples.size else (0.0, 0.0)
    if not np.isfinite([high, low]).all():
        raise UnclearImage("holds values that are not numbers or infinite; save it with 8 bits")
    if samples.dtype.kind == "f" and high <= UNIT and low >= high - UNIT and low > -0.1:
        return 1.0, ""
    if low < 0:
        raise UnclearImage(f"holds values below zero (down to {low:g}); save it with 8 bits")
    if bits is not None and high < 2.0**bits:
        return 2.0**bits - 1, ""
    taken = next((one for one in BITS if high < 2.0**one), None)
    if taken is None:
        raise UnclearImage(f"holds values up to {high:g}, more than 32 bits; save it with 8 bits")
    whole = 8 * samples.dtype.itemsize
    shallow = samples.dtype.kind != "f" and taken < whole
    return (
        2.0**taken - 1,
        f"its {whole}-bit values were taken as {taken}-bit ones" if shallow else "",
    )


def on_white(colour: RGB, alpha: NDArray[np.uint8], *, premultiplied: bool = False) -> RGB:
    """Lay pixels with transparency on white.

    Args:
        colour: height x width x 3.
        alpha: height x width, 255 where nothing shines through.
        premultiplied: Whether the colours were multiplied by it already.
    """
    if alpha.size == 0 or int(alpha.min()) == 255:
        return colour
    out = np.empty(colour.shape, np.uint8)
    for rows in _strips(colour):
        share = alpha[rows, ..., None].astype(np.uint16)
        clear = np.uint16(255) - share
        if premultiplied:
            out[rows] = (colour[rows] + clear).clip(0, 255)
        else:
            mixed = colour[rows] * share + np.uint16(255) * clear
            out[rows] = (mixed + np.uint16(127)) // np.uint16(255)
    return out


def _strips(samples: NDArray[Any]) -> Iterator[slice]:
    """Rows of about a million samples, so that wide copies of them stay small."""
    step = max(1, STRIP * len(samples) // max(1, samples.size))
    return (slice(at, at + step) for at in range(0, len(samples), step))


def is_unused(alpha: NDArray[np.uint8]) -> bool:
    """Whether an alpha channel is so low everywhere that nobody can have filled it."""
    return alpha.size > 0 and int(alpha.max()) <= UNUSED_ALPHA


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels turned as the EXIF orientation (1 to 8) says; any other number turns nothing."""
    if orientation in {5, 6, 7, 8}:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)

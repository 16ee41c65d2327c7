"""TIFF as a viewer shows it: pages, planes, depths, extra samples; read with tifffile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.samples import UnclearImage, is_unused, on_white, to_8_bits, upright

WHITE_IS_ZERO, BLACK_IS_ZERO, COLOUR = 0, 1, 2
"""Photometric interpretations that are read here; palettes, CMYK and YCbCr are left to Pillow."""
ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of extra samples that are transparency; an unspecified one (0) is ignored."""
SAME_SHAPE = 0.02
"""Two pages whose aspect ratios differ by less may be copies of one picture in two sizes."""
PLAIN_CHANNEL = re.compile(
    r"(channel|ch|c)?[ :_-]*\d*|r(ed)?|g(reen)?|b(lue)?|bright ?field.*|rgb.*|.*:\s*[012]",
    re.IGNORECASE,
)
"""Names of the channels of a colour camera; any other is a fluorescence channel."""
MOST_SAMPLES = 8
"""A pixel with more samples is no picture."""
PRIMARIES = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}


@dataclass(frozen=True)
class Found:
    """The one picture of a TIFF file."""

    pixels: RGB
    """Upright."""
    orientation: int
    """As the file says; 1 if it says nothing."""
    remark: str


@dataclass(frozen=True)
class Shape:
    """What a TIFF file says of its picture before it is decoded."""

    width: int
    """Upright."""
    height: int
    orientation: int


def shape_of(handle: IO[bytes] | Path) -> Shape | None:
    """Size and orientation of the first picture of a TIFF by its tags; `None` for no TIFF."""
    from tifffile import TiffFile

    try:
        with TiffFile(handle) as file:
            page = file.pages.first
            turn = _orientation(page)
            sides = (int(page.imagewidth), int(page.imagelength))
    except Exception:  # tifffile raises a dozen kinds on what is no TIFF
        return None
    width, height = sides[::-1] if turn >= 5 else sides
    return Shape(width, height, turn)


def read_tiff(handle: IO[bytes] | Path) -> Found | None:
    """Decode a TIFF file that holds one picture.

    Colour stored as three grey planes is one picture where the file says that its planes are
    channels of one; smaller copies (a pyramid, a thumbnail) are left out.

    Returns:
        The picture; `None` for a kind that Pillow decodes as well as a viewer does (palettes,
        CMYK, YCbCr, CCITT), of a file with one page.

    Raises:
        UnclearImage: several pictures, channels that are no colours, or CIE L*a*b*.
    """
    from tifffile import TiffFile

    with TiffFile(handle) as file:
        main = file.series[0]
        page = main.keyframe
        planes = planes_of(file, main)
        if not _copies(main, file.series[1:]):
            raise UnclearImage(
                f"holds {len(file.pages)} pictures (pages); save each as a file of its own"
            )
        photometric = int(page.photometric)
        if page.samplesperpixel > MOST_SAMPLES or any(one is None for one in main.pages):
            raise UnclearImage("holds only a part of its planes, or far too many; save it as RGB")
        if photometric in {8, 9, 10}:
            raise UnclearImage("has CIE L*a*b* colours; save it as RGB")
        if photometric not in {WHITE_IS_ZERO, BLACK_IS_ZERO, COLOUR} or page.bitspersample == 1:
            return None
        samples = _samples(main, planes)
        if samples is None:
            return None
        turn = _orientation(page)
        pixels, remark = _colours(np.atleast_3d(samples), page, planes is not None)
    return Found(upright(pixels, turn), turn, remark)


def _samples(main: Any, planes: tuple[int, ...] | None) -> NDArray[Any] | None:
    """The samples of a series, channels last; `None` where only Pillow has the codec.

    Raises:
        UnclearImage: deep samples in a compression that nobody here reads.
    """
    page = main.keyframe
    try:
        found = main.asarray() if planes is not None else page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        shallow = page.dtype == np.uint8 and int(page.photometric) != WHITE_IS_ZERO
        if planes is None and shallow:
            return None
        raise UnclearImage("has a compression that is not read here; save it without") from error
    samples: NDArray[Any] = np.asarray(found)
    if planes is not None:
        return np.moveaxis(samples.squeeze(), 0, -1)[..., list(planes)]
    separate = samples.ndim == 3 and page.planarconfig == 2
    return np.moveaxis(samples, 0, -1) if separate else samples


def planes_of(file: Any, main: Any) -> tuple[int, ...] | None:
    """Which planes of a series are red, green and blue; `None` for a picture of one page.

    Args:
        file: An open `tifffile.TiffFile`.
        main: One of its series.

    Raises:
        UnclearImage: several pictures, or channels that are no colours.
    """
    sides = zip(main.axes, main.shape, strict=True)
    outer = {axis: n for axis, n in sides if axis not in "YXS" and n > 1}
    if not outer:
        return None
    described = file.is_ome or file.is_imagej or file.is_shaped
    if outer != {"C": 3} or "S" in main.axes or not described:
        count = int(np.prod(list(outer.values())))
        what = f"{count} channels" if set(outer) == {"C"} else f"{count} pictures (pages)"
        raise UnclearImage(
            f"holds {what} in one file; save it as RGB, or each as a file of its own"
        )
    names = _channel_names(file.ome_metadata) if file.is_ome else []
    if not all(PLAIN_CHANNEL.fullmatch(name) for name in names):
        raise UnclearImage("holds three fluorescence channels and no colours; save it as RGB")
    order = [PRIMARIES.get(name.lower(), -1) for name in names]
    if sorted(order) == [0, 1, 2]:
        return tuple(order.index(primary) for primary in range(3))
    return (0, 1, 2)


def _channel_names(text: str) -> list[str]:
    """Names of the channels in an OME description; a dye counts as a name."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (tifffile has parsed it already)
    except ElementTree.ParseError:
        return []
    channels = [one for one in root.iter() if one.tag.endswith("}Channel")]
    return [one.get("Fluor") or one.get("Name") or "" for one in channels]


def _copies(main: Any, others: list[Any]) -> bool:
    """Whether all other pages are smaller copies of the first picture, or no pictures at all."""
    page = main.keyframe
    wide, high = page.imagewidth, page.imagelength
    for other in others:
        key = other.keyframe
        smaller = key.imagewidth < wide and key.imagelength < high
        ratio = (key.imagewidth / key.imagelength) / (wide / high)
        if key.is_reduced or key.is_mask or other.name in {"Thumbnail", "Label", "Macro"}:
            continue
        if not (smaller and abs(ratio - 1) <= SAME_SHAPE):
            return False
    return True


def _colours(samples: NDArray[Any], page: Any, planes: bool) -> tuple[RGB, str]:
    """Samples (height x width x n) as RGB, transparency on white."""
    inverted = int(page.photometric) == WHITE_IS_ZERO
    n = 3 if planes or int(page.photometric) == COLOUR else 1
    extra = [int(kind) for kind in page.extrasamples or ()]
    if samples.shape[-1] < n or (n == 1 and samples.shape[-1] >= 3):
        raise UnclearImage(
            f"has {samples.shape[-1]} samples a pixel that it does not call colours; save it as RGB"
        )
    bits = page.bitspersample if page.bitspersample not in {8, 16, 32, 64} else None
    shown = to_8_bits(samples[..., :n], bits=bits, inverted=inverted)
    colour = np.repeat(shown.pixels, 3, axis=2) if n == 1 else shown.pixels
    if samples.shape[-1] > n and extra and extra[0] in {ASSOCIATED, UNASSOCIATED}:
        alpha = to_8_bits(samples[..., n], bits=bits).pixels
        if not is_unused(alpha):
            colour = on_white(colour, alpha, premultiplied=extra[0] == ASSOCIATED)
    return np.ascontiguousarray(colour), shown.remark


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1

"""The one decoder: bytes or a file to an upright RGB array, with caps; and one resize.

Every picture that comes in is decoded here, by ingest, the service and the page alike. The EXIF
orientation is applied once; sizes, boxes and crops are all in the upright frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from encoder.card import Resample
from encoder.contract import RGB
from encoder.samples import (
    ImageError,
    NotAnImage,
    TooManyPixels,
    UnclearImage,
    is_unused,
    on_white,
    to_8_bits,
    upright,
)

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Decoded",
    "Frame",
    "ImageError",
    "NotAnImage",
    "TooManyPixels",
    "UnclearImage",
    "decode",
    "frame_of",
    "read_rgb",
    "resize",
]

Image.MAX_IMAGE_PIXELS = None  # our own cap is the stricter one; Pillow's warns in any thread
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
"""The formats that are decoded; Pillow knows dozens more, each a way to be attacked."""
MAX_PIXELS = 100_000_000
"""More pixels than this are refused before decoding (300 MB as RGB)."""
ORIENTATION = 274
"""The EXIF tag."""
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Frame:
    """Size of a picture, and how it is stored."""

    width: int
    """Of the upright picture, in pixels."""
    height: int
    orientation: int = 1
    """EXIF orientation of the stored picture, 1 to 8; 1 is upright."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return self.width, self.height

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the picture as it lies in the file."""
        return (self.height, self.width) if self.orientation >= 5 else self.size


@dataclass(frozen=True)
class Decoded:
    """A picture, decoded."""

    pixels: RGB
    """height x width x 3, uint8, red first, upright."""
    remark: str = ""
    """What a person should know of how it was decoded; empty for nothing."""


def read_rgb(source: bytes | Path, *, name: str = "", max_pixels: int = MAX_PIXELS) -> RGB:
    """The pixels of `decode`: height x width x 3, uint8, red first, upright."""
    return decode(source, name=name, max_pixels=max_pixels).pixels


def decode(source: bytes | Path, *, name: str = "", max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode a file with one picture to upright RGB, as a viewer shows it.

    The EXIF orientation is applied. Transparency is laid on white; an alpha channel that is zero
    everywhere is ignored. Deeper samples are scaled to 8 bits by the depth that their values use.

    Args:
        source: The bytes, or a file.
        name: What errors call it; the file's name if empty.
        max_pixels: Refused above this, before decoding.

    Raises:
        NotAnImage: no accepted format, or damaged.
        UnclearImage: several pictures in one file, or samples that could mean several things.
        TooManyPixels: over the cap.
    """
    called = name or (source.name if isinstance(source, Path) else "the image")
    with _in_words(called), _opened(source) as image:
        if image.width * image.height > max_pixels:
            raise TooManyPixels(
                f"{called} has {image.width} x {image.height} pixels; at most "
                f"{max_pixels / 1e6:g} million are accepted. Crop or shrink it first"
            )
        if image.format == "TIFF" and (found := _tiff(source)) is not None:
            return found
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise UnclearImage(f"holds {frames} pictures; save each as a file of its own")
        if image.format == "PNG" and _is_deep(image):
            return _deep_png(source, _orientation(image))
        turn = _orientation(image)
        if image.format == "TIFF":  # Pillow turns these by itself
            turn = 1
        return _by_pillow(image, turn)


def frame_of(source: bytes | Path) -> Frame:
    """Upright size and stored orientation of a picture, from its header alone.

    Raises:
        NotAnImage: no accepted format.
    """
    with _in_words("the image"), _opened(source) as image:
        turn, (width, height) = _orientation(image), image.size
        if turn >= 5 and image.format != "TIFF":  # of a TIFF, Pillow gives the upright size
            width, height = height, width
        return Frame(width, height, turn)


@contextmanager
def _opened(source: bytes | Path) -> Iterator[Image.Image]:
    handle = BytesIO(source) if isinstance(source, bytes) else source
    try:
        image: Image.Image = Image.open(handle, formats=FORMATS)
    except UnidentifiedImageError:
        stand_in = _tiff_size(source)  # of samples that Pillow does not know
        if stand_in is None:
            raise
        image = stand_in
    with image:
        yield image


@contextmanager
def _in_words(called: str) -> Iterator[None]:
    try:
        yield
    except UnclearImage as error:
        raise UnclearImage(f"{called} {error}") from error
    except (ImageError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        raise NotAnImage(
            f"{called} is not an image that can be read; accepted are {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged bytes
        raise NotAnImage(f"{called} is damaged or cut short: {error}") from error


def _orientation(image: Image.Image) -> int:
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing
        return 1
    return turn if turn in range(1, 9) else 1


def _tiff(source: bytes | Path) -> Decoded | None:
    """A TIFF by its tags; `None` where Pillow reads it as well."""
    from encoder.tiff import read_tiff

    found = read_tiff(BytesIO(source) if isinstance(source, bytes) else source)
    return None if found is None else Decoded(found.pixels, found.remark)


def _tiff_size(source: bytes | Path) -> Image.Image | None:
    """An empty picture of the size of a TIFF, for the cap; `None` for no TIFF."""
    from encoder.tiff import shape_of

    try:
        found = shape_of(BytesIO(source) if isinstance(source, bytes) else source)
    except Exception:  # tifffile raises as many kinds as Pillow
        return None
    blank = Image.new("1", (1, 1))
    blank._size = (found.width, found.height)
    blank.format = "TIFF"
    blank.getexif()[ORIENTATION] = found.orientation
    return blank


def _is_deep(image: Image.Image) -> bool:
    return any("16" in str(part.args) for part in getattr(image, "tile", ()))


def _deep_png(source: bytes | Path, turn: int) -> Decoded:
    """A PNG of 16 bits, of which Pillow keeps the upper 8."""
    import cv2

    content = source if isinstance(source, bytes) else source.read_bytes()
    samples = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise NotAnImage("its 16-bit samples cannot be decoded")
    samples = np.atleast_3d(samples)
    n = 3 if samples.shape[2] >= 3 else 1
    shown = to_8_bits(samples[..., :n])
    colour = np.repeat(shown.pixels, 3, axis=2) if n == 1 else shown.pixels[..., ::-1]
    if samples.shape[2] in {2, 4}:
        alpha = to_8_bits(samples[..., -1]).pixels
        colour = colour if is_unused(alpha) else on_white(colour, alpha)
    return Decoded(upright(colour, turn), shown.remark)


def _by_pillow(image: Image.Image, turn: int) -> Decoded:
    """What Pillow decodes to 8 bits or to one deep channel."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;"):
        shown = to_8_bits(np.asarray(image))
        return Decoded(upright(np.repeat(shown.pixels[..., None], 3, axis=2), turn), shown.remark)
    if image.mode in {"LAB", "HSV"}:
        raise UnclearImage(f"has {image.mode} colours; save it as RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        colour, alpha = rgba[..., :3], rgba[..., 3]
        channel = image.mode not in {"P", "PA"} and "transparency" not in image.info
        if channel and is_unused(alpha):
            return Decoded(upright(colour, turn), "its alpha channel is empty and was ignored")
        remark = "it is transparent everywhere, so all white" if is_unused(alpha) else ""
        return Decoded(upright(on_white(colour, alpha), turn), remark)
    return Decoded(upright(np.asarray(image.convert("RGB")), turn))


def resize(image: RGB, side: int, resample: Resample) -> RGB:
    """The whole image squashed to `side` x `side`, by Pillow's antialiasing filter."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), FILTERS[resample]))

"""The one decoder: bytes or a file to an upright RGB array, with caps; and one resize.

Every picture that comes in is decoded here, by ingest, the service and the page alike. The EXIF
orientation is applied once; sizes, boxes and crops are all in the upright frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import SEEK_CUR, BytesIO
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
from encoder.tiff import read_tiff, shape_of

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
    "plain_jpeg",
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
START_OF_SCAN = b"\xff\xda"
"""The marker of a JPEG before its pixels."""
SILENT = {bytes((0xFF, one)) for one in b"\xc0\xc1\xc2\xc4\xda\xdb\xdd\xe0\xee\xfe"}
"""Markers of a JPEG that say nothing of how it is turned: frame, tables, JFIF, Adobe, comment."""
PLAIN = frozenset({"Gray", "YCbCr"})
"""Colours of a JPEG, as `simplejpeg` names them, that are decoded without Pillow."""
NO_PIXELS = bytes.fromhex("0000000049444154 35af061e 0000000049454e44 ae426082")
"""How a PNG ends that has none."""
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
    format: str = field(default="", compare=False)
    """As Pillow names it; empty where no header was read."""

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


def decode(
    source: bytes | Path,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    frame: Frame | None = None,
) -> Decoded:
    """Decode a file with one picture to upright RGB, as a viewer shows it.

    The EXIF orientation is applied. Transparency is laid on white; an alpha channel that is zero
    everywhere is ignored. Deeper samples are scaled to 8 bits by the depth that their values use.

    Args:
        source: The bytes, or a file.
        name: What errors call it; the file's name if empty.
        max_pixels: Refused above this, before decoding.
        frame: What `frame_of` said of the same picture, which is then not asked again.

    Raises:
        NotAnImage: no accepted format, or damaged.
        UnclearImage: several pictures in one file, or samples that could mean several things.
        TooManyPixels: over the cap.
    """
    called = name or (source.name if isinstance(source, Path) else "the image")
    with _in_words(called):
        if frame is None or not frame.format:
            frame = _header(source)
        kind = frame.format
        if frame.width * frame.height > max_pixels:
            raise TooManyPixels(
                f"{called} has {frame.width} x {frame.height} pixels; at most "
                f"{max_pixels / 1e6:g} million are accepted. Crop or shrink it first"
            )
        if kind == "JPEG":
            content = source if isinstance(source, bytes) else source.read_bytes()
            if (pixels := plain_jpeg(content)) is not None:
                return Decoded(upright(pixels, frame.orientation))
        if kind == "TIFF" and (found := read_tiff(_handle(source))) is not None:
            return Decoded(found.pixels, found.remark)
        with Image.open(_handle(source), formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and kind != "MPO":
                raise UnclearImage(f"holds {frames} pictures; save each as a file of its own")
            if kind == "PNG" and _is_deep(image):
                return _deep_png(source, frame.orientation)
            # Pillow turns a TIFF by itself.
            return _by_pillow(image, 1 if kind == "TIFF" else frame.orientation)


def frame_of(source: bytes | Path) -> Frame:
    """Upright size and stored orientation of a picture, from its header alone.

    Raises:
        NotAnImage: no accepted format.
    """
    with _in_words("the image"):
        return _header(source)


def _header(source: bytes | Path) -> Frame:
    """The frame of a picture; of a TIFF with samples that Pillow does not know, too."""
    if isinstance(source, bytes) and (frame := _upright_jpeg(source)) is not None:
        return frame
    try:
        with Image.open(_handle(source), formats=FORMATS) as image:
            turn, (width, height) = _orientation(image, source), image.size
            if turn >= 5 and image.format != "TIFF":  # of a TIFF, Pillow gives the upright size
                width, height = height, width
            return Frame(width, height, turn, str(image.format))
    except UnidentifiedImageError:
        found = shape_of(_handle(source))
        if found is None:
            raise
        return Frame(found.width, found.height, found.orientation, "TIFF")


def _upright_jpeg(content: bytes) -> Frame | None:
    """The frame of a JPEG that says nothing of how it is turned; Pillow takes 10 times longer."""
    if not content.startswith(b"\xff\xd8"):
        return None
    at, marker = 2, b""
    while marker != START_OF_SCAN:
        if (marker := content[at : at + 2]) not in SILENT:  # what is odd is for Pillow to judge
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return Frame(width, height, 1, "JPEG") if colour in PLAIN else None


def _handle(source: bytes | Path) -> BytesIO | Path:
    return BytesIO(source) if isinstance(source, bytes) else source


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


def _orientation(image: Image.Image, source: bytes | Path) -> int:
    try:
        if image.format == "PNG":
            with Image.open(_without_pixels(source)) as chunks:
                turn = Image.Image.getexif(chunks).get(ORIENTATION, 1)
        else:
            turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing
        return 1
    return turn if turn in range(1, 9) else 1


def _without_pixels(source: bytes | Path) -> BytesIO:
    """A PNG without its pixels: those Pillow would all decode, to look for EXIF behind them."""
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        kept = [file.read(8)]
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"IDAT":
                file.seek(length + 4, SEEK_CUR)
            else:
                kept += [head, file.read(length + 4)]
    return BytesIO(b"".join([*kept, NO_PIXELS]))


def plain_jpeg(content: bytes, least: int = 0) -> RGB | None:
    """The pixels of a JPEG of one grey channel or of YCbCr, as they lie in the file (not turned).

    They are those of Pillow in half of its time: both decode by libjpeg-turbo, with the slow exact
    transform and smooth chroma.

    Args:
        content: The file.
        least: With a number, decoded at a half, a quarter or an eighth of its size where both
            sides stay at least so long.

    Returns:
        `None` for any other JPEG, and for what is damaged or none: Pillow says what is wrong.
    """
    import simplejpeg

    try:
        *_, colour, _ = simplejpeg.decode_jpeg_header(content)
        if colour not in PLAIN:
            return None
        pixels: RGB = simplejpeg.decode_jpeg(content, "RGB", min_height=least, min_width=least)
    except ValueError:
        return None
    return pixels


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

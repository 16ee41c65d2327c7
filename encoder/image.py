"""Bytes or a file to an RGB array, with caps, and one resize for everybody."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from encoder.card import Resample
from encoder.contract import RGB

Image.MAX_IMAGE_PIXELS = None  # our own cap is the stricter one; Pillow's warns in any thread
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
"""The formats that are decoded; Pillow knows dozens more, each a way to be attacked."""
MAX_PIXELS = 100_000_000
"""More pixels than this are refused before decoding (300 MB as RGB)."""
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class ImageError(ValueError):
    """An image that cannot be used, and why."""


class NotAnImage(ImageError):
    """Bytes that are no image of an accepted format."""


class TooManyPixels(ImageError):
    """An image over the pixel cap."""


def read_rgb(source: bytes | Path, *, name: str = "", max_pixels: int = MAX_PIXELS) -> RGB:
    """Decode an image to RGB.

    Transparency is laid on white; 16-bit grey is scaled to 8 bits; EXIF is not applied and
    not kept.

    Args:
        source: The bytes, or a file.
        name: What errors call it; the file's name if empty.
        max_pixels: Refused above this, before decoding.

    Returns:
        height x width x 3, uint8, red first.

    Raises:
        NotAnImage: no accepted format, or damaged.
        TooManyPixels: over the cap.
    """
    called = name or (source.name if isinstance(source, Path) else "the image")
    handle = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(handle, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise TooManyPixels(
                    f"{called} has {image.width} x {image.height} pixels; at most "
                    f"{max_pixels / 1e6:g} million are accepted. Crop or shrink it first"
                )
            return to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise NotAnImage(
            f"{called} is not an image that can be read; accepted are {', '.join(FORMATS)}"
        ) from error
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged bytes
        raise NotAnImage(f"{called} is damaged or cut short: {error}") from error


def to_rgb(image: Image.Image) -> RGB:
    """A Pillow image as an RGB array, transparency on white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image, dtype=np.float64)
        top = max(float(deep.max()), 1.0)
        grey = (deep * (255.0 / (65535.0 if top > 255 else 255.0))).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def resize(image: RGB, side: int, resample: Resample) -> RGB:
    """The whole image squashed to `side` x `side`, by Pillow's antialiasing filter."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), FILTERS[resample]))

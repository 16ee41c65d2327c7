"""Pictures of queries and of items: what to warn of, and how a full-size one is cut."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from encoder.encoder import RGB
from encoder.image import ImageError, read_rgb
from search.records import Item, source_id

SMALL_PX = 24
"""A query image with a side below this has too little in it to be trusted."""


def image_warnings(pixels: RGB) -> list[str]:
    """What about a query image makes its answer less trustworthy, in words."""
    height, width = pixels.shape[:2]
    found = []
    if min(height, width) < SMALL_PX:
        found.append(f"The image is only {width} x {height} pixels: too small to be trusted.")
    elif max(height, width) > 3 * min(height, width):
        found.append(f"The image is {width} x {height} pixels; it is squashed to a square.")
    if float(pixels.std()) < 4.0:
        found.append("The image is nearly blank.")
    return found


def cut(path: Path, item: Item) -> bytes | None:
    """An item's own pixels as JPEG; `None` if the file is gone, changed or unreadable."""
    try:
        content = path.read_bytes()
        if source_id(content) != item.source:
            return None
        pixels = read_rgb(content)
    except (OSError, ImageError):
        return None
    picture = Image.fromarray(pixels)
    if item.bbox is not None:
        box = item.bbox
        canvas = Image.new("RGB", (box.w, box.h), (255, 255, 255))
        canvas.paste(picture, (-box.x, -box.y))
        picture = canvas
    out = BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()

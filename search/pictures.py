"""Pictures of queries and of items: what to warn of, and how a full-size one is cut."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from encoder.card import EncoderCard
from encoder.encoder import RGB
from encoder.stained import normaliser_of, seen
from search.records import Item
from search.sources import PlainImages, read_again

SMALL_PX = 24
"""A query image with a side below this has too little in it to be trusted."""


def image_warnings(pixels: RGB, card: EncoderCard | None = None) -> list[str]:
    """What about a query image makes its answer less trustworthy, in words.

    Args:
        pixels: The image.
        card: The collection's, whose stain normalisation may fail on the image.
    """
    height, width = pixels.shape[:2]
    found = []
    if min(height, width) < SMALL_PX:
        found.append(f"The image is only {width} x {height} pixels: too small to be trusted.")
    elif max(height, width) > 3 * min(height, width):
        found.append(f"The image is {width} x {height} pixels; it is squashed to a square.")
    if float(pixels.std()) < 4.0:
        found.append("The image is nearly blank.")
    normaliser = None if card is None else normaliser_of(card)
    if normaliser is not None:
        _, failed = seen(normaliser, pixels)
        if failed is not None:
            found.append(
                f"The stain normalisation {normaliser.name} of this collection failed on the "
                f"image, which was compared as it is: {failed}."
            )
    return found


def cut(path: Path, item: Item) -> bytes | None:
    """An item's own pixels as JPEG, as the encoder saw them.

    `None` if the file is gone, changed or unreadable, or a slide, which only ingest reads.
    """
    pixels = read_again(PlainImages(), str(path), item)
    if isinstance(pixels, str):
        return None
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue()

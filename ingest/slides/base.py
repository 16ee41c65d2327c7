"""What every slide offers, whatever reads it: facts, levels, rectangles, an overview."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.contract import RGB
from ingest.sandbox.messages import Piece, Refusal
from ingest.slides import jpeg_tiles as direct
from ingest.slides.grid import MicronsPerPixel, SlidePixels

BLOCK = 2048
"""Side of the pieces in which a level is read for an overview, where there is no short way."""
MOST_DAMAGED = 0.5
"""A slide of which a larger share is damaged is refused."""
ENOUGH_DAMAGED = 24
"""So many damaged places are enough to judge by: each may cost a second to get over."""
UNREADABLE = (213, 94, 0)
"""Shown in overviews where the file is damaged; taken for tissue, so that tiles there are tried."""


@dataclass(frozen=True, kw_only=True)
class SlideFacts:
    """All that leaves the child about a slide: an allow-list, nothing that names anybody."""

    vendor: str
    """The layout as OpenSlide names it, or `plain` for an image that Pillow reads."""
    reader: Literal["openslide", "direct", "tifffile", "plain"]
    """What fetches the pixels."""
    width: SlidePixels
    """Of level 0."""
    height: SlidePixels
    """Of level 0."""
    levels: tuple[tuple[int, int], ...]
    """Width and height of each level, finest first."""
    um_per_px: tuple[MicronsPerPixel, MicronsPerPixel] | None
    """Of level 0 along x and y, as the file says; `None` where it does not."""
    objective: float | None
    """Power of the objective, for display only: no scale is taken from it."""


class Tally:
    """Counts damaged reads, so that a file that is damaged all over does not take for ever."""

    def __init__(self) -> None:
        self.tried = 0
        self.damaged = 0

    def add(self, damaged: bool) -> None:
        """Count one read.

        Raises:
            Refusal: more than `MOST_DAMAGED` of at least `ENOUGH_DAMAGED` reads were damaged.
        """
        self.tried += 1
        self.damaged += damaged
        if self.damaged >= ENOUGH_DAMAGED and self.damaged > MOST_DAMAGED * self.tried:
            raise Refusal(
                f"{self.damaged:,} of the first {self.tried:,} places looked at are damaged, "
                "so the rest was not read"
            )


class Slide:
    """An open slide. Rectangles are given in pixels of their level."""

    facts: SlideFacts
    remark: str = ""
    """What a person should know of how it is decoded."""
    no_scale: str = ""
    """Why what the file says of its scale is not believed; empty where it says nothing."""

    def downsample(self, level: int) -> tuple[float, float]:
        """Pixels of level 0 per pixel of a level, along x and y."""
        width, height = self.facts.levels[level]
        return self.facts.width / width, self.facts.height / height

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """Read a rectangle within a level into `out` (height x width x 3).

        Raises:
            Damaged: the bytes of that place are damaged; other places may be read on.
        """
        raise NotImplementedError

    def ahead(
        self,
        level: int,
        rectangles: Sequence[tuple[int, int, int, int]],
        threads: ThreadPoolExecutor,
    ) -> None:
        """A hint that some rectangles (left, top, width, height) are read next."""

    def overview(self, width: int, height: int) -> Iterator[Piece | RGB]:
        """The whole slide in a given size; yields signs of life, and the picture last."""
        level = self._overview_level(width)
        level_width, level_height = self.facts.levels[level]
        picture, tally = np.full((height, width, 3), 255, np.uint8), Tally()
        for top in range(0, level_height, BLOCK):
            yield Piece(note=f"overview, row {top} of {level_height}")
            for left in range(0, level_width, BLOCK):
                w, h = min(BLOCK, level_width - left), min(BLOCK, level_height - top)
                block = np.empty((h, w, 3), np.uint8)
                try:
                    self.read(level, left, top, w, h, block)
                    tally.add(False)
                except direct.Damaged:
                    block[...] = UNREADABLE
                    tally.add(True)
                paste(picture, block, left, top, (level_width, level_height))
        yield picture

    def _overview_level(self, width: int) -> int:
        enough = [i for i, (w, _) in enumerate(self.facts.levels) if w >= width]
        return enough[-1] if enough else 0

    def close(self) -> None:
        """Close the file."""


def on_white(rgba: NDArray[np.uint8], out: RGB) -> None:
    """Lay pixels with transparency on white; places that were not scanned are transparent."""
    alpha = rgba[..., 3:]
    if int(alpha.min(initial=255)) == 255:
        out[...] = rgba[..., :3]
        return
    wide = rgba[..., :3].astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha)
    out[...] = (wide + 127) // 255


def paste(
    picture: RGB,
    block: RGB,
    left: int,
    top: int,
    size: tuple[int, int],
    covers: tuple[int, int] | None = None,
) -> None:
    """Lay a block of a level, which covers so many of its pixels, into a smaller picture."""
    w, h = covers or (block.shape[1], block.shape[0])
    x0, x1 = (round(x * picture.shape[1] / size[0]) for x in (left, left + w))
    y0, y1 = (round(y * picture.shape[0] / size[1]) for y in (top, top + h))
    if x1 <= x0 or y1 <= y0:
        return
    if block.shape[:2] != (y1 - y0, x1 - x0):
        image = Image.fromarray(block)
        block = np.asarray(image.resize((x1 - x0, y1 - y0), Image.Resampling.BOX))
    picture[y0:y1, x0:x1] = block

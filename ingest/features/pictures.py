"""The child's side: small pictures of places of a slide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from encoder.contract import RGB
from ingest.sandbox.messages import Piece
from ingest.slides.base import Slide
from ingest.slides.jpeg_tiles import Damaged
from ingest.slides.slide import open_slide

AT_ONCE = 64
"""Pictures of one piece."""


def pictures(source: str, boxes: Sequence[Sequence[int]], side: int) -> Iterator[Piece]:
    """Reader: a square of `side` pixels of each box (level-0 pixels); white past the border."""
    slide = open_slide(Path(source))
    try:
        for at in range(0, len(boxes), AT_ONCE):
            cut = [_picture(slide, box, side) for box in boxes[at : at + AT_ONCE]]
            yield Piece(images=np.stack(cut))
    finally:
        slide.close()


def _picture(slide: Slide, box: Sequence[int], side: int) -> RGB:
    """One place, from the coarsest level that still has `side` pixels for it."""
    x, y, width, height = box
    levels = range(len(slide.facts.levels))
    fine = [at for at in levels if width / slide.downsample(at)[0] >= side] or [0]
    level = fine[-1]
    across, down = slide.downsample(level)
    left, top = round(x / across), round(y / down)
    wide, high = max(1, round(width / across)), max(1, round(height / down))
    whole = np.full((high, wide, 3), 255, np.uint8)
    most_x, most_y = slide.facts.levels[level]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + wide, most_x), min(top + high, most_y)
    if x0 < x1 and y0 < y1:
        inside = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        try:
            slide.read(level, x0, y0, x1 - x0, y1 - y0, inside)
        except Damaged:
            inside[:] = 255
        whole[y0 - top : y1 - top, x0 - left : x1 - left] = inside
    return np.asarray(Image.fromarray(whole).resize((side, side), Image.Resampling.BOX))

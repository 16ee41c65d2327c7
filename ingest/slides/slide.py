"""Whole slides, opened in a child: by OpenSlide, by tifffile, or as a plain image.

`ingest.slides.tiling` cuts one into tiles. Of what a slide says about itself only `SlideFacts` is
kept. Label and macro images are never opened.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from encoder.contract import RGB
from encoder.image import MAX_PIXELS, NotAnImage, UnclearImage, decode
from ingest.sandbox.messages import Piece, Refusal
from ingest.slides import jpeg_tiles as direct
from ingest.slides.base import UNREADABLE, Slide, SlideFacts, Tally, on_white, paste
from ingest.slides.grid import SlidePixels
from ingest.slides.scale import positive, said_scale
from ingest.slides.tiff import TiffSlide, needs_tifffile

MAX_SIDE = 4_000_000
"""A slide with a longer side than this has a lying header."""
OPENSLIDE_CACHE = 64 * 1024 * 1024
KEPT_OPEN = 3
"""Slides that a child keeps open."""


class OpenSlideSlide(Slide):
    """A slide that OpenSlide opens, with the direct way where there is one."""

    def __init__(self, path: Path, *, short_way: bool = True) -> None:
        import openslide

        self._path = path
        self._fd = -1
        self._slide = self._open()
        properties = self._slide.properties
        vendor = str(properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"))
        self._direct = self._levels(vendor) if short_way else {}
        scale, self.no_scale = said_scale(properties)
        self.facts = SlideFacts(
            vendor=vendor[:40],
            reader="direct" if 0 in self._direct else "openslide",
            width=SlidePixels(self._slide.dimensions[0]),
            height=SlidePixels(self._slide.dimensions[1]),
            levels=tuple(self._slide.level_dimensions),
            um_per_px=scale,
            objective=positive(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        )
        if max(self.facts.width, self.facts.height) > MAX_SIDE:
            raise Refusal(
                f"the header says {self.facts.width:,} x {self.facts.height:,} pixels, more than "
                f"any slide has ({MAX_SIDE:,} a side); the file is damaged"
            )

    def _open(self) -> Any:
        import openslide

        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE))
        return slide

    def _levels(self, vendor: str) -> dict[int, direct.DirectLevel]:
        """The levels that can be read directly, by the number that OpenSlide gives them."""
        if vendor not in direct.VENDORS:
            return {}
        by_size: dict[tuple[int, int], list[direct.LevelIndex]] = {}
        for level in direct.index(self._path):
            by_size.setdefault((level.width, level.height), []).append(level)
        self._fd = os.open(self._path, os.O_RDONLY)
        found = {}
        for number, size in enumerate(self._slide.level_dimensions):
            if len(by_size.get(size, [])) == 1:  # two of one size: which is it? leave it
                short = direct.DirectLevel(self._fd, by_size[size][0])
                if short.plain():
                    found[number] = short
        return found

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """As for any slide."""
        if level in self._direct:
            self._direct[level].read(x, y, width, height, out)
            return
        import openslide

        down_x, down_y = self.downsample(level)
        place = (round(x * down_x), round(y * down_y))
        try:
            rgba = np.asarray(self._slide.read_region(place, level, (width, height)))
        except openslide.OpenSlideError as error:
            self._slide.close()  # an error sticks to its handle
            self._slide = self._open()
            raise direct.Damaged("OpenSlide cannot read a part of the slide") from error
        on_white(rgba, out)

    def ahead(
        self,
        level: int,
        rectangles: Sequence[tuple[int, int, int, int]],
        threads: ThreadPoolExecutor,
    ) -> None:
        """Decode for them with many threads, where there is the direct way."""
        if level in self._direct:
            self._direct[level].ahead(rectangles, threads)

    def overview(self, width: int, height: int) -> Iterator[Piece | RGB]:
        """As for any slide, but JPEG tiles are shrunk while they are decoded."""
        level = self._overview_level(width)
        if level not in self._direct:
            yield from super().overview(width, height)
            return
        source = self._direct[level]
        size = self.facts.levels[level]
        factor = max(f for f in (1, 2, 4, 8) if f * max(width, 1) <= max(size[0], width))
        picture, tally = np.full((height, width, 3), 255, np.uint8), Tally()
        for row in range(source.level.rows):
            yield Piece(note=f"overview, row {row} of {source.level.rows}")
            for column in range(source.level.columns):
                try:
                    tile = source.small(row, column, factor)
                    tally.add(False)
                except direct.Damaged:
                    tile = np.full((8, 8, 3), UNREADABLE, np.uint8)
                    tally.add(True)
                left, top = column * source.level.tile_width, row * source.level.tile_height
                w = min(source.level.tile_width, size[0] - left)
                h = min(source.level.tile_height, size[1] - top)
                inside = tile[: max(1, h // factor), : max(1, w // factor)]
                paste(picture, inside, left, top, size, (w, h))
        yield picture

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PlainSlide(Slide):
    """An image that OpenSlide does not take, held in memory under a pixel cap."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        decoded = decode(path, name="the image", max_pixels=max_pixels)
        self._image, self.remark = decoded.pixels, decoded.remark
        height, width = self._image.shape[:2]
        self.facts = SlideFacts(
            vendor="plain",
            reader="plain",
            width=SlidePixels(width),
            height=SlidePixels(height),
            levels=((width, height),),
            um_per_px=None,
            objective=None,
        )

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """As for any slide."""
        out[...] = self._image[y : y + height, x : x + width]


def open_slide(path: Path, max_pixels: int = MAX_PIXELS, *, short_way: bool = True) -> Slide:
    """Open a slide, or a plain image as a slide of one level. For children only.

    Raises:
        Refusal: no slide and no image, or a header that lies.
    """
    import openslide

    if not path.exists():
        raise FileNotFoundError(path.name)
    if needs_tifffile(path):
        return TiffSlide(path)
    if openslide.OpenSlide.detect_format(str(path)) is not None:
        try:
            return OpenSlideSlide(path, short_way=short_way)
        except openslide.OpenSlideError as error:
            raise Refusal("OpenSlide knows its format but cannot open it: it is damaged") from error
    if path.is_dir():
        raise Refusal("a folder is no slide; name the file in it that OpenSlide opens")
    try:
        return PlainSlide(path, max_pixels)
    except UnclearImage:
        raise
    except NotAnImage as error:
        raise Refusal(
            "it is neither a slide that OpenSlide reads nor a complete image; accepted are SVS, "
            "TIFF, NDPI, MRXS, SCN, BIF, VMS, SVSLIDE, ZVI, DICOM, and PNG, JPEG, BMP, WebP"
        ) from error


_OPEN: OrderedDict[tuple[object, ...], Slide] = OrderedDict()


def kept_open(source: str, stamp: Sequence[int]) -> Slide:
    """An open slide that stays open for the next question while its file is the same.

    Args:
        source: Path of the file.
        stamp: Its size in bytes and its time of change in nanoseconds.

    Raises:
        Refusal: the file was changed, or is no slide and no image.
    """
    key = (source, *stamp)
    if key in _OPEN:
        _OPEN.move_to_end(key)
        return _OPEN[key]
    if [Path(source).stat().st_size, Path(source).stat().st_mtime_ns] != list(stamp):
        raise Refusal("the file was changed in the meantime")
    while len(_OPEN) >= KEPT_OPEN:
        _OPEN.popitem(last=False)[1].close()
    _OPEN[key] = open_slide(Path(source))
    return _OPEN[key]

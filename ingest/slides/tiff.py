"""TIFF slides that OpenSlide reads wrongly or not at all: OME, SubIFDs, deep or in planes."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.samples import UnclearImage
from encoder.tiff import planes_of
from ingest.sandbox.messages import Refusal
from ingest.slides import jpeg_tiles as direct
from ingest.slides.base import Slide, SlideFacts, on_white
from ingest.slides.grid import SlidePixels
from ingest.slides.scale import INCH_UM, Scale, believed, ome_scale

CACHE_BYTES = 96 << 20
"""Decoded tiles that are kept."""
ENDINGS = frozenset({".tif", ".tiff", ".btf", ".tf8", ".tf2"})
LARGE = 1024
"""A tiled TIFF with a longer side is a slide."""


def is_slide(path: Path) -> bool:
    """Whether a TIFF file is as large as a slide, and tiled or a pyramid; by its header alone."""
    return path.suffix.lower() in ENDINGS and is_large(path)


def is_large(file: Path | BinaryIO) -> bool:
    """`is_slide` of a file without a name."""
    from tifffile import TiffFile

    try:
        with TiffFile(file) as opened:
            page: Any = opened.pages.first
            return bool(max(page.imagewidth, page.imagelength) > LARGE) and bool(
                page.is_tiled or page.subifds
            )
    except Exception:  # tifffile raises a dozen kinds on what is no TIFF
        return False


def needs_tifffile(path: Path) -> bool:
    """Whether tifffile shows more of a slide than OpenSlide, which takes its first page."""
    import openslide
    from tifffile import TiffFile

    if path.suffix.lower() not in ENDINGS:
        return False
    if openslide.OpenSlide.detect_format(str(path)) not in {None, "generic-tiff"}:
        return False
    try:
        with TiffFile(path) as file:
            page: Any = file.pages.first
            if not (page.is_tiled or page.subifds or file.is_ome):
                return False
            deep = page.dtype != np.uint8 or page.photometric == 0
            return bool(file.is_ome or page.subifds or deep or page.planarconfig == 2)
    except Exception:  # OpenSlide says what is wrong with it
        return False


class TiffSlide(Slide):
    """A slide read with tifffile, a tile at a time.

    Raises:
        Refusal: it holds several pictures, or channels that are no colours.
    """

    def __init__(self, path: Path) -> None:
        from tifffile import TiffFile

        self._file = TiffFile(path)
        self._kept: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()
        try:
            self._describe()
        except UnclearImage as error:
            self.close()
            raise Refusal(f"it {error}") from error
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        series: Any = self._file.series[0]
        page = series.keyframe
        self._planes = planes_of(self._file, series)
        if int(page.photometric) not in {0, 1, 2, 6} or page.samplesperpixel not in {1, 3, 4}:
            raise Refusal("it has a colour model that is not read; save it as RGB")
        self._levels: list[list[Any]] = [list(level.pages) for level in series.levels]
        keys = [level[0].keyframe for level in self._levels]
        sizes = tuple((key.imagewidth, key.imagelength) for key in keys)
        scale, self.no_scale = self._scale(page)
        self.facts = SlideFacts(
            vendor="ome-tiff" if self._file.is_ome else "generic-tiff",
            reader="tifffile",
            width=SlidePixels(sizes[0][0]),
            height=SlidePixels(sizes[0][1]),
            levels=sizes,
            um_per_px=scale,
            objective=None,
        )

    def _scale(self, page: Any) -> tuple[Scale | None, str]:
        if self._file.is_ome:
            scale, why = ome_scale(self._file.ome_metadata or "")
            if scale is not None or why:
                return scale, why
        unit = {2: INCH_UM, 3: 10_000.0}.get(int(page.resolutionunit or 0))
        tags = [page.tags.get(f"{axis}Resolution") for axis in "XY"]
        sides = []
        for tag in tags:
            over, under = tag.value if tag is not None else (0, 1)
            sides.append(unit * under / over if unit and over and under else None)
        return believed(*sides, from_tags=True)

    @cached_property
    def _top(self) -> float:
        """The value that is shown as 255, the same all over the slide."""
        kind = self._levels[0][0].dtype
        if kind == np.uint8:
            return 255.0
        level = len(self._levels) - 1
        width, height = self.facts.levels[level]
        coarse = self._samples(level, 0, 0, min(width, 4096), min(height, 4096))
        high, low = float(coarse.max()), float(coarse.min())
        if not np.isfinite([high, low]).all() or low < 0:
            raise Refusal("its samples are negative or not numbers; save it with 8 bits")
        if kind.kind == "f" and high <= 1.5:
            return 1.0
        return next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32, 64) if high < 2.0**bits)

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """As for any slide."""
        samples = self._samples(level, x, y, width, height)
        page = self._levels[0][0]
        if samples.dtype != np.uint8:
            scaled = samples.astype(np.float32) * (255.0 / self._top) + 0.5
            samples = scaled.clip(0, 255).astype(np.uint8)
        if int(page.photometric) == 0:
            samples = np.uint8(255) - samples
        extra = [int(kind) for kind in page.extrasamples or ()]
        if samples.shape[2] == 4 and extra and extra[0] in {1, 2}:
            on_white(samples, out)
        else:
            out[...] = samples[..., :3]  # one channel is repeated

    def _samples(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """A rectangle of a level as it is stored: height x width x samples."""
        pages = self._levels[level]
        if self._planes is not None:
            parts = [self._rectangle(level, at, x, y, width, height) for at in self._planes]
            return np.concatenate([part[..., :1] for part in parts], axis=2)
        if pages[0].planarconfig == 2:
            n = pages[0].samplesperpixel
            parts = [self._rectangle(level, 0, x, y, width, height, at) for at in range(n)]
            return np.concatenate(parts, axis=2)
        return self._rectangle(level, 0, x, y, width, height)

    def _rectangle(
        self, level: int, number: int, x: int, y: int, width: int, height: int, sample: int = 0
    ) -> NDArray[Any]:
        if self._levels[level][number] is None:
            raise Refusal("a plane of it lies in another file")
        page = self._levels[level][number].keyframe
        wide = page.tilewidth if page.is_tiled else page.imagewidth
        high = page.tilelength if page.is_tiled else page.rowsperstrip
        columns, rows = -(-page.imagewidth // wide), -(-page.imagelength // high)
        n = 1 if page.planarconfig == 2 else page.samplesperpixel
        out = np.zeros((height, width, n), page.dtype)
        for row in range(y // high, min(-(-(y + height) // high), rows)):
            for column in range(x // wide, min(-(-(x + width) // wide), columns)):
                index = row * columns + column + sample * rows * columns
                tile = self._tile(level, number, index)
                left, top = column * wide, row * high
                x0, y0 = max(x, left), max(y, top)
                x1 = min(x + width, left + tile.shape[1])
                y1 = min(y + height, top + tile.shape[0])
                if x1 > x0 and y1 > y0:
                    inside = tile[y0 - top : y1 - top, x0 - left : x1 - left]
                    out[y0 - y : y1 - y, x0 - x : x1 - x] = inside
        return out

    def _tile(self, level: int, number: int, index: int) -> NDArray[Any]:
        key = (level, number, index)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        page = self._levels[level][number]
        try:
            handle = self._file.filehandle
            handle.seek(page.dataoffsets[index])
            content = handle.read(page.databytecounts[index])
            found = page.keyframe.decode(content, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # its decoders raise whatever they like on damaged bytes
            raise direct.Damaged("tifffile cannot read a part of the slide") from error
        if found is None:
            raise direct.Damaged("a part of the slide is not there")
        tile: NDArray[Any] = np.asarray(found)[0]
        self._kept[key] = tile
        while sum(one.nbytes for one in self._kept.values()) > CACHE_BYTES:
            self._kept.popitem(last=False)
        return tile

    def close(self) -> None:
        """Close the file."""
        self._file.close()

"""The short way to the pixels of tiled JPEG TIFFs: their bytes, and one JPEG decoder.

OpenSlide spends most of its time outside of JPEG decoding. For Aperio SVS and generic tiled
TIFFs the place of each JPEG tile is read once from the directories, its bytes are decoded by
libjpeg-turbo, and wanted tiles are cut out of decoded ones. Pixels are equal to those of
OpenSlide, bit for bit (tested, tolerance 0), because both decode with libjpeg-turbo's exact
integer transform. Everything that is not plainly of this kind stays with OpenSlide.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from ingest.sandbox.messages import Refusal

VENDORS = frozenset({"aperio", "generic-tiff"})
"""Layouts whose levels are plain grids of tiles, as OpenSlide names them."""
CACHE_BYTES = 192 * 1024 * 1024
"""Decoded JPEG tiles that are kept for their neighbours."""
MAX_TILE_BYTES = 64 * 1024 * 1024
MAX_TILE_SIDE = 4096
ADOBE = bytes.fromhex("ffee000e41646f6265006400000000")
"""An APP14 segment but for its last byte: 0 says the components are RGB, 1 says YCbCr."""


class Damaged(Refusal):
    """A tile whose bytes are no JPEG of its declared size."""


@dataclass(frozen=True, kw_only=True)
class LevelIndex:
    """Where the JPEG tiles of one level lie in the file."""

    width: int
    """Of the level, in its pixels."""
    height: int
    tile_width: int
    tile_height: int
    offsets: NDArray[np.uint64]
    """First byte of each tile, row by row."""
    counts: NDArray[np.uint64]
    """Length of each tile in bytes."""
    head: bytes
    """What goes in front of a tile's bytes, in place of its start marker."""

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Tiles one below the other."""
        return -(-self.height // self.tile_height)


def index(path: Path) -> list[LevelIndex]:
    """The levels of a TIFF that can be read directly; none where anything is out of the ordinary.

    Asked for are: tiles, JPEG, three 8-bit channels side by side, YCbCr or RGB, no tile missing.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            levels = [_level(page) for page in file.pages]
    except MemoryError:
        raise
    except Exception:  # damaged in one of many ways; OpenSlide then says what it thinks of it
        return []
    return [level for level in levels if level is not None]


def _level(page: Any) -> LevelIndex | None:
    """One directory, if it is of the plain kind."""
    plain = (
        page.is_tiled
        and int(page.compression) == 7
        and int(page.photometric) in {2, 6}
        and int(page.planarconfig) == 1
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.imagedepth == 1
    )
    if not plain:
        return None
    level = LevelIndex(
        width=int(page.imagewidth),
        height=int(page.imagelength),
        tile_width=int(page.tilewidth),
        tile_height=int(page.tilelength),
        offsets=np.asarray(page.dataoffsets, np.uint64),
        counts=np.asarray(page.databytecounts, np.uint64),
        head=b"",
    )
    sides = (level.tile_width, level.tile_height)
    tables = page.jpegtables or b"\xff\xd8\xff\xd9"
    complete = (
        all(0 < side <= MAX_TILE_SIDE for side in sides)
        and len(level.offsets) == len(level.counts) == level.columns * level.rows
        and bool(level.counts.all())
        and tables[:2] == b"\xff\xd8"
        and tables[-2:] == b"\xff\xd9"
    )
    if not complete:
        return None
    adobe = ADOBE + bytes([int(page.photometric) == 6])
    return replace(level, head=b"\xff\xd8" + adobe + tables[2:-2])


class DirectLevel:
    """One level of an open file, read tile by tile with a bounded cache."""

    def __init__(self, fd: int, level: LevelIndex, cache_bytes: int = CACHE_BYTES) -> None:
        self.fd = fd
        self.level = level
        self.decoded = 0
        """JPEG tiles that were decoded so far."""
        self._room = max(4, cache_bytes // (level.tile_width * level.tile_height * 3))
        self._cache: OrderedDict[tuple[int, int], RGB] = OrderedDict()

    def plain(self) -> bool:
        """Whether the first tile is what the directory says, in size and in kind of colour."""
        import simplejpeg

        try:
            height, width, colour, _ = simplejpeg.decode_jpeg_header(self.stream(0, 0))
        except (ValueError, Damaged):
            return False
        declared = "YCbCr" if self.level.head[len(ADOBE) + 2] else "RGB"
        sides = (self.level.tile_height, self.level.tile_width)
        return (height, width) == sides and colour == declared

    def stream(self, row: int, column: int) -> bytes:
        """A tile as a complete JPEG stream.

        Raises:
            Damaged: the bytes are not there, or do not begin as a JPEG does.
        """
        at = row * self.level.columns + column
        count, offset = int(self.level.counts[at]), int(self.level.offsets[at])
        if count > MAX_TILE_BYTES or offset >= 2**62:
            raise Damaged("a tile lies outside of the file")
        body = os.pread(self.fd, count, offset)
        if len(body) != count or body[:2] != b"\xff\xd8":
            raise Damaged("a tile is cut off or is no JPEG")
        return self.level.head + body[2:]

    def decode(self, row: int, column: int, out: RGB) -> None:
        """Decode a whole tile into a contiguous array of its size.

        Raises:
            Damaged: even the mildest complaint of the decoder counts, because a damaged tile
                decodes to plausible grey.
        """
        import simplejpeg

        self.decoded += 1
        try:
            image = simplejpeg.decode_jpeg(self.stream(row, column), "RGB", buffer=out)
        except ValueError as error:
            raise Damaged("a tile does not decode") from error
        if image.shape != out.shape:
            raise Damaged("a tile is smaller than the file says")

    def read(self, x: int, y: int, width: int, height: int, out: RGB | None = None) -> RGB:
        """A rectangle that lies within the level.

        Args:
            x: Left edge in pixels of the level.
            y: Top edge.
            width: Width.
            height: Height.
            out: Where to; made if `None`.

        Raises:
            Damaged: one of the tiles that it touches.
        """
        if out is None:
            out = np.empty((height, width, 3), np.uint8)
        tile_width, tile_height = self.level.tile_width, self.level.tile_height
        aligned = x % tile_width == 0 and y % tile_height == 0
        if aligned and (width, height) == (tile_width, tile_height) and out.flags.c_contiguous:
            key = y // tile_height, x // tile_width
            if key in self._cache:
                out[...] = self._cache[key]
            else:
                self.decode(*key, out)
            return out
        for row in range(y // tile_height, -(-(y + height) // tile_height)):
            for column in range(x // tile_width, -(-(x + width) // tile_width)):
                tile = self._tile(row, column)
                top, left = row * tile_height, column * tile_width
                y0, y1 = max(y, top), min(y + height, top + tile_height)
                x0, x1 = max(x, left), min(x + width, left + tile_width)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[
                    y0 - top : y1 - top, x0 - left : x1 - left
                ]
        return out

    def ahead(
        self, rectangles: Sequence[tuple[int, int, int, int]], threads: ThreadPoolExecutor
    ) -> None:
        """Decode what some rectangles need with many threads, as far as the cache has room.

        Args:
            rectangles: Left, top, width and height of what is about to be read.
            threads: Decoding leaves the interpreter to others.
        """
        wide, high = self.level.tile_width, self.level.tile_height
        keys = dict.fromkeys(
            (row, column)
            for x, y, w, h in rectangles
            for row in range(y // high, -(-(y + h) // high))
            for column in range(x // wide, -(-(x + w) // wide))
        )
        for key in [key for key in keys if key in self._cache]:
            self._cache.move_to_end(key)
            del keys[key]
        missing = list(keys)[: self._room // 2]
        spare = [
            self._cache.popitem(last=False)[1]
            for _ in range(len(self._cache) + len(missing) - self._room)
        ]

        def decoded(key: tuple[int, int]) -> RGB | None:
            try:
                tile = spare.pop()
            except IndexError:
                tile = np.empty((high, wide, 3), np.uint8)
            try:
                self.decode(*key, tile)
            except Damaged:  # raised again by whoever reads it
                return None
            return tile

        for key, tile in zip(missing, threads.map(decoded, missing), strict=True):
            if tile is not None:
                self._cache[key] = tile

    def small(self, row: int, column: int, factor: int) -> RGB:
        """A tile shrunk by 1, 2, 4 or 8 while it is decoded, for overviews.

        Raises:
            Damaged: as `decode`.
        """
        import simplejpeg

        stream = self.stream(row, column)
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(stream)
            if (height, width) != (self.level.tile_height, self.level.tile_width):
                raise Damaged("a tile is not of the size that the file says")
            sides = -(-height // factor), -(-width // factor)
            image: RGB = simplejpeg.decode_jpeg(
                stream, "RGB", min_height=sides[0], min_width=sides[1]
            )
        except ValueError as error:
            raise Damaged("a tile does not decode") from error
        if image.shape[:2] != sides:
            raise Damaged("a tile does not shrink as it should")
        return image

    def _tile(self, row: int, column: int) -> RGB:
        key = (row, column)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        full = len(self._cache) >= self._room
        tile = (
            self._cache.popitem(last=False)[1]  # its memory is used again
            if full
            else np.empty((self.level.tile_height, self.level.tile_width, 3), np.uint8)
        )
        self.decode(row, column, tile)
        self._cache[key] = tile
        return tile

"""Stored sources in tiles for a viewer that zooms: cut in children, encoded and kept here.

The pyramid is that of the Deep Zoom Image format: level 0 is one pixel, each level doubles, the
last one is the source. Label and macro images are no part of it and are never opened.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from math import ceil, log2
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.sandbox.messages import Piece, SourceError, Task
from ingest.sandbox.pool import ReaderPool
from ingest.slides import jpeg_tiles as direct
from ingest.slides.base import UNREADABLE, Slide, SlideFacts
from ingest.slides.slide import kept_open, open_slide

TILE = 254
"""Side of a tile without what it shares with its neighbours, in pixels."""
OVERLAP = 1
"""Pixels that a tile shares with each neighbour."""
MOST_READ = 36_000_000
"""Pixels that may be read for one tile; coarser levels of a slide without a pyramid are not
offered."""
KEPT_BYTES = 64 << 20
"""Encoded tiles that are kept."""
WORKERS = 2
TIMEOUT_S = 30.0
QUALITY = 85


class SourceUnreadable(LookupError):
    """A source whose pixels cannot be had, in words without the name of its file."""


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """What a viewer has to know of a source."""

    width: int
    """Of the last level, in pixels."""
    height: int
    """Of the last level, in pixels."""
    um_per_px: float | None
    """Of the last level, as the file says; `None` where it does not."""
    min_level: int
    """The coarsest level that is offered."""
    max_level: int
    """The level of the source's own pixels."""
    slide: bool
    """Whether a slide reader opened it; else it is a plain image."""

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level, in pixels."""
        scale = 2 ** (self.max_level - level)
        return ceil(self.width / scale), ceil(self.height / scale)

    def region(self, level: int, column: int, row: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a tile, in pixels of its level.

        Raises:
            SourceUnreadable: there is no such tile.
        """
        inside = self.min_level <= level <= self.max_level
        width, height = self.size(level) if inside else (0, 0)
        if not (0 <= column * TILE < width and 0 <= row * TILE < height):
            raise SourceUnreadable(f"there is no tile {column}, {row} on level {level}")
        return (
            max(0, column * TILE - OVERLAP),
            max(0, row * TILE - OVERLAP),
            min(width, (column + 1) * TILE + OVERLAP),
            min(height, (row + 1) * TILE + OVERLAP),
        )

    def xml(self) -> str:
        """The descriptor, as viewers read it."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpeg" '
            f'Overlap="{OVERLAP}" TileSize="{TILE}">'
            f'<Size Width="{self.width}" Height="{self.height}"/></Image>\n'
        )


class DeepZoom:
    """Cuts tiles of files that are named by path and source id. Safe to use from many threads.

    Children are started when they are first needed, keep the last few sources open, and are
    replaced when they die over one.
    """

    def __init__(self, workers: int = WORKERS, timeout_s: float = TIMEOUT_S) -> None:
        self._pools: LifoQueue[ReaderPool] = LifoQueue()
        for _ in range(workers):
            self._pools.put(ReaderPool(1, timeout_s=timeout_s, slots=1))
        self._workers = workers
        self._turn = threading.Lock()
        self._verified: dict[tuple[str, int, int], str] = {}
        self._pyramids: dict[tuple[str, int, int], Pyramid] = {}
        self._tiles: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()
        self._bytes = 0

    def close(self) -> None:
        """Stop the children."""
        for _ in range(self._workers):
            self._pools.get().close()

    def describe(self, path: Path, source: str) -> Pyramid:
        """The pyramid of a source.

        Raises:
            SourceUnreadable: the file is gone, was changed, or cannot be read.
        """
        stamp = self._stamp(path, source)
        with self._turn:
            known = self._pyramids.get(stamp)
        if known is None:
            facts, _ = self._ask(Task(reader="ingest.slides.deepzoom:describe", source=str(path)))
            known = Pyramid(**facts)
            with self._turn:
                self._pyramids[stamp] = known
        return known

    def tile(self, path: Path, source: str, level: int, column: int, row: int) -> bytes:
        """One tile as JPEG; places that are damaged are shown in one flat colour.

        Raises:
            SourceUnreadable: no such tile, or the file is gone, was changed, or cannot be read.
        """
        pyramid = self.describe(path, source)
        pyramid.region(level, column, row)
        key = (source, level, column, row)
        with self._turn:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        content = _jpeg(self._cut(path, level, column, row))
        self._keep(key, content)
        return content

    def overview(self, path: Path, level: int) -> bytes:
        """A small picture of a file whose source id is not known, as JPEG; not kept.

        Raises:
            SourceUnreadable: the file is gone or cannot be read.
        """
        return self.whole(path, level)[0]

    def whole(self, path: Path, level: int) -> tuple[bytes, Pyramid]:
        """All of a file at one level, or the coarsest that is offered, as JPEG; and its pyramid.

        Raises:
            SourceUnreadable: the file is gone or cannot be read.
        """
        facts, _ = self._ask(Task(reader="ingest.slides.deepzoom:describe", source=str(path)))
        pyramid = Pyramid(**facts)
        level = min(max(level, pyramid.min_level), pyramid.max_level)
        picture = Image.new("RGB", pyramid.size(level))
        for column in range(ceil(picture.width / TILE)):
            for row in range(ceil(picture.height / TILE)):
                part = self._cut(path, level, column, row)
                picture.paste(part, pyramid.region(level, column, row)[:2])
        return _jpeg(picture), pyramid

    def _cut(self, path: Path, level: int, column: int, row: int) -> Image.Image:
        place = {"level": level, "column": column, "row": row, "stamp": list(self._of(path)[1:])}
        task = Task(reader="ingest.slides.deepzoom:cut", source=str(path), args=place)
        return Image.fromarray(self._ask(task)[1])

    def _keep(self, key: tuple[str, int, int, int], content: bytes) -> None:
        with self._turn:
            if key not in self._tiles:
                self._tiles[key] = content
                self._bytes += len(content)
            while self._bytes > KEPT_BYTES:
                _, old = self._tiles.popitem(last=False)
                self._bytes -= len(old)

    def _of(self, path: Path) -> tuple[str, int, int]:
        try:
            facts = path.stat()
        except OSError as error:
            raise SourceUnreadable("the file of this source is not there any more") from error
        return str(path), facts.st_size, facts.st_mtime_ns

    def _stamp(self, path: Path, source: str) -> tuple[str, int, int]:
        """The file's size and time of change, once its bytes were found to be the source's."""
        stamp = self._of(path)
        with self._turn:
            known = self._verified.get(stamp)
        if known is None:
            try:
                with path.open("rb") as handle:
                    known = hashlib.file_digest(handle, "sha256").hexdigest()[:32]
            except OSError as error:
                raise SourceUnreadable("the file of this source may not be read") from error
            with self._turn:
                self._verified[stamp] = known
        if known != source:
            raise SourceUnreadable("the file of this source was changed since it was ingested")
        return stamp

    @contextmanager
    def _pool(self) -> Iterator[ReaderPool]:
        pool = self._pools.get()
        try:
            yield pool
        finally:
            self._pools.put(pool)

    def _ask(self, task: Task) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        with self._pool() as pool:
            facts, pixels = {}, np.empty((0, 0, 3), np.uint8)
            try:
                for batch in pool.read(task):
                    facts = batch.facts
                    if len(batch.images):
                        pixels = np.array(batch.images[0])
            except SourceError as error:
                raise SourceUnreadable(f"this source cannot be shown: {error.reason}") from error
            return facts, pixels


# ---------------------------------------------------------------- the child's side


def _jpeg(picture: Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def pyramid_of(facts: SlideFacts) -> Pyramid:
    """The pyramid of an open slide."""
    max_level = ceil(log2(max(facts.width, facts.height, 1)))
    downsamples = [facts.width / width for width, _ in facts.levels]
    min_level = max_level
    for level in range(max_level, -1, -1):
        scale = 2 ** (max_level - level)
        side = (TILE + 2 * OVERLAP) * scale
        near = max(one for one in downsamples if one <= scale * 1.001)
        if min(side, facts.width) * min(side, facts.height) / near**2 > MOST_READ:
            break
        min_level = level
    scales = facts.um_per_px
    return Pyramid(
        width=int(facts.width),
        height=int(facts.height),
        um_per_px=None if scales is None else float(scales[0]),
        min_level=min_level,
        max_level=max_level,
        slide=facts.vendor != "plain",
    )


def describe(source: str) -> Iterator[Piece]:
    """Reader: the pyramid of a file."""
    slide = open_slide(Path(source))
    yield Piece(facts=asdict(pyramid_of(slide.facts)))
    slide.close()


def cut(source: str, level: int, column: int, row: int, stamp: list[int]) -> Iterator[Piece]:
    """Reader: one tile. The file stays open for the next one, while its stamp is the same."""
    slide = kept_open(source, stamp)
    pyramid = pyramid_of(slide.facts)
    yield Piece(images=[cut_tile(slide, pyramid, level, pyramid.region(level, column, row))])


def cut_tile(
    slide: Slide, pyramid: Pyramid, level: int, region: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """A rectangle of a Deep Zoom level, read from the slide's nearest finer level."""
    scale = 2 ** (pyramid.max_level - level)
    downs = [slide.downsample(at) for at in range(len(slide.facts.levels))]
    best = max(
        (at for at, down in enumerate(downs) if max(down) <= scale * 1.001),
        key=lambda at: downs[at][0],
    )
    down_x, down_y = downs[best]
    have_w, have_h = slide.facts.levels[best]
    left, right = (min(side * scale / down_x, have_w) for side in (region[0], region[2]))
    top, bottom = (min(side * scale / down_y, have_h) for side in (region[1], region[3]))
    x, y = int(left), int(top)
    w, h = max(1, min(have_w, ceil(right)) - x), max(1, min(have_h, ceil(bottom)) - y)
    block = np.empty((h, w, 3), np.uint8)
    try:
        slide.read(best, x, y, w, h, block)
    except direct.Damaged:
        block[...] = UNREADABLE
    size = (region[2] - region[0], region[3] - region[1])
    if (w, h) == size:
        return block
    inside = (left - x, top - y, min(right - x, w), min(bottom - y, h))
    shrunk = Image.fromarray(block).resize(size, Image.Resampling.BOX, box=inside)
    return np.asarray(shrunk)

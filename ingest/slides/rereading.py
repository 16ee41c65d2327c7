"""The pixels of stored items read again, tiles of slides among them, for a re-index."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from encoder.contract import RGB
from ingest.sandbox.messages import JSON, Piece, Refusal, SourceDied, SourceError, Task
from ingest.sandbox.pool import ReaderPool
from ingest.slides.grid import TilePlan, start_of
from ingest.slides.jpeg_tiles import Damaged
from ingest.slides.slide import kept_open
from ingest.slides.source import noted_plan
from ingest.slides.tiling import cut_tile, scale_and_cut
from ingest.sources.source import Source
from search.disk.closing import Closing
from search.library.source_folders import SourceFolders
from search.library.sources import NO_NOTES, PlainImages, SourceGone, need_allowed
from search.schemas.items import Item


class Rereader(Closing):
    """Reads every kind of item again; see `search.library.sources.ReadPixels`.

    Tiles are cut in an expendable child by the code and the plan of their ingest, so that they
    are equal to it pixel by pixel, before any stain normalisation. The child starts with the
    first tile and keeps the last slides open. Safe to call from many threads.
    """

    def __init__(self, folders: SourceFolders | None = None) -> None:
        self.folders = folders or SourceFolders()
        self._plain = PlainImages(self.folders)
        self._turn = threading.Lock()
        self._pool: ReaderPool | None = None
        self._verified: dict[tuple[Path, int, int], str] = {}

    def close(self) -> None:
        """Stop the child; safe to call twice, and the next tile starts another."""
        with self._turn:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def __call__(self, path: Path, item: Item, notes: Mapping[str, str] = NO_NOTES) -> RGB:
        """The picture of an item; see `ReadPixels`."""
        if item.kind != "tile" or item.bbox is None:
            return self._plain(path, item, notes)
        plan = noted_plan(notes.get("tile", ""))
        if plan is None:
            raise SourceGone("nothing says of which size and scale this tile is; ingest it anew")
        need_allowed(path, self.folders)
        facts = path.stat()
        task = Task(
            reader="ingest.slides.rereading:tile",
            source=str(path),
            args={
                "plan": {"size": plan.size, "um_per_px": plan.um_per_px, "overlap": plan.overlap},
                "um_per_px": item.um_per_px if item.um_per_px_origin == "manifest" else None,
                "box": [item.bbox.x, item.bbox.y, item.bbox.w, item.bbox.h],
                "stamp": [facts.st_size, facts.st_mtime_ns],
            },
        )
        with self._turn:
            self._verify(path, item, facts.st_size, facts.st_mtime_ns)
            return self._ask(task)

    def _verify(self, path: Path, item: Item, size: int, mtime_ns: int) -> None:
        key = (path, size, mtime_ns)
        if key not in self._verified:
            self._verified[key] = Source(path, "").id
        if self._verified[key] != item.source:
            raise SourceGone("the file has changed since it was ingested")

    def _ask(self, task: Task) -> RGB:
        if self._pool is None:
            self._pool = ReaderPool(1)
        try:
            try:
                return _image(self._pool, task)
            except SourceDied:  # a child that was killed is no fault of the tile
                return _image(self._pool, task)
        except SourceError as error:
            raise SourceGone(error.reason) from error


def _image(pool: ReaderPool, task: Task) -> RGB:
    (image,) = [np.array(batch.images[0]) for batch in pool.read(task)]
    return image


# ---------------------------------------------------------------- the child's side


def tile(
    source: str, plan: JSON, um_per_px: float | None, box: Sequence[int], stamp: Sequence[int]
) -> Iterator[Piece]:
    """Reader: one tile again. The slide stays open for the next one.

    Raises:
        Refusal: the file was changed, no tile of the plan lies there, or it is damaged.
    """
    wanted = TilePlan(**plan)
    slide = kept_open(source, stamp)
    _, cut = scale_and_cut(slide, wanted, um_per_px)
    start = start_of(box, wanted, cut, slide.downsample(cut.level))
    out = np.empty((wanted.size, wanted.size, 3), np.uint8)
    try:
        cut_tile(slide, cut, start, out)
    except Damaged as error:
        raise Refusal("this place of the slide is damaged now") from error
    yield Piece(images=[out])

"""Tiles of slides, read by child processes when they are request for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encoder.contract import RGB
from encoder.image import ImageError
from ingest.sandbox.messages import SourceError, Task
from ingest.sandbox.pool import ReaderPool
from ingest.slides.source import SLIDES

PLACES, TILE = "ingest.slides.tiling:places", "ingest.slides.rereading:tile"
"""What child processes read of a slide: where its tiles lie, and one of them."""
READERS = 4
"""Child processes that read slides side by side."""
Box = tuple[int, int, int, int]


@dataclass
class SlideReaders:
    """Children that read slides, each for one caller at a time."""

    endings: frozenset[str] = SLIDES | {".tif", ".tiff"}
    """Of files that may be slides."""
    _free: list[ReaderPool] = field(default_factory=list)
    _turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(READERS))

    def places(self, path: Path, plan: Mapping[str, float]) -> list[Box]:
        """Where a slide's tiles lie: left, top, width and height in pixels of level 0.

        Args:
            path: The slide.
            plan: `size` in pixels, `um_per_px` and `min_tissue`, as `ingest` tiles slides.

        Raises:
            ImageError: the slide is refused, or the child died over it.
        """
        found = self._ask(PLACES, path, plan=dict(plan))
        return [tuple(box) for facts, _ in found for box in facts["boxes"]]

    def tile(self, path: Path, plan: Mapping[str, float], box: Box) -> RGB:
        """One tile, size x size x 3; raises `ImageError` as `places` does."""
        facts = path.stat()
        stamp = [facts.st_size, facts.st_mtime_ns]
        request = {"plan": dict(plan), "um_per_px": None, "box": list(box), "stamp": stamp}
        ((_, (image,)),) = self._ask(TILE, path, **request)
        return image

    def close(self) -> None:
        """Stop them."""
        while self._free:
            self._free.pop().close()

    def _ask(self, reader: str, path: Path, **args: Any) -> list[tuple[dict[str, Any], list[RGB]]]:
        with self._turn:
            pool = self._free.pop() if self._free else ReaderPool(1)
            try:
                task = Task(reader=reader, source=str(path), args=args)
                return [(one.facts, [np.array(i) for i in one.images]) for one in pool.read(task)]
            except SourceError as error:
                raise ImageError(error.reason) from error
            finally:
                self._free.append(pool)

"""Uploaded pictures, decoded within a budget of memory that all calls in flight share.

A picture of some kilobytes can hold 50 megapixels, so what counts is its size when decoded. It is
read from the header, room is taken for it before it is decoded, and pictures that come together are
decoded and embedded in small batches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from encoder.contract import RGB, Encoder, Vectors
from encoder.image import Decoded, ImageError, decode, frame_of, read_rgb
from search.errors import Busy


@dataclass(frozen=True)
class Opened:
    """An uploaded picture that is decoded already, to be asked about more than once."""

    pixels: RGB
    source: str
    """The digest of its bytes, as an item's `source`."""
    remark: str = ""
    """What the decoder says of it."""


BYTES_PER_PIXEL = 18
"""What decoding and embedding take at most, copies included (measured: 7 to 16)."""
BATCH_PIXELS = 8_000_000
BATCH = 32
"""Pictures that are decoded and embedded together, if they have no more pixels than that."""
PATIENCE_S = 10.0
"""How long a call waits for others to finish."""
WAITING = 8
"""Calls that wait at once; each occupies a thread, so more are refused."""


class MemoryBudget:
    """Bytes that all calls together may take. Safe to use from many threads."""

    def __init__(self, limit: int, patience_s: float = PATIENCE_S) -> None:
        self.limit = limit
        self._patience_s = patience_s
        self._used = 0
        self._waiting = 0
        self._changed = threading.Condition()

    @contextmanager
    def use(self, size: int) -> Iterator[None]:
        """Take `size` bytes until the block ends; more than the limit only while nobody else does.

        Raises:
            Busy: others have not finished in time.
        """
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)

    def take(self, size: int, patience_s: float | None = None, mine: int = 0) -> None:
        """Take `size` bytes until `give_back`, beside `mine` that the same call took before.

        Raises:
            Busy: as `use`.
        """
        end = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        with self._changed:
            if self._waiting >= WAITING and not self._fits(size, mine):
                raise Busy
            self._waiting += 1
            try:
                while not self._fits(size, mine):
                    left = end - time.monotonic()
                    if left <= 0:
                        raise Busy
                    self._changed.wait(left)
            finally:
                self._waiting -= 1
            self._used += size

    def give_back(self, size: int) -> None:
        """Return what `take` took."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def _fits(self, size: int, mine: int) -> bool:
        return self._used == mine or self._used + size <= self.limit


class BodyMemory:
    """What the body of one call takes of a budget, as it comes in; given back at its end."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, size: int) -> None:
        """Take more; raises `Busy` at once where there is none, since no thread may wait here."""
        self._budget.take(size, patience_s=0.0, mine=self._taken)
        self._taken += size

    def give_back(self) -> None:
        """Return all of it."""
        self._budget.give_back(self._taken)
        self._taken = 0


class Pictures:
    """Decodes uploaded pictures."""

    def __init__(self, budget: MemoryBudget, max_pixels: int) -> None:
        self._budget = budget
        self._max_pixels = max_pixels

    @contextmanager
    def opened(self, content: bytes, name: str) -> Iterator[Decoded]:
        """One picture; its memory is counted until the block ends.

        Raises:
            ImageError: no picture, or too large; Busy: no memory for it now.
        """
        with self._budget.use(self._pixels(content) * BYTES_PER_PIXEL):
            yield decode(content, name=name, max_pixels=self._max_pixels)

    def batches(self, contents: Iterable[tuple[str, bytes]]) -> Iterator[list[RGB]]:
        """Many pictures, named for errors, in small batches; each counts until the next one.

        Raises:
            ImageError, Busy: as `opened`.
        """
        batch: list[tuple[str, bytes]] = []
        pixels = 0
        for name, content in contents:
            size = self._pixels(content)
            if batch and (pixels + size > BATCH_PIXELS or len(batch) == BATCH):
                yield from self._decoded(batch, pixels)
                batch, pixels = [], 0
            batch.append((name, content))
            pixels += size
        if batch:
            yield from self._decoded(batch, pixels)

    def embedded(self, encoder: Encoder, images: Sequence[bytes]) -> Vectors:
        """Vectors of many pictures, n x dim; see `batches`."""
        named = ((f"image {at}", content) for at, content in enumerate(images))
        return np.concatenate([encoder.embed(batch) for batch in self.batches(named)])

    def _decoded(self, batch: Sequence[tuple[str, bytes]], pixels: int) -> Iterator[list[RGB]]:
        with self._budget.use(pixels * BYTES_PER_PIXEL):
            yield [read_rgb(one, name=name, max_pixels=self._max_pixels) for name, one in batch]

    def _pixels(self, content: bytes) -> int:
        """Pixels that decoding will make; none of what it will refuse."""
        try:
            frame = frame_of(content)
        except ImageError:
            return 0
        pixels = frame.width * frame.height
        return pixels if pixels <= self._max_pixels else 0

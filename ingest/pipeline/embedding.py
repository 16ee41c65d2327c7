"""The embedding step of a run: pictures in, entries out, on a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from encoder.contract import Encoder, EncoderError
from ingest.pipeline.reading import Picture
from ingest.sources.report import Failure, Report
from search.library.shards import Entry
from search.library.sources import seen

AHEAD_BYTES = 256 << 20
"""Pixels that may be cut and not yet embedded."""
BATCHES_AHEAD = 2
"""Batches that may be with the encoder."""

Vectors = list[NDArray[np.float32] | None]


class Embedding:
    """Embeds pictures in batches and hands each on in the order in which it came.

    Args:
        encoder: What embeds.
        batch_size: Images embedded at once.
        report: Takes the pictures that the encoder refused.
        done: Called in the caller's thread with each picture and its entry; `None` in place of
            the entry where the encoder refused the picture.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch_size: int,
        report: Report,
        done: Callable[[Picture, Entry | None], None],
    ) -> None:
        self._encoder = encoder
        self._batch_size = batch_size
        self._report = report
        self._done = done
        self._thread = ThreadPoolExecutor(1, "ingest-embed")
        self._under_way: deque[tuple[Sequence[Picture], Future[Vectors]]] = deque()
        self._batch: list[Picture] = []
        self._nbytes = 0
        """Of the pictures of the batch."""

    def add(self, pictures: Sequence[Picture]) -> None:
        """Take pictures; blocks while the encoder is `BATCHES_AHEAD` batches behind."""
        self._batch += pictures
        self._nbytes += _nbytes(pictures)
        while len(self._batch) >= self._batch_size or self._nbytes > AHEAD_BYTES // 2:
            self._submit(self._batch[: self._batch_size])
            self._batch = self._batch[self._batch_size :]
            self._nbytes = _nbytes(self._batch)

    def finish(self) -> Iterator[None]:
        """Embed what is left, a batch at a time."""
        if self._batch:
            self._submit(self._batch)
            self._batch = []
        while self._under_way:
            self._collect()
            yield

    def stop(self) -> None:
        """End the thread; what was not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _submit(self, batch: Sequence[Picture]) -> None:
        while len(self._under_way) >= BATCHES_AHEAD:
            self._collect()
        self._under_way.append((batch, self._thread.submit(self._vectors, batch)))

    def _collect(self) -> None:
        """Hand on the oldest batch."""
        batch, future = self._under_way.popleft()
        for picture, vector in zip(batch, future.result(), strict=True):
            one = picture.planned
            entry = None
            if vector is not None:
                entry = Entry(one.item, vector, picture.thumbnail, picture.path, dict(one.notes))
            self._done(picture, entry)

    def _vectors(self, batch: Sequence[Picture]) -> Vectors:
        """One vector per picture; `None` for a picture that the encoder cannot embed."""
        card = self._encoder.card
        images = [seen(card, one.image, one.planned.item, one.planned.notes) for one in batch]
        try:
            return list(self._encoder.embed(images))
        except EncoderError as broken:
            found: Vectors = []
            failures: list[Failure] = []
            for picture, image in zip(batch, images, strict=True):
                try:
                    found.append(self._encoder.embed([image])[0])
                except EncoderError as error:
                    failures.append(Failure(picture.path, str(error)))
                    found.append(None)
            if len(failures) == len(batch):
                raise broken  # not the images: the encoder
            self._report.failures += failures
            return found


def _nbytes(batch: Sequence[Picture]) -> int:
    return sum(picture.image.nbytes for picture in batch)

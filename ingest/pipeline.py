"""Read, cut, embed, store: files in, a searchable collection out, and a report."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.encoder import Encoder, EncoderError
from ingest.reading import (
    SHARD_ITEMS,
    Job,
    Picture,
    Read,
    cut_job,
    in_order,
    parts,
    plan_source,
    windows,
)
from ingest.report import Clock, Failure, OnProgress, Report
from ingest.sink import Sink
from ingest.task import Planned, Task
from search.records import Item
from search.shards import Entry, payload_digest
from search.store import WrongEncoder

AHEAD_BYTES = 256 << 20
"""Pixels that may be cut and not yet embedded."""
BATCHES_AHEAD = 2
"""Batches that may be with the encoder."""
SHARDS_AHEAD = 2
"""Shards that may wait for the sink while the encoder goes on."""

T = TypeVar("T")
Vectors = list[NDArray[np.float32] | None]


def ingest(
    tasks: Iterable[Task],
    encoder: Encoder,
    sink: Sink,
    *,
    batch_size: int = 64,
    progress: OnProgress | None = None,
    report: Report | None = None,
    workers: int | None = None,
    shard_items: int = SHARD_ITEMS,
) -> Report:
    """Embed what the tasks name and store it.

    Running it again changes nothing: an item's id follows from the bytes of its file, its
    dataset, box and kind, and items that are stored are dropped before anything is decoded.
    Where only their metadata changed, that is updated without embedding. A process killed at
    any moment leaves whole shards behind; the next run adds what is missing.

    Args:
        tasks: What to ingest, in the order in which it is stored.
        encoder: Must be the encoder of the sink's collection.
        sink: Where entries go.
        batch_size: Images embedded at once.
        progress: Told how far the run is.
        report: A report already begun, for instance by a layout's scan; a new one if `None`.
        workers: Threads that read, decode and cut; `None` for one per core, at most 8.
        shard_items: A shard is closed at the first end of a source after so many items.

    Returns:
        The report; a source or item that failed is in it and everything else is stored.

    Raises:
        WrongEncoder: the collection belongs to another encoder.
        StoreError, OSError: the sink does not take the data; what it took before is kept.
        EncoderError: the encoder fails on every image of a batch.
    """
    if sink.card.fingerprint != encoder.card.fingerprint:
        held, came = (f"{card.id} ({card.fingerprint})" for card in (sink.card, encoder.card))
        raise WrongEncoder("of this sink", held, came)
    if batch_size < 1 or shard_items < 1:
        raise ValueError(f"batch_size and shard_items must be 1 or more: {batch_size, shard_items}")
    report = report if report is not None else Report()
    threads = workers or min(8, os.cpu_count() or 1)
    run = _Run(encoder, sink, batch_size, report, threads, shard_items)
    total = len(tasks) if isinstance(tasks, Sized) else None
    clock = Clock(report, total, progress)
    try:
        for _ in run.steps(tasks):
            clock.tick(run.finished)
    finally:
        run.stop()
    clock.tick(run.finished, last=True)
    return report


class _Run:
    """The state of one run.

    Threads: `readers` read, decode and cut; one embeds; one writes; the caller's thread hands
    over from one to the next, in order, so that the same tasks give the same shards.
    """

    def __init__(
        self,
        encoder: Encoder,
        sink: Sink,
        batch_size: int,
        report: Report,
        workers: int,
        shard_items: int,
    ) -> None:
        self.encoder = encoder
        self.sink = sink
        self.batch_size = batch_size
        self.report = report
        self.workers = workers
        self.shard_items = shard_items
        self.finished = 0
        self._readers = ThreadPoolExecutor(workers, "ingest-read")
        self._embedder = ThreadPoolExecutor(1, "ingest-embed")
        self._writer = ThreadPoolExecutor(1, "ingest-write")
        self._embedding: deque[tuple[Sequence[Picture], Future[Vectors]]] = deque()
        self._writing: deque[Future[None]] = deque()
        self._entries: list[Entry] = []
        self._seen: dict[str, tuple[str, str | None, int]] = {}

    def steps(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Do the work, a step at a time."""
        plans = in_order(self._readers, plan_source, tasks, lambda _: 1 / (4 * self.workers))
        jobs = self._jobs(windows(self._readable(plans)))
        batch: list[Picture] = []
        for job, pictures in in_order(self._readers, cut_job, jobs, self._share):
            if isinstance(pictures, Failure):
                self.report.failures.append(pictures)
                self.report.sources += job.last
            else:
                batch += pictures
            while len(batch) >= self.batch_size or _nbytes(batch) > AHEAD_BYTES // 2:
                self._embed(batch[: self.batch_size])
                batch = batch[self.batch_size :]
            yield
        if batch:
            self._embed(batch)
        while self._embedding:
            self._collect()
            yield
        self._put()
        while self._writing:
            self._writing.popleft().result()

    def stop(self) -> None:
        """End all threads; what was not begun is dropped."""
        for pool in (self._readers, self._embedder, self._writer):
            pool.shutdown(cancel_futures=True)

    def _share(self, job: Job) -> float:
        """How much of what may be cut ahead a job takes up."""
        items = len(job.planned) / (2 * self.batch_size)
        return max(min(items, 1 / (2 * self.workers)), job.nbytes / AHEAD_BYTES)

    def _readable(self, plans: Iterator[tuple[Task, Read | Failure]]) -> Iterator[Read]:
        for _, read in plans:
            if isinstance(read, Failure):
                self.report.failures.append(read)
                self.report.sources += 1
            else:
                self.report.failures += read.plan.failures
                yield read

    def _jobs(self, groups: Iterator[Sequence[Read]]) -> Iterator[Job]:
        """What has to be cut, after dropping what is stored."""
        for group in groups:
            ids = [one.item.id for read in group for one in read.plan.planned]
            known = self.sink.known(ids) if ids else {}
            changed: list[Item] = []
            for read in group:
                fresh = self._fresh(read, known, changed)
                if fresh:
                    yield from parts(read, fresh)
                else:
                    self.report.sources += 1
            if changed:
                self._write(self._update, changed)

    def _fresh(self, read: Read, known: dict[str, str], changed: list[Item]) -> list[Planned]:
        """The items of a source that are new; those whose metadata changed go to `changed`."""
        fresh: list[Planned] = []
        path = str(read.task.path)
        for one in read.plan.planned:
            before = self._seen.get(one.item.id)
            if before is not None:
                self.report.duplicates += 1
                self.finished += 1
                self._contradiction(before, path, one.item)
                continue
            self._seen[one.item.id] = (path, one.item.label, hash(one.item))
            digest = known.get(one.item.id)
            if digest is None:
                fresh.append(one)
            elif digest == payload_digest(one.item):
                self.report.unchanged += 1
                self.finished += 1
            else:
                changed.append(one.item)
        return fresh

    def _contradiction(self, first: tuple[str, str | None, int], path: str, item: Item) -> None:
        first_path, label, digest = first
        if digest == hash(item):
            return
        where = "" if item.bbox is None else f" at {item.bbox.x}, {item.bbox.y}"
        what = "their metadata differs"
        if label != item.label:
            what = f"their labels differ: {label!r} and {item.label!r}"
        same = f"{first_path} and {path} are the same image{where}"
        if first_path == path:
            same = f"{path} marks the same place twice{where}"
        self.report.warnings.append(f"{same}, but {what}; the first is kept")

    def _embed(self, batch: Sequence[Picture]) -> None:
        """Hand a batch to the encoder, and take back the one before the last."""
        while len(self._embedding) >= BATCHES_AHEAD:
            self._collect()
        self._embedding.append((batch, self._embedder.submit(self._vectors, batch)))

    def _collect(self) -> None:
        """Turn the oldest embedded batch into entries; hand over the shard where one is full."""
        batch, future = self._embedding.popleft()
        for picture, vector in zip(batch, future.result(), strict=True):
            if vector is not None:
                one = picture.planned
                self._entries.append(
                    Entry(one.item, vector, picture.thumbnail, picture.path, dict(one.notes))
                )
                self.finished += 1
            self.report.sources += picture.last
            if picture.ends and len(self._entries) >= self.shard_items:
                self._put()

    def _vectors(self, batch: Sequence[Picture]) -> Vectors:
        """One vector per picture; `None` for a picture that the encoder cannot embed."""
        try:
            return list(self.encoder.embed([picture.image for picture in batch]))
        except EncoderError as broken:
            found: Vectors = []
            failures: list[Failure] = []
            for picture in batch:
                try:
                    found.append(self.encoder.embed([picture.image])[0])
                except EncoderError as error:
                    failures.append(Failure(picture.path, str(error)))
                    found.append(None)
            if len(failures) == len(batch):
                raise broken  # not the images: the encoder
            self.report.failures += failures
            return found

    def _put(self) -> None:
        if self._entries:
            self._write(self._store, self._entries)
            self._entries = []

    def _store(self, entries: Sequence[Entry]) -> None:
        self.sink.put(entries)
        self.report.stored += len(entries)
        self.report.padded += sum(1 for entry in entries if "padded" in entry.notes)

    def _update(self, items: Sequence[Item]) -> None:
        self.sink.update(items)
        self.report.updated += len(items)
        self.finished += len(items)

    def _write(self, write: Callable[[Sequence[T]], None], what: Sequence[T]) -> None:
        while len(self._writing) >= SHARDS_AHEAD:
            self._writing.popleft().result()
        self._writing.append(self._writer.submit(write, what))


def _nbytes(batch: Sequence[Picture]) -> int:
    return sum(picture.image.nbytes for picture in batch)

"""Read, cut, embed, store: files in, a searchable collection out, and a report."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.encoder import RGB, Encoder, EncoderError
from ingest.crops import CropError
from ingest.report import Clock, Failure, OnProgress, Report
from ingest.sink import Sink
from ingest.task import Plan, Planned, Source, Task
from search.records import Item
from search.shards import Entry, make_thumbnail, payload_digest
from search.store import WrongEncoder

SHARD_ITEMS = 1024
"""A shard is closed at the first end of a source after so many items."""
PART_ITEMS = 256
"""Items that one worker cuts at a time; a source with more is cut in parts."""
WINDOW_TASKS, WINDOW_ITEMS, WINDOW_BYTES = 256, 1024, 64 << 20
"""How many sources are asked for in the sink at once; their bytes are kept meanwhile."""
AHEAD_BYTES = 256 << 20
"""Pixels that may be cut and not yet embedded."""
BATCHES_AHEAD = 2
"""Batches that may be with the encoder."""
SHARDS_AHEAD = 2
"""Shards that may wait for the sink while the encoder goes on."""

T = TypeVar("T")
R = TypeVar("R")
Vectors = list[NDArray[np.float32] | None]


@dataclass(frozen=True)
class _Read:
    """A source after planning."""

    task: Task
    source: Source
    plan: Plan
    nbytes: int


@dataclass(frozen=True)
class _Job:
    """Items of one source that are cut together."""

    task: Task
    source: Source
    planned: Sequence[Planned]
    nbytes: int
    """Bytes of the pictures it will give."""
    ends: bool
    """Whether a shard may be closed after it."""
    last: bool
    """Whether the source is finished with it."""


@dataclass(frozen=True)
class _Picture:
    """One item, cut."""

    planned: Planned
    image: RGB
    thumbnail: bytes
    path: str
    ends: bool = False
    last: bool = False


def ingest(
    tasks: Iterable[Task],
    encoder: Encoder,
    sink: Sink,
    *,
    batch_size: int = 64,
    progress: OnProgress | None = None,
    report: Report | None = None,
    workers: int | None = None,
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
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    report = report if report is not None else Report()
    threads = workers or min(8, os.cpu_count() or 1)
    run = _Run(encoder, sink, batch_size, report, threads)
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
        self, encoder: Encoder, sink: Sink, batch_size: int, report: Report, workers: int
    ) -> None:
        self.encoder = encoder
        self.sink = sink
        self.batch_size = batch_size
        self.report = report
        self.workers = workers
        self.finished = 0
        self._readers = ThreadPoolExecutor(workers, "ingest-read")
        self._embedder = ThreadPoolExecutor(1, "ingest-embed")
        self._writer = ThreadPoolExecutor(1, "ingest-write")
        self._embedding: deque[tuple[Sequence[_Picture], Future[Vectors]]] = deque()
        self._writing: deque[Future[None]] = deque()
        self._entries: list[Entry] = []
        self._seen: dict[str, tuple[str, str | None, int]] = {}

    def steps(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Do the work, a step at a time."""
        plans = in_order(self._readers, _plan, tasks, lambda _: 1 / (4 * self.workers))
        jobs = self._jobs(windows(self._readable(plans)))
        batch: list[_Picture] = []
        for job, pictures in in_order(self._readers, _cut, jobs, self._share):
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

    def _share(self, job: _Job) -> float:
        """How much of what may be cut ahead a job takes up."""
        items = len(job.planned) / (2 * self.batch_size)
        return max(min(items, 1 / (2 * self.workers)), job.nbytes / AHEAD_BYTES)

    def _readable(self, plans: Iterator[tuple[Task, _Read | Failure]]) -> Iterator[_Read]:
        for _, read in plans:
            if isinstance(read, Failure):
                self.report.failures.append(read)
                self.report.sources += 1
            else:
                self.report.failures += read.plan.failures
                yield read

    def _jobs(self, groups: Iterator[Sequence[_Read]]) -> Iterator[_Job]:
        """What has to be cut, after dropping what is stored."""
        for group in groups:
            ids = [one.item.id for read in group for one in read.plan.planned]
            known = self.sink.known(ids) if ids else {}
            changed: list[Item] = []
            for read in group:
                fresh = self._fresh(read, known, changed)
                if fresh:
                    yield from _parts(read, fresh)
                else:
                    self.report.sources += 1
            if changed:
                self._write(self._update, changed)

    def _fresh(self, read: _Read, known: dict[str, str], changed: list[Item]) -> list[Planned]:
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

    def _embed(self, batch: Sequence[_Picture]) -> None:
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
            if picture.ends and len(self._entries) >= SHARD_ITEMS:
                self._put()

    def _vectors(self, batch: Sequence[_Picture]) -> Vectors:
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


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[T], R],
    things: Iterable[T],
    share: Callable[[T], float],
) -> Iterator[tuple[T, R]]:
    """Work on things in a pool, ahead of the caller, and give the results in order.

    Args:
        pool: Where the work is done.
        work: Called once for each thing.
        things: Taken only when there is room.
        share: How much of the room a thing takes up until it is given; there is room for 1.
    """
    waiting: deque[tuple[T, float, Future[R]]] = deque()
    taken = 0.0
    for thing in things:
        part = share(thing)
        taken += part
        waiting.append((thing, part, pool.submit(work, thing)))
        while waiting and taken >= 1:
            done, part, future = waiting.popleft()
            taken = taken - part if waiting else 0.0
            yield done, future.result()
    while waiting:
        done, _, future = waiting.popleft()
        yield done, future.result()


def windows(reads: Iterator[_Read]) -> Iterator[list[_Read]]:
    """Consecutive sources, as many as are asked for in the sink at once."""
    group: list[_Read] = []
    items = nbytes = 0
    for read in reads:
        group.append(read)
        items += len(read.plan.planned)
        nbytes += read.nbytes
        if len(group) >= WINDOW_TASKS or items >= WINDOW_ITEMS or nbytes >= WINDOW_BYTES:
            yield group
            group, items, nbytes = [], 0, 0
    if group:
        yield group


def _plan(task: Task) -> _Read | Failure:
    source = Source(task.path, task.dataset)
    try:
        plan = task.reader.plan(source, task.facts)
    except Exception as error:  # one bad file must not stop the run
        return Failure(str(task.path), reason(error))
    held = len(source.content) if "content" in source.__dict__ else 0
    return _Read(task, source, plan, held)


def _cut(job: _Job) -> list[_Picture] | Failure:
    path = str(job.task.path)
    try:
        images = list(job.task.reader.cut(job.source, job.planned))
        if len(images) != len(job.planned):
            raise CropError(f"{len(job.planned)} pictures were planned, {len(images)} came")
        last = len(images) - 1
        return [
            _Picture(one, image, make_thumbnail(image), path, *_ends(job, at == last))
            for at, (one, image) in enumerate(zip(job.planned, images, strict=True))
        ]
    except Exception as error:  # one bad file must not stop the run
        return Failure(path, reason(error))


def _ends(job: _Job, last: bool) -> tuple[bool, bool]:
    return (job.ends and last, job.last and last)


def _parts(read: _Read, fresh: Sequence[Planned]) -> Iterator[_Job]:
    """A source's items in runs that one worker cuts; it stays in one shard if it can."""
    large = len(fresh) > SHARD_ITEMS
    for at in range(0, len(fresh), PART_ITEMS):
        last = at + PART_ITEMS >= len(fresh)
        part = fresh[at : at + PART_ITEMS]
        boxes = [one.item.bbox for one in part]
        wide, high = read.source.size if None in boxes else (0, 0)
        nbytes = sum(3 * (wide * high if box is None else box.w * box.h) for box in boxes)
        yield _Job(read.task, read.source, part, nbytes, ends=large or last, last=last)


def _nbytes(batch: Sequence[_Picture]) -> int:
    return sum(picture.image.nbytes for picture in batch)


def reason(error: Exception) -> str:
    """Why a file failed, in words."""
    if type(error).__module__.split(".")[0] in {"ingest", "encoder", "search"}:
        return str(error)  # ours are sentences
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"

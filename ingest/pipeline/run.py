"""Read, cut, embed, store: files in, a searchable collection out, and a report."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.contract import Encoder, EncoderError
from ingest.pipeline.ledger import SAMPLE, Ledger, Row
from ingest.pipeline.reading import (
    SHARD_ITEMS,
    Job,
    Picture,
    Read,
    cut_job,
    in_order,
    parts,
    plan_source,
    reason,
    windows,
)
from ingest.pipeline.sink import Sink
from ingest.pipeline.streaming import Came, Ended, Opened, Stamp, Stream, opened_in_order
from ingest.sandbox.pool import TIMEOUT_S
from ingest.sources.report import Clock, Failure, OnProgress, Report
from ingest.sources.source import Planned, Source, Task, child_reader
from search.index.contract import need_same_encoder
from search.library.shards import Entry, payload_digest
from search.schemas.items import Item

AHEAD_BYTES = 256 << 20
"""Pixels that may be cut and not yet embedded."""
BATCHES_AHEAD = 2
"""Batches that may be with the encoder."""
SHARDS_AHEAD = 2
"""Shards that may wait for the sink while the encoder goes on."""
MOST_THREADS = 8
"""Threads of one child: where there are fewer slides than cores, several decode one slide."""

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
    ledger: Ledger | None = None,
    reports: Path | None = None,
    timeout_s: float = TIMEOUT_S,
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
        ledger: Where the state of each source is kept. With one, a source that is read by a
            child is not read again while its bytes, its parameters and the encoder are the same.
        reports: Folder for the report and the picture of each slide; `None` for none.
        timeout_s: Longest pause of a child before its file is given up.

    Returns:
        The report; a source or item that failed is in it and everything else is stored.

    Raises:
        WrongEncoder: the collection belongs to another encoder.
        StoreError, OSError: the sink does not take the data; what it took before is kept.
        EncoderError: the encoder fails on every image of a batch.
    """
    need_same_encoder("of this sink", sink.card, encoder.card)
    if batch_size < 1 or shard_items < 1:
        raise ValueError(f"batch_size and shard_items must be 1 or more: {batch_size, shard_items}")
    report = report if report is not None else Report()
    threads = workers or min(8, os.cpu_count() or 1)
    run = _Run(encoder, sink, batch_size, report, threads, shard_items)
    run.ledger, run.reports, run.timeout_s = ledger, reports, timeout_s
    total = len(tasks) if isinstance(tasks, Sized) else None
    clock = Clock(report, total, progress)
    try:
        for _ in run.steps(tasks):
            clock.tick(run.finished)
    finally:
        run.stop()
    clock.tick(run.finished, last=True)
    return report


@dataclass
class _Source:
    """A source on its way: whole once it was read to its end and nothing of it is under way."""

    path: str
    dataset: str
    row: Row
    waiting: int = 0
    """Pictures handed on and not yet among the entries."""
    ended: bool = False
    items: int = 0
    sample: list[str] = field(default_factory=list)


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
        self._batch: list[Picture] = []
        self._seen: dict[str, tuple[str, str | None, int]] = {}
        self.ledger: Ledger | None = None
        self.reports: Path | None = None
        self.timeout_s = TIMEOUT_S
        self._sources: dict[str, _Source] = {}
        self._whole: list[Row] = []
        self._before: dict[tuple[str, str], Row] = {}
        self._threads = 1

    def steps(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Do the work, a step at a time."""
        if self.ledger is not None:
            self._before = {(row.path, row.dataset): row for row in self.ledger.rows()}
        streamed: list[Task] = []
        yield from self._plain(_without_children(tasks, streamed))
        yield from self._streamed(streamed)
        if self._batch:
            self._embed(self._batch)
            self._batch = []
        while self._embedding:
            self._collect()
            yield
        self._put()
        while self._writing:
            self._writing.popleft().result()

    def _plain(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Sources that threads of this process read."""
        plans = in_order(self._readers, plan_source, tasks, lambda _: 1 / (4 * self.workers))
        jobs = self._jobs(windows(self._readable(plans)))
        for job, pictures in in_order(self._readers, cut_job, jobs, self._share):
            if isinstance(pictures, Failure):
                self._failed(job.task, pictures, last=job.last)
            else:
                one = self._source(job.task)
                one.ended = job.last
                self._feed(one, pictures)
            yield

    def _streamed(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Sources that children read."""
        again: list[Opened] = []
        self._threads = max(1, min(MOST_THREADS, self.workers // max(1, len(tasks))))
        while tasks or again:
            stream = Stream(self._readers, self._choose, min(self.workers, 8), self.timeout_s)
            if again:
                sources: Iterator[Opened] = iter(again)
                again = []
            else:
                sources = opened_in_order(self._readers, self._open, tasks, self._not_read)
                tasks = []
            for event in stream.read(sources):
                if isinstance(event, Came):
                    self._feed(self._source(event.opened.task), event.pictures)
                elif event.again:
                    event.opened.attempts += 1
                    again.append(event.opened)
                else:
                    self._ended(event)
                yield

    def _feed(self, source: _Source, pictures: Sequence[Picture]) -> None:
        """Hand pictures on to the encoder, as many at a time as it takes."""
        source.waiting += len(pictures)
        self._batch += pictures
        while len(self._batch) >= self.batch_size or _nbytes(self._batch) > AHEAD_BYTES // 2:
            self._embed(self._batch[: self.batch_size])
            self._batch = self._batch[self.batch_size :]

    def stop(self) -> None:
        """End all threads; what was not begun is dropped."""
        for pool in (self._readers, self._embedder, self._writer):
            pool.shutdown(cancel_futures=True)

    def _share(self, job: Job) -> float:
        """How much of what may be cut ahead a job takes up."""
        items = len(job.planned) / (2 * self.batch_size)
        return max(min(items, 1 / (2 * self.workers)), job.nbytes / AHEAD_BYTES)

    def _readable(self, plans: Iterator[tuple[Task, Read | Failure]]) -> Iterator[Read]:
        for task, read in plans:
            if isinstance(read, Failure):
                self._failed(task, read)
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
                one = self._source(read.task)
                one.items += len(read.plan.planned)
                one.row = _with(one.row, source=read.source.id)
                _sample(one, read.plan.planned)
                if fresh:
                    yield from parts(read, fresh)
                else:
                    self.report.sources += 1
                    one.ended = True
                    self._settle(one)
            if changed:
                self._write(self._update, changed)

    def _fresh(self, read: Read, known: dict[str, str], changed: list[Item]) -> list[Planned]:
        """The items of a source that are new; those whose metadata changed go to `changed`."""
        chosen = self._chosen(str(read.task.path), read.plan.planned, known, changed)
        return [read.plan.planned[at] for at in chosen]

    def _chosen(
        self, path: str, planned: Sequence[Planned], known: dict[str, str], changed: list[Item]
    ) -> list[int]:
        fresh: list[int] = []
        for at, one in enumerate(planned):
            before = self._seen.get(one.item.id)
            if before is not None:
                self.report.duplicates += 1
                self.finished += 1
                self._contradiction(before, path, one.item)
                continue
            self._seen[one.item.id] = (path, one.item.label, hash(one.item))
            digest = known.get(one.item.id)
            if digest is None:
                fresh.append(at)
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
            if (source := self._sources.get(picture.path)) is not None:
                source.waiting -= 1
                self._settle(source)
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
        if self._entries or self._whole:
            self._write(self._store, [(self._entries, self._whole)])
            self._entries, self._whole = [], []

    def _store(self, what: Sequence[tuple[Sequence[Entry], Sequence[Row]]]) -> None:
        for entries, whole in what:
            if entries:
                if self.ledger is not None:
                    self.ledger.mark_unbuilt()
                self.sink.put(entries)
                self.report.stored += len(entries)
                self.report.padded += sum(1 for entry in entries if "padded" in entry.notes)
            if whole and self.ledger is not None:  # only now: what it says is durable
                self.ledger.write(whole)

    # ------------------------------------------------------------ sources and the ledger

    def _source(self, task: Task) -> _Source:
        path = str(task.path)
        if path not in self._sources:
            where = _absolute(task.path)
            before = self._before.get((where, task.dataset))
            row = Row(
                path=where,
                dataset=task.dataset,
                state="done",
                attempts=1 if before is None or before.state == "done" else before.attempts + 1,
            )
            self._sources[path] = _Source(path, task.dataset, row)
        return self._sources[path]

    def _settle(self, source: _Source) -> None:
        """Once a source is whole, its line for the ledger goes with the next shard."""
        if not source.ended or source.waiting or self._sources.pop(source.path, None) is None:
            return
        row = _with(source.row, items=source.items, sample=tuple(source.sample))
        before = self._before.get((row.path, row.dataset))
        if row.state == "quarantined":
            self.report.quarantined += 1
        if row.state != "done" or before is None or _told(before) != _told(row):
            self._whole.append(row)

    def _failed(self, task: Task, failure: Failure, *, last: bool = True) -> None:
        self.report.failures.append(failure)
        self.report.sources += last
        one = self._source(task)
        one.row = _with(one.row, state="quarantined", reason=failure.reason)
        one.ended = last
        self._settle(one)

    def _open(self, task: Task) -> Opened | Failure | None:
        """Look at a source that a child is to read; called from other threads."""
        reader = child_reader(task)
        if reader is None:
            return Failure(str(task.path), "it is not read by a child")
        try:
            stamp = Stamp.of(task.path)
            recipe = reader.recipe(task.facts)
            row = self._before.get((_absolute(task.path), task.dataset))
            attempts = 0
            if row is not None and row.same(stamp.size, stamp.mtime_ns, recipe):
                if row.state == "quarantined":
                    return Failure(str(task.path), _before_too(row))
                if row.state == "done" and self._still_there(row):
                    return None
            source = Source(task.path, task.dataset)
            _ = source.id
            job = replace(reader.job(task.path, task.facts), threads=self._threads)
        except Exception as error:  # one bad file must not stop the run
            return Failure(str(task.path), reason(error))
        return Opened(task, reader, source, job, stamp, recipe, attempts)

    def _still_there(self, row: Row) -> bool:
        return len(self.sink.known(list(row.sample))) == len(row.sample) if row.sample else True

    def _not_read(self, task: Task, failure: Failure | None) -> None:
        row = self._before.get((_absolute(task.path), task.dataset))
        if failure is None and row is not None:
            self.report.sources += 1
            self.report.skipped += 1
            self.report.unchanged += row.items
            self.finished += row.items
        elif failure is not None and row is not None and failure.reason == _before_too(row):
            self.report.failures.append(failure)
            self.report.sources += 1
            self.report.quarantined += 1
        elif failure is not None:
            self._failed(task, failure)

    def _choose(self, opened: Opened, planned: Sequence[Planned]) -> list[int]:
        """Which items of a child's answer are new; those that changed are updated."""
        one = self._source(opened.task)
        one.items += len(planned)
        _sample(one, planned)
        changed: list[Item] = []
        known = self.sink.known([each.item.id for each in planned])
        fresh = self._chosen(str(opened.task.path), planned, known, changed)
        if changed:
            self._write(self._update, changed)
        return fresh

    def _ended(self, event: Ended) -> None:
        """A source that a child has read, or failed to."""
        opened = event.opened
        one = self._source(opened.task)
        self.report.sources += 1
        one.row = _with(
            one.row,
            recipe=opened.recipe,
            size=opened.stamp.size,
            mtime_ns=opened.stamp.mtime_ns,
            source=opened.source.id,
            attempts=one.row.attempts + opened.attempts,
        )
        self._keep_report(opened)
        if event.failure is not None:
            self.report.failures.append(event.failure)
            one.row = _with(one.row, state="quarantined", reason=event.failure.reason)
        one.ended = True
        self._settle(one)

    def _keep_report(self, opened: Opened) -> None:
        summary = opened.summary
        if summary is None:
            return
        line = f"{opened.task.path}: {summary.text}"
        if self.reports is not None:
            where = summary.write(self.reports, f"{opened.source.id}-{opened.recipe}")
            line += f"; {where}"
        self.report.slides.append(line)
        self.report.warnings += [f"{opened.task.path}: {warning}" for warning in summary.warnings]

    def _update(self, items: Sequence[Item]) -> None:
        if self.ledger is not None:
            self.ledger.mark_unbuilt()
        self.sink.update(items)
        self.report.updated += len(items)
        self.finished += len(items)

    def _write(self, write: Callable[[Sequence[T]], None], what: Sequence[T]) -> None:
        while len(self._writing) >= SHARDS_AHEAD:
            self._writing.popleft().result()
        self._writing.append(self._writer.submit(write, what))


def _nbytes(batch: Sequence[Picture]) -> int:
    return sum(picture.image.nbytes for picture in batch)


def _without_children(tasks: Iterable[Task], streamed: list[Task]) -> Iterator[Task]:
    """The tasks that threads read; those for children are put aside."""
    for task in tasks:
        if child_reader(task) is None:
            yield task
        else:
            streamed.append(task)


def _with(row: Row, **changes: object) -> Row:
    return replace(row, **changes)  # type: ignore[arg-type]


def _sample(source: _Source, planned: Sequence[Planned]) -> None:
    room = SAMPLE - len(source.sample)
    source.sample += [one.item.id for one in planned[:room]]


def _told(row: Row) -> tuple[object, ...]:
    """What of a row is worth writing again; not the run, nor the attempts of an equal end."""
    return (row.state, row.recipe, row.size, row.mtime_ns, row.source, row.reason, row.items)


def _before_too(row: Row) -> str:
    return (
        f"quarantined after {row.attempts} attempt{'s' * (row.attempts != 1)}: {row.reason} "
        "(`hemaseek quarantine --retry` reads it again)"
    )


def _absolute(path: Path) -> str:
    return str(path.resolve())

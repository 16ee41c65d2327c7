"""Read, cut, embed, store: files in, a searchable collection out, and a report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from encoder.contract import Encoder
from ingest.pipeline.choosing import Choosing
from ingest.pipeline.embedding import AHEAD_BYTES, Embedding
from ingest.pipeline.ledger import Ledger, Row
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
from ingest.pipeline.replacing import Replacing
from ingest.pipeline.sink import Sink
from ingest.pipeline.states import State, States
from ingest.pipeline.storing import Storing
from ingest.pipeline.streaming import Came, Ended, Opened, Stamp, Stream, opened_in_order
from ingest.sandbox.pool import TIMEOUT_S
from ingest.sources.report import Clock, Failure, OnProgress, Report
from ingest.sources.source import Planned, Source, Task, child_reader
from search.index.contract import need_same_encoder
from search.library.shards import Entry
from search.schemas.items import Item
from search.schemas.text import composed

NO_CELL = "no cell is marked in it"
"""Why an image that was read gives no item."""
MOST_THREADS = 8
"""Threads of one child: where there are fewer slides than cores, several decode one slide."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How a run works; none of it changes what is stored."""

    batch_size: int = 64
    """Images embedded at once."""
    workers: int | None = None
    """Threads that read, decode and cut; `None` for one per core, at most 8."""
    shard_items: int = SHARD_ITEMS
    """A shard is closed at the first end of a source after so many items."""
    reports: Path | None = None
    """Folder for the report and the picture of each slide; `None` for none."""
    timeout_s: float = TIMEOUT_S
    """Longest pause of a child before its file is given up."""
    progress: OnProgress | None = None
    """Called with how far the run is."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


def ingest(
    tasks: Iterable[Task],
    encoder: Encoder,
    sink: Sink,
    *,
    report: Report | None = None,
    ledger: Ledger | None = None,
    how: How | None = None,
) -> Report:
    """Embed what the tasks name and store it.

    Idempotent: an item's id follows from the bytes of its file, its dataset, box and kind, and
    items that are stored are dropped before anything is decoded. Where only their metadata
    changed, that is updated without embedding. A process killed at any moment leaves whole
    shards behind; the next run adds what is missing.

    Args:
        tasks: What to ingest, in the order in which it is stored.
        encoder: Must be the encoder of the sink's collection.
        sink: Where entries go.
        report: A report already begun, for instance by a layout's scan; a new one if `None`.
        ledger: Where the state of each source is kept. With one, a source that is read by a
            child is not read again while its bytes, its parameters and the encoder are the same.
        how: Sizes, threads, time-outs.

    Returns:
        The report; a source or item that failed is in it and everything else is stored.

    Raises:
        WrongEncoder: the collection belongs to another encoder.
        StoreError, OSError: the sink does not take the data; what it took before is kept.
        EncoderError: the encoder fails on every image of a batch.
    """
    need_same_encoder("of this sink", sink.card, encoder.card)
    how = how or How()
    report = report if report is not None else Report()
    run = _Run(encoder, sink, report, ledger, how)
    clock = Clock(report, len(tasks) if isinstance(tasks, Sized) else None, how.progress)
    try:
        for _ in run.steps(tasks):
            clock.tick(run.items)
    finally:
        run.stop()
    clock.tick(run.items, last=True)
    return report


class _Run:
    """The order of the steps of one run.

    Threads: readers read, decode and cut; one embeds; one writes; the caller's thread hands
    over from one to the next, in order, so that the same tasks give the same shards.
    """

    def __init__(
        self, encoder: Encoder, sink: Sink, report: Report, ledger: Ledger | None, how: How
    ) -> None:
        self._sink = sink
        self._report = report
        self._how = how
        self._workers = how.workers or min(8, os.cpu_count() or 1)
        self._readers = ThreadPoolExecutor(self._workers, "ingest-read")
        self._storing = Storing(sink, ledger, report, how.shard_items)
        self._embedding = Embedding(encoder, how.batch_size, report, self._embedded)
        self._choosing = Choosing(sink, report)
        self._states = States(ledger, report, self._storing.add_row)
        self._replacing = Replacing(sink, report, ledger)
        self._items = 0
        self._remarks: dict[str, set[str]] = {}
        """Paths by what a person should know of how they were decoded."""

    @property
    def items(self) -> int:
        """Items finished; those that are new may not be durable yet."""
        report = self._report
        return self._items + report.unchanged + report.updated + report.duplicates

    def steps(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Do the work, a step at a time."""
        streamed: list[Task] = []
        yield from self._plain(_without_children(tasks, streamed))
        yield from self._streamed(streamed)
        yield from self._embedding.finish()
        self._storing.finish()
        self._replacing.remove(self._choosing.is_met)
        for text, paths in self._remarks.items():
            first = min(paths)
            which = first if len(paths) == 1 else f"{len(paths)} pictures, the first {first}"
            self._report.warnings.append(f"{which}: {text}")

    def stop(self) -> None:
        """End all threads; what was not begun is dropped."""
        self._readers.shutdown(cancel_futures=True)
        self._embedding.stop()
        self._storing.stop()

    def _given(self, task: Task, source: Source, planned: Sequence[Planned]) -> None:
        path, dataset = str(task.path), composed(task.dataset)
        self._replacing.add(path, dataset, source.id, planned)
        if (before := self._states.replaced_source(task, source.id)) is not None:
            self._replacing.changed(path, dataset, before)

    def _incomplete(self, task: Task, source: Source) -> None:
        self._replacing.incomplete(str(task.path), composed(task.dataset), source.id)

    def _remark(self, path: str, text: str) -> None:
        if text:
            self._remarks.setdefault(text, set()).add(path)

    def _feed(self, state: State, pictures: Sequence[Picture]) -> None:
        state.waiting += len(pictures)
        self._embedding.add(pictures)

    def _embedded(self, picture: Picture, entry: Entry | None) -> None:
        """Take a picture back from the encoder; hand over the shard where one is full."""
        if entry is not None:
            self._storing.add(entry)
            self._items += 1
        self._report.sources += picture.last
        self._states.embedded(picture.path)
        if picture.ends:
            self._storing.close_full_shard()

    # ------------------------------------------------------------ read by threads

    def _plain(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Sources that threads of this process read."""
        plans = in_order(self._readers, plan_source, tasks, lambda _: 1 / (4 * self._workers))
        jobs = self._jobs(windows(self._readable(plans)))
        for job, pictures in in_order(self._readers, cut_job, jobs, self._share):
            if isinstance(pictures, Failure):
                self._incomplete(job.task, job.source)
                self._states.fail(job.task, pictures, last=job.last)
            else:
                self._remark(str(job.task.path), job.source.remark)
                state = self._states.of(job.task)
                state.ended = job.last
                self._feed(state, pictures)
            yield

    def _share(self, job: Job) -> float:
        """How much of what may be cut ahead a job takes up."""
        items = len(job.planned) / (2 * self._how.batch_size)
        return max(min(items, 1 / (2 * self._workers)), job.nbytes / AHEAD_BYTES)

    def _readable(self, plans: Iterator[tuple[Task, Read | Failure]]) -> Iterator[Read]:
        for task, read in plans:
            if isinstance(read, Failure):
                self._states.fail(task, read)
            else:
                self._report.failures += read.plan.failures
                if read.plan.failures:
                    self._incomplete(task, read.source)
                elif not read.plan.planned:
                    left = self._report.left_out
                    left[NO_CELL] = left.get(NO_CELL, 0) + 1
                yield read

    def _jobs(self, groups: Iterator[Sequence[Read]]) -> Iterator[Job]:
        """What has to be cut, after dropping what is stored."""
        for group in groups:
            stored = self._choosing.stored([one for read in group for one in read.plan.planned])
            changed: list[Item] = []
            for read in group:
                planned = read.plan.planned
                choice = self._choosing.choose(str(read.task.path), planned, stored)
                changed += choice.changed
                state = self._states.of(read.task)
                self._given(read.task, read.source, planned)
                state.plan(planned)
                state.row = replace(state.row, source=read.source.id)
                if choice.fresh:
                    yield from parts(read, [planned[at] for at in choice.fresh])
                else:
                    self._report.sources += 1
                    state.ended = True
                    self._states.finish(state)
            self._storing.update(changed)

    # ------------------------------------------------------------ read by children

    def _streamed(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Sources that children read; one whose child died is read once more."""
        threads = max(1, min(MOST_THREADS, self._workers // max(1, len(tasks))))
        sources = opened_in_order(
            self._readers, lambda task: self._open(task, threads), tasks, self._not_read
        )
        again: list[Opened] = []
        while tasks or again:
            stream = Stream(self._readers, self._choose, min(self._workers, 8), self._how.timeout_s)
            sources = iter(again) if again else sources
            tasks, again = [], []
            for event in stream.read(sources):
                if isinstance(event, Came):
                    self._feed(self._states.of(event.opened.task), event.pictures)
                elif event.again:
                    event.opened.attempts += 1
                    again.append(event.opened)
                else:
                    self._ended(event)
                yield

    def _open(self, task: Task, threads: int) -> Opened | Failure | None:
        """Look at a source that a child is to read; called from other threads."""
        reader = child_reader(task)
        if reader is None:
            return Failure(str(task.path), "it is not read by a child")
        try:
            stamp = Stamp.of(task.path)
            recipe = reader.recipe(task.facts)
            row = self._states.before(task)
            if row is not None and row.same(stamp.size, stamp.mtime_ns, recipe):
                if row.state == "quarantined":
                    return Failure(str(task.path), _before_too(row))
                if row.state == "done" and self._still_there(row):
                    return None
            source = Source(task.path, task.dataset)
            _ = source.id
            job = replace(reader.job(task.path, task.facts), threads=threads)
        except Exception as error:  # one bad file must not stop the run
            return Failure(str(task.path), reason(error))
        return Opened(task, reader, source, job, stamp, recipe)

    def _still_there(self, row: Row) -> bool:
        return len(self._sink.known(list(row.sample))) == len(row.sample) if row.sample else True

    def _not_read(self, task: Task, failure: Failure | None) -> None:
        """A source that no child has to open."""
        row, report = self._states.before(task), self._report
        if failure is None and row is not None:
            report.sources += 1
            report.skipped += 1
            report.unchanged += row.items
        elif failure is not None and row is not None and failure.reason == _before_too(row):
            report.failures.append(failure)
            report.sources += 1
            report.quarantined += 1
        elif failure is not None:
            self._states.fail(task, failure)

    def _choose(self, opened: Opened, planned: Sequence[Planned]) -> list[int]:
        """Which items of a child's answer are new; those that changed are updated."""
        self._states.of(opened.task).plan(planned)
        self._given(opened.task, opened.source, planned)
        stored = self._choosing.stored(planned)
        choice = self._choosing.choose(str(opened.task.path), planned, stored)
        self._storing.update(choice.changed)
        return choice.fresh

    def _ended(self, event: Ended) -> None:
        """A source that a child has read, or failed to."""
        opened = event.opened
        state = self._states.of(opened.task)
        state.row = replace(
            state.row,
            recipe=opened.recipe,
            size=opened.stamp.size,
            mtime_ns=opened.stamp.mtime_ns,
            source=opened.source.id,
            attempts=state.row.attempts + opened.attempts,
        )
        self._keep_summary(opened)
        self._remark(str(opened.task.path), opened.remark)
        self._report.sources += 1
        self._given(opened.task, opened.source, ())
        if event.failure is not None:
            self._incomplete(opened.task, opened.source)
            self._report.failures.append(event.failure)
            state.fail(event.failure.reason)
        state.ended = True
        self._states.finish(state)

    def _keep_summary(self, opened: Opened) -> None:
        summary = opened.summary
        if summary is None:
            return
        line = f"{opened.task.path}: {summary.text}"
        if self._how.reports is not None:
            where = summary.write(self._how.reports, f"{opened.source.id}-{opened.recipe}")
            line += f"; {where}"
        self._report.slides.append(line)
        self._report.warnings += [f"{opened.task.path}: {warning}" for warning in summary.warnings]


def _without_children(tasks: Iterable[Task], streamed: list[Task]) -> Iterator[Task]:
    """The tasks that threads read; those for children are put aside."""
    for task in tasks:
        if child_reader(task) is None:
            yield task
        else:
            streamed.append(task)


def _before_too(row: Row) -> str:
    return (
        f"quarantined after {row.attempts} attempt{'s' * (row.attempts != 1)}: {row.reason} "
        "(`hemaseek quarantine --retry` reads it again)"
    )

"""Read, cut, embed, store: files in, a searchable collection out, and a report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor

from encoder.contract import Encoder
from ingest.pipeline.children import ChildSources
from ingest.pipeline.choosing import Choosing
from ingest.pipeline.embedding import Embedding
from ingest.pipeline.ledger import Ledger
from ingest.pipeline.plain import PlainSources
from ingest.pipeline.reading import Picture
from ingest.pipeline.replacing import Replacing
from ingest.pipeline.sink import Sink
from ingest.pipeline.states import States
from ingest.pipeline.storing import Storing
from ingest.pipeline.work import How, Work
from ingest.sources.report import Clock, Report
from ingest.sources.source import Task, child_reader
from search.index.contract import need_same_encoder
from search.library.shards import Entry


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
        workers = how.workers or min(8, os.cpu_count() or 1)
        storing = Storing(sink, ledger, report, how.shard_items)
        self._work = Work(
            sink=sink,
            report=report,
            how=how,
            workers=workers,
            readers=ThreadPoolExecutor(workers, "ingest-read"),
            storing=storing,
            embedding=Embedding(encoder, how.batch_size, report, self._embedded),
            choosing=Choosing(sink, report),
            states=States(ledger, report, storing.add_row),
            replacing=Replacing(sink, report, ledger),
        )
        self._items = 0

    @property
    def items(self) -> int:
        """Items finished; those that are new may not be durable yet."""
        report = self._work.report
        return self._items + report.unchanged + report.updated + report.duplicates

    def steps(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Do the work, a step at a time."""
        work = self._work
        streamed: list[Task] = []
        yield from PlainSources(work).steps(_without_children(tasks, streamed))
        yield from ChildSources(work).steps(streamed)
        yield from work.embedding.finish()
        work.storing.finish()
        work.replacing.remove(work.choosing.is_met)
        work.warn_of_remarks()

    def stop(self) -> None:
        """End all threads; what was not begun is dropped."""
        self._work.readers.shutdown(cancel_futures=True)
        self._work.embedding.stop()
        self._work.storing.stop()

    def _embedded(self, picture: Picture, entry: Entry | None) -> None:
        """Take a picture back from the encoder; hand over the shard where one is full."""
        work = self._work
        if entry is not None:
            work.storing.add(entry)
            self._items += 1
        work.report.sources += picture.last
        work.states.embedded(picture.path)
        if picture.ends:
            work.storing.close_full_shard()


def _without_children(tasks: Iterable[Task], streamed: list[Task]) -> Iterator[Task]:
    """The tasks that threads read; those for children are put aside."""
    for task in tasks:
        if child_reader(task) is None:
            yield task
        else:
            streamed.append(task)

"""The same work on a Ray cluster: workers read and embed, the driver owns the collection.

Sources must lie where every worker sees them under the same path. The collection may live in
this process or on a Qdrant server; workers never write to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoder.card import EncoderCard
from ingest.pipeline.ledger import Ledger, Row
from ingest.pipeline.reading import plan_source
from ingest.pipeline.sink import Sink
from ingest.sources.report import Clock, Failure, OnProgress, Report
from ingest.sources.source import Task, child_reader
from search.errors import StoreError
from search.index.contract import BuildReport
from search.library.shards import Entry, Shard, make_shard_bytes
from search.schemas.items import Item

SHARE_TASKS = 64
"""Sources that a worker takes at a time."""
AHEAD = 2
"""Shares per worker that may be under way."""


class NoCluster(RuntimeError):
    """Ray does not start, or its cluster does not answer."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Ray does not start, or the cluster of RAY_ADDRESS does not answer: {why.strip()}; "
            "nothing was ingested. Start it, or use --engine local"
        )


@dataclass
class Basket:
    """What a worker collects in place of a collection and a ledger."""

    card: EncoderCard
    stored: dict[str, str]
    """Payload digests of what the collection has already, of the items in question."""
    before: list[Row] = field(default_factory=list)
    shards: list[bytes] = field(default_factory=list)
    updates: list[Item] = field(default_factory=list)
    written: list[Row] = field(default_factory=list)

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """See `Sink.known`."""
        return {id: self.stored[id] for id in ids if id in self.stored}

    def put(self, entries: Sequence[Entry]) -> None:
        """See `Sink.put`."""
        self.shards.append(make_shard_bytes(entries, self.card))

    def update(self, items: Sequence[Item]) -> None:
        """See `Sink.update`."""
        self.updates += items

    def of_sources(self, dataset: str, sources: Sequence[str]) -> list[Item]:
        """A worker replaces nothing."""
        return []

    def remove(self, ids: Sequence[str]) -> None:
        """See `of_sources`."""

    def build(self) -> BuildReport:
        """A worker builds nothing."""
        raise StoreError("a worker has no index to build; the driver builds it")

    def close(self) -> None:
        """See `Sink.close`."""

    def rows(self) -> list[Row]:
        """See `Ledger.rows`."""
        return self.before

    def write(self, rows: Iterable[Row]) -> None:
        """See `Ledger.write`."""
        self.written += rows

    def mark_unbuilt(self) -> None:
        """See `Ledger.mark_unbuilt`; the driver does it."""


@dataclass(frozen=True)
class Yield:
    """What a share of the work gave."""

    shards: list[bytes]
    updates: list[Item]
    rows: list[Row]
    report: Report


def ingest_on_ray(
    tasks: Sequence[Task],
    card: EncoderCard,
    reference: str,
    sink: Sink,
    report: Report,
    ledger: Ledger,
    *,
    reports: Path | None = None,
    progress: OnProgress | None = None,
) -> None:
    """Ingest over a Ray cluster: the one that `RAY_ADDRESS` names, or one of this machine.

    A worker that dies is replaced by Ray, and its share is done again.

    Args:
        tasks: What to ingest.
        card: Card of the encoder.
        reference: What loads it on a worker.
        sink: Where entries go.
        report: Counts of all workers are added to it.
        ledger: States of sources.
        reports: Folder for the reports of slides, seen by every worker.
        progress: Told how far the run is, after each share.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        NoCluster: it does not start or answer.
    """
    import ray

    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
        except Exception as error:  # Ray raises nothing narrower
            raise NoCluster(str(error)) from error
    remote_plan = ray.remote(ids_of)
    remote_work = ray.remote(work)
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    before = {(row.path, row.dataset): row for row in ledger.rows()}

    def started(share: list[Task]) -> Any:
        rows = _rows_of(share, before)
        ids = [*ray.get(remote_plan.remote(share)), *(id for row in rows for id in row.sample)]
        known = sink.known(ids) if ids else {}
        return remote_work.remote(share, card, reference, known, rows, reports)

    again = sum((str(task.path.resolve()), task.dataset) in before for task in tasks)
    if again:
        report.warnings.append(
            f"{again} files were ingested before; on a cluster, items that their annotations no "
            "longer name stay. `hemaseek ingest --engine local` removes them"
        )
    clock = Clock(report, len(tasks), progress)
    for given in _ahead(shares(tasks), started, ray.get, AHEAD * workers):
        take_in(given, sink, report, ledger)
        clock.tick(report.items)  # by the clock, not the sum of the workers' seconds
    clock.tick(report.items, last=True)


def shares(tasks: Sequence[Task], size: int = SHARE_TASKS) -> Iterator[list[Task]]:
    """Runs of tasks that one worker does; a source that a child reads is a share of its own."""
    plain: list[Task] = []
    for task in tasks:
        if child_reader(task) is not None:
            yield [task]
            continue
        plain.append(task)
        if len(plain) == size:
            yield plain
            plain = []
    if plain:
        yield plain


def ids_of(share: Sequence[Task]) -> list[str]:
    """The ids of the items that a share will give, where they are known without reading pixels."""
    found: list[str] = []
    for task in share:
        if child_reader(task) is None:
            read = plan_source(task)
            if not isinstance(read, Failure):
                found += [one.item.id for one in read.plan.planned]
    return found


def work(
    share: Sequence[Task],
    card: EncoderCard,
    reference: str,
    known: dict[str, str],
    before: list[Row],
    reports: Path | None = None,
) -> Yield:
    """Read and embed a share, on a worker."""
    from encoder.contract import EncoderError
    from encoder.registry import load
    from encoder.stains.stained import as_carded
    from ingest.pipeline.run import ingest
    from ingest.pipeline.work import How

    encoder = as_carded(load(reference), card, done=True)
    if encoder.card.fingerprint != card.fingerprint:
        raise EncoderError(
            f"on this worker {reference!r} is encoder {encoder.card.fingerprint}, the collection "
            f"wants {card.fingerprint}; install the same weights on every worker"
        )
    basket = Basket(card, known, before)
    done = ingest(
        share,
        encoder,
        basket,
        ledger=basket,  # type: ignore[arg-type]  # the four calls that a run makes
        how=How(workers=1, reports=reports),
    )
    return Yield(basket.shards, basket.updates, basket.written, done)


def take_in(given: Yield, sink: Sink, report: Report, ledger: Ledger) -> None:
    """Store what a worker gave: items first, then the states of their sources."""
    if given.shards or given.updates:
        ledger.mark_unbuilt()
    for shard in given.shards:
        sink.put(list(Shard(shard).entries()))
    if given.updates:
        sink.update(given.updates)
    ledger.write(given.rows)
    report.add(given.report)


def _rows_of(share: Sequence[Task], before: dict[tuple[str, str], Row]) -> list[Row]:
    keys = [(str(task.path.resolve()), task.dataset) for task in share]
    return [before[key] for key in keys if key in before]


def _ahead(
    things: Iterable[Any], begin: Callable[[Any], Any], end: Callable[[Any], Any], most: int
) -> Iterator[Any]:
    """Begin things, as many ahead as allowed, and give their ends in order."""
    under_way: list[Any] = []
    for thing in things:
        under_way.append(begin(thing))
        if len(under_way) >= most:
            yield end(under_way.pop(0))
    for one in under_way:
        yield end(one)

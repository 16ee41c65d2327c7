"""The storing step of a run: shards, changed metadata and ledger rows, written in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ingest.pipeline.ledger import Ledger, Row
from ingest.pipeline.sink import Sink
from ingest.sources.report import Report
from search.library.shards import Entry
from search.schemas.items import Item

WRITES_AHEAD = 2
"""Shards that may wait for the sink while the encoder goes on."""


class Storing:
    """Writes on a thread of its own, and counts in the report what became durable.

    The ledger learns of a source with or after the shard that holds its last item, never before.
    """

    def __init__(self, sink: Sink, ledger: Ledger | None, report: Report, shard_items: int) -> None:
        self._sink = sink
        self._ledger = ledger
        self._report = report
        self._shard_items = shard_items
        self._thread = ThreadPoolExecutor(1, "ingest-write")
        self._under_way: deque[Future[None]] = deque()
        self._entries: list[Entry] = []
        self._rows: list[Row] = []

    def add(self, entry: Entry) -> None:
        """One more entry of the shard under way."""
        self._entries.append(entry)

    def add_row(self, row: Row) -> None:
        """One more source that is whole, for the ledger."""
        self._rows.append(row)

    def close_full_shard(self) -> None:
        """At the end of a source: write the shard if it has enough items."""
        if len(self._entries) >= self._shard_items:
            self._close_shard()

    def update(self, items: Sequence[Item]) -> None:
        """New metadata for stored items."""
        if items:
            self._submit(lambda: self._update(items))

    def finish(self) -> None:
        """Write what is left; everything is durable when it returns."""
        self._close_shard()
        while self._under_way:
            self._under_way.popleft().result()

    def stop(self) -> None:
        """End the thread; what was not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _close_shard(self) -> None:
        entries, rows = self._entries, self._rows
        if entries or rows:
            self._entries, self._rows = [], []
            self._submit(lambda: self._store(entries, rows))

    def _submit(self, write: Callable[[], None]) -> None:
        while len(self._under_way) >= WRITES_AHEAD:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(write))

    def _store(self, entries: Sequence[Entry], rows: Sequence[Row]) -> None:
        if entries:
            self._mark_unbuilt()
            self._sink.put(entries)
            self._report.stored += len(entries)
            self._report.padded += sum(1 for entry in entries if "padded" in entry.notes)
        if rows and self._ledger is not None:  # only now: what they say is durable
            self._ledger.write(rows)

    def _update(self, items: Sequence[Item]) -> None:
        self._mark_unbuilt()
        self._sink.update(items)
        self._report.updated += len(items)

    def _mark_unbuilt(self) -> None:
        if self._ledger is not None:
            self._ledger.mark_unbuilt()

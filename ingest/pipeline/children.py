"""The sources of a run that are read in expendable child processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ingest.pipeline.ledger import Row
from ingest.pipeline.reading import reason
from ingest.pipeline.streaming import Came, Ended, Opened, Stamp, Stream, opened_in_order
from ingest.pipeline.work import Work
from ingest.sources.report import Failure
from ingest.sources.source import Planned, Source, Task, child_reader

MOST_THREADS = 8
"""Threads of one child: where there are fewer slides than cores, several decode one slide."""


class ChildSources:
    """Reads slides and photographs; those that the ledger knows as done are not opened."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def steps(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Sources that children read; one whose child died is read once more."""
        work = self._work
        threads = max(1, min(MOST_THREADS, work.workers // max(1, len(tasks))))
        sources = opened_in_order(
            work.readers, lambda task: self._open(task, threads), tasks, self._not_read
        )
        again: list[Opened] = []
        while tasks or again:
            stream = Stream(
                self._work.readers,
                self._choose,
                min(self._work.workers, 8),
                self._work.how.timeout_s,
            )
            sources = iter(again) if again else sources
            tasks, again = [], []
            for event in stream.read(sources):
                if isinstance(event, Came):
                    work.feed(work.states.of(event.opened.task), event.pictures)
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
            row = self._work.states.before(task)
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
        return (
            len(self._work.sink.known(list(row.sample))) == len(row.sample) if row.sample else True
        )

    def _not_read(self, task: Task, failure: Failure | None) -> None:
        """A source that no child has to open."""
        row, report = self._work.states.before(task), self._work.report
        if failure is None and row is not None:
            report.sources += 1
            report.skipped += 1
            report.unchanged += row.items
        elif failure is not None and row is not None and failure.reason == _before_too(row):
            report.failures.append(failure)
            report.sources += 1
            report.quarantined += 1
        elif failure is not None:
            self._work.states.fail(task, failure)

    def _choose(self, opened: Opened, planned: Sequence[Planned]) -> list[int]:
        """Which items of a child's answer are new; those that changed are updated."""
        self._work.states.of(opened.task).plan(planned)
        self._work.given(opened.task, opened.source, planned)
        stored = self._work.choosing.stored(planned)
        choice = self._work.choosing.choose(str(opened.task.path), planned, stored)
        self._work.storing.update(choice.changed)
        return choice.fresh

    def _ended(self, event: Ended) -> None:
        """A source that a child has read, or failed to."""
        opened = event.opened
        state = self._work.states.of(opened.task)
        state.row = replace(
            state.row,
            recipe=opened.recipe,
            size=opened.stamp.size,
            mtime_ns=opened.stamp.mtime_ns,
            source=opened.source.id,
            attempts=state.row.attempts + opened.attempts,
        )
        self._keep_summary(opened)
        self._work.remark(str(opened.task.path), opened.remark)
        self._work.report.sources += 1
        self._work.given(opened.task, opened.source, ())
        if event.failure is not None:
            self._work.incomplete(opened.task, opened.source)
            self._work.report.failures.append(event.failure)
            state.fail(event.failure.reason)
        state.ended = True
        self._work.states.finish(state)

    def _keep_summary(self, opened: Opened) -> None:
        summary = opened.summary
        if summary is None:
            return
        line = f"{opened.task.path}: {summary.text}"
        if self._work.how.reports is not None:
            where = summary.write(self._work.how.reports, f"{opened.source.id}-{opened.recipe}")
            line += f"; {where}"
        self._work.report.slides.append(line)
        self._work.report.warnings += [
            f"{opened.task.path}: {warning}" for warning in summary.warnings
        ]


def _before_too(row: Row) -> str:
    return (
        f"quarantined after {row.attempts} attempt{'s' * (row.attempts != 1)}: {row.reason} "
        "(`hemaseek quarantine --retry` reads it again)"
    )

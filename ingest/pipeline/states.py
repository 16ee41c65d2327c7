"""What becomes of each source of a run, and the row of the ledger that says so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingest.pipeline.ledger import SAMPLE, Ledger, Row
from ingest.sources.report import Failure, Report
from ingest.sources.source import Planned, Task


@dataclass
class State:
    """A source under way: finished once it was read to its end and no picture of it waits."""

    path: str
    row: Row
    waiting: int = 0
    """Pictures handed on and not yet among the entries."""
    ended: bool = False
    items: int = 0
    sample: list[str] = field(default_factory=list)

    def plan(self, planned: Sequence[Planned]) -> None:
        """Count items that the source gives."""
        self.items += len(planned)
        self.sample += [one.item.id for one in planned[: SAMPLE - len(self.sample)]]

    def fail(self, reason: str) -> None:
        """Set the source aside, for a reason in words."""
        self.row = replace(self.row, state="quarantined", reason=reason)


class States:
    """The sources under way, and what the ledger knew of each before.

    Args:
        ledger: Where the states of earlier runs are; `None` for none.
        report: Counts sources, and takes failures.
        finished: Called with the row of each source that is finished, where it says something new.
    """

    def __init__(
        self, ledger: Ledger | None, report: Report, finished: Callable[[Row], None]
    ) -> None:
        rows = [] if ledger is None else ledger.rows()
        self._before = {(row.path, row.dataset): row for row in rows}
        self._holders = Counter(row.source for row in rows)
        """How many paths named each source."""
        self._report = report
        self._finished = finished
        self._under_way: dict[str, State] = {}
        self._folders: dict[Path, Path] = {}
        """Folders with their links followed, by their paths as they came."""

    def before(self, task: Task) -> Row | None:
        """What the ledger knew of a source when the run began; safe in any thread."""
        if not self._before:
            return None
        return self._before.get((self._absolute(task.path), task.dataset))

    def replaced_source(self, task: Task, source: str) -> str | None:
        """The source that a path named before, where it was another and no other path has it."""
        before = self.before(task)
        if before is None or before.source in {"", source}:
            return None
        return None if self._holders[before.source] > 1 else before.source

    def of(self, task: Task) -> State:
        """The state of a source, begun if it is new."""
        path = str(task.path)
        if path not in self._under_way:
            before = self.before(task)
            attempts = 1 if before is None or before.state == "done" else before.attempts + 1
            where = self._absolute(task.path)
            row = Row(path=where, dataset=task.dataset, state="done", attempts=attempts)
            self._under_way[path] = State(path, row)
        return self._under_way[path]

    def _absolute(self, path: Path) -> str:
        """`absolute`, following the links of each folder once: that takes as long as reading."""
        if os.path.islink(path):  # noqa: PTH114 (a `Path` raises where a file cannot be looked at)
            return absolute(path)
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = Path(absolute(path.parent))
        return str(folder / path.name)

    def embedded(self, path: str) -> None:
        """One picture of a source is among the entries, or was refused by the encoder."""
        state = self._under_way.get(path)
        if state is not None:
            state.waiting -= 1
            self.finish(state)

    def fail(self, task: Task, failure: Failure, *, last: bool = True) -> None:
        """A source, or with `last=False` a part of it, that could not be read."""
        self._report.failures.append(failure)
        self._report.sources += last
        state = self.of(task)
        state.fail(failure.reason)
        state.ended = last
        self.finish(state)

    def finish(self, state: State) -> None:
        """Write down a source that has ended and of which no picture waits; else do nothing."""
        if not state.ended or state.waiting or self._under_way.pop(state.path, None) is None:
            return
        row = replace(state.row, items=state.items, sample=tuple(state.sample))
        before = self._before.get((row.path, row.dataset))
        if row.state == "quarantined":
            self._report.quarantined += 1
        if row.state != "done" or before is None or _content(before) != _content(row):
            self._finished(row)


def absolute(path: Path) -> str:
    """The path by which the ledger knows a file."""
    return os.path.realpath(path)


def _content(row: Row) -> tuple[object, ...]:
    """What of a row is worth writing again; not the run, nor the attempts of an equal end."""
    return (row.state, row.recipe, row.size, row.mtime_ns, row.source, row.reason, row.items)

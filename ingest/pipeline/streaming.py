"""The half of a run that reads through children: slides and photographs, a batch at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoder.contract import RGB
from ingest.pipeline.reading import Picture, in_order, reason
from ingest.sandbox import messages
from ingest.sandbox.messages import Batch, Failed, Finished, SourceDied
from ingest.sandbox.pool import ReaderPool
from ingest.sources.report import Failure
from ingest.sources.source import ChildReader, Planned, Source, Summary, Taken, Task
from search.library.shards import make_thumbnail

TRIES = 2
"""How often a file is read whose reader died: the second time it is not an accident."""


@dataclass(frozen=True)
class Stamp:
    """By what a file is known to be the one that was read."""

    size: int = 0
    mtime_ns: int = 0

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp of a file.

        Raises:
            OSError: it is not there.
        """
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns)


@dataclass
class Opened:
    """A source that is about to be read by a child."""

    task: Task
    reader: ChildReader
    source: Source
    job: messages.Task
    stamp: Stamp
    recipe: str
    attempts: int = 0
    """How often a child died over it in this run."""
    summary: Summary | None = None
    remark: str = ""
    """What a person should know of how it was decoded."""
    items: int = 0
    """Items that came so far, known ones among them."""


@dataclass(frozen=True)
class Came:
    """Fresh pictures of a source, cut and with thumbnails."""

    opened: Opened
    pictures: list[Picture]


@dataclass(frozen=True)
class Ended:
    """A source that was read to its end, or failed."""

    opened: Opened
    failure: Failure | None = None
    again: bool = False
    """Whether it is worth reading once more."""


Choose = Callable[[Opened, Sequence[Planned]], list[int]]
"""Which of the planned items are fresh, by position."""


@dataclass
class Stream:
    """Reads sources through children; what comes is given in the order in which it comes."""

    threads: ThreadPoolExecutor
    """Where thumbnails are made."""
    choose: Choose
    """Called in the caller's thread, before any pixel is copied."""
    children: int
    timeout_s: float
    ahead: int = 4
    """Batches that may wait for their thumbnails."""
    _waiting: deque[tuple[Opened, Future[list[Picture]] | Ended]] = field(default_factory=deque)

    def read(self, sources: Iterable[Opened]) -> Iterator[Came | Ended]:
        """Every batch, and one end of each source."""
        by_job: dict[int, Opened] = {}

        def jobs() -> Iterator[messages.Task]:
            for opened in sources:
                by_job[id(opened.job)] = opened
                yield opened.job

        with ReaderPool(self.children, timeout_s=self.timeout_s) as pool:
            for event in pool.read_all(jobs()):
                opened = by_job[id(event.task)]
                self._heard(opened, event)
                if not isinstance(event, Batch):
                    del by_job[id(event.task)]
                while len(self._waiting) > self.ahead:
                    yield self._next()
        while self._waiting:
            yield self._next()

    def _next(self) -> Came | Ended:
        opened, what = self._waiting.popleft()
        return what if isinstance(what, Ended) else Came(opened, what.result())

    def _heard(self, opened: Opened, event: messages.Event) -> None:
        match event:
            case Batch():
                self._batch(opened, event)
            case Finished():
                self._waiting.append((opened, Ended(opened, _empty(opened))))
            case Failed():
                died = isinstance(event.error, SourceDied)
                again = died and "took more than" not in event.error.reason
                failure = Failure(str(opened.task.path), _why(event.error, opened))
                again = again and opened.attempts + 1 < TRIES
                self._waiting.append((opened, Ended(opened, failure, again)))

    def _batch(self, opened: Opened, batch: Batch) -> None:
        taken: Taken = opened.reader.take(opened.source, opened.task.facts, batch)
        opened.summary = taken.summary or opened.summary
        opened.remark = taken.remark or opened.remark
        if not taken.planned:
            return
        opened.items += len(taken.planned)
        fresh = self.choose(opened, taken.planned)
        if fresh:
            # The child reuses this memory for its next answer.
            images = [np.array(taken.images[at]) for at in fresh]
            planned = [taken.planned[at] for at in fresh]
            work = self.threads.submit(_pictures, str(opened.task.path), planned, images)
            self._waiting.append((opened, work))


def opened_in_order(
    threads: ThreadPoolExecutor,
    open_one: Callable[[Task], Opened | Failure | None],
    tasks: Iterable[Task],
    not_read: Callable[[Task, Failure | None], None],
) -> Iterator[Opened]:
    """Look at sources ahead of the children: their ids are hashes of whole files.

    Args:
        threads: Where that is done.
        open_one: A failure for a source that cannot be read, `None` for one that is done.
        tasks: The sources.
        not_read: Called with each source that gives nothing to read.
    """
    for task, opened in in_order(threads, open_one, tasks, lambda _: 1 / 8):
        if isinstance(opened, Opened):
            yield opened
        else:
            not_read(task, opened)


def _pictures(path: str, planned: Sequence[Planned], images: Sequence[RGB]) -> list[Picture]:
    last = len(images) - 1
    return [
        Picture(one, image, make_thumbnail(image), path, ends=at == last)
        for at, (one, image) in enumerate(zip(planned, images, strict=True))
    ]


def _why(error: messages.SourceError, opened: Opened) -> str:
    at = f" (at: {error.note})" if error.note and isinstance(error, SourceDied) else ""
    before = f"; {opened.items} items of it came before that" if opened.items else ""
    return f"{reason(error)}{at}{before}"


def _empty(opened: Opened) -> Failure | None:
    """A source without one item is a failure that its summary names."""
    why = None if opened.summary is None else opened.summary.failure
    return None if why is None else Failure(str(opened.task.path), why)

"""The reading half of a run: plan a source, drop what is known, cut the rest, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from encoder.contract import RGB
from ingest.sources.marked import CropError
from ingest.sources.report import Failure
from ingest.sources.source import Plan, Planned, Source, Task
from search.library.shards import make_thumbnail

PART_ITEMS = 256
"""Items that one worker cuts at a time; a source with more is cut in parts."""
SHARD_ITEMS = 1024
"""Items of a shard: enough to make fsync cheap, few enough to lose little when killed."""
WINDOW_TASKS, WINDOW_ITEMS, WINDOW_BYTES = 256, 1024, 64 << 20
"""How many sources are looked up in the sink at once; their bytes stay in memory meanwhile."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Read:
    """A source after planning."""

    task: Task
    source: Source
    plan: Plan
    nbytes: int


@dataclass(frozen=True)
class Job:
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
class Picture:
    """One item, cut."""

    planned: Planned
    image: RGB
    thumbnail: bytes
    path: str
    ends: bool = False
    last: bool = False


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[T], R],
    things: Iterable[T],
    share: Callable[[T], float],
    at_once: float = 0.0,
) -> Iterator[tuple[T, R]]:
    """Work on things in a pool, ahead of the caller, and give the results in order.

    Args:
        pool: Where the work is done.
        work: Called once for each thing.
        things: Taken only when there is room.
        share: How much of the room a thing takes up until it is given; there is room for 1.
        at_once: A thread is handed things that take up so much of the room together, because
            handing over takes as long as reading a small picture; each by itself where it is 0.
    """
    waiting: deque[tuple[Sequence[T], float, Future[list[R]]]] = deque()
    taken = 0.0
    for group, part in _groups(things, share, at_once):
        taken += part
        waiting.append((group, part, pool.submit(_each, work, group)))
        while waiting and taken >= 1:
            done, part, future = waiting.popleft()
            taken = taken - part if waiting else 0.0
            yield from zip(done, future.result(), strict=True)
    while waiting:
        done, _, future = waiting.popleft()
        yield from zip(done, future.result(), strict=True)


def _groups(
    things: Iterable[T], share: Callable[[T], float], at_once: float
) -> Iterator[tuple[Sequence[T], float]]:
    """Consecutive things that together take up `at_once`, and how much they take up."""
    group: list[T] = []
    taken = 0.0
    for thing in things:
        group.append(thing)
        taken += share(thing)
        if taken >= at_once:
            yield group, taken
            group, taken = [], 0.0
    if group:
        yield group, taken


def _each(work: Callable[[T], R], things: Sequence[T]) -> list[R]:
    return [work(thing) for thing in things]


def windows(reads: Iterator[Read]) -> Iterator[list[Read]]:
    """Consecutive sources, as many as are looked up in the sink at once."""
    group: list[Read] = []
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


def plan_source(task: Task) -> Read | Failure:
    """Read a source and say which items it has; a failure in its place if it cannot be."""
    source = Source(task.path, task.dataset)
    try:
        plan = task.reader.plan(source, task.facts)
    except Exception as error:  # one bad file must not stop the run
        return Failure(str(task.path), reason(error))
    nbytes = len(source.content) if "content" in source.__dict__ else 0
    return Read(task, source, plan, nbytes)


def cut_job(job: Job) -> list[Picture] | Failure:
    """Cut the pictures of a job; a failure in their place if the source cannot be decoded."""
    path = str(job.task.path)
    try:
        images = list(job.task.reader.cut(job.source, job.planned))
        if len(images) != len(job.planned):
            raise CropError(f"{len(job.planned)} pictures were planned, {len(images)} came")
        last = len(images) - 1
        return [
            Picture(one, image, make_thumbnail(image), path, *_ends(job, at == last))
            for at, (one, image) in enumerate(zip(job.planned, images, strict=True))
        ]
    except Exception as error:  # one bad file must not stop the run
        return Failure(path, reason(error))
    finally:
        if job.last:  # the other sources of its window may wait long
            job.source.forget()


def _ends(job: Job, last: bool) -> tuple[bool, bool]:
    return (job.ends and last, job.last and last)


def parts(read: Read, fresh: Sequence[Planned]) -> Iterator[Job]:
    """A source's items in runs that one worker cuts; it stays in one shard if it can."""
    large = len(fresh) > SHARD_ITEMS  # a slide: it cannot stay whole
    for at in range(0, len(fresh), PART_ITEMS):
        last = at + PART_ITEMS >= len(fresh)
        part = fresh[at : at + PART_ITEMS]
        boxes = [one.item.bbox for one in part]
        wide, high = read.source.size if None in boxes else (0, 0)
        nbytes = sum(3 * (wide * high if box is None else box.w * box.h) for box in boxes)
        yield Job(read.task, read.source, part, nbytes, ends=large or last, last=last)


def reason(error: Exception) -> str:
    """Why a file failed, in words."""
    if type(error).__module__.split(".")[0] in {"ingest", "encoder", "search"}:
        return str(error)  # ours are sentences
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"

"""The sources of a run that threads of this process read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from ingest.pipeline.embedding import AHEAD_BYTES
from ingest.pipeline.reading import Job, Read, cut_job, in_order, parts, plan_source, windows
from ingest.pipeline.work import Work
from ingest.sources.report import Failure
from ingest.sources.source import Task
from search.schemas.items import Item

PLANNED, SMALL = 8, 64 << 10
"""Small sources that a thread plans before it hands them over, and how many bytes a small one has.
What was planned stays in memory with its bytes, some of it decoded."""
NO_CELL = "no cell is marked in it"
"""Why an image that was read gives no item."""


class PlainSources:
    """Plans sources, drops what is stored, and cuts the rest, in the order of the tasks."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def steps(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Read them, a step at a time."""
        work = self._work
        at_once = 1 / (4 * work.workers)
        plans = in_order(work.readers, plan_source, tasks, partial(plan_share, at_once), at_once)
        jobs = self._jobs(windows(self._readable(plans)))
        for job, pictures in in_order(work.readers, cut_job, jobs, self._share, at_once):
            if isinstance(pictures, Failure):
                work.incomplete(job.task, job.source)
                work.states.fail(job.task, pictures, last=job.last)
            else:
                work.remark(str(job.task.path), job.source.remark)
                state = work.states.of(job.task)
                state.ended = job.last
                work.feed(state, pictures)
            yield

    def _share(self, job: Job) -> float:
        """How much of what may be cut ahead a job takes up."""
        items = len(job.planned) / (2 * self._work.how.batch_size)
        return max(min(items, 1 / (2 * self._work.workers)), job.nbytes / AHEAD_BYTES)

    def _readable(self, plans: Iterator[tuple[Task, Read | Failure]]) -> Iterator[Read]:
        for task, read in plans:
            if isinstance(read, Failure):
                self._work.states.fail(task, read)
            else:
                self._work.report.failures += read.plan.failures
                if read.plan.failures:
                    self._work.incomplete(task, read.source)
                elif not read.plan.planned:
                    left = self._work.report.left_out
                    left[NO_CELL] = left.get(NO_CELL, 0) + 1
                yield read

    def _jobs(self, groups: Iterator[Sequence[Read]]) -> Iterator[Job]:
        """What has to be cut, after dropping what is stored."""
        work = self._work
        for group in groups:
            stored = work.choosing.stored([one for read in group for one in read.plan.planned])
            changed: list[Item] = []
            for read in group:
                planned = read.plan.planned
                choice = work.choosing.choose(str(read.task.path), planned, stored)
                changed += choice.changed
                state = work.states.of(read.task)
                work.given(read.task, read.source, planned)
                state.plan(planned)
                state.row = replace(state.row, source=read.source.id)
                if choice.fresh:
                    yield from parts(read, [planned[at] for at in choice.fresh])
                else:
                    work.report.sources += 1
                    state.ended = True
                    work.states.finish(state)
            work.storing.update(changed)


def plan_share(at_once: float, task: Task) -> float:
    """How much of what may be planned ahead a source takes up: less than `at_once` if small."""
    try:
        small = os.stat(task.path).st_size <= SMALL  # noqa: PTH116 (in half the time of a Path's)
    except OSError:  # planning it says what is wrong
        small = True
    return at_once / PLANNED if small else at_once

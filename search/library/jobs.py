"""Work that takes longer than a call: started, watched, stopped, and remembered on disk."""

from __future__ import annotations

import gc
import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from search.disk.atomic import write_durably
from search.errors import BadQuestion, NoSuchItem, StoreError
from search.library.versions import now
from search.schemas.versions import ENDED, JobState

KEPT = 200
"""Ended jobs that are remembered."""


class NoSuchJob(LookupError):
    """A job that is not known, or was forgotten."""

    def __init__(self, id: str) -> None:
        super().__init__(f"no job {id!r}; it may have been forgotten")


class JobStopped(RuntimeError):
    """Raised in the work of a job that was cancelled."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work, as it stands."""

    id: str
    kind: str
    """What it does: `reindex`, `evaluation`."""
    collection: str
    """Whose readers may see it."""
    state: JobState = "queued"
    done: int = 0
    total: int = 0
    """0 while it is not known."""
    made: str = field(default_factory=now)
    ended: str | None = None
    result: Mapping[str, Any] | None = None
    """What came out, where it is done."""
    error: str | None = None
    """Why it failed."""


class Run:
    """A job, as its own work sees it."""

    def __init__(self, progress: Callable[[int, int], None], stopping: threading.Event) -> None:
        self._progress, self._stopping = progress, stopping

    def progress(self, done: int, total: int) -> None:
        """Report how far it is."""
        self._progress(done, total)

    def checked_progress(self, done: int, total: int) -> None:
        """As `progress`; raises `JobStopped` if it was cancelled."""
        self.check()
        self.progress(done, total)

    def stop(self) -> bool:
        """Whether it was cancelled."""
        return self._stopping.is_set()

    def check(self) -> None:
        """Raises `JobStopped` if it was cancelled."""
        if self.stop():
            raise JobStopped("cancelled")


Work = Callable[[Run], Mapping[str, Any]]
"""Returns what JSON can express."""


class Jobs:
    """The jobs of one service: one at a time, in the order that they came.

    The beginning and the end of each are on disk; a job that the process did not live to end
    is `interrupted` after a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[str, Job] = {}
        self._stopping: dict[str, threading.Event] = {}
        self._waiting: queue.Queue[tuple[str, Work] | None] = queue.Queue()
        self._turn = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._remember()

    def start(self, kind: str, collection: str, work: Work, id: str = "") -> Job:
        """Queue work; it begins when those before it have ended.

        Args:
            kind: What it does.
            collection: Whose readers may see it.
            work: Called in its turn.
            id: To call it by; a new one if empty.

        Raises:
            RuntimeError: the service is stopping.
        """
        job = Job(id=id or uuid4().hex, kind=kind, collection=collection)
        with self._turn:
            if self._closed:
                raise RuntimeError("the service is stopping and takes no more jobs")
            self._stopping[job.id] = threading.Event()
            self._keep(job)
            self._forget()
            self._waiting.put((job.id, work))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work_on, name="jobs", daemon=True)
                self._thread.start()
        return job

    def get(self, id: str) -> Job:
        """A job, as it stands.

        Raises:
            NoSuchJob: it is not known.
        """
        with self._turn:
            if id not in self._jobs:
                raise NoSuchJob(id)
            return self._jobs[id]

    def all(self) -> list[Job]:
        """Every job that is remembered, oldest first."""
        with self._turn:
            return sorted(self._jobs.values(), key=lambda job: (job.made, job.id))

    def stop(self, id: str) -> Job:
        """Ask a job to stop; it ends when its work next looks. One that has ended stays as it is.

        Raises:
            NoSuchJob: it is not known.
        """
        job = self.get(id)
        if (event := self._stopping.get(id)) is not None:
            event.set()
        return job

    def close(self, wait_s: float = 30.0) -> None:
        """Stop what runs and take no more; what does not stop in time goes with the process."""
        with self._turn:
            self._closed = True
            for event in self._stopping.values():
                event.set()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(wait_s)

    def _work_on(self) -> None:
        while (next := self._waiting.get()) is not None:
            self._one(*next)
            del next  # what the work kept in memory is free before the next job comes,
            gc.collect()  # what refers to itself too: parts of a version that no longer serves

    def _one(self, id: str, work: Work) -> None:
        stopping = self._stopping[id]
        if stopping.is_set():
            self._end(id, "stopped")
            return
        self._change(id, state="running")
        try:
            result = dict(work(Run(partial(self._reported, id), stopping)))
            json.dumps(result, allow_nan=False)
        except Exception as error:  # a job must not take the others with it
            state: JobState = "stopped" if stopping.is_set() else "failed"
            self._end(id, state, error=_words(error))
        else:
            self._end(id, "done", result=result)

    def _reported(self, id: str, done: int, total: int) -> None:
        self._change(id, done=done, total=total)

    def _change(self, id: str, **changes: Any) -> Job:
        with self._turn:
            self._jobs[id] = job = replace(self._jobs[id], **changes)
            return job

    def _end(self, id: str, state: JobState, **changes: Any) -> None:
        with self._turn:
            self._stopping.pop(id, None)
            self._keep(self._change(id, state=state, ended=now(), **changes))

    def _keep(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._folder.mkdir(parents=True, exist_ok=True)
        write_durably(self._folder / f"{job.id}.json", json.dumps(asdict(job)).encode())

    def _forget(self) -> None:
        ended = [job for job in self.all() if job.state in ENDED]
        for job in ended[: max(0, len(ended) - KEPT)]:
            del self._jobs[job.id]
            (self._folder / f"{job.id}.json").unlink(missing_ok=True)

    def _remember(self) -> None:
        for path in self._folder.glob("*.json"):
            try:
                job = Job(**json.loads(path.read_bytes()))
            except (ValueError, TypeError):
                continue  # written by another version; nothing depends on it
            if job.state not in ENDED:
                job = replace(job, state="interrupted", error="the service ended before it did")
            self._jobs[job.id] = job


def _words(error: Exception) -> str:
    """What went wrong; a sentence of our own needs no name of a class before it."""
    if isinstance(error, BadQuestion | NoSuchItem | StoreError):
        return str(error)
    return f"{type(error).__name__}: {error}"

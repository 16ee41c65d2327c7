"""Work on many images, shared among worker processes: one for each core but the caller's own.

Threads are of no use to it: what is measured on a cell is a few hundred short steps of NumPy and
OpenCV, and between them the interpreter has one core at a time.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from encoder.contract import RGB, batches

MOST = 16
"""Processes that work at once, the caller's among them."""
SHARE = 4
"""Images that are worth a worker: so many take as long as sending them does not."""
PATIENCE_S = 60.0
"""A worker that is silent for so much longer than the caller's own share took is given up."""
RESTARTS = 3
"""Pools that broke after which the caller goes on alone."""
Job = Callable[..., Any]
"""A function of a module, of one image and whatever else is passed on."""
log = logging.getLogger(__name__)


class Workers:
    """A pool of processes beside the caller, started when there is first enough work for it.

    The processes live as long as this object, and end with the caller's process however that
    ends. Where one dies or hangs, the caller does the work itself. Safe to call from several
    threads, and in a fork of the process, which works alone.
    """

    def __init__(self, cores: int | None = None) -> None:
        self.cores = cores or _cores()
        self._pool: Any = None
        self._broken = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def map(self, job: Job, images: Sequence[RGB], *more: Any) -> list[Any]:
        """What `job(image, *more)` gives for each image, in their order.

        Args:
            job: A function that can be imported by its name.
            images: Each height x width x 3, uint8.
            more: Further arguments of the job, the same for every image.

        Raises:
            Exception: whatever the job raises.
        """
        wanted = min(self.cores, len(images) // SHARE)
        forked = self._pid != os.getpid()  # the pool is the parent's
        if wanted < 2 or forked or self._broken >= RESTARTS:
            return _each(job, images, more)
        from loky import BrokenProcessPool

        mine, *theirs = batches(images, -(-len(images) // wanted))
        pool = self._opened()
        try:
            waiting = [pool.submit(_each, job, share, more) for share in theirs]
            found = _each(job, mine, more)
            for share in waiting:
                found += share.result(PATIENCE_S)
            return found
        except (BrokenProcessPool, TimeoutError) as error:
            log.warning("a process that measures images was lost: %r", error)
            self._broken += 1
            self.close()
            return _each(job, images, more)

    def _opened(self) -> Any:
        from loky import ProcessPoolExecutor

        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self.cores - 1,
                    initializer=_begin,
                    initargs=(self._pid,),
                    env=dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
                )
            return self._pool

    def close(self) -> None:
        """End the processes; they are started again when there is work for them."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(kill_workers=True)


def _each(job: Job, images: Sequence[RGB], more: tuple[Any, ...]) -> list[Any]:
    return [job(image, *more) for image in images]


def _cores() -> int:
    """As many as this process may use, or as `OMP_NUM_THREADS` says."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    allowed = len(os.sched_getaffinity(0))
    return min(MOST, int(named) if named.isdigit() and int(named) else allowed)


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

"""Work on many images, shared by child processes: one for each core but the caller's own.

Threads are of no use to it: what is measured on a cell is a few hundred short steps of NumPy and
OpenCV, and between them the interpreter has one core at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, cast

from encoder.contract import RGB, batches

MOST = 16
"""Processes that work at once, the caller's among them."""
SHARE = 4
"""Images that are worth a child: so many take as long as telling it does not."""
PATIENCE_S = 60.0
"""A child that is silent for so much longer than the caller's own share took is given up."""
RESTARTS = 3
"""Deaths after which a crew goes on without children."""
Job = Callable[..., Any]
"""A function of a module, of one image and whatever else is passed on."""
log = logging.getLogger(__name__)


class Crew:
    """Children that work beside the caller, started when there is first enough for them to do.

    They live as long as the crew, and go when their parent does, however that ends. A share
    whose child dies is done by the caller. Safe to call from several threads: whoever comes
    while the crew is busy works alone.
    """

    def __init__(self, cores: int | None = None) -> None:
        self.cores = cores or _cores()
        self._children: list[_Child] = []
        self._deaths = 0
        self._turn = threading.Lock()
        self._pid = os.getpid()

    def map(self, job: Job, images: Sequence[RGB], *more: Any) -> list[Any]:
        """What `job(image, *more)` gives for each image, in their order.

        Args:
            job: A function that can be imported by its name.
            images: Each height x width x 3, uint8.
            more: What else the job is told, the same for every image.

        Raises:
            Exception: whatever the job raises.
        """
        wanted = min(self.cores, len(images) // SHARE)
        forked = self._pid != os.getpid()  # its children are the parent's to speak to
        if wanted < 2 or forked or not self._turn.acquire(blocking=False):
            return [job(image, *more) for image in images]
        try:
            helping = self._started(wanted - 1)
            mine, *theirs = batches(images, -(-len(images) // (len(helping) + 1)))
            try:
                for child, share in zip(helping, theirs, strict=False):
                    child.give(job, share, more)
                found = [job(image, *more) for image in mine]
                for child, share in zip(helping, theirs, strict=False):
                    found += self._taken(child) or [job(image, *more) for image in share]
            except BaseException:  # nobody will take what the others find
                self._dismiss()
                raise
            return found
        finally:
            self._turn.release()

    def _started(self, wanted: int) -> list[_Child]:
        while len(self._children) < wanted and self._deaths < RESTARTS:
            self._children.append(_Child())
        return self._children[:wanted]

    def _taken(self, child: _Child) -> list[Any] | None:
        """What a child found; `None` if it died or failed, and the caller is to try itself."""
        try:
            return child.take()
        except (OSError, EOFError, pickle.UnpicklingError):
            self._deaths += 1
            log.warning("a process that measures images died (exit %s)", child.stop())
            self._children.remove(child)
            return None

    def close(self) -> None:
        """Send the children home; they are started again when there is work for them."""
        with self._turn:
            self._dismiss()

    def _dismiss(self) -> None:
        for child in self._children:
            child.stop()
        self._children.clear()


class _Child:
    """One child, as its parent sees it."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        alone = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        place = {"PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = subprocess.Popen(  # noqa: S603 our own module, a number as argument
            [sys.executable, "-P", "-m", "encoder.features.workers", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ | alone | place,
        )
        theirs.close()
        weakref.finalize(self, _end, self._pipe, self._process, os.getpid())

    def give(self, job: Job, images: Sequence[RGB], more: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):  # a death shows when the answer is taken
            self._pipe.send((job, list(images), more))

    def take(self) -> list[Any] | None:
        if not self._pipe.poll(PATIENCE_S):
            raise EOFError
        return cast("list[Any] | None", self._pipe.recv())

    def stop(self) -> int | None:
        _end(self._pipe, self._process, os.getpid())
        return self._process.returncode


def _end(pipe: Connection, process: subprocess.Popen[bytes], parent: int) -> None:
    pipe.close()
    if os.getpid() != parent:  # a fork of it that ends
        return
    process.kill()
    process.wait()


def _cores() -> int:
    """As many as this process may use, or as `OMP_NUM_THREADS` says."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    allowed = len(os.sched_getaffinity(0))
    return min(MOST, int(named) if named.isdigit() and int(named) else allowed)


def main(arguments: Sequence[str]) -> None:
    """What a child does, until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    pipe = Connection(int(arguments[0]))
    while True:
        try:
            job, images, more = pipe.recv()
        except EOFError:
            return
        try:
            found = [job(image, *more) for image in images]
        except Exception:  # the parent does it again and raises in its own words
            found = None
        pipe.send(found)


if __name__ == "__main__":
    main(sys.argv[1:])

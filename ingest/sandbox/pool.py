"""A pool of child processes that read sources."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import cast

import numpy as np

from encoder.contract import RGB
from ingest.sandbox.memory import Block
from ingest.sandbox.messages import (
    Batch,
    Event,
    Failed,
    Finished,
    PoolClosed,
    SourceDied,
    SourceRefused,
    Task,
)
from search.disk.closing import Closing

GIB = 1024**3


LIMIT_BYTES = 4 * GIB
"""Address space of a child; numpy, scipy and OpenSlide take about 1 GiB of it unused."""


TIMEOUT_S = 120.0
"""Seconds that one piece may take."""


START_S = 60.0
"""Seconds more that a new child may take to start: a busy machine is no fault of the file."""


SLOTS = 3
"""Batches that a child may be ahead of its reader."""


RETIRE_AFTER = 500
"""Tasks after which a child is replaced, so that what libraries leak stays small."""


MESSAGE_BYTES = 64 * 1024 * 1024
"""A longer message from a child is a fault."""


class _Child:
    """One child process, as its parent sees it."""

    def __init__(self, limit_bytes: int, slots: int) -> None:
        self.limit_bytes = limit_bytes
        self.blocks = [Block.new() for _ in range(slots)]
        self.task: Task | None = None
        self.ready = False
        self.tasks = 0
        self.note = ""
        self.since = time.monotonic()
        self.pipe, theirs = Pipe()
        fds = [theirs.fileno(), *(block.fd for block in self.blocks)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
        env |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "MALLOC_ARENA_MAX": "2"}
        self.process = subprocess.Popen(  # noqa: S603 our own module, numbers as arguments
            [sys.executable, "-P", "-m", "ingest.sandbox.child", str(limit_bytes), *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=fds,
            env=env,
        )
        theirs.close()

    def start(self, task: Task) -> None:
        """Hand over a task."""
        self.task, self.note = task, ""
        self.since = time.monotonic() + (0.0 if self.ready else START_S)
        self.tasks += 1
        with contextlib.suppress(OSError):  # a death shows when the answer is read
            self.pipe.send_bytes(json.dumps(task.__dict__).encode())

    def give(self, slot: int) -> None:
        """Return a slot; the clock restarts, because the child may have waited for it."""
        self.since = time.monotonic()
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(json.dumps({"slot": slot}).encode())

    def images(self, slot: int, shapes: Sequence[Sequence[int]]) -> Sequence[RGB]:
        """The arrays of a slot, checked against the sizes that the child sent."""
        sizes = [prod(shape) for shape in shapes]
        if any(side < 0 for shape in shapes for side in shape):
            raise ValueError("a shape with a negative side")
        flat = np.frombuffer(self.blocks[slot].view(sum(sizes), write=False), np.uint8)
        if len({tuple(shape) for shape in shapes}) == 1:
            return cast(Sequence[RGB], flat.reshape(len(shapes), *shapes[0]))
        ends = np.cumsum([0, *sizes])
        return [
            flat[a:b].reshape(*shape)
            for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)
        ]

    def peak_bytes(self) -> int:
        """The largest resident size so far, from the system's accounts."""
        with contextlib.suppress(OSError, ValueError):
            text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            return int(text.split("VmHWM:")[1].split()[0]) * 1024 if "VmHWM:" in text else 0
        return 0

    def stop(self) -> int:
        """Kill, reap, close everything; returns the exit status."""
        with contextlib.suppress(OSError):
            self.process.kill()
        status = self.process.wait()
        self.pipe.close()
        for block in self.blocks:
            block.close()
        return status


class ReaderPool(Closing):
    """A few children that read files, replaced when they die."""

    def __init__(
        self,
        workers: int = 1,
        *,
        limit_bytes: int = LIMIT_BYTES,
        timeout_s: float = TIMEOUT_S,
        slots: int = SLOTS,
    ) -> None:
        if workers < 1 or slots < 1:
            raise ValueError(f"workers and slots must be at least 1, got {workers} and {slots}")
        self.workers = workers
        self.limit_bytes = limit_bytes
        self.timeout_s = timeout_s
        self.slots = slots
        self.peak_bytes = 0
        """Largest resident size of any child when it had ended a task; 0 where it is not known."""
        self.deaths = 0
        """Children that died or were stopped over a file, so far."""
        self._idle: list[_Child] = []
        self._busy: list[_Child] = []
        self._closed = False

    def close(self) -> None:
        """Stop every child; safe to call twice."""
        self._closed = True
        for child in [*self._idle, *self._busy]:
            child.stop()
        self._idle, self._busy = [], []

    def read(self, task: Task) -> Iterator[Batch]:
        """Read one file.

        Raises:
            SourceDied: the child died over it, or took too long.
            SourceRefused: the reader refused it.
        """
        for event in self.read_all([task]):
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Batch):
                yield event

    def read_all(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Read many files with all children at once; events come as they happen.

        Every task ends in exactly one `Finished` or `Failed`. One `read_all` (or `read`) at a
        time: the children belong to the one that runs.
        """
        if self._closed:
            raise PoolClosed
        if self._busy:
            raise RuntimeError("this pool is already reading; open a second ReaderPool")
        rest = iter(tasks)
        try:
            while True:
                while len(self._busy) < self.workers and (task := next(rest, None)) is not None:
                    child = self._idle.pop() if self._idle else self._new()
                    child.start(task)
                    self._busy.append(child)
                if not self._busy:
                    return
                yield from self._step()
        finally:
            for child in self._busy:  # the caller left early: a half-read child is no use
                child.stop()
            self._busy = []

    def _new(self) -> _Child:
        return _Child(self.limit_bytes, self.slots)

    def _step(self) -> Iterator[Event]:
        """Wait for one or more children, and pass on their messages."""
        by_pipe = {child.pipe: child for child in self._busy}
        left = min(child.since for child in self._busy) + self.timeout_s - time.monotonic()
        spoke = wait(list(by_pipe), timeout=max(0.0, left))
        for pipe in spoke:
            yield from self._heard(by_pipe[cast(Connection, pipe)])
        if not spoke:
            now = time.monotonic()
            for child in [c for c in self._busy if now - c.since >= self.timeout_s]:
                yield self._lost(child, f"took more than {self.timeout_s:g} s and was stopped")

    def _heard(self, child: _Child) -> Iterator[Event]:
        try:
            message = json.loads(child.pipe.recv_bytes(MESSAGE_BYTES))
            kind = message["kind"]
            task = cast(Task, child.task)
            if kind == "piece":
                slot, shapes = message["slot"], message["shapes"]
                images = child.images(slot, shapes) if slot is not None else []
                facts = message["facts"]
        except (EOFError, OSError):
            yield self._lost(child, None)
            return
        except (ValueError, KeyError, TypeError, IndexError):
            yield self._lost(child, "answered with nonsense and was stopped")
            return
        child.since, child.ready = time.monotonic(), True
        if kind == "note":
            child.note = str(message["note"])
        elif kind == "piece":
            yield Batch(task, facts, images)
            if slot is not None:
                child.give(slot)
        elif kind == "started":
            pass
        elif kind == "refused":
            self._rest(child, retire=bool(message["retire"]))
            yield Failed(task, SourceRefused(task.source, message["reason"], child.note))
        else:
            self._rest(child)
            yield Finished(task)

    def _rest(self, child: _Child, retire: bool = False) -> None:
        self._busy.remove(child)
        child.task = None
        self.peak_bytes = max(self.peak_bytes, child.peak_bytes())
        if retire or child.tasks >= RETIRE_AFTER:
            child.stop()
        else:
            self._idle.append(child)

    def _lost(self, child: _Child, reason: str | None) -> Failed:
        """A child that is gone, or has to go."""
        self.deaths += 1
        self._busy.remove(child)
        task = cast(Task, child.task)
        if reason is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(5.0)
            reason = death(child.stop(), child.limit_bytes)
        else:
            child.stop()
        return Failed(task, SourceDied(task.source, f"the reader {reason}", child.note))


def death(status: int, limit_bytes: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with status {status} in the middle of the file"
    name = signal.Signals(-status).name
    if -status == signal.SIGABRT:
        return (
            f"gave up ({name}): the file is damaged, or its header asks for more than "
            f"{limit_bytes / GIB:.1f} GiB"
        )
    if -status in {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}:
        return f"crashed ({name}): the file is damaged in a way that its library does not survive"
    if -status == signal.SIGKILL:
        return "was killed (SIGKILL), often for want of memory; look at the machine, then retry"
    return f"was ended by {name}"

"""Expendable child processes: every file from outside is opened in one, never in the service.

A damaged slide can make OpenSlide abort its process, and a bomb can ask for a terabyte. So
opening and reading happen in children that may die. A child has an address-space limit, no core
dumps (they would hold patient pixels), silent stdout and stderr (libraries quote metadata there),
and answers in JSON and pixels alone, never in pickles.

In use, one file at a time::

    with ReaderPool(workers=2) as pool:
        for batch in pool.read(Task(reader="ingest.sandbox.images:read", source="a.png",
        args={...})):
            batch.facts                    # what the reader says, JSON
            batch.images                   # arrays, valid until the next batch: copy what stays
        # raises SourceDied or SourceRefused, for this file alone; the pool goes on

and for a run, over many files with every child busy::

    for event in pool.read_all(tasks):     # `tasks` is taken lazily, a few ahead
        match event:
            case Batch():      ...         # event.task says whose it is
            case Finished():   ...         # the task is done
            case Failed():     ...         # event.error.reason, event.error.note

A reader is a function `reader(source, **args)` of a module of `ingest` that yields `Piece`s:
facts, images or both, or a `note` (what it is at), which comes back in the error if the child
dies and which restarts the clock. Images travel through a block of shared memory per slot;
a child that is `slots` batches ahead waits, so memory is bounded by workers x slots x batch.
The time-out is for one piece, counted from when the child is up, and only while it has a free
slot to work on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.image import ImageError
from search.disk.closing import Closing

JSON = dict[str, Any]
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
READER_PREFIX = "ingest."
MESSAGE_BYTES = 64 * 1024 * 1024
"""A longer message from a child is a fault."""


class SourceError(Exception):
    """A file that gave nothing, or not all; the run goes on without it."""

    def __init__(self, source: str, reason: str, note: str = "") -> None:
        super().__init__(reason)
        self.source = source
        self.reason = reason
        """One sentence without names from the file."""
        self.note = note
        """What the reader was at, if it said so."""


class SourceDied(SourceError):
    """The child that read the file died or had to be stopped."""


class SourceRefused(SourceError):
    """The reader refused the file, in words."""


class Refusal(Exception):
    """What a reader raises to refuse its file; the text reaches reports, so it quotes nothing."""


class PoolClosed(RuntimeError):
    """A pool that was closed cannot read."""

    def __init__(self) -> None:
        super().__init__("this pool of readers is closed; open a new one with ReaderPool(...)")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file (or one bundle) for one reader."""

    reader: str
    """`module:function`, a module of `ingest`."""
    source: str
    """Path, or any name that the reader understands."""
    args: JSON = field(default_factory=dict)
    """Keyword arguments, JSON values only."""
    threads: int = 1
    """How many threads the reader may decode with, where it can use more than one."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a reader yields."""

    facts: JSON = field(default_factory=dict)
    """JSON values only, nothing that names a patient."""
    images: Sequence[RGB] | NDArray[np.uint8] = ()
    """Arrays of any shapes, uint8; an n x h x w x 3 stack counts as n images."""
    note: str = ""
    """If set, the piece is only a sign of life; it carries nothing else."""


@dataclass
class Batch:
    """Facts and images of one piece, in the parent."""

    task: Task
    facts: JSON
    images: Sequence[RGB]
    """Read-only views of shared memory, valid until the next event; a stack where all images
    have one shape (n x h x w x 3), else a list."""


@dataclass(frozen=True)
class Finished:
    """A task that was read to its end."""

    task: Task


@dataclass(frozen=True)
class Failed:
    """A task that ended in an error."""

    task: Task
    error: SourceError


Event = Batch | Finished | Failed


class Block:
    """One slot of shared memory, without a name, so that nothing is left behind by a kill."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def new(cls) -> Block:
        """An empty block that may grow but never shrink."""
        if not hasattr(os, "memfd_create"):
            with tempfile.TemporaryFile() as file:
                return cls(os.dup(file.fileno()))
        fd = os.memfd_create("hemaseek", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a shrink would kill the parent
        return cls(fd)

    def view(self, size: int, *, write: bool) -> memoryview:
        """The first `size` bytes; the writer makes the block longer where needed."""
        have = os.fstat(self.fd).st_size
        if write and have < size:
            have = -(-size // 2**20) * 2**20
            os.ftruncate(self.fd, have)
        if have < size:
            raise EOFError("the block is shorter than was said")
        if self._map is None or len(self._map) < size:
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._map = mmap.mmap(self.fd, have, access=access)  # the old one lives by its views
        return memoryview(self._map)[:size]

    def close(self) -> None:
        """Let go; views that are still held keep their memory."""
        self._map = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


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
        """The arrays of a slot, checked against what was said about them."""
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
        """Kill, reap, let go of everything; returns the exit status."""
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
        """Largest resident size of any child when it had ended a task; 0 where it is not told."""
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
        """Wait for one or more children, and pass on what they say."""
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


# ---------------------------------------------------------------- the child's side


def main(arguments: Sequence[str]) -> None:
    """Serve tasks until the parent is gone: `limit_bytes pipe_fd block_fd...`."""
    limit_bytes, pipe_fd, *block_fds = map(int, arguments)
    limit(limit_bytes)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    desk = _Desk(Connection(pipe_fd), [Block(fd) for fd in block_fds])
    _DESKS[:] = [desk]
    with contextlib.suppress(_ParentGone):
        desk.started()
        while True:
            desk.serve(desk.next_task())


def limit(limit_bytes: int) -> None:
    """Bound the address space of this process, and forbid core dumps."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no address-space limit
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def _watch(parent: int) -> None:
    """Leave when the parent is gone, even from within a library that hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class _ParentGone(BaseException):
    """The other end of the pipe is closed; no reader may catch this."""


class _Desk:
    """The child's end of the pipe."""

    def __init__(self, pipe: Connection, blocks: Sequence[Block]) -> None:
        self.pipe = pipe
        self.blocks = blocks
        self.free = deque(range(len(blocks)))
        self.lent: dict[int, int] = {}
        """Slots that a reader writes into, by address."""
        self.threads = 1
        """What the present task allows."""

    def started(self) -> None:
        """Tell the parent that its clock may run now."""
        self._say({"kind": "started"})

    def next_task(self) -> Task:
        """Wait for work."""
        while True:
            message = self._hear()
            if "slot" not in message:
                return Task(**message)
            self.free.append(message["slot"])

    def serve(self, task: Task) -> None:
        """Run one reader to its end, and say how it ended."""
        self.free.extend(self.lent.values())  # of a reader that stopped half-way
        self.lent.clear()
        self.threads = max(1, task.threads)
        try:
            for piece in reader_of(task.reader)(task.source, **task.args):
                self.send(piece)
        except MemoryError:
            self._refuse("reading it needs more memory than a reader is allowed", retire=True)
        except (Refusal, ImageError) as error:
            self._refuse(str(error))
        except FileNotFoundError:
            self._refuse("there is no such file any more")
        except PermissionError:
            self._refuse("the file may not be read; give this user the permission")
        except Exception as error:  # whatever a library raises over a damaged file
            # Its text may quote the file's metadata, so only its kind is passed on.
            self._refuse(f"it cannot be read: {type(error).__name__} in {task.reader}", retire=True)
        else:
            self._say({"kind": "finished"})

    def _refuse(self, reason: str, retire: bool = False) -> None:
        self._say({"kind": "refused", "reason": reason, "retire": retire})

    def _say(self, message: JSON) -> None:
        text = json.dumps(message, allow_nan=False).encode()
        try:
            self.pipe.send_bytes(text)
        except OSError as error:
            raise _ParentGone from error

    def _hear(self) -> JSON:
        try:
            return dict(json.loads(self.pipe.recv_bytes()))
        except (EOFError, OSError) as error:
            raise _ParentGone from error

    def send(self, piece: Piece) -> None:
        """Hand a piece to the parent."""
        if piece.note:
            self._say({"kind": "note", "note": piece.note})
            return
        slot, shapes = None, [list(image.shape) for image in piece.images]
        if isinstance(piece.images, np.ndarray):
            slot = self.lent.pop(piece.images.ctypes.data, None)
        if shapes and slot is None:
            slot = self._slot()
            view = np.frombuffer(
                self.blocks[slot].view(sum(prod(s) for s in shapes), write=True), np.uint8
            )
            at = 0
            for image, shape in zip(piece.images, shapes, strict=True):
                view[at : at + prod(shape)].reshape(shape)[...] = image
                at += prod(shape)
        self._say({"kind": "piece", "facts": piece.facts, "slot": slot, "shapes": shapes})

    def lend(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """A free slot as an array, so that what is decoded into it needs no copy."""
        slot = self._slot()
        flat = np.frombuffer(self.blocks[slot].view(prod(shape), write=True), np.uint8)
        self.lent[flat.ctypes.data] = slot
        return flat.reshape(shape)

    def _slot(self) -> int:
        while not self.free:
            self.free.append(self._hear()["slot"])
        return self.free.popleft()


_DESKS: list[_Desk] = []
"""The desk of this process, if it is a child."""


def stack(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Room for a batch: count x height x width x 3, in shared memory where there is a parent.

    A `Piece` whose images are this array, or its first few images, is sent without a copy; the
    array must not be touched afterwards. A reader takes one at a time.
    """
    shape = (count, height, width, 3)
    return _DESKS[0].lend(shape) if _DESKS else np.empty(shape, np.uint8)


def give_back(images: NDArray[np.uint8]) -> None:
    """Return the room of a batch that is not sent after all."""
    if _DESKS:
        _DESKS[0].free.append(_DESKS[0].lent.pop(images.ctypes.data))


def threads() -> int:
    """How many threads the reader that runs here may decode with."""
    return _DESKS[0].threads if _DESKS else 1


def reader_of(name: str) -> Any:
    """The function that a task names."""
    module, _, function = name.partition(":")
    if not module.startswith(READER_PREFIX) or not function:
        raise Refusal(f"{name!r} is no reader; a reader is module:function of ingest")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise Refusal(f"there is no reader {name!r}") from error


def drill(
    source: str, what: Literal["echo", "abort", "hang", "exit", "hoard"] = "echo", n: int = 1
) -> Iterator[Piece]:
    """A fire drill: read nothing, and misbehave as asked, to prove that the pool survives it."""
    yield Piece(note=what)
    for number in range(n):
        images = [np.full((4 + number, 5, 3), number, np.uint8)]
        yield Piece(facts={"source": source, "number": number}, images=images)
    if what == "abort":
        os.abort()
    if what == "exit":
        os._exit(7)
    if what == "hang":
        time.sleep(3600)
    if what == "hoard":
        hoard = [np.empty(2**28, np.uint8) for _ in range(4096)]
        yield Piece(facts={"held": len(hoard)})


if __name__ == "__main__":
    # As `ingest.child`, not as `__main__`: readers import Piece and Refusal from there.
    import_module("ingest.sandbox.child").main(sys.argv[1:])

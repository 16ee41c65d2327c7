"""Expendable child processes: every file from outside is opened in one, never in the service.

A damaged slide can make OpenSlide abort its process, and a forged header can demand a terabyte. So
opening and reading happen in children that may die. A child has an address-space limit, no core
dumps (they would hold patient pixels), silent stdout and stderr (libraries quote metadata there),
and answers in JSON and pixels alone, never in pickles.

In use, one file at a time::

    with ReaderPool(workers=2) as pool:
        for batch in pool.read(Task(reader="ingest.slides.deepzoom:describe", source="a.svs")):
            batch.facts                    # what the reader found, JSON
            batch.images                   # arrays, valid until the next batch: copy what stays
        # raises SourceDied or SourceRefused, for this file alone; the pool goes on

and for a run, over many files with every child busy::

    for event in pool.read_all(tasks):     # `tasks` is taken lazily, a few ahead
        match event:
            case Batch():      ...         # event.task is the task
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
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import import_module
from math import prod
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoder.image import ImageError
from ingest.sandbox.memory import Block
from ingest.sandbox.messages import (
    JSON,
    Piece,
    Refusal,
    Task,
)

READER_PREFIX = "ingest."


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
        """Run one reader to its end, and report how it ended."""
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
    """A fire drill: misbehave in the named way, to prove that the pool survives it."""
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

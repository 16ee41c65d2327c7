"""Locks on files that the kernel drops when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from search.errors import StoreBusy


def lock_or_refuse(path: Path, busy: Callable[[str], str]) -> IO[str]:
    """Lock a file at once; the lock lasts until the handle is closed or the process ends.

    Args:
        path: The file; made where it is missing. The process is named in it.
        busy: Words the refusal, given `process 123` (or `another process`).

    Raises:
        StoreBusy: another handle has it locked.
    """
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise StoreBusy(busy(holder)) from error
    handle.truncate(0)
    handle.write(f"process {os.getpid()}")
    handle.flush()
    return handle


def lock_version(folder: Path, name: str) -> IO[str]:
    """Lock the folder of a version of collection `name`: no other process opens or removes it.

    Raises:
        StoreBusy: it is open elsewhere; names the process.
    """
    return lock_or_refuse(
        folder / "held.lock",
        lambda holder: (
            f"collection {name!r} is in use by {holder}; stop that process, "
            "or work through the service that owns the library"
        ),
    )


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Lock a file while this lasts, after all who waited before."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

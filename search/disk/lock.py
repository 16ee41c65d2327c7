"""A lock on a folder that names its holder and dies with it."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from search.errors import StoreBusy


class FolderLock:
    """Exclusive hold of a folder by one handle of one process.

    The kernel drops it when the process ends, however it ends, so there is no stale lock to
    remove by hand. The file says who holds it, for the message to whoever comes second.
    """

    def __init__(self, folder: Path, what: str) -> None:
        """Take the lock.

        Args:
            folder: An existing folder; the lock is its file `lock`.
            what: What the folder holds, for the message: `collection 'cells'`.

        Raises:
            StoreBusy: another handle holds it; names the process where it is known.
        """
        path = folder / "lock"
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            self._fd = None
            raise StoreBusy(
                f"{what} at {folder} is held by {_holder(path)}; stop it, "
                "or send the request through the service that owns the collection"
            ) from error
        note = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(note).encode(), 0)

    def release(self) -> None:
        """Let go; safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text())
        pid, since = int(note["pid"]), str(note["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if pid == os.getpid():
        return f"another handle in this process (pid {pid}) since {since}"
    return f"process {pid} since {since}"


def hold(path: Path, name: str) -> IO[str]:
    """Hold a lock file until it is closed or the process ends.

    Raises:
        StoreBusy: another process holds it; the message names that process.
    """
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise StoreBusy(
            f"collection {name!r} is in use by {holder}; stop that process, "
            "or work through the service that owns the library"
        ) from error
    handle.truncate(0)
    handle.write(f"process {os.getpid()}")
    handle.flush()
    return handle

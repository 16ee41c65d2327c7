"""Free space, and errors of a disk as sentences: an engine that maps files dies of a full one."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.errors import StoreDown

RESERVE = 256 << 20
"""Bytes that stay free below a library. The embedded engine maps sparse files of 32 MiB, and a
page of them that finds no room ends the process (SIGBUS), service and all."""
COPIES = 4
"""A shard is written once and its content a few times more: index, log of the engine, catalogue."""
WHY = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the quota of this user is used up; make room",
    errno.EROFS: "the disk is read-only; make it writable",
    errno.EACCES: "the permission to write is missing; give it",
    errno.EPERM: "the permission to write is missing; give it",
    errno.EFBIG: "a file would be larger than this process may write; raise the limit",
    errno.EIO: "the disk reports a fault; check it",
}
"""The cause of an error of the system, and what to do."""


class DiskTrouble(StoreDown):
    """The disk does not take what has to be written; what was written before is whole."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"{folder} cannot be written: {why}, then run the same command (or send the same "
            "request): it goes on where it stopped. What was stored before is whole"
        )


def need_room(folder: Path, nbytes: int = 0) -> None:
    """Look for room before so many bytes are written.

    Raises:
        DiskTrouble: less than `RESERVE` would stay free.
    """
    free, need = _free(folder), RESERVE + nbytes
    if free < need:
        raise DiskTrouble(
            folder,
            f"only {free >> 20:,} MiB are free and {-(-need >> 20):,} are needed; make room",
        )


@contextmanager
def in_disk_words(folder: Path) -> Iterator[None]:
    """Turn disk errors of the system and SQLite into `DiskTrouble`; the rest passes."""
    try:
        yield
    except OSError as error:
        why = WHY.get(error.errno or 0)
        if why is None:
            raise
        raise DiskTrouble(folder, why) from error
    except sqlite3.OperationalError as error:
        code = (error.sqlite_errorcode or 0) & 0xFF
        named = {
            sqlite3.SQLITE_FULL: errno.ENOSPC,
            sqlite3.SQLITE_READONLY: errno.EROFS,
            sqlite3.SQLITE_IOERR: errno.EIO,
            sqlite3.SQLITE_CANTOPEN: errno.EACCES,
        }
        if code not in named:
            raise
        what = named[code]
        if what == errno.EIO and _free(folder) < 1 << 20:  # SQLite says so of shared memory
            what = errno.ENOSPC
        raise DiskTrouble(folder, WHY[what]) from error


def try_to_write(folder: Path) -> None:
    """Write a few bytes and take them away again.

    Raises:
        DiskTrouble: that cannot be done.
    """
    with in_disk_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())


def _free(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize

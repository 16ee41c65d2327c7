"""Shared memory that passes pixels between processes."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile


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
            raise EOFError("the block is shorter than the message")
        if self._map is None or len(self._map) < size:
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._map = mmap.mmap(self.fd, have, access=access)  # the old one lives by its views
        return memoryview(self._map)[:size]

    def close(self) -> None:
        """Close it; views that are still used keep their memory."""
        self._map = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

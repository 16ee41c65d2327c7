"""Small disks, to be filled: mounted where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


class Disk:
    """A file system of its own in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, leave: int = 0) -> None:
        """Leave only so many bytes free."""
        left = shutil.disk_usage(self.folder).free - leave
        with (self.folder / "filler").open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), left)

    def free(self) -> None:
        """Take away what filled it."""
        (self.folder / "filler").unlink()

    def remount(self, option: str) -> None:
        """Make it larger (`size=`), read-only (`ro`) or writable (`rw`)."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Disk]:
    """A disk of so many MiB at a folder; skips the test where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    words = ["-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    done = mount and subprocess.run([mount, *words], capture_output=True, check=False)
    if not done or done.returncode:
        pytest.skip("a small disk cannot be mounted here: it needs root and tmpfs")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)

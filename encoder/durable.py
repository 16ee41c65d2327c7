"""Files that appear under their name whole and on the disk, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def left_behind(path: Path) -> list[Path]:
    """What `replacing` left beside `path` when it was killed; or what it writes at the moment."""
    return [*path.parent.glob(f".{escape(path.name)}.????????.part")]


def sync(path: Path) -> None:
    """What is in a file, or which files are in a folder, survives a power cut from here on.

    Nothing is done on Windows, where a folder cannot be opened.
    """
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A log of lines that is only ever added to: a line that a power cut tore is none."""

from __future__ import annotations

import os
from pathlib import Path

from encoder.durable import sync
from search.disk.atomic import write_durably


def whole_lines(path: Path, start: int = 0) -> bytes:
    """The bytes of a log from `start` to the end of its last whole line; none without a log."""
    try:
        with path.open("rb") as log:
            log.seek(start)
            content = log.read()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def append(path: Path, text: str) -> None:
    """Add whole lines; on the disk (fsync) when it returns. A torn last line is written over."""
    whole = len(whole_lines(path))
    with path.open("r+b" if path.exists() else "wb") as log:
        log.truncate(whole)
        log.seek(whole)
        log.write(text.encode())
        log.flush()
        os.fsync(log.fileno())
    if whole == 0:
        sync(path.parent)


def bring_back(content: bytes, path: Path) -> None:
    """Put a log of a snapshot where there is none, or into one that lacks lines.

    Lines that are there already stay; those that only the snapshot has come before them.
    """
    have = whole_lines(path)
    known = set(have.splitlines())
    lacking = [line for line in content.splitlines() if line not in known]
    if lacking:
        write_durably(path, b"".join(line + b"\n" for line in lacking) + have)

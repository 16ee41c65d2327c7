"""Files written durably: complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

LEFT_BEHIND = (".*.????????.tmp", ".*.????????.part")
"""Names of files that were being written; see `write_durably` and snapshots."""


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it exists whole or not at all, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(library: Path) -> None:
    """Remove what writes that were killed left beside the files of a library.

    Only for the process that owns the library, before it writes anything.
    """
    for folder in (".", "*", "*/*", "collections/*/versions/*", "collections/*/versions/*/*"):
        for pattern in LEFT_BEHIND:
            for path in library.glob(f"{folder}/{pattern}"):
                path.unlink(missing_ok=True)

"""Files written durably: complete or not at all."""

from __future__ import annotations

from pathlib import Path

from encoder.durable import replacing

LEFT_BEHIND = (".*.????????.tmp", ".*.????????.part")
"""Names of files that were being written; see `write_durably` and snapshots."""


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it exists whole or not at all, even after a power cut."""
    with replacing(path) as file:
        file.write(content)


def sweep(library: Path) -> None:
    """Remove what writes that were killed left beside the files of a library.

    Only for the process that owns the library, before it writes anything.
    """
    for folder in (".", "*", "*/*", "collections/*/versions/*", "collections/*/versions/*/*"):
        for pattern in LEFT_BEHIND:
            for path in library.glob(f"{folder}/{pattern}"):
                path.unlink(missing_ok=True)

"""Imports that the page begins: `hemaseek ingest` as a process of its own, beside the service.

The page reads no picture itself. What is uploaded is written into the folder `imported` of the
library, so that a later re-index finds it, and a folder is read where it lies; both need the page
to run on the machine that holds the library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from search.settings import Settings
from ui.look.tables import count

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
"""Endings of the pictures that are taken out of an upload."""
MOST_FILES = 20_000
MOST_BYTES = 4 << 30
"""Of an unpacked archive."""
SAMPLES = "sample-cells"
"""Folder of the drawn cells."""


class CannotImport(ValueError):
    """An import that cannot begin; the message says why, and what to do."""


@dataclass
class Running:
    """An import under way, or ended."""

    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def cancel(self) -> None:
        """End it; what was stored stays, and the same import continues later."""
        self.process.terminate()

    def result(self) -> tuple[str, str]:
        """What came of it in one sentence, and its tone (`good`, `warn`, `bad`); ask once."""
        out, err = _text(self.out), _text(self.err)
        report = _last_json(out)
        if report is None:
            lines = [line for line in err.splitlines() if line.strip()]
            why = lines[-1].removeprefix("error ") if lines else "it was cancelled"
            return f"Nothing was imported: {why}", "bad"
        stored, failed = int(str(report["stored"])), int(str(report["failed"]))
        words = f"{count(stored, 'item')} stored"
        if report.get("unchanged"):
            words += f", {int(str(report['unchanged'])):,} were there already"
        if failed:
            words += f"; {count(failed, 'file')} could not be read, see Rejected below"
        return f"{words}.", "warn" if failed else "good"


def here(settings: Settings) -> bool:
    """Whether the library of the service lies on this machine, where the page looks for it."""
    note = settings.library / "service.json"
    try:
        found: object = json.loads(note.read_text()).get("url")
    except (OSError, ValueError, AttributeError):
        return False
    return found == settings.url


def begin(path: Path, settings: Settings, options: Mapping[str, str]) -> Running:
    """Start `hemaseek ingest` on a file or folder.

    Args:
        path: What is imported.
        settings: Of the page: they name the service and the library.
        options: Of `hemaseek ingest`, by name without dashes; empty ones are left out.

    Raises:
        CannotImport: there is nothing at the path.
    """
    if not path.exists():
        raise CannotImport(
            f"there is nothing at {path} on the machine of the page; correct the path, or upload"
        )
    flags = [f"--{name}={value}" for name, value in options.items() if value]
    command = [sys.executable, "-m", "ui", "ingest", str(path), "--library", str(settings.library)]
    out, err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 (open as long as it runs)
    process = subprocess.Popen(  # noqa: S603 (our own command; its arguments are no shell's)
        [*command, *flags],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env={**os.environ, "HEMASEEK_SERVICE_URL": settings.url},
    )
    return Running(process, out, err)


def kept(files: Sequence[tuple[str, bytes]], settings: Settings, dataset: str, label: str) -> Path:
    """Write uploaded pictures, and those of a ZIP by its sub-folders, into the library's folder.

    Args:
        files: Name and bytes of each.
        settings: Of the page.
        dataset: Names the folder.
        label: Of pictures outside any sub-folder; empty for none.

    Raises:
        CannotImport: no picture among them, a damaged archive, or one that is too large.
    """
    folder = settings.library / "imported" / safe(dataset)
    written = 0
    for name, content in files:
        if name.lower().endswith(".zip"):
            written += _unpacked(name, content, folder)
        elif name.lower().endswith(PICTURES):
            _write(folder / safe(label) if label else folder, name, content)
            written += 1
    if not written:
        raise CannotImport(
            f"there is no picture among the files; expected {', '.join(PICTURES)}, or a ZIP of them"
        )
    return folder


def samples(settings: Settings) -> Path:
    """Draw sample cells into the library's folder; their manifest."""
    from ingest.samples.synthetic import write_library

    folder = settings.library / "imported" / SAMPLES
    return write_library(folder, patients=6, fields_per_patient=1, cells_per_label=2).manifest


def safe(name: str) -> str:
    """A name that is one part of a path and no hidden one."""
    kept = "".join(one if one.isalnum() or one in " .-_" else "_" for one in name).strip(" .")
    return kept[:80] or "unnamed"


def _unpacked(name: str, content: bytes, folder: Path) -> int:
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            members = [
                one
                for one in archive.infolist()
                if one.filename.lower().endswith(PICTURES) and "__MACOSX" not in one.filename
            ]
            size = sum(one.file_size for one in members)
            if len(members) > MOST_FILES or size > MOST_BYTES:
                raise CannotImport(
                    f"{name} holds {len(members):,} pictures of {size >> 20:,} MiB; at most "
                    f"{MOST_FILES:,} of {MOST_BYTES >> 20:,} MiB are unpacked here. Unpack it, and "
                    "import the folder"
                )
            for one in members:
                inside = [safe(part) for part in PurePosixPath(one.filename).parts[:-1]]
                _write(
                    folder.joinpath(*inside), PurePosixPath(one.filename).name, archive.read(one)
                )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise CannotImport(f"{name} cannot be unpacked: {error}") from error
    return len(members)


def _write(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / safe(Path(name).name)).write_bytes(content)


def _text(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def _last_json(text: str) -> dict[str, object] | None:
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "stored" in found:
            return found
    return None

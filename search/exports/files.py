"""An export as one file: what it is called, of which type it is, and its bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from search.exports import arrays, outlines
from search.exports.rows import Rows
from search.library.collection import Collection
from search.library.source_folders import SourceFolders
from search.schemas.exports import ExportFormat

ENDINGS: dict[ExportFormat, tuple[str, str]] = {
    "hdf5": (".h5", "application/x-hdf5"),
    "safetensors": (".safetensors", "application/octet-stream"),
    "h5ad": (".h5ad", "application/x-hdf5"),
    "geojson": (".geojson", "application/geo+json"),
    "dicom-sr": (".dcm", "application/dicom"),
}
"""Ending and media type of each format; several sources come as a ZIP of such files."""
ARRAYS: dict[ExportFormat, Callable[[Rows], bytes]] = {
    "hdf5": arrays.hdf5,
    "safetensors": arrays.safetensors,
    "h5ad": arrays.h5ad,
}


@dataclass(frozen=True)
class Exported:
    """One file."""

    name: str
    media_type: str
    content: bytes


def export(rows: Rows, format: ExportFormat, path_of: Callable[[str], Path | None]) -> Exported:
    """Rows as one file.

    Args:
        rows: What is exported.
        format: As what. Of `geojson` and `dicom-sr`, which belong to one image each, several
            sources come as a ZIP of files named by source.
        path_of: The file of an item, by its id, where it may be opened.

    Raises:
        BadQuestion: a package that is missing, or items that have no place in this format.
    """
    ending, media = ENDINGS[format]
    if format in ARRAYS:
        return Exported(f"{rows.collection}{ending}", media, ARRAYS[format](rows))
    files = outlines.geojson(rows) if format == "geojson" else outlines.dicom_sr(rows, path_of)
    if len(files) == 1:
        ((name, content),) = files.items()
        return Exported(name, media, content)
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return Exported(f"{rows.collection}-{format}.zip", "application/zip", out.getvalue())


def opener(collection: Collection, folders: SourceFolders) -> Callable[[str], Path | None]:
    """The file of a stored item, where it is known and may be opened."""

    def path_of(id: str) -> Path | None:
        entry = collection.rows.entry(id)
        path = None if entry is None or entry.path is None else Path(entry.path)
        return path if path is not None and folders.allow(path) else None

    return path_of

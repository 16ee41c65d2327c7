"""A tree of anything: slides, smear photographs, single images, and annotated sets within."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.layouts.scan import IMAGES, Layout, LayoutError, Scan
from ingest.sandbox import messages
from ingest.sandbox.messages import Piece, Refusal
from ingest.slides.source import SLIDES, SlideReader
from ingest.smears import source as fields
from ingest.smears.source import FieldReader, field_args
from ingest.sources.source import ChildReader, Facts, Source, Taken, recipe_of

SINGLE_PX = 400
"""An image whose shorter side is smaller shows one cell, a larger one a field, unless told: the
published sets of single cells have up to 400 pixels, fields from cameras 480 and more."""


@dataclass(frozen=True, kw_only=True)
class MixedReader(ChildReader):
    """Looks at a file in a child, and reads it as what it is."""

    slides: SlideReader = field(default_factory=SlideReader)
    """How slides are read."""
    fields: FieldReader = field(default_factory=FieldReader)
    """How photographs are read."""
    find: bool | None = None
    """Whether images that are no slides are searched for cells; `None`: by their size."""

    def recipe(self, facts: Facts) -> str:
        """See `ChildReader.recipe`."""
        inner = [self.slides.recipe(facts), self.fields.recipe(facts)]
        return recipe_of("mixed", 1, *inner, self.find)

    def job(self, path: Path, facts: Facts) -> messages.Task:
        """See `ChildReader.job`."""
        args = {
            "tiles": self.slides.job(path, facts).args,
            "cells": field_args(self.fields.finder, facts),
            "find": self.find,
            "stained": self.slides.stain is not None,
        }
        return messages.Task(reader="ingest.layouts.mixed:read", source=str(path), args=args)

    def take(self, source: Source, facts: Facts, batch: messages.Batch) -> Taken:
        """See `ChildReader.take`."""
        reader = self.fields if "cells" in batch.facts else self.slides
        return reader.take(source, facts, batch)


def mixed(scan: Scan) -> None:
    """Every slide and image of a tree; folders of a known layout are read in that layout."""
    reader = MixedReader(slides=scan.options.slides, find=scan.options.find)
    if scan.root.is_file():
        scan.add(scan.root, reader)
        return
    others: list[Path] = []
    for folder, files in _folders(scan):
        parts = _parts(files)
        for path in files:
            ending = path.suffix.lower()
            if path in parts:
                continue
            if ending in SLIDES or ending in IMAGES:
                scan.add(path, reader)
            else:
                others.append(path)
        if parts:
            scan.warn(f"{len(parts)} files in {folder} belong to slides beside them")
    scan.left_alone(others)


def slides(scan: Scan) -> None:
    """Every slide or image of a tree as a slide, or one such file."""
    if scan.root.is_file():
        scan.add(scan.root, scan.options.slides)
        return
    others: list[Path] = []
    for _, files in _folders(scan, plain=True):
        parts = _parts(files)
        for path in files:
            if path.suffix.lower() in SLIDES | IMAGES and path not in parts:
                scan.add(path, scan.options.slides)
            elif path not in parts:
                others.append(path)
    scan.left_alone(others)


def photographs(scan: Scan) -> None:
    """Every image of a tree is a smear photograph without annotations."""
    if scan.root.is_file():
        scan.add(scan.root, FieldReader())
        return
    others: list[Path] = []
    for _, files in _folders(scan, plain=True):
        for path in files:
            if path.suffix.lower() in IMAGES:
                scan.add(path, FieldReader())
            else:
                others.append(path)
    scan.left_alone(others)


def holds_slides(root: Path) -> bool:
    """Whether a path is a slide, or a folder with one somewhere."""
    if root.is_file():
        return root.suffix.lower() in SLIDES
    return any(
        Path(name).suffix.lower() in SLIDES for _, _, names in os.walk(root) for name in names
    )


def _folders(scan: Scan, plain: bool = False) -> Iterator[tuple[Path, list[Path]]]:
    """Folders with their visible files, in order; known layouts are read and passed over."""

    def refuse(error: OSError) -> None:
        raise LayoutError(f"cannot look into {error.filename}: {error.strerror}") from error

    known = [one for one in scan.known.values() if one.sure is not None and one.name != "mixed"]
    for where, names, files in os.walk(scan.root, onerror=refuse):
        folder = Path(where)
        slides_here = {Path(name).stem for name in files if name.lower().endswith(".mrxs")}
        names[:] = sorted(
            n for n in names if not n.startswith(".") and n != "__MACOSX" and n not in slides_here
        )
        for name in [] if plain else list(names):
            inner = folder / name
            sure = [one for one in known if one.sure is not None and one.sure(inner)]
            if len(sure) == 1:
                names.remove(name)
                _within(scan, inner, sure[0])
        yield folder, [folder / name for name in sorted(files) if not name.startswith(".")]


def _within(scan: Scan, inner: Path, layout: Layout) -> None:
    """Read a folder of a known layout as if it had been named."""
    found = Scan(inner, scan.options, known=scan.known)
    try:
        layout.read(found)
    except LayoutError as error:
        scan.fail(inner, str(error))
        return
    scan.tasks += found.tasks
    scan.report.failures += found.report.failures
    scan.report.warnings += [f"{inner} was read as {layout.name}", *found.report.warnings]


def _parts(files: list[Path]) -> set[Path]:
    """Files that belong to another: images of a VMS, all but the first file of a DICOM series."""
    indexes = [path for path in files if path.suffix.lower() in {".vms", ".vmu"}]
    parts = {
        path
        for index in indexes
        for path in files
        if path.suffix.lower() in IMAGES and path.name.startswith(index.stem)
    }
    dicom = [path for path in files if path.suffix.lower() == ".dcm"]
    if len(dicom) > 1:
        met: Counter[bytes] = Counter()
        for path in dicom:
            uid = series(path)
            if uid is not None and met[uid]:
                parts.add(path)
            met[uid or b""] += 1
    return parts


def series(path: Path) -> bytes | None:
    """The series a DICOM file belongs to: the raw value of its SeriesInstanceUID.

    Only bytes near the start are searched for the tag (explicit VR, little endian); nothing is
    parsed. The value is compared and never kept.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(1 << 16)
    except OSError:
        return None
    at = head.find(b"\x20\x00\x0e\x00UI")
    if at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].rstrip(b"\x00 ") if 0 < length <= 64 else None


# ---------------------------------------------------------------- the child's side


def read(
    source: str, tiles: dict[str, Any], cells: dict[str, Any], find: bool | None, stained: bool
) -> Iterator[Piece]:
    """Reader: a slide as tiles; else an image as the cells found in it, or as one item.

    Raises:
        Refusal: it is none of them, or nothing could be had from it.
    """
    import openslide

    from encoder.image import frame_of
    from ingest.slides import tiling

    path = Path(source)
    if path.suffix.lower() in SLIDES or openslide.OpenSlide.detect_format(source) is not None:
        yield from tiling.tiles(source, **tiles)
        return
    if stained:
        raise Refusal(
            "stain normalisation is for slides, and this is a photograph; ingest it into another "
            "collection, without --stain-norm"
        )
    if find is None:
        try:
            find = min(frame_of(path).size) >= SINGLE_PX
        except Exception:  # say it in the words of the one decoder, below
            find = False
    if not find:
        yield from fields.whole(source)
        return
    try:
        yield from fields.cells(source, **cells)
    except Refusal as error:
        raise Refusal(
            f"{error} OpenSlide does not take it for a slide either; if it is one, ingest it with "
            "--layout slides --um-per-px and its micrometres per pixel"
        ) from error

"""A tree of anything: slides, smear photographs, single images, and annotated sets within."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.layouts.scan import IMAGES, Files, Layout, LayoutError, Scan
from ingest.sandbox import messages
from ingest.sandbox.messages import Piece, Refusal
from ingest.slides.source import SLIDES, SlideReader
from ingest.slides.tiff import is_slide
from ingest.smears import source as fields
from ingest.smears.source import FieldReader, is_field
from ingest.sources.source import ChildReader, Facts, Source, Taken, recipe_of

LOOKED_AT = 16
"""Images of a tree whose size is looked at."""


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
            "cells": self.fields.args(facts),
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
    options = scan.options
    reader = MixedReader(slides=options.slides, fields=options.fields, find=options.find)
    scan.uses_find = True
    if scan.root.is_file():
        scan.add(scan.root, reader)
        return
    images, others = _outside_known_sets(scan)
    _add_all(scan, [*images, *others], reader)


def _add_all(scan: Scan, paths: list[Path], reader: ChildReader) -> None:
    """Slides and images among some files; parts of slides and all else are left out."""
    parts = parts_of_slides(paths)
    files = [path for path in sorted(paths) if path not in parts]
    for path in files:
        if path.suffix.lower() in SLIDES | IMAGES:
            scan.add(path, reader)
    _leave_parts(scan, parts)
    scan.left_alone(path for path in files if path.suffix.lower() not in SLIDES | IMAGES)


def slides(scan: Scan) -> None:
    """Every slide or image of a tree as a slide, or one such file."""
    if scan.root.is_file():
        scan.add(scan.root, scan.options.slides)
        return
    images, others = scan.walk()
    _add_all(scan, [*images, *others], scan.options.slides)


def photographs(scan: Scan) -> None:
    """Every image of a tree is a smear photograph without annotations."""
    if scan.root.is_file():
        scan.add(scan.root, scan.options.fields)
        return
    images, others = scan.walk()
    for path in images:
        scan.add(path, scan.options.fields)
    scan.left_alone(others)


def holds_slides(files: Files) -> bool:
    """Whether a tree is one of slides: it has some, and is no tree of label folders.

    A stray slide makes no labelled tree a tree of slides: where every image lies in a folder
    below the root, there are more images than slides, and either no slide lies among them or the
    images are as small as single cells, the folders are labels.
    """
    slides = [path for path in files.others if path.suffix.lower() in SLIDES]
    if not slides:
        here = [path for path in files.images if path.parent == files.root]
        return len(here) == len(files.images) and any(map(is_slide, here[:LOOKED_AT]))
    folders = {path.parent for path in files.images}
    if len(files.images) <= len(slides) or {one.parent for one in folders} != {files.root}:
        return True
    return any(path.parent in folders for path in slides) and not _single_cells(files.images)


def _single_cells(images: list[Path]) -> bool:
    """Whether a few images of many are all as small as one cell."""
    return not any(is_field(path) for path in images[:: max(1, len(images) // LOOKED_AT)])


def _outside_known_sets(scan: Scan) -> tuple[list[Path], list[Path]]:
    """Images and other files of a tree, after folders of a known layout were read in it."""
    images, others = scan.walk()
    known = [one for one in scan.known.values() if one.sure is not None and one.name != "manifest"]
    inside: set[Path] = set()
    folders = sorted({path.parent for path in others} - {scan.root})
    candidates = {one for folder in folders for one in (folder, *folder.parents)}
    for folder in sorted(one for one in candidates if scan.root in one.parents):
        if any(folder.is_relative_to(one) for one in inside):
            continue
        files = Files(folder)
        sure = [one for one in known if one.sure is not None and one.sure(files)]
        if len(sure) == 1 and not holds_slides(files):
            inside.add(folder)
            _within(scan, folder, sure[0])

    def outside(paths: list[Path]) -> list[Path]:
        return [path for path in paths if not any(path.is_relative_to(one) for one in inside)]

    return outside(images), outside(others)


def _within(scan: Scan, inner: Path, layout: Layout) -> None:
    """Read a folder of a known layout as if it had been named."""
    found = Scan(inner, scan.options, known=scan.known)
    try:
        layout.into(found)
    except LayoutError as error:
        scan.fail(inner, str(error))
        return
    scan.warn(f"{inner} was read as {layout.name}")
    scan.take_in(found)


def parts_of_slides(files: list[Path]) -> set[Path]:
    """Files that belong to a slide beside them.

    Images of a VMS, the data of an MRXS, all but the first file of a DICOM series.
    """
    names: dict[Path, list[Path]] = {}
    for path in files:
        names.setdefault(path.parent, []).append(path)
    parts: set[Path] = set()
    for folder, here in names.items():
        indexes = [path for path in here if path.suffix.lower() in {".vms", ".vmu"}]
        parts |= {
            path
            for index in indexes
            for path in here
            if path.suffix.lower() in IMAGES and path.name.startswith(index.stem)
        }
        met: set[str] = set()
        dicom = [path for path in here if path.suffix.lower() == ".dcm"]
        for path in dicom if len(dicom) > 1 else []:
            uid = series(path)
            if uid is not None and uid in met:
                parts.add(path)
            met.add(uid or "")
        if folder.with_suffix(".mrxs") in names.get(folder.parent, ()):
            parts |= set(here)
    return parts


def _leave_parts(scan: Scan, parts: set[Path]) -> None:
    if parts:
        scan.leave(parts, "it belongs to a slide beside it")
        scan.warn(f"{len(parts)} files in {scan.root} belong to slides beside them")


def series(path: Path) -> str | None:
    """The SeriesInstanceUID of a DICOM file; `None` where there is none.

    It is compared and never kept.
    """
    import pydicom

    try:
        facts = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        uid = facts.get("SeriesInstanceUID")  # read from its bytes only now
        return None if uid is None else str(uid)
    except Exception:  # whatever it raises over a damaged file, which its reader then names
        return None


# ---------------------------------------------------------------- the child's side


def read(
    source: str, tiles: dict[str, Any], cells: dict[str, Any], find: bool | None, stained: bool
) -> Iterator[Piece]:
    """Reader: a slide as tiles; else an image as the cells found in it, or as one item.

    Raises:
        Refusal: it is none of them, or nothing could be had from it.
    """
    import openslide

    from ingest.slides import tiling

    path = Path(source)
    known = openslide.OpenSlide.detect_format(source) is not None
    if path.suffix.lower() in SLIDES or known or is_slide(path):
        yield from tiling.tiles(source, **tiles)
        return
    if stained:
        raise Refusal(
            "stain normalisation is for slides, and this is a photograph; ingest it into another "
            "collection, without --stain-norm"
        )
    if find is None:
        find = is_field(path)
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

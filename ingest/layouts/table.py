"""A CSV table that names images and says what is known of them."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from datetime import date
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import cast, get_args

from ingest.layouts.scan import LayoutError, Scan, read_text
from ingest.slides.source import SLIDES
from ingest.smears.source import FieldReader
from ingest.sources.marked import Mark, Marked
from ingest.sources.source import NOTHING, Facts, Reader, Whole
from search.schemas.items import Kind

WORDS = ("label", "case", "patient", "site", "stain", "scanner")
CORNER_AND_SIZE = ("x", "y", "w", "h")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
COLUMNS = (
    "path",
    *WORDS,
    "acquired",
    "um_per_px",
    "kind",
    "dataset",
    *CORNER_AND_SIZE,
    *CORNERS,
)
"""Every column that a manifest may have; only `path` must be there."""
SLIDE, SMEAR = "slide", "smear"
"""Values of `kind` beside those of an item: a file that is cut into tiles, and one whose cells are
found."""


class BadRow(ValueError):
    """A row that cannot be used."""


def manifest(scan: Scan) -> None:
    """A CSV manifest: one row per item, `path` relative to the manifest's own folder.

    A box is given by `x, y, w, h` or by `xmin, ymin, xmax, ymax` in pixels, a point by `x, y`
    alone; without them the whole image is the item. An empty value says nothing. `acquired` is
    a day (2024-03-01). `kind` says what the item is (cell, tile, field), or that the file is a
    `slide` to be cut into tiles (so are files that end like one), or a `smear` whose cells are
    to be found.

    Raises:
        LayoutError: not a table of this kind, or with columns of another name.
    """
    text = read_text(scan.root)
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
    except StopIteration:
        raise LayoutError(f"{scan.root} is empty; a line of column names was expected") from None
    except csv.Error as error:
        raise LayoutError(f"{scan.root} is not a CSV table: {error}") from error
    check_columns(header, scan.root)
    marks: dict[tuple[Path, str | None], list[Mark]] = {}
    rows: list[tuple[Path, str | None, Facts, str, Mark | None]] = []
    try:
        for values in reader:
            if any(value.strip() for value in values):
                _row(scan, header, values, f"line {reader.line_num}", rows)
    except csv.Error as error:
        scan.fail(scan.root, f"the rest cannot be read: {error}", f"line {reader.line_num}")
    for path, dataset, facts, kind, mark in rows:
        if mark is None:
            scan.add(path, _reader(scan, path, kind), facts, dataset)
            continue
        held = marks.get((path, dataset))
        if held is None:  # one task per file, so that it is read once
            held = marks[path, dataset] = []
            scan.add(path, Marked(held, scan.options.rule), NOTHING, dataset)
        held.append(replace(mark, facts=facts, kind=cast(Kind, kind)))


def _reader(scan: Scan, path: Path, kind: str) -> Reader:
    if kind == SMEAR:
        return FieldReader()
    return scan.options.slides if kind == SLIDE else Whole(cast(Kind, kind))


def check_columns(header: list[str], path: Path) -> None:
    """Refuse columns that are not known, are there twice, or do not go together.

    Raises:
        LayoutError: names them, and those that are accepted.
    """
    accepted = f"accepted are: {', '.join(COLUMNS)}"
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise LayoutError(f"{path} is separated by semicolons or tabs; commas were expected")
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        near = get_close_matches(unknown[0].lower(), COLUMNS, n=1)
        hint = f" Did you mean {near[0]!r} for {unknown[0]!r}?" if near else ""
        raise LayoutError(
            f"{path} has unknown columns: {', '.join(repr(n) for n in unknown)}; {accepted}.{hint}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise LayoutError(f"{path} has the columns {', '.join(twice)} twice")
    if "path" not in header:
        raise LayoutError(f"{path} has no column 'path'; {accepted}")
    sized, cornered = set(header) & set(CORNER_AND_SIZE), set(header) & set(CORNERS)
    if sized and cornered:
        raise LayoutError(f"{path} has boxes both as x, y, w, h and as xmin, ymin, xmax, ymax")
    if sized and sized not in ({"x", "y"}, set(CORNER_AND_SIZE)):
        raise LayoutError(f"{path} has {', '.join(sorted(sized))}; x, y or x, y, w, h go together")
    if cornered and cornered != set(CORNERS):
        missing = ", ".join(name for name in CORNERS if name not in cornered)
        raise LayoutError(f"{path} has boxes by their corners, but not {missing}")


def _row(
    scan: Scan,
    header: list[str],
    values: list[str],
    where: str,
    rows: list[tuple[Path, str | None, Facts, str, Mark | None]],
) -> None:
    try:
        if len(values) != len(header):
            raise BadRow(f"{len(header)} values were expected, got {len(values)}")
        row = {name: value.strip() for name, value in zip(header, values, strict=True)}
        if not row["path"]:
            raise BadRow("the path is empty")
        path = scan.root.parent / row["path"]
        if not path.is_file():
            raise BadRow(f"the image {row['path']} does not exist")
        slide = path.suffix.lower() in SLIDES
        kind = _kind(row.get("kind", ""), SLIDE if slide else scan.options.kind)
        mark = _mark(row, where)
        if kind in (SLIDE, SMEAR) and mark is not None:
            raise BadRow(f"a {kind} has no box; leave it empty, or name what the box holds")
        rows.append((path, row.get("dataset") or None, _facts(row), kind, mark))
    except BadRow as error:
        scan.fail(scan.root, str(error), where)


def _facts(row: dict[str, str]) -> Facts:
    words = {name: row.get(name) or None for name in WORDS}
    acquired: date | None = None
    if day := row.get("acquired"):
        try:
            acquired = date.fromisoformat(day)
        except ValueError:
            raise BadRow(f"acquired {day!r} is not a day; write it as 2024-03-01") from None
    scale = _number(row, "um_per_px")
    if scale is not None and scale <= 0:
        raise BadRow(f"um_per_px must be above 0, got {scale:g}")
    return Facts(
        **words,
        acquired=acquired,
        um_per_px=scale,
        um_per_px_origin=None if scale is None else "manifest",
    )


def _mark(row: dict[str, str], where: str) -> Mark | None:
    corners = [_number(row, name) for name in CORNERS]
    sizes = [_number(row, name) for name in CORNER_AND_SIZE]
    match [value for value in corners if value is not None]:
        case [x, y, right, bottom]:
            return Mark(x, y, right - x, bottom - y, where=where)
        case [_, *_]:
            raise BadRow("a part of the box is empty")
    match sizes:
        case [None, None, None, None]:
            return None
        case [float(x), float(y), None, None]:
            return Mark(x, y, where=where)
        case [float(x), float(y), float(w), float(h)]:
            return Mark(x, y, w, h, where=where)
    raise BadRow("a part of the box is empty")


def _number(row: dict[str, str], name: str) -> float | None:
    value = row.get(name)
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"{name} {value!r} is not a number")
    return number


def _kind(value: str, default: str) -> str:
    known = (*get_args(Kind), SLIDE, SMEAR)
    if value and value not in known:
        raise BadRow(f"kind {value!r} is not known; use {', '.join(known)}")
    return value or default

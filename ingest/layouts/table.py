"""A CSV table that names images and says what is known of them."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import cast, get_args

from ingest.layouts.scan import LayoutError, Scan
from ingest.slides.source import SLIDES
from ingest.smears.source import FieldReader, is_field
from ingest.sources.marked import Mark, Marked
from ingest.sources.source import NOTHING, Facts, Reader, Whole
from ingest.sources.text import on_disk
from search.cases.table import KNOWN, BadCaseTable, change_of
from search.schemas.cases import COLUMN
from search.schemas.items import Kind
from search.text import is_missing

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
"""Every column that a manifest may have of its images; only `path` must be there."""
OF_CASES = tuple(name for name in KNOWN if name != "patient")
"""Columns that say something of the case of an image; its records keep them."""
FURTHER = "case:"
"""What the name of a further column of cases begins with."""
SLIDE, SMEAR = "slide", "smear"
"""Values of `kind` beside those of an item: a file that is cut into tiles, and one whose cells are
found."""


FRACTION = re.compile(r"\d+\.0")
"""An id that a program has read as a number with a fraction."""


class BadRow(ValueError):
    """A row that cannot be used."""


@dataclass(frozen=True)
class _Row:
    """One usable row."""

    path: Path
    dataset: str | None
    facts: Facts
    kind: str
    """Empty where the row does not say."""
    mark: Mark | None


def manifest(scan: Scan) -> None:
    """A CSV manifest: one row per item, `path` relative to the manifest's own folder.

    A box is given by `x, y, w, h` or by `xmin, ymin, xmax, ymax` in pixels, a point by `x, y`
    alone; without them the whole image is the item, or a field whose cells are found where it is
    as large as one and has no label. An empty value says nothing, as do words like `nan` and
    `NA`. `acquired` is a day (2024-03-01). `kind` says what the item is (cell, tile, field), or
    that the file is a `slide` to be cut into tiles (so are files that end like one), or a `smear`
    whose cells are to be found. What it says of the case of an image (the columns of a case's
    record, and further ones as `case:NAME`) goes into that record.

    Raises:
        LayoutError: not a table of this kind, or with columns of another name.
    """
    _Manifest(scan).read()


@dataclass
class _Manifest:
    """A manifest on its way."""

    scan: Scan
    rows: list[_Row] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    """Words for nothing known, by column."""
    fractions: Counter[str] = field(default_factory=Counter)
    """Ids like 7.0, by column."""
    searched: int = 0
    """Images whose cells are found though no row says so."""

    def read(self) -> None:
        """Every row as a task, or a failure in the report."""
        scan = self.scan
        reader = csv.reader(StringIO(scan.table(scan.root), newline=""), strict=True)
        try:
            header = [name.strip() for name in next(reader)]
        except StopIteration:
            reason = "is empty; a line of column names was expected"
            raise LayoutError(f"{scan.root} {reason}") from None
        except csv.Error as error:
            raise LayoutError(f"{scan.root} is not a CSV table: {error}") from error
        check_columns(header, scan.root)
        try:
            for values in reader:
                where = f"line {reader.line_num}"
                if not any(value.strip() for value in values):
                    continue
                try:
                    self.rows.append(self._row(header, values, where))
                except BadRow as error:
                    scan.fail(scan.root, str(error), where)
        except csv.Error as error:
            scan.fail(scan.root, f"the rest cannot be read: {error}", f"line {reader.line_num}")
        self._tasks()
        self._warn()

    def _tasks(self) -> None:
        """One task for each file of a dataset, so that it is read once."""
        scan = self.scan
        marks: dict[tuple[Path, str | None], list[Mark]] = {}
        for row in self.rows:
            if row.mark is None:
                reader = self._reader(row)
                facts = row.facts
                if isinstance(reader, FieldReader) and facts.label is not None:
                    facts = replace(facts, label=None)
                    scan.warn(f"{row.path}: the label of a whole field is not one of its cells")
                scan.add(row.path, reader, facts, row.dataset)
                continue
            place = (row.path, row.dataset)
            if place not in marks:
                marks[place] = []
                scan.add(row.path, Marked(marks[place], scan.options.rule), NOTHING, row.dataset)
            kind = cast(Kind, row.kind or scan.options.kind)
            marks[place].append(replace(row.mark, facts=row.facts, kind=kind))

    def _reader(self, row: _Row) -> Reader:
        options = self.scan.options
        if row.kind == SMEAR:
            return options.fields
        if row.kind == SLIDE:
            return options.slides
        if not row.kind and options.kind == "cell":
            self.scan.uses_find = True
            find = options.find
            if find is None and row.facts.label is None:
                find = is_field(row.path)
                self.searched += find
            if find:
                return options.fields
        return Whole(cast(Kind, row.kind or options.kind))

    def _row(self, header: list[str], values: list[str], where: str) -> _Row:
        if len(values) != len(header):
            raise BadRow(f"{len(header)} values were expected, got {len(values)}")
        row = {name: value.strip() for name, value in zip(header, values, strict=True)}
        if not row["path"]:
            raise BadRow("the path is empty")
        path = on_disk(self.scan.root.parent / row["path"])
        if path is None:
            raise BadRow(f"the image {row['path']} does not exist")
        self._of_case(row, where)
        kind = _kind(row.get("kind", ""), SLIDE if path.suffix.lower() in SLIDES else "")
        mark = _mark(row, where)
        if kind in (SLIDE, SMEAR) and mark is not None:
            raise BadRow(f"a {kind} has no box; leave it empty, or name what the box holds")
        for name in WORDS:
            if is_missing(row.get(name, "")):
                self.missing[f"{name} {row[name]!r}"] += 1
                row[name] = ""
        for name in ("patient", "case"):
            if FRACTION.fullmatch(row.get(name, "")):
                self.fractions[f"{name} {row[name]!r}"] += 1
        return _Row(path, row.get("dataset") or None, _facts(row), kind, mark)

    def _of_case(self, row: Mapping[str, str], where: str) -> None:
        """Keep what a row says of its case.

        Raises:
            LayoutError: a value that is none of its kind, or no case: before anything is read.
        """
        said = {name.removeprefix(FURTHER): row[name] for name in row if of_case(name)}
        if not any(value and not is_missing(value) for value in said.values()):
            return
        names = {name: row[name] for name in ("case", "patient") if name in row}
        try:
            self.scan.cases.append(change_of(said | names, f"{where} of {self.scan.root}"))
        except BadCaseTable as error:
            raise LayoutError(str(error)) from error

    def _warn(self) -> None:
        """What a person should know of the table."""
        root, scan = self.scan.root, self.scan
        for value, count in self.missing.items():
            scan.warn(f"{root}: {value} in {count} rows is taken to say that nothing is known")
        if self.fractions:
            first = next(iter(self.fractions))
            scan.warn(
                f"{root}: {self.fractions.total()} ids look like numbers that a program gave a "
                f"fraction (the first: {first}); they are kept as they are, mend them if they are "
                "not so elsewhere"
            )
        if self.searched:
            scan.warn(
                f"{self.searched} images of {root} are as large as fields and have no label and no "
                "kind, so their cells are found; write kind 'field' to keep them whole"
            )


def _facts(row: Mapping[str, str]) -> Facts:
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


def of_case(column: str) -> bool:
    """Whether a column says something of the case of an image."""
    further = column.startswith(FURTHER) and COLUMN.fullmatch(column.removeprefix(FURTHER))
    return column in OF_CASES or bool(further)


def check_columns(header: list[str], path: Path) -> None:
    """Refuse columns that are not known, are there twice, or do not go together.

    Raises:
        LayoutError: names them, and those that are accepted.
    """
    accepted = (
        f"accepted are: {', '.join(COLUMNS)}; of the case of an image {', '.join(OF_CASES)}, and "
        f"further columns of it as {FURTHER}name"
    )
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise LayoutError(f"{path} is separated by semicolons or tabs; commas were expected")
    unknown = [name for name in header if name not in COLUMNS and not of_case(name)]
    if unknown:
        near = get_close_matches(unknown[0].lower(), (*COLUMNS, *OF_CASES), n=1)
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


def _mark(row: Mapping[str, str], where: str) -> Mark | None:
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


def _number(row: Mapping[str, str], name: str) -> float | None:
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

"""Layouts of single publications with cells marked in fields: Chula, Aslan, Raabin."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ingest.layouts.boxes import UNREAD, parse_json
from ingest.layouts.scan import LayoutError, Scan, points
from ingest.sources.marked import Mark
from ingest.sources.source import Facts
from search.trees import CHULA_TYPES

CHULA_PX = 70
"""Side of the crop that the authors of Chula RBC-12 cut."""
ASLAN_COLUMNS = ("image_id", "image", "xmin", "ymin", "xmax", "ymax", "label")


def chula(scan: Scan) -> None:
    """Chula RBC-12: `Dataset/N.jpg` with `Label/N.txt`, a line `x y type` for each cell.

    Points have no size: 70 px unless another size is given.
    """
    images, others = scan.walk()
    tables = {path.stem: path for path in others if path.parent.name == "Label"}
    if not tables:
        raise LayoutError(f"no folder Label under {scan.root}; Chula has Dataset/ and Label/")
    rule = points(scan.options.rule, CHULA_PX)
    for path in images:
        table = tables.pop(path.stem, None)
        if table is None:
            scan.fail(path, f"it has no annotation: Label/{path.stem}.txt is missing")
            continue
        scan.marked(path, list(_chula_marks(scan, table)), rule=rule)
    for table in tables.values():
        scan.fail(table, "its image is missing: none has its name")
    scan.left_alone(path for path in others if path.parent.name != "Label")


def _chula_marks(scan: Scan, table: Path) -> Iterator[Mark]:
    for number, line in enumerate(scan.table(table).splitlines(), 1):
        words = line.split()
        where = f"{table.name} line {number}"
        if not words:
            continue
        try:
            x, y, code = float(words[0]), float(words[1]), int(words[2])
            if len(words) != 3 or not 0 <= code < len(CHULA_TYPES):
                raise ValueError
        except (ValueError, IndexError):
            scan.fail(
                table, f"x, y and a type of 0 to 12 were expected, got {line!r}", f"line {number}"
            )
            continue
        yield Mark(x, y, facts=Facts(label=CHULA_TYPES[code]), where=where)


def aslan(scan: Scan) -> None:
    """Aslan's detection set: `images/*.png` and `annotations.csv`, boxes in fractions."""
    images, others = scan.walk()
    table = scan.root / "annotations.csv"
    rows = csv.DictReader(StringIO(scan.table(table), newline=""))
    if tuple(rows.fieldnames or ()) != ASLAN_COLUMNS:
        raise LayoutError(f"{table} must have the columns {', '.join(ASLAN_COLUMNS)}")
    marks: dict[str, list[Mark]] = {}
    for row in rows:
        where = f"line {rows.line_num}"
        try:
            left, top, right, bottom = (float(row[name]) for name in ASLAN_COLUMNS[2:6])
        except (TypeError, ValueError):
            scan.fail(table, "four numbers were expected as the box", where)
            continue
        marks.setdefault(row["image"], []).append(
            Mark(
                *(left, top, right - left, bottom - top),
                unit="fraction",
                facts=Facts(label=row["label"] or None),
                where=f"{table.name} {where}",
            )
        )
    for path in images:
        found = marks.pop(path.name, None)
        if found is None:
            scan.fail(path, f"it has no annotation: {table.name} does not name it")
        else:
            scan.marked(path, found)
    for name in marks:
        scan.fail(table, f"its image {name} is missing", name)
    scan.left_alone(path for path in others if path != table)


def raabin(scan: Scan) -> None:
    """Raabin-WBC: cropped cells (`<split>/<Type>/*.jpg`), and fields with `jsons/NAME.json`.

    A field's file has `Cell Numbers` and, for each, `Cell_0`, ... with x1, x2, y1, y2 in pixels
    and Label1, Label2 of two experts. Where they disagree the cell has no label, and its notes
    keep both.
    """
    images, others = scan.walk()
    tables = {path.stem: path for path in others if path.suffix.lower() == ".json"}
    crops = [path for path in images if path.stem not in tables]
    disagreeing = 0
    for path in (path for path in images if path.stem in tables):
        table = tables[path.stem]
        body = parse_json(scan, table)
        if body is None:
            scan.leave([path], UNREAD)
            continue
        marks = list(_raabin_marks(scan, table, body))
        disagreeing += sum(1 for mark in marks if any(key == "labels" for key, _ in mark.notes))
        scan.marked(path, marks)
    met = {path.stem for path in images}
    for stem, table in tables.items():
        if stem not in met:
            scan.fail(table, "its image is missing: none has its name")
    for path in crops:
        inner = path.relative_to(scan.root).parts
        if len(inner) < 2 or inner[-2].lower() == "images":
            scan.fail(path, "it lies in no folder of a cell type, and no .json file has its name")
        else:
            scan.whole(path, Facts(label=inner[-2]))
    if disagreeing:
        scan.warn(f"{disagreeing} cells carry two labels that disagree and are left without one")
    scan.left_alone(path for path in others if path.suffix.lower() != ".json")


def _raabin_marks(scan: Scan, table: Path, body: Mapping[str, Any]) -> Iterator[Mark]:
    for name, cell in body.items():
        if not name.startswith("Cell_"):
            continue
        try:
            left, right, top, bottom = (float(cell[side]) for side in ("x1", "x2", "y1", "y2"))
        except (KeyError, TypeError, ValueError):
            scan.fail(table, "x1, x2, y1 and y2 were expected", name)
            continue
        labels = [str(cell[key]).strip() for key in ("Label1", "Label2") if cell.get(key)]
        agreed = labels[0] if len(set(labels)) == 1 else None
        yield Mark(
            *(min(left, right), min(top, bottom), abs(right - left), abs(bottom - top)),
            facts=Facts(label=agreed),
            where=f"{table.name} {name}",
            notes=(("labels", " | ".join(labels)),) if len(set(labels)) > 1 else (),
        )

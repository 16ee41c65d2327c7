"""Exports of labelling tools: CSV tables of boxes or classes, Label Studio, CVAT, LabelMe."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

from ingest.layouts.boxes import (
    UNREAD,
    bodies,
    heads,
    no_image,
    number,
    paired,
    parse_json,
    parse_xml,
)
from ingest.layouts.scan import Files, LayoutError, Scan
from ingest.sources.marked import Mark
from ingest.sources.source import Facts
from search.text import composed

BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
CLASSES = "_classes.csv"
"""Roboflow's table of one class for each image: 1 below its name."""
Points = list[tuple[float, float]]


class _Images:
    """The images of a tree by name, for exports that name them by another's path."""

    def __init__(self, scan: Scan, images: list[Path]) -> None:
        self._scan = scan
        self._by_name: dict[str, list[Path]] = {}
        for path in images:
            self._by_name.setdefault(composed(path.name), []).append(path)

    def find(self, name: str, table: Path, where: str) -> Path | None:
        """The image that a table names; a failure in the report and `None` if it is not plain."""
        parts = PurePosixPath(unquote(urlparse(name).path).replace("\\", "/")).parts
        last = composed(parts[-1]) if parts else ""
        # Label Studio puts eight hex digits before the name of an upload.
        found = self._by_name.get(last) or self._by_name.get(last.partition("-")[2], [])
        for depth in range(1, len(parts) + 1):
            if len(found) > 1:
                ends = [path for path in found if path.parts[-depth:] == parts[-depth:]]
                found = ends or found
        if len(found) > 1:
            found = [path for path in found if path.parent == table.parent] or found
        if len(found) == 1:
            return found[0]
        why = no_image(found) if found else f"its image {last} is missing"
        self._scan.fail(table, why, where)
        return None


def _scanned(scan: Scan) -> tuple[list[Path], list[Path], _Images]:
    images, others = scan.walk()
    return images, others, _Images(scan, images)


# ---------------------------------------------------------------- CSV


def is_csv(files: Files) -> bool:
    """Whether a folder holds a CSV table of boxes or classes as Roboflow writes them."""
    if any(path.name == CLASSES for path in files.near(".csv")):
        return True
    return any(_columns(head.partition("\n")[0]) is not None for head in heads(files, ".csv"))


def csv_boxes(scan: Scan) -> None:
    """Tables with a box to a row (filename, class, xmin, ymin, xmax, ymax), or a class to a file.

    Raises:
        LayoutError: there is no such table.
    """
    _, others, images = _scanned(scan)
    read = 0
    for table in (path for path in others if path.suffix.lower() == ".csv"):
        rows = csv.reader(StringIO(scan.text(table)))
        header = [name.strip() for name in next(rows, [])]
        named = _columns(",".join(header))
        if table.name == CLASSES:
            _classes(scan, images, table, header, rows)
        elif named is not None:
            _box_rows(scan, images, table, (header, named), rows)
        else:
            continue
        scan.table(table)
        read += 1
    if not read:
        raise LayoutError(f"no table of boxes under {scan.root}; it has {', '.join(BOX_COLUMNS)}")
    scan.left_alone(others)


def _columns(header: str) -> tuple[str, str] | None:
    """The columns of the file and of the class; `None` for another table."""
    names = [name.strip().strip('"\ufeff') for name in header.split(",")]
    file = next((name for name in ("filename", "file_name", "image_path") if name in names), None)
    label = next((name for name in ("class", "label", "class_name") if name in names), None)
    boxed = set(BOX_COLUMNS) <= set(names)
    return (file, label) if file and label and boxed else None


def _box_rows(
    scan: Scan,
    images: _Images,
    table: Path,
    columns: tuple[list[str], tuple[str, str]],
    rows: Iterator[list[str]],
) -> None:
    header, (file, label) = columns
    found: dict[str, list[Mark]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for at, values in enumerate(rows, 2):
        if not any(values):
            continue
        row = dict(zip(header, values, strict=False))
        left, top, right, bottom = (number(row.get(name)) for name in BOX_COLUMNS)
        facts = Facts(label=(row.get(label) or "").strip() or None)
        mark = Mark(left, top, right - left, bottom - top, facts=facts, where=f"line {at}")
        found.setdefault(row.get(file, ""), []).append(mark)
        wide, high = number(row.get("width")), number(row.get("height"))
        if wide > 0 and high > 0:
            sizes[row.get(file, "")] = (int(wide), int(high))
    for name, marks in found.items():
        path = images.find(name, table, marks[0].where)
        if path is not None:
            scan.marked(path, marks, sizes.get(name))


def _classes(
    scan: Scan, images: _Images, table: Path, header: list[str], rows: Iterator[list[str]]
) -> None:
    for at, values in enumerate(rows, 2):
        if not any(values):
            continue
        path = images.find(values[0], table, f"line {at}")
        labels = [name for name, value in zip(header[1:], values[1:], strict=False) if value == "1"]
        if path is not None and len(labels) > 1:
            scan.fail(path, f"{table.name} gives it {len(labels)} classes; one was expected")
        elif path is not None:
            scan.whole(path, Facts(label=labels[0] if labels else None))


# ---------------------------------------------------------------- Label Studio


def is_labelstudio(files: Files) -> bool:
    """Whether a folder holds a list of Label Studio's tasks."""
    stems = {path.stem for path in files.images}
    near = [path for path in files.near(".json") if path.stem not in stems]
    return any(_is_tasks(body) for body in bodies(near))


def labelstudio(scan: Scan) -> None:
    """Label Studio: a JSON list of tasks with `data` and `annotations`; boxes are in percent.

    Rectangles, ellipses, polygons and key points are read. A mask of its brush is not.

    Raises:
        LayoutError: there is no such list.
    """
    _, others, images = _scanned(scan)
    read = 0
    for table in (path for path in others if path.suffix.lower() == ".json"):
        body = parse_json(scan, table)
        if body is None or not _is_tasks(body):
            continue
        read += 1
        for at, task in enumerate(body, 1):
            _labelstudio_task(scan, images, table, f"task {task.get('id', at)}", task)
    if not read:
        raise LayoutError(f"no JSON list of Label Studio's tasks under {scan.root}")
    scan.left_alone(others)


def _is_tasks(body: Any) -> bool:
    return (
        isinstance(body, list)
        and bool(body)
        and all(isinstance(one, dict) and isinstance(one.get("data"), dict) for one in body)
        and any(isinstance(one.get("annotations"), list) for one in body)
    )


def _labelstudio_task(
    scan: Scan, images: _Images, table: Path, where: str, task: Mapping[str, Any]
) -> None:
    names = [v for v in task["data"].values() if isinstance(v, str)]
    name = task["data"].get("image") or task.get("file_upload") or next(iter(names), "")
    path = images.find(str(name), table, where)
    if path is None:
        return
    marks: list[Mark] = []
    size: tuple[int, int] | None = None
    kept = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    if len(kept) > 1:
        scan.warn(f"{table.name} {where} has {len(kept)} annotations; the first is taken")
    for result in kept[0].get("result", []) if kept else []:
        wide, high = result.get("original_width"), result.get("original_height")
        size = (int(wide), int(high)) if wide and high else size
        try:
            marks.append(_labelstudio_mark(result, where))
        except (KeyError, TypeError, ValueError) as error:
            why = str(error) if isinstance(error, LayoutError) else "it has no box and no label"
            scan.fail(table, why, where)
    if marks:
        scan.marked(path, marks, size)
    else:
        scan.marked(path, [])


def _labelstudio_mark(result: Mapping[str, Any], where: str) -> Mark:
    value, kind = result["value"], str(result.get("type", ""))
    labels = value.get(kind) or next((v for k, v in value.items() if k.endswith("labels")), None)
    facts = Facts(label=str(labels[0]) if labels else None)
    if "rle" in value:
        raise LayoutError("a mask of the brush is not read; export the project as COCO")
    if "points" in value:
        corners = [(float(x), float(y)) for x, y in value["points"]]
    elif "radiusX" in value:
        x, y, rx, ry = (float(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
        turn = math.radians(float(value.get("rotation") or 0))
        half = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
        tall = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
        corners = [(x - half, y - tall), (x + half, y + tall)]
    else:
        x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
        if kind.startswith("keypoint"):
            return Mark(x / 100, y / 100, None, None, "fraction", facts, where=where)
        corners = _rotated(result, (x, y, w, h))
    return _around([(x / 100, y / 100) for x, y in corners], facts, where, "fraction")


def _rotated(result: Mapping[str, Any], box: tuple[float, float, float, float]) -> Points:
    """The corners of a rectangle in percent, turned in pixels around its first corner."""
    x, y, w, h = box
    turn = math.radians(float(result["value"].get("rotation") or 0))
    ratio = float(result.get("original_width") or 1) / float(result.get("original_height") or 1)
    corners = []
    for right, down in ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h)):
        down /= ratio
        along = right * math.cos(turn) - down * math.sin(turn)
        across = right * math.sin(turn) + down * math.cos(turn)
        corners.append((x + along, y + across * ratio))
    return corners


# ---------------------------------------------------------------- CVAT


def is_cvat(files: Files) -> bool:
    """Whether a folder holds CVAT's XML for images."""
    return any("<annotations>" in head for head in heads(files, ".xml"))


def cvat(scan: Scan) -> None:
    """CVAT for images 1.1: `<image name=... width=... height=...>` with boxes in pixels.

    Boxes, ellipses, polygons, points and masks are read, all by their bounding boxes.

    Raises:
        LayoutError: there is no such file.
    """
    _, others, images = _scanned(scan)
    read = 0
    for table in (path for path in others if path.suffix.lower() == ".xml"):
        try:
            tree = parse_xml(scan.text(table))
        except LayoutError as error:
            scan.fail(table, str(error))
            continue
        if tree.tag != "annotations":
            continue
        read += 1
        scan.table(table)
        for image in tree.iter("image"):
            _cvat_image(scan, images, table, image)
    if not read:
        raise LayoutError(f"no XML of CVAT under {scan.root}")
    scan.left_alone(others)


def _cvat_image(scan: Scan, images: _Images, table: Path, image: ElementTree.Element) -> None:
    where = f"image {image.get('id')}"
    path = images.find(image.get("name") or "", table, where)
    if path is None:
        return
    marks: list[Mark] = []
    for at, shape in enumerate(image, 1):
        if shape.tag in {"box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid"}:
            try:
                marks += _cvat_marks(shape, f"{where} shape {at}")
            except (KeyError, ValueError):
                scan.fail(table, f"a <{shape.tag}> with its coordinates was expected", where)
    wide, high = number(image.get("width")), number(image.get("height"))
    if marks:
        scan.marked(path, marks, (int(wide), int(high)) if wide > 0 and high > 0 else None)
    else:
        scan.marked(path, [])


def _cvat_marks(shape: ElementTree.Element, where: str) -> list[Mark]:
    facts = Facts(label=shape.get("label") or None)
    at = shape.attrib
    if shape.tag == "box":
        left, top, right, bottom = (float(at[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = [(left, top), (right, bottom)]
        if turn := math.radians(float(at.get("rotation") or 0)):
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            half = (abs(w * math.cos(turn)) + abs(h * math.sin(turn))) / 2
            tall = (abs(w * math.sin(turn)) + abs(h * math.cos(turn))) / 2
            corners = [(x - half, y - tall), (x + half, y + tall)]
    elif shape.tag == "ellipse":
        x, y, rx, ry = (float(at[key]) for key in ("cx", "cy", "rx", "ry"))
        corners = [(x - rx, y - ry), (x + rx, y + ry)]
    elif shape.tag == "mask":
        x, y, w, h = (float(at[key]) for key in ("left", "top", "width", "height"))
        corners = [(x, y), (x + w, y + h)]
    else:
        pairs = [pair.split(",") for pair in at["points"].split(";")]
        corners = [(float(x), float(y)) for x, y in pairs]
        if shape.tag == "points":
            return [Mark(x, y, facts=facts, where=where) for x, y in corners]
    return [_around(corners, facts, where)]


# ---------------------------------------------------------------- LabelMe


def is_labelme(files: Files) -> bool:
    """Whether JSON files beside images hold LabelMe's shapes."""
    stems = {path.with_suffix("") for path in files.images}
    found = bodies([path for path in files.near(".json") if path.with_suffix("") in stems])
    return any(isinstance(one, dict) and isinstance(one.get("shapes"), list) for one in found)


def labelme(scan: Scan) -> None:
    """LabelMe: `NAME.json` beside the image NAME, with `shapes` of points in pixels."""
    images, others = scan.walk()
    tables = [path for path in others if path.suffix.lower() == ".json"]
    for path, table in paired(scan, images, tables):
        body = parse_json(scan, table)
        shapes = body.get("shapes") if isinstance(body, dict) else None
        if body is None or not isinstance(shapes, list):
            scan.fail(table, "it has no list of shapes")
            scan.leave([path], UNREAD)
            continue
        marks = []
        for at, shape in enumerate(shapes, 1):
            try:
                marks.append(_labelme_mark(shape, f"{table.name} shape {at}"))
            except (KeyError, TypeError, ValueError):
                scan.fail(table, "it has no points in pixels", f"shape {at}")
        wide, high = number(body.get("imageWidth")), number(body.get("imageHeight"))
        scan.marked(path, marks, (int(wide), int(high)) if wide > 0 and high > 0 else None)
    scan.left_alone(others)


def _labelme_mark(shape: Mapping[str, Any], where: str) -> Mark:
    facts = Facts(label=str(shape["label"]).strip() or None)
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if shape.get("shape_type") == "point":
        return Mark(*points[0], facts=facts, where=where)
    if shape.get("shape_type") == "circle":
        (x, y), edge = points[0], points[1]
        reach = math.dist(points[0], edge)
        points = [(x - reach, y - reach), (x + reach, y + reach)]
    return _around(points, facts, where)


def _around(points: Points, facts: Facts, where: str, unit: Any = "px") -> Mark:
    """The box around some points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return Mark(*box, unit, facts, where=where)

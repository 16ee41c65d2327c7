"""Layouts in which fields of cells lie beside files of boxes: Pascal VOC, YOLO, COCO."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ingest.layouts.scan import LayoutError, Scan, by_stem, read_text, walk
from ingest.sources.marked import Mark
from ingest.sources.source import Facts


def voc(scan: Scan) -> None:
    """Pascal VOC: `Annotations/NAME.xml` beside `JPEGImages/NAME.jpg`.

    The image of an annotation has its name without the ending; `path` inside the XML is its
    author's own and is not used. Width and height are xmax - xmin and ymax - ymin.
    """
    images, others = walk(scan.root)
    tables = [path for path in others if path.suffix.lower() == ".xml"]
    if not tables:
        raise LayoutError(f"no .xml files under {scan.root}; Pascal VOC has one for each image")
    named: dict[str, list[Path]] = {}
    for path in images:
        named.setdefault(path.stem, []).append(path)
    used: set[Path] = set()
    for table in tables:
        found = named.get(table.stem, [])
        if len(found) != 1:
            scan.fail(table, _no_image(found))
            continue
        used.add(found[0])
        try:
            marks, size = parse_voc(read_text(table))
        except LayoutError as error:
            scan.fail(table, str(error))
            continue
        scan.marked(found[0], marks, size)
    _unlabelled(scan, images, used, "no .xml file has its name")
    scan.left_alone(path for path in others if path.suffix.lower() != ".xml")


def parse_voc(text: str) -> tuple[list[Mark], tuple[int, int] | None]:
    """The boxes of a Pascal VOC file, and the image size that it names.

    Raises:
        LayoutError: not XML of this kind.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LayoutError("it defines entities, which an annotation has no need of; refused")
    try:
        tree = ElementTree.fromstring(text)  # noqa: S314 (entities are refused above)
    except ElementTree.ParseError as error:
        raise LayoutError(f"it is not XML: {error}") from error
    if tree.tag != "annotation":
        raise LayoutError(f"<annotation> was expected, got <{tree.tag}>")
    marks: list[Mark] = []
    for number, thing in enumerate(tree.iter("object"), 1):
        ends = [
            _number(thing.findtext(f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")
        ]
        left, top, right, bottom = ends
        name = (thing.findtext("name") or "").strip() or None
        where = f"object {number}{f', {name}' if name else ''}"
        box = (left, top, right - left, bottom - top)
        marks.append(Mark(*box, facts=Facts(label=name), where=where))
    wide, high = (_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    size = (int(wide), int(high)) if wide > 0 and high > 0 else None
    return marks, size


def yolo(scan: Scan) -> None:
    """YOLO: a `.txt` of `class cx cy w h` (fractions) per image, names in data.yaml or classes.txt.

    A label file lies in `labels/` where its image lies in `images/`, or beside it. An image
    without one has no cells, as the format has it. Polygons count by their bounding box.
    """
    images, others = walk(scan.root)
    texts = {path for path in others if path.suffix.lower() == ".txt"}
    lists = {path for path in texts if path.name in {"classes.txt", "obj.names", "train.txt"}}
    lists |= {path for path in texts if path.stem.lower().startswith(("readme", "license"))}
    names = yolo_names(scan.root, others)
    tables = texts - lists
    found = {table.with_suffix(""): table for table in tables}
    used: set[Path] = set()
    bare = 0
    for path in images:
        table = found.get(_swapped(path.with_suffix(""))) or found.get(path.with_suffix(""))
        if table is None:
            bare += 1
            continue
        used.add(table)
        marks = parse_yolo(scan, table, names)
        scan.marked(path, marks)
    for table in sorted(tables - used):
        scan.fail(table, _no_image([]))
    if bare:
        scan.warn(f"{bare} images have no label file, so no cells")
    keep = {".txt", ".yaml", ".yml", ".names"}
    scan.left_alone(path for path in others if path.suffix.lower() not in keep)


def parse_yolo(scan: Scan, table: Path, names: Mapping[int, str]) -> list[Mark]:
    """The boxes of a YOLO label file; what is wrong with a line goes to the report."""
    marks: list[Mark] = []
    for number, line in enumerate(read_text(table).splitlines(), 1):
        words = line.split()
        where = f"line {number}"
        if not words:
            continue
        values = [_number(word) for word in words]
        polygon = len(values) >= 7 and len(values) % 2 == 1
        if len(values) not in {5, 6} and not polygon:
            scan.fail(table, f"class cx cy w h were expected, got {len(words)} values", where)
            continue
        code = int(values[0]) if values[0] == values[0] and values[0] % 1 == 0 else -1
        if code not in names:
            known = ", ".join(f"{n} {name}" for n, name in sorted(names.items()))
            scan.fail(table, f"class {words[0]} has no name; known: {known}", where)
            continue
        x, y, w, h = values[1:5]
        x, y = x - w / 2, y - h / 2
        if polygon:
            xs, ys = values[1::2], values[2::2]
            x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        facts = Facts(label=names[code])
        marks.append(Mark(x, y, w, h, "fraction", facts, where=f"{table.name} {where}"))
    return marks


def yolo_names(root: Path, others: Sequence[Path]) -> dict[int, str]:
    """Class numbers and names, from `data.yaml`, `classes.txt` or `obj.names`.

    Raises:
        LayoutError: none of them, or a `names` that cannot be read.
    """
    for path in others:
        if path.suffix.lower() in {".yaml", ".yml"}:
            found = parse_names(read_text(path))
            if found:
                return found
    for path in others:
        if path.name in {"classes.txt", "obj.names"} or path.suffix == ".names":
            lines = [line.strip() for line in read_text(path).splitlines()]
            return {number: name for number, name in enumerate(lines) if name}
    raise LayoutError(
        f"no class names under {root}; YOLO keeps them under `names:` in data.yaml, "
        "or one to a line in classes.txt"
    )


def parse_names(text: str) -> dict[int, str]:
    """The entry `names:` of a YOLO data.yaml, in any of the four ways it is written.

    A list in brackets, `- name` lines, `0: name` lines, or those in braces: that much of YAML
    is read here, so that no YAML library is needed.
    """
    match = re.search(r"^names:[ \t]*(.*)$((?:\n(?:[ \t]+|-).*|\n[ \t]*)*)", text, re.MULTILINE)
    if match is None:
        return {}
    inline = re.sub(r"\s#.*$", "", match[1]).strip()
    if inline.startswith(("[", "{")):
        whole = (inline + " " + match[2]).replace("\n", " ")
        inner = re.split(r"[\]}]", whole[1:], maxsplit=1)[0]
        parts = [part.strip() for part in inner.split(",") if part.strip()]
    else:
        lines = [re.sub(r"\s#.*$", "", line).strip() for line in match[2].splitlines()]
        parts = [line.removeprefix("-").strip() for line in lines if line]
    found: dict[int, str] = {}
    for number, part in enumerate(parts):
        pair = re.fullmatch(r"['\"]?(\d+)['\"]?\s*:\s*(.+)", part)
        found[int(pair[1]) if pair else number] = (pair[2] if pair else part).strip("'\" ")
    return found


def coco(scan: Scan) -> None:
    """COCO: JSON with `images`, `annotations` (bbox x, y, w, h in pixels) and `categories`.

    The root is such a file, or a folder with some, for instance `annotations/*.json` or one
    `_annotations.coco.json` in each split.
    """
    base = scan.root.parent if scan.root.is_file() else scan.root
    images, others = walk(base)
    tables = [scan.root] if scan.root.is_file() else [p for p in others if p.suffix == ".json"]
    stems = by_stem(images)
    used: set[Path] = set()
    read = 0
    for table in tables:
        body = coco_body(table)
        if body is not None:
            read += 1
            _coco_table(scan, base, table, body, images, used)
    if not read:
        raise LayoutError(f"no JSON with images, annotations and categories under {base}")
    left = sum(len(paths) for paths in stems.values()) - len(used)
    if left:
        scan.warn(f"{left} images are in no COCO file and stay out")


def coco_body(table: Path) -> dict[str, Any] | None:
    """The content of a COCO file; `None` if it is something else."""
    try:
        body = json.loads(read_text(table))
    except ValueError:
        return None
    named = isinstance(body, dict) and all(
        isinstance(body.get(name), list) for name in ("images", "annotations", "categories")
    )
    return body if named else None


def _coco_table(
    scan: Scan,
    base: Path,
    table: Path,
    body: Mapping[str, Any],
    images: list[Path],
    used: set[Path],
) -> None:
    names = {one.get("id"): str(one.get("name")) for one in body["categories"]}
    marks: dict[Any, list[Mark]] = {}
    crowds = 0
    for one in body["annotations"]:
        where = f"annotation {one.get('id')}"
        box, label = one.get("bbox"), names.get(one.get("category_id"))
        if one.get("iscrowd"):
            crowds += 1
        elif not isinstance(box, list) or len(box) != 4:
            scan.fail(table, f"bbox [x, y, w, h] was expected, got {box}", where)
        elif label is None:
            scan.fail(table, f"category {one.get('category_id')} is not among them", where)
        else:
            x, y, w, h = (_number(value) for value in box)
            mark = Mark(x, y, w, h, facts=Facts(label=label), where=where)
            marks.setdefault(one.get("image_id"), []).append(mark)
    if crowds:
        scan.warn(f"{crowds} annotations of {table.name} are crowds, not one cell, and stay out")
    known = set(images)
    for one in body["images"]:
        name = str(one.get("file_name"))
        split = table.stem.removeprefix("instances_")
        places = (table.parent, base, base / "images", base / split, base / "images" / split)
        path = next((place / name for place in places if place / name in known), None)
        if path is None:
            scan.fail(table, f"its image {name} is missing", f"image {one.get('id')}")
            marks.pop(one.get("id"), None)
            continue
        used.add(path)
        wide, high = one.get("width"), one.get("height")
        size = (wide, high) if isinstance(wide, int) and isinstance(high, int) else None
        if found := marks.pop(one.get("id"), []):
            scan.marked(path, found, size)
    for id, lost in marks.items():
        scan.fail(table, f"{len(lost)} annotations name image {id}, which is not among them")


def _swapped(path: Path) -> Path:
    """The same path with its last folder `images` called `labels`."""
    parts = list(path.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts)


def _unlabelled(scan: Scan, images: Sequence[Path], used: set[Path], why: str) -> None:
    for path in images:
        if path not in used:
            scan.fail(path, f"it has no annotation: {why}")


def _no_image(found: Sequence[Path]) -> str:
    if not found:
        return "its image is missing: none has its name"
    return f"its image is not plain: {', '.join(path.name for path in found)} have its name"


def _number(text: Any) -> float:
    """A number, or NaN, which is refused where the mark is used."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")

"""Pascal VOC boxes; and what the layouts of boxes share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ingest.layouts.scan import Files, LayoutError, Scan, read_text
from ingest.sources.marked import Mark
from ingest.sources.source import Facts
from search.text import composed

UNREAD = "its annotation cannot be read"
LOOKED_AT = 8
"""Files of a kind that are looked into to recognise a layout."""


def is_voc(files: Files) -> bool:
    """Whether a folder holds an XML file of one image."""
    return any("<annotation>" in head for head in heads(files, ".xml"))


def voc(scan: Scan) -> None:
    """Pascal VOC: `Annotations/NAME.xml` beside `JPEGImages/NAME.jpg`, or beside the image.

    The image of an annotation has its name without the ending; `path` inside the XML is its
    author's own and is not used. Width and height are xmax - xmin and ymax - ymin.
    """
    images, others = scan.walk()
    tables = [path for path in others if path.suffix.lower() == ".xml"]
    if not tables:
        raise LayoutError(f"no .xml files under {scan.root}; Pascal VOC has one for each image")
    used: set[Path] = set()
    for path, table in paired(scan, images, tables):
        used.add(path)
        try:
            marks, size = parse_voc(scan.table(table))
        except LayoutError as error:
            scan.fail(table, str(error))
            scan.leave([path], UNREAD)
        else:
            scan.marked(path, marks, size)
    unlabelled(scan, images, used, "no .xml file has its name")
    scan.left_alone(others)


def parse_voc(text: str) -> tuple[list[Mark], tuple[int, int] | None]:
    """The boxes of a Pascal VOC file, and the image size that it names.

    Raises:
        LayoutError: not XML of this kind.
    """
    tree = parse_xml(text)
    if tree.tag != "annotation":
        raise LayoutError(f"<annotation> was expected, got <{tree.tag}>")
    marks: list[Mark] = []
    for at, thing in enumerate(tree.iter("object"), 1):
        ends = [number(thing.findtext(f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = ends
        name = (thing.findtext("name") or "").strip() or None
        where = f"object {at}{f', {name}' if name else ''}"
        box = (left, top, right - left, bottom - top)
        marks.append(Mark(*box, facts=Facts(label=name), where=where))
    wide, high = (number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    size = (int(wide), int(high)) if wide > 0 and high > 0 else None
    return marks, size


# ---------------------------------------------------------------- shared


def parse_xml(text: str) -> ElementTree.Element:
    """The root of an XML text.

    Raises:
        LayoutError: not XML, or it defines entities.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LayoutError("it defines entities, which an annotation has no need of; refused")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 (entities are refused above)
    except ElementTree.ParseError as error:
        raise LayoutError(f"it is not XML: {error}") from error


def parse_json(scan: Scan, table: Path) -> Any | None:
    """What a JSON file holds; a failure in the report and `None` if it is not JSON."""
    text = scan.table(table)
    if not text and scan.has_failed(table):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        scan.fail(table, f"it is not JSON: {error}")
        return None


def heads(files: Files, ending: str) -> Iterable[str]:
    """The beginnings of some files with an ending."""
    tables = files.near(ending)
    for path in tables[:: max(1, len(tables) // LOOKED_AT)]:
        try:
            with path.open("rb") as handle:
                yield handle.read(4096).decode("utf-8", "replace")
        except OSError:
            continue


def bodies(known: Sequence[Path]) -> Iterable[Any]:
    """What some JSON files hold; those that are no JSON are passed over."""
    for path in known[:: max(1, len(known) // LOOKED_AT)]:
        try:
            yield json.loads(read_text(path))
        except (ValueError, RecursionError):
            continue


def paired(scan: Scan, images: list[Path], tables: list[Path]) -> Iterable[tuple[Path, Path]]:
    """Each table with the image of its name: beside it, else in the folder beside, else anywhere.

    A table without an image, or with several, is a failure in the report.
    """
    by_name: dict[str, list[Path]] = {}
    for path in images:
        for name in {composed(path.stem), composed(path.name)}:
            by_name.setdefault(name, []).append(path)
    for table in tables:
        found = by_name.get(composed(table.stem), [])
        for near in (table.parent, table.parent.parent):
            if len(found) > 1:
                nearer = [path for path in found if near in path.parents]
                found = nearer or found
        if len(found) == 1:
            yield found[0], table
        else:
            scan.fail(table, no_image(found))


def unlabelled(scan: Scan, images: Sequence[Path], used: set[Path], why: str) -> None:
    """Images that no annotation was found for are failures."""
    for path in images:
        if path not in used:
            scan.fail(path, f"it has no annotation: {why}")


def no_image(found: Sequence[Path]) -> str:
    """Why an annotation has no image."""
    if not found:
        return "its image is missing: none has its name"
    return f"its image is not plain: {', '.join(path.name for path in found)} have its name"


def number(text: Any) -> float:
    """A number, or NaN, which is refused where the mark is used."""
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        return float("nan")

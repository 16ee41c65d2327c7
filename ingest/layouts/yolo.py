"""YOLO boxes: a text file for each image, class names in data.yaml or in a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.layouts.boxes import LOOKED_AT, no_image, number
from ingest.layouts.scan import Files, LayoutError, Scan, read_text
from ingest.sources.marked import Mark
from ingest.sources.source import Facts

LISTS = frozenset({"classes.txt", "obj.names", "_darknet.labels", "labels.txt"})
"""Files with one class name to a line."""
SPLITS = ("train", "val", "valid", "test")
"""Entries of data.yaml that say where images lie."""


@dataclass(frozen=True)
class Declared:
    """What a data.yaml, or a list of names, says of a set."""

    names: Mapping[int, str]
    folders: tuple[Path, ...] = ()
    """Where the images lie; empty where nothing is said that is there."""
    keypoints: int | None = None
    """Numbers after the box that are keypoints; `None` where no keypoints are declared."""


def is_yolo(files: Files) -> bool:
    """Whether text files with boxes lie where those of the images are looked for."""
    images = {path.with_suffix("") for path in files.images}
    swapped = {_swapped(path) for path in images}
    tables = [
        path
        for path in files.near(".txt", 3)
        if path.with_suffix("") in images | swapped
        and ("labels" in path.parts or len(path.relative_to(files.root).parts) <= 2)
    ]
    named = any(_names_classes(path) for path in files.others)
    boxed = 0
    for path in tables[:: max(1, len(tables) // LOOKED_AT)]:
        try:
            lines = read_text(path).split("\n")
        except LayoutError:
            continue
        first = next((line for line in lines if line.strip()), "")
        boxed += len(first.split()) >= 5 and all(number(w) == number(w) for w in first.split())
    in_labels = any(part == "labels" for path in tables for part in path.parts)
    return boxed > 0 and (named or in_labels or len(tables) * 2 >= len(files.images))


def yolo(scan: Scan) -> None:
    """YOLO: a `.txt` of `class cx cy w h` (fractions) per image, names in data.yaml or classes.txt.

    A label file lies in `labels/` where its image lies in `images/`, or beside it. An image
    without one has no cells, as the format has it. Polygons count by their bounding box. Of
    data.yaml, `names`, `nc`, `path`, the splits and `kpt_shape` are honoured.
    """
    images, others = scan.walk()
    declared = declaration(scan, others)
    for folder in declared.folders:
        if not folder.is_relative_to(scan.root):
            for place in {folder, _swapped(folder / "x").parent}:
                more = scan.walk(place) if place.is_dir() else ([], [])
                images, others = [*images, *more[0]], [*others, *more[1]]
    if declared.folders:
        inside = [path for path in images if any(path.is_relative_to(f) for f in declared.folders)]
        scan.leave(set(images) - set(inside), "data.yaml names no split that it lies in")
        images = inside
    tables = {path for path in others if path.suffix.lower() == ".txt" and not _is_list(path)}
    found = {table.with_suffix(""): table for table in tables}
    used: set[Path] = set()
    bare: list[Path] = []
    for path in images:
        stem = path.with_suffix("")
        table = found.get(_swapped(stem)) or found.get(stem)
        if table is None:
            bare.append(path)
            continue
        used.add(table)
        scan.marked(path, parse_yolo(scan, table, declared))
    for table in sorted(tables - used):
        near = (_swapped(folder / table.name).parent for folder in declared.folders)
        if not declared.folders or any(folder in table.parents for folder in near):
            scan.fail(table, no_image([]))
    for path in bare:
        scan.marked(path, [])
    if bare:
        scan.warn(f"{len(bare)} images have no label file, so no cells")
    keep = {".txt", ".yaml", ".yml", ".names", ".labels", ".data"}
    scan.left_alone(path for path in others if path.suffix.lower() not in keep)


def parse_yolo(scan: Scan, table: Path, declared: Declared) -> list[Mark]:
    """The boxes of a YOLO label file; what is wrong with a line goes to the report."""
    marks: list[Mark] = []
    names = declared.names
    for at, line in enumerate(scan.table(table).splitlines(), 1):
        words = line.split()
        where = f"line {at}"
        if not words:
            continue
        values = [number(word) for word in words]
        if declared.keypoints is not None and len(values) == 5 + declared.keypoints:
            values = values[:5]
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


def declaration(scan: Scan, others: Sequence[Path]) -> Declared:
    """What `data.yaml`, `classes.txt`, `obj.names` or `_darknet.labels` say.

    Raises:
        LayoutError: none of them, or they contradict themselves or each other.
    """
    found: list[tuple[Path, Declared]] = []
    for path in others:
        if path.suffix.lower() in {".yaml", ".yml"}:
            text = scan.text(path)
            if "names" in text and (names := parse_names(text, path.name)):
                scan.table(path)
                body = _yaml(text, path.name)
                found.append((path, Declared(names, *_where(scan.root, path, body))))
    for path in [] if found else others:
        if path.name in LISTS or path.suffix == ".names":
            lines = [line.strip() for line in scan.table(path).splitlines()]
            found.append((path, Declared({at: name for at, name in enumerate(lines) if name})))
    if not found:
        raise LayoutError(
            f"no class names under {scan.root}; YOLO keeps them under `names:` in data.yaml, "
            "or one to a line in classes.txt"
        )
    for path, other in found[1:]:
        if other.names != found[0][1].names:
            raise LayoutError(
                f"{found[0][0]} and {path} name the classes differently; ingest their folders alone"
            )
    return found[0][1]


def parse_names(text: str, called: str = "data.yaml") -> dict[int, str]:
    """The entry `names:` of a YOLO data.yaml, a list or a mapping from numbers; empty if none.

    Raises:
        LayoutError: not YAML, or `nc` is another number than that of the names.
    """
    body = _yaml(text, called)
    names = body.get("names")
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(names, dict):
        pairs = names.items()
    elif isinstance(names, list):
        pairs = enumerate(names)
    found: dict[int, str] = {}
    for code, name in pairs:
        if not str(code).isdecimal() or not isinstance(name, str) or not name.strip():
            raise LayoutError(f"the names of {called} are no list of words, nor words by number")
        found[int(code)] = name.strip()
    count = body.get("nc")
    if found and count is not None and str(count) != str(len(found)):
        raise LayoutError(
            f"{called} says nc: {count} and names {len(found)} classes; mend it, so that no label "
            "is shifted"
        )
    return found


def _yaml(text: str, called: str) -> dict[str, Any]:
    """A YAML mapping whose scalars are all text, so that a class `no` stays `no`."""
    import yaml

    try:
        body = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (makes text alone)
    except (yaml.YAMLError, RecursionError) as error:
        raise LayoutError(f"{called} is not YAML: {' '.join(str(error).split())}") from error
    return body if isinstance(body, dict) else {}


def _where(root: Path, table: Path, body: Mapping[str, Any]) -> tuple[tuple[Path, ...], int | None]:
    """The folders of the splits that are there, and the numbers of the keypoints."""
    bases = [table.parent / str(body.get("path", "")), table.parent, root]
    folders: list[Path] = []
    for split in SPLITS:
        entries = body.get(split)
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, str) or not entry:
                continue
            tried = [base / one for base in bases for one in (entry, entry.removeprefix("../"))]
            there = next((path for path in tried if path.is_dir()), None)
            if there is not None:
                folders.append(Path(*there.parts))
    shape = body.get("kpt_shape")
    points = None
    if isinstance(shape, list) and len(shape) == 2 and all(str(n).isdecimal() for n in shape):
        points = int(shape[0]) * int(shape[1])
    inside = {folder.resolve() for folder in folders}
    near = tuple(
        root / one.relative_to(root.resolve()) if one.is_relative_to(root.resolve()) else one
        for one in sorted(inside)
    )
    return near, points


def _names_classes(path: Path) -> bool:
    return path.name in LISTS or path.suffix in {".yaml", ".yml", ".names"}


def _is_list(path: Path) -> bool:
    return path.name in LISTS | {"train.txt", "val.txt", "valid.txt", "test.txt"} or (
        path.stem.lower().startswith(("readme", "license"))
    )


def _swapped(path: Path) -> Path:
    """The same path with its last folder `images` called `labels`."""
    parts = list(path.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            return Path(*parts[:at], "labels", *parts[at + 1 :])
    return path

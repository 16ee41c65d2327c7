"""COCO boxes and masks: JSON with images, annotations and categories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.image import MAX_PIXELS
from ingest.layouts.boxes import number
from ingest.layouts.scan import Files, LayoutError, Scan, read_text
from ingest.sources.marked import Mark
from ingest.sources.source import Facts
from search.text import composed

Rectangle = tuple[float, float, float, float]
"""Left, top, width, height."""


@dataclass
class _Table:
    """One COCO file on its way."""

    scan: Scan
    path: Path
    body: Mapping[str, Any]
    marks: dict[Any, list[Mark]] = field(default_factory=dict)
    """By the id of the image."""
    crowds: int = 0
    brushed: int = 0
    """Masks marked as crowds that are one connected cell each."""

    def read(self) -> None:
        """Turn the annotations into marks."""
        names = {one.get("id"): str(one.get("name")) for one in self.body["categories"]}
        for one in self.body["annotations"]:
            where = f"annotation {one.get('id')}"
            try:
                box = self._box(one)
            except ValueError as error:
                self.scan.fail(self.path, str(error), where)
                continue
            label = names.get(one.get("category_id"))
            if box is None:
                self.crowds += 1
            elif label is None:
                reason = f"category {one.get('category_id')} is not among them"
                self.scan.fail(self.path, reason, where)
            else:
                mark = Mark(*box, facts=Facts(label=label), where=where)
                self.marks.setdefault(one.get("image_id"), []).append(mark)

    def _box(self, one: Mapping[str, Any]) -> Rectangle | None:
        """The box of an annotation; `None` for a crowd.

        Raises:
            ValueError: neither a box nor an outline, in words.
        """
        box, outline = one.get("bbox"), one.get("segmentation")
        if one.get("iscrowd"):
            if not isinstance(outline, dict):
                return None
            mask = decode_rle(outline)
            if not _is_one_piece(mask):
                return None
            self.brushed += 1
            return bounds(mask)
        if isinstance(box, list) and len(box) == 4:
            x, y, w, h = (number(value) for value in box)
            return x, y, w, h
        if not box and isinstance(outline, dict):
            return bounds(decode_rle(outline))
        if not box and isinstance(outline, list) and outline:
            points = np.concatenate([np.asarray(ring, float).reshape(-1, 2) for ring in outline])
            (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            return left, top, right - left, bottom - top
        raise ValueError(f"bbox [x, y, w, h] was expected, got {box}")


def is_coco(files: Files) -> bool:
    """Whether a folder holds a COCO file near its top."""
    stems = {path.stem for path in files.images}
    near = (path for path in files.near(".json") if path.stem not in stems)
    return any(coco_body(path) is not None for path in near)


def coco(scan: Scan) -> None:
    """COCO: JSON with `images`, `annotations` (bbox x, y, w, h in pixels) and `categories`.

    The root is such a file, or a folder with some, for instance `annotations/*.json` or one
    `_annotations.coco.json` in each split. A mask (RLE) that is marked as a crowd and is one
    piece is one cell, as CVAT writes what was painted with the brush.
    """
    base = scan.root.parent if scan.root.is_file() else scan.root
    images, others = scan.walk(base)
    tables = [scan.root] if scan.root.is_file() else [p for p in others if p.suffix == ".json"]
    known = {composed(str(path)): path for path in images}
    read = 0
    for path in tables:
        body = coco_body(path)
        if body is None:
            continue
        read += 1
        scan.table(path)
        table = _Table(scan, path, body)
        table.read()
        _images(table, base, known)
    if not read:
        raise LayoutError(f"no JSON with images, annotations and categories under {base}")
    left = len(set(images) - {task.path for task in scan.tasks})
    if left:
        scan.warn(f"{left} images are in no COCO file and stay out")


def coco_body(table: Path) -> dict[str, Any] | None:
    """The content of a COCO file; `None` if it is something else."""
    try:
        body = json.loads(read_text(table))
    except (ValueError, RecursionError):
        return None
    named = isinstance(body, dict) and all(
        isinstance(body.get(name), list) and all(isinstance(one, dict) for one in body[name])
        for name in ("images", "annotations", "categories")
    )
    return body if named else None


def _images(table: _Table, base: Path, known: Mapping[str, Path]) -> None:
    """Give the marks to their images."""
    scan, marks = table.scan, table.marks
    if table.crowds:
        scan.warn(
            f"{table.crowds} annotations of {table.path.name} are crowds, not one cell, and stay "
            "out"
        )
    if table.brushed:
        scan.warn(
            f"{table.brushed} masks of {table.path.name} are marked as crowds and are one piece "
            "each; they were taken as one cell each"
        )
    for one in table.body["images"]:
        name = str(one.get("file_name")).replace("\\", "/")
        split = table.path.stem.removeprefix("instances_")
        places = (table.path.parent, base, base / "images", base / split, base / "images" / split)
        named = (composed(str(place / name)) for place in places)
        path = next((known[one] for one in named if one in known), None)
        if path is None:
            scan.fail(table.path, f"its image {name} is missing", f"image {one.get('id')}")
            marks.pop(one.get("id"), None)
            continue
        wide, high = one.get("width"), one.get("height")
        size = (wide, high) if isinstance(wide, int) and isinstance(high, int) else None
        if found := marks.pop(one.get("id"), []):
            scan.marked(path, found, size)
        else:
            scan.marked(path, [])
    for id, lost in marks.items():
        scan.fail(table.path, f"{len(lost)} annotations name image {id}, which is not among them")


# ---------------------------------------------------------------- masks


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """A run-length encoded mask (height x width), plain or compressed as pycocotools writes it.

    Raises:
        ValueError: the runs do not add up to the size.
    """
    try:
        high, wide = (int(side) for side in rle["size"])
        counts = rle["counts"]
        runs = _decompressed(counts) if isinstance(counts, str) else [int(n) for n in counts]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("a mask with size and counts was expected") from error
    if not (0 < high * wide <= MAX_PIXELS) or min(runs, default=-1) < 0 or sum(runs) != high * wide:
        raise ValueError(f"the runs of the mask do not add up to {wide} x {high} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(wide, high).T


def _decompressed(text: str) -> list[int]:
    """The runs in the text of pycocotools: 5 bits a character, differences from the third on."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[at]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at, shift = at + 1, shift + 5
            if not more and code & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def bounds(mask: NDArray[np.bool_]) -> Rectangle:
    """The box around a mask.

    Raises:
        ValueError: it is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("its mask is empty")
    wide, high = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return float(columns[0]), float(rows[0]), float(wide), float(high)


def _is_one_piece(mask: NDArray[np.bool_]) -> bool:
    from scipy import ndimage

    found, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count <= 1:
        return bool(count == 1)
    sizes: Sequence[int] = np.bincount(found.ravel())[1:].tolist()
    return max(sizes) >= 0.95 * sum(sizes)  # a stroke of the brush leaves crumbs

"""Synthetic blood smears, drawn by our code from a seed: for the offline demo and for tests.

Nothing here was photographed. The pictures carry the dataset name `synthetic-smear` wherever
they go, and no figure measured on them says anything about real cells.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageFilter

from encoder.contract import RGB
from ingest.samples.blood_cells import LABELS, Kind, kind_of, paint
from ingest.samples.drawing import Drawn, Plane, clouds
from ingest.samples.patients import Patient, patient

DATASET = "synthetic-smear"
"""The name that these pictures carry everywhere."""
NOTICE = (
    "Synthetic blood smear: every picture in this folder was drawn by a program from a seed.\n"
    "No picture shows a real cell, and no patient, case or site named here exists.\n"
)
FIELD_OF_VIEW = 20.0
"""Side in micrometres that a picture of one cell shows unless told otherwise."""


@dataclass(frozen=True)
class DrawnCell:
    """One cell of a drawn field, known exactly."""

    label: str
    """One of `LABELS`."""
    kind: Kind
    bbox: tuple[int, int, int, int]
    """x, y, width, height in pixels, inside the field."""
    truncated: bool
    """Whether the field's border cuts the cell."""


@dataclass(frozen=True)
class Field:
    """One drawn field and all that is known of it."""

    image: RGB
    cells: tuple[DrawnCell, ...]
    """In the order in which they were drawn."""
    um_per_px: float
    patient: str
    case: str
    site: str
    stain: str


@dataclass(frozen=True)
class Library:
    """A synthetic data set on disk."""

    folder: Path
    manifest: Path
    """CSV of the single cells."""
    cells: int
    """Pictures of single cells."""
    fields: int
    """Fields with annotations."""


def draw_field(
    seed: int,
    *,
    patient: Patient | int = 0,
    width: int = 640,
    height: int = 480,
    um_per_px: float = 0.1,
) -> Field:
    """Draw one field of a smear; equal arguments give equal bytes.

    Args:
        seed: Which field; its parity decides which of the patient's two cases it is from.
        patient: Whose smear, or the number of one.
        width: Pixels.
        height: Pixels.
        um_per_px: Micrometres per pixel.
    """
    who = _patient(patient)
    rng = np.random.default_rng([11, who.number, seed])
    density = np.zeros((height, width, 3), np.float32)
    placed: list[tuple[float, float, float]] = []
    cells: list[DrawnCell] = []
    for label in _census(rng, who, width * height * um_per_px**2):
        drawn, reach = paint(label, rng, who.ink, who.build, um_per_px)
        spot = _place(rng, placed, (width, height), reach / um_per_px, kind_of(label))
        if spot is None:
            continue
        seen = _stamp(density, drawn, spot)
        if seen is None:
            continue
        placed.append((*spot, reach / um_per_px))
        cells.append(DrawnCell(label, kind_of(label), *seen))
    image = _photograph(rng, density, who, um_per_px)
    case = f"{who.id}-case-{seed % 2 + 1}"
    return Field(image, tuple(cells), um_per_px, who.id, case, who.site, who.stain)


def draw_cell(
    label: str,
    seed: int,
    *,
    patient: Patient | int = 0,
    size: int = 128,
    um_per_px: float | None = None,
) -> RGB:
    """Draw one cell in the middle of a square, with red cells around it.

    Args:
        label: One of `LABELS`.
        seed: Which one; equal arguments give equal bytes.
        patient: Whose smear, or the number of one.
        size: Side in pixels.
        um_per_px: Micrometres per pixel; by default the square is `FIELD_OF_VIEW` wide.

    Raises:
        ValueError: an unknown label.
    """
    who = _patient(patient)
    scale = FIELD_OF_VIEW / size if um_per_px is None else um_per_px
    rng = np.random.default_rng([13, who.number, seed, LABELS.index(_known(label))])
    density = np.zeros((size, size, 3), np.float32)
    drawn, reach = paint(label, rng, who.ink, who.build, scale)
    middle = (size / 2 + rng.normal(0, 0.02 * size), size / 2 + rng.normal(0, 0.02 * size))
    _stamp(density, drawn, middle)
    placed = [(*middle, reach / scale)]
    for _ in range(int(rng.integers(4, 9))):
        around, far = _pick(rng, who.red), who.build.diameter / 2
        spot = _place(rng, placed, (size, size), far / scale, "red", tries=6)
        if spot is not None:
            neighbour, reach = paint(around, rng, who.ink, who.build, scale)
            _stamp(density, neighbour, spot)
            placed.append((*spot, reach / scale))
    return _photograph(rng, density, who, scale)


def write_library(
    folder: Path,
    *,
    patients: int = 6,
    fields_per_patient: int = 2,
    cells_per_label: int = 4,
    labels: Sequence[str] = LABELS,
    size: int = 128,
    seed: int = 0,
) -> Library:
    """Write a synthetic data set; equal arguments give equal bytes in every file.

    Written are `README.txt` (which says what this is), `cells/<label>/<name>.png` with
    `manifest.csv`, `fields/JPEGImages/<name>.png` with Pascal VOC in `fields/Annotations/`, and
    `fields.csv` with what is known of each field.

    Args:
        folder: Made where it is missing.
        patients: How many invented patients.
        fields_per_patient: Fields of 640 x 480 px at 0.1 um per pixel for each.
        cells_per_label: Pictures of single cells for each patient and label.
        labels: Which labels are drawn as single cells.
        size: Side of those pictures in pixels.
        seed: Which data set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(NOTICE, encoding="utf-8")
    rows: list[dict[str, str]] = []
    fields: list[dict[str, str]] = []
    for number in range(patients):
        who = patient(number)
        for label in labels:
            for i in range(cells_per_label):
                rows.append(_write_cell(folder, who, label, seed * 100_003 + i, size))
        for i in range(fields_per_patient):
            fields.append(_write_field(folder, who, seed * 100_003 + i, i))
    manifest = folder / "manifest.csv"
    _write_rows(manifest, rows)
    _write_rows(folder / "fields.csv", fields)
    return Library(folder, manifest, len(rows), len(fields))


def _patient(given: Patient | int) -> Patient:
    return patient(given) if isinstance(given, int) else given


def _known(label: str) -> str:
    kind_of(label)
    return label


def _pick(rng: np.random.Generator, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return tuple(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _census(rng: np.random.Generator, who: Patient, area: float) -> list[str]:
    """Which cells a field of this many square micrometres holds; white ones come first."""
    whites = max(1, int(rng.poisson(1.6 * area / 3000)))
    reds = int(area / 3000 * rng.uniform(30, 46))
    platelets = int(rng.poisson(3.5 * area / 3000))
    labels = [_pick(rng, who.white) for _ in range(whites)]
    labels += [_pick(rng, who.red) for _ in range(reds)]
    return labels + ["platelet"] * platelets


def _place(
    rng: np.random.Generator,
    placed: Sequence[tuple[float, float, float]],
    size: tuple[int, int],
    radius: float,
    kind: Kind,
    tries: int = 40,
) -> tuple[float, float] | None:
    """A centre for a cell that keeps its distance; some red cells touch another instead."""
    taken = np.array(placed).reshape(-1, 3)
    over = 0.35 * radius if kind == "red" else -0.6 * radius
    for attempt in range(tries):
        x = rng.uniform(-over, size[0] + over)
        y = rng.uniform(-over, size[1] + over)
        gap = 0.95 if kind == "red" else 1.0
        if kind == "red" and len(taken) and attempt % 4 == 1:  # lean on a neighbour
            cx, cy, r = taken[int(rng.integers(len(taken)))]
            turn, away = rng.uniform(0, 2 * np.pi), (r + radius) * rng.uniform(0.86, 0.96)
            x, y, gap = cx + away * np.cos(turn), cy + away * np.sin(turn), 0.85
        inside = -over <= x <= size[0] + over and -over <= y <= size[1] + over
        apart = np.hypot(taken[:, 0] - x, taken[:, 1] - y) >= gap * (taken[:, 2] + radius)
        if inside and bool(apart.all()):
            return float(x), float(y)
    return None


def _stamp(
    density: Plane, drawn: Drawn, centre: tuple[float, float]
) -> tuple[tuple[int, int, int, int], bool] | None:
    """Add a drawing around a centre; its box and whether it is cut, or `None` if out of sight."""
    height, width = density.shape[:2]
    side = drawn.body.shape[0]
    left, top = round(centre[0] - side / 2), round(centre[1] - side / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return None
    part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    whole = drawn.body > 0.5
    seen = whole[part]
    if not seen.any():
        return None
    density[y0:y1, x0:x1] += drawn.density[part]
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    box = (
        x0 + int(columns[0]),
        y0 + int(rows[0]),
        int(columns[-1] - columns[0]) + 1,
        int(rows[-1] - rows[0]) + 1,
    )
    return box, bool(seen.sum() < whole.sum())


def _photograph(rng: np.random.Generator, density: Plane, who: Patient, um_per_px: float) -> RGB:
    """Shine the lamp through, blur as a lens does, add the sensor's noise."""
    height, width = density.shape[:2]
    film = clouds(rng, (height, width), 9 / um_per_px) * np.float32(0.012) + 1
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    far = ((x / width - who.light[0]) ** 2 + (y / height - who.light[1]) ** 2).astype(np.float32)
    lamp = 1 - 0.12 * far if width > 320 else np.float32(1)
    light = np.exp(-(density + film[..., None] * who.ink.glass)) * np.float32(255)
    light *= np.asarray(lamp, np.float32)[..., None] if np.ndim(lamp) else lamp
    sharp = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    soft = sharp.filter(ImageFilter.GaussianBlur(0.07 / um_per_px))
    grain = rng.standard_normal((height, width, 3), np.float32) * np.float32(1.6)
    return np.clip(np.rint(np.asarray(soft, np.float32) + grain), 0, 255).astype(np.uint8)


def _facts(who: Patient, case: str, um_per_px: float) -> dict[str, str]:
    return {
        "dataset": DATASET,
        "case": case,
        "patient": who.id,
        "site": who.site,
        "stain": who.stain,
        "um_per_px": f"{um_per_px:g}",
    }


def _write_cell(folder: Path, who: Patient, label: str, seed: int, size: int) -> dict[str, str]:
    home = folder / "cells" / label
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{label.replace(' ', '-')}-{who.number:02d}-{seed:06d}.png"
    Image.fromarray(draw_cell(label, seed, patient=who, size=size)).save(path, compress_level=1)
    facts = _facts(who, f"{who.id}-case-{seed % 2 + 1}", FIELD_OF_VIEW / size)
    return {"path": path.relative_to(folder).as_posix(), "label": label} | facts


def _write_field(folder: Path, who: Patient, seed: int, i: int) -> dict[str, str]:
    field = draw_field(seed, patient=who)
    home, marks = folder / "fields" / "JPEGImages", folder / "fields" / "Annotations"
    home.mkdir(parents=True, exist_ok=True)
    marks.mkdir(parents=True, exist_ok=True)
    path = home / f"field-{who.number:02d}-{seed:06d}.png"
    Image.fromarray(field.image).save(path, compress_level=1)
    ElementTree.ElementTree(voc(field, path.name)).write(
        marks / f"{path.stem}.xml", encoding="utf-8", xml_declaration=True
    )
    facts = _facts(who, field.case, field.um_per_px)
    return {"path": path.relative_to(folder).as_posix()} | facts


def voc(field: Field, filename: str) -> ElementTree.Element:
    """The annotation of a field as Pascal VOC: pixels from 0, `xmax` and `ymax` past the end."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = filename
    source = ElementTree.SubElement(root, "source")
    ElementTree.SubElement(source, "database").text = DATASET
    size = ElementTree.SubElement(root, "size")
    height, width, depth = field.image.shape
    for name, value in (("width", width), ("height", height), ("depth", depth)):
        ElementTree.SubElement(size, name).text = str(value)
    for cell in field.cells:
        one = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(one, "name").text = cell.label
        ElementTree.SubElement(one, "truncated").text = str(int(cell.truncated))
        box = ElementTree.SubElement(one, "bndbox")
        x, y, w, h = cell.bbox
        for name, value in (("xmin", x), ("ymin", y), ("xmax", x + w), ("ymax", y + h)):
            ElementTree.SubElement(box, name).text = str(value)
    ElementTree.indent(root)
    return root


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    if not rows:
        return
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

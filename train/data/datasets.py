"""Labelled image sets as crops with labels, groups that must stay whole, and sources.

Every reader counts what it leaves out and says why in `notes`; the traps are those of each
set's own description.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.image import read_rgb
from search.evaluation.splits import Rows, Words, subset
from search.trees import CHULA_TYPES, TREES, Aside, BadTree, Said

Square = tuple[int, int, int]
"""Left, top and side in pixels; inside the image."""
Cell = tuple[Path, Square | None, str, str]
"""File, where in it (`None` for the whole image), label and group."""
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class BadDataset(ValueError):
    """A data set that is not there, or not laid out as its reader expects."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One labelled set. The pictures stay on disk until they are needed."""

    name: str
    paths: tuple[Path, ...]
    """The file of each cell."""
    squares: tuple[Square | None, ...]
    """Where in the file; `None` for the whole image."""
    labels: Words
    """The label of each cell, in the set's own words."""
    groups: Words
    """What must not be split: equal names stay on one side."""
    unit: str
    """What a group is: image, field, source tile, patient. Scores are labelled with it."""
    sources: Words | None = None
    """Capture batch, laboratory or the like, for leaving one out; `None` if unknown."""
    source_unit: str = "source"
    """What a source is."""
    patients: bool = False
    """Whether the groups are patients."""
    notes: tuple[str, ...] = ()
    """What was left out or joined, with counts, and what scores on this set cannot show."""

    def __post_init__(self) -> None:
        lengths = {len(self.paths), len(self.squares), len(self.labels), len(self.groups)}
        if self.sources is not None:
            lengths.add(len(self.sources))
        if len(lengths) != 1:
            raise BadDataset(f"{self.name}: columns of different length {sorted(lengths)}")
        if not self.paths:
            raise BadDataset(f"{self.name}: no cells; is this its folder?")

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, rows: Sequence[int] | Rows | None = None) -> Iterator[RGB]:
        """The crops of some rows (all if `None`) in that order, one file decoded at a time."""
        held: tuple[Path, RGB] | None = None
        for row in range(len(self)) if rows is None else rows:
            path, square = self.paths[row], self.squares[row]
            if held is None or held[0] != path:
                held = (path, read_rgb(path))
            yield held[1] if square is None else cut(held[1], square)

    def take(self, rows: Rows, note: str) -> Labelled:
        """Only some rows, and why."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            squares=tuple(self.squares[row] for row in rows),
            labels=self.labels[rows],
            groups=self.groups[rows],
            sources=None if self.sources is None else self.sources[rows],
            notes=(*self.notes, note),
        )

    def at_most(self, limit: int | None, seed: int) -> Labelled:
        """About `limit` cells, classes in proportion, from as many groups as there are."""
        if limit is None or limit >= len(self):
            return self
        rows = subset(self.labels, self.groups, limit, seed)
        return self.take(rows, f"a subset of {len(rows)} of {len(self)} cells")

    def keys(self) -> Words:
        """32 hex digits per cell over the bytes of its file and its square: equal pictures."""
        files = {path: sha256(path.read_bytes()).hexdigest() for path in dict.fromkeys(self.paths)}
        cells = zip(self.paths, self.squares, strict=True)
        return np.array([sha256(f"{files[p]} {s}".encode()).hexdigest()[:32] for p, s in cells])

    def digest(self) -> str:
        """Sixteen hex digits over the pictures, labels and groups, in order."""
        facts = zip(self.keys(), self.labels, self.groups, strict=True)
        return sha256("\n".join(" ".join(fact) for fact in facts).encode()).hexdigest()[:16]


def cut(image: RGB, square: Square) -> RGB:
    """The pixels of a square.

    Raises:
        BadDataset: the square leaves the image.
    """
    x, y, side = square
    crop = image[max(y, 0) : y + side, max(x, 0) : x + side]
    if crop.shape[:2] != (side, side):
        raise BadDataset(f"square {square} leaves an image of {image.shape[1]}x{image.shape[0]} px")
    return np.ascontiguousarray(crop)


def _labelled(cells: Sequence[Cell], **facts: Any) -> Labelled:
    """A set of such cells; `facts` are the other fields of `Labelled`."""
    return Labelled(
        paths=tuple(cell[0] for cell in cells),
        squares=tuple(cell[1] for cell in cells),
        labels=np.array([cell[2] for cell in cells]),
        groups=np.array([cell[3] for cell in cells]),
        **facts,
    )


def pbc(folder: Path) -> Labelled:
    """PBC (Acevedo 2020): single cells of eleven classes; two near-duplicate pairs joined."""
    pairs = (("EO_246684", "EO_409717"), ("MO_231316", "MO_415531"))
    joined = {name: f"{a}+{b}" for a, b in pairs for name in (a, b)}
    return _labelled(
        [(path, None, path.parent.name, joined.get(path.stem, path.stem))
         for path in _files(folder / "cells")],
        name="pbc",
        unit="image",
        notes=(
            "one laboratory, one analyser, no patient, slide or date: image-level only",
            "2 near-duplicate pairs joined",
        ),
    )  # fmt: skip


CHULA_BATCHES = ((2, 48), (51, 222), (232, 675), (676, 706), (707, 732))
CHULA_MARKS = {
    (2, 48): (544, 232, 640, 480),  # eyepiece pointer
    (51, 222): (495, 422, 603, 443),  # green bar
    (232, 675): (555, 418, 610, 445),  # black bar
    (707, 732): (566, 426, 603, 443),  # cyan bar
}
"""Left, top, right and bottom of the marks burned into the fields of each batch."""
CHULA_PAIRS = ((233, 234), (262, 263), (270, 276), (271, 277))
CHULA_SIDE = 70
"""About 13 micrometres in fields 51 to 675."""


def chula(folder: Path, *, class_12: bool = True) -> Labelled:
    """Chula RBC-12: points to 70x70 px crops of red cells, groups are fields, sources batches.

    Points whose square would leave the field, or that would show a burned-in mark (pointer,
    scale bar, yellow arrow), are left out: padding and marks give the batch away.

    Args:
        folder: Holds `Dataset` and `Label`.
        class_12: With the elliptocytes, all of which are in one batch that holds nothing else.
    """
    fields = {int(path.stem): path for path in _files(folder / "Dataset")}
    pair = {field: f"{a}+{b}" for a, b in CHULA_PAIRS for field in (a, b)}
    cells: list[Cell] = []
    batches: list[str] = []
    left_out: Counter[str] = Counter()
    for field, path in sorted(fields.items()):
        batch = next((b for b in CHULA_BATCHES if b[0] <= field <= b[1]), None)
        if batch is None:
            raise BadDataset(f"{path}: field {field} is in no known capture batch")
        arrows = _yellow(read_rgb(path))
        for line in (folder / "Label" / f"{field}.txt").read_text(encoding="utf-8").splitlines():
            x, y, kind = (int(word) for word in line.split())
            square = (x - CHULA_SIDE // 2, y - CHULA_SIDE // 2, CHULA_SIDE)
            why = _chula_fault(square, arrows, CHULA_MARKS.get(batch))
            if kind == 12 and not class_12:
                why = "elliptocytes (class 12, a batch of their own)"
            if why:
                left_out[why] += 1
                continue
            cells.append((path, square, CHULA_TYPES[kind], pair.get(field, str(field))))
            batches.append(f"{batch[0]}-{batch[1]}")
    return _labelled(
        cells,
        name="chula" if class_12 else "chula without class 12",
        unit="field",
        sources=np.array(batches),
        source_unit="capture batch",
        notes=(
            *(f"{n} points left out: {why}" for why, n in sorted(left_out.items())),
            "4 near-duplicate pairs of fields joined",
            "labels can be partial and no patient is known",
        ),
    )


def _yellow(field: RGB) -> NDArray[np.bool_]:
    """Pixels of the yellow arrows that were drawn into some fields."""
    red, green, blue = (field[..., at].astype(np.int16) for at in range(3))
    return np.asarray((red > 180) & (green > 110) & (blue < 90) & (red - blue > 120))


def _chula_fault(
    square: Square, arrows: NDArray[np.bool_], mark: tuple[int, int, int, int] | None
) -> str | None:
    x, y, side = square
    if x < 0 or y < 0 or x + side > arrows.shape[1] or y + side > arrows.shape[0]:
        return "closer than half a crop to the border"
    if mark and x < mark[2] and mark[0] < x + side and y < mark[3] and mark[1] < y + side:
        return "crop would show the batch's mark"
    if arrows[y : y + side, x : x + side].sum() > 5:
        return "crop would show a drawn arrow"
    return None


def lc25000(folder: Path) -> Labelled:
    """LC25000 lung tiles: six augmented copies of each source tile, which is the group."""
    rows = _table(folder / "source_tiles.csv", ("class", "file", "source_tile"))
    return _labelled(
        [(folder / row["class"] / row["file"], None, row["class"], row["source_tile"])
         for row in rows],
        name="lc25000",
        unit="source tile",
        notes=("tiles of one class may share a patient or slide, which is not recorded",),
    )  # fmt: skip


BCCD_SKIP = frozenset({103, 113, 117, 133, 135, 171, 178, 228, 242, 327})
"""Fields whose subtype row disagrees with the number of white cells."""


def bccd(folder: Path, *, context: float = 1.5) -> Labelled:
    """BCCD: the white cell of fields that have exactly one, four classes, from another laboratory.

    Args:
        folder: Holds `JPEGImages`, `Annotations` and `wbc_subtypes.csv`.
        context: Side of the crop over the longer side of the box; shifted to stay inside.
    """
    cells: list[Cell] = []
    left_out: Counter[str] = Counter()
    for row in _table(folder / "wbc_subtypes.csv", ("Image", "Category")):
        number, kind = int(row["Image"]), row["Category"].strip().lower()
        path = folder / "JPEGImages" / f"BloodImage_{number:05d}.jpg"
        boxes = _white_boxes(folder / "Annotations" / f"{path.stem}.xml") if path.exists() else []
        why = (
            "no such field"
            if not path.exists()
            else "the row disagrees with the number of white cells"
            if number in BCCD_SKIP
            else "not exactly one white cell of one named type"
            if len(boxes) != 1 or not kind or "," in kind
            else "basophil, too rare to score"
            if kind == "basophil"
            else None
        )
        if why:
            left_out[why] += 1
            continue
        group = "00037+00038" if number in (37, 38) else f"{number:05d}"
        cells.append((path, _around(boxes[0], context, 640, 480), kind, group))
    return _labelled(
        cells,
        name="bccd",
        unit="image",
        notes=(
            *(f"{n} rows left out: {why}" for why, n in sorted(left_out.items())),
            f"crop: {context} times the longer side of the box, shifted to stay inside",
            "no patient is known; consecutive images may share a slide",
        ),
    )


def _white_boxes(path: Path) -> list[tuple[int, int, int, int]]:
    names = ("xmin", "ymin", "xmax", "ymax")
    found = []
    for thing in ElementTree.parse(path).getroot().iter("object"):  # noqa: S314 - the set's own files
        if thing.findtext("name") == "WBC":
            x0, y0, x1, y1 = (int(thing.findtext(f"bndbox/{name}") or 0) for name in names)
            found.append((x0, y0, x1, y1))
    return found


def _around(box: tuple[int, int, int, int], context: float, width: int, height: int) -> Square:
    x0, y0, x1, y1 = box
    side = min(round(context * max(x1 - x0, y1 - y0)), width, height)
    x = min(max((x0 + x1 - side) // 2, 0), width - side)
    y = min(max((y0 + y1 - side) // 2, 0), height - side)
    return x, y, side


def bmc(folder: Path) -> Labelled:
    """BMC (Matek 2021): single marrow cells of six classes, of a laboratory in Munich."""
    return _labelled(
        [(path, None, path.parent.name, path.stem) for path in _files(folder / "cells")],
        name="bmc",
        unit="image",
        notes=(
            "crowded marrow, noisy labels, no patient is known: image-level only",
            "500 of each class, perhaps of few patients",
        ),
    )


def attri(folder: Path, *, context: float = 1.5) -> Labelled:
    """LeukemiaAttri (Rehman 2024): the labelled cells of patient 27, at a 40x objective.

    For evaluation only: no licence was found, so nothing may be trained on it.

    Args:
        folder: Holds `fields` and `cells_27.csv`.
        context: Side of the crop over the longer side of the box; shifted to stay inside.
    """
    names = ("path", "x", "y", "width", "height")
    boxes: dict[tuple[str, ...], tuple[str, str]] = {}
    for row in _table(folder / "cells_27.csv", (*names, "patient", "label")):
        boxes.setdefault(tuple(row[name] for name in names), (row["label"], row["patient"]))
    cells: list[Cell] = []
    for (path, *numbers), facts in boxes.items():
        x, y, width, height = (float(number) for number in numbers)
        box = (round(x), round(y), round(x + width), round(y + height))
        cells.append((folder / path, _around(box, context, 640, 386), *facts))
    return _labelled(
        cells,
        name="attri",
        unit="patient",
        patients=True,
        notes=("one patient; a box that is listed twice counts once, as it was named first",),
    )


PBC_TO_FOUR = {
    "BNE": "neutrophil",
    "SNE": "neutrophil",
    "EO": "eosinophil",
    "LY": "lymphocyte",
    "MO": "monocyte",
}
"""PBC classes that BCCD has too; band and segmented neutrophils merged."""


def pbc_bccd(pbc_folder: Path, bccd_folder: Path) -> Labelled:
    """Two laboratories in four classes: index one, query the other; sources are laboratories."""
    first, second = pbc(pbc_folder), bccd(bccd_folder)
    rows = np.flatnonzero(np.isin(first.labels, list(PBC_TO_FOUR)))
    first = first.take(rows, f"{len(first) - len(rows)} cells of other classes left out of PBC")
    four = [PBC_TO_FOUR[label] for label in first.labels]
    return Labelled(
        name="pbc-bccd",
        paths=first.paths + second.paths,
        squares=first.squares + second.squares,
        labels=np.concatenate([four, second.labels]),
        groups=np.concatenate([first.groups, second.groups]),
        unit="image",
        sources=np.repeat(["pbc", "bccd"], [len(first), len(second)]),
        source_unit="laboratory",
        notes=(*first.notes, *second.notes),
    )


def folder(root: Path) -> Labelled:
    """Any labelled set: one folder per label, or a `manifest.csv`.

    The manifest has the columns `path` (from `root`) and `label`, and may have `patient` and
    `source`. With patients, they are the groups; without, each image is its own.

    Raises:
        BadDataset: a patient or source that is given for some rows only, or a missing file.
    """
    table = root / "manifest.csv"
    if not table.exists():
        inside = [(p, p.relative_to(root)) for p in _files(root) if p.parent != root]
        return _labelled(
            [(path, None, within.parts[0], within.as_posix()) for path, within in inside],
            name=root.name,
            unit="image",
            notes=("no patient is known: image-level only",),
        )
    rows = _table(table, ("path", "label"))
    if missing := [path for row in rows if not (path := root / row["path"]).is_file()]:
        raise BadDataset(f"{table}: {len(missing)} files are missing, the first is {missing[0]}")
    columns = {}
    for name in ("patient", "source"):
        given = [row.get(name) or "" for row in rows]
        if any(given) and not all(given):
            raise BadDataset(f"{table}: {given.count('')} rows without {name}; fill all or none")
        columns[name] = np.array(given) if any(given) else None
    patients = columns["patient"] is not None
    group = "patient" if patients else "path"
    return _labelled(
        [(root / row["path"], None, row["label"], row[group]) for row in rows],
        name=root.name,
        unit="patient" if patients else "image",
        sources=columns["source"],
        patients=patients,
        notes=() if patients else ("no patient is known: image-level only",),
    )


def published(root: Path, name: str) -> Labelled:
    """A published set in the tree that it was published in: `search.trees`.

    What carries no label, and what is no cell of the set, is left out and counted.

    Raises:
        BadDataset: no folder, or a tree of another set.
    """
    tree = TREES[name]
    if not root.is_dir():
        raise BadDataset(f"no folder {root}; is it that of {tree.describes}?")
    try:
        says = tree.rule(root)
    except BadTree as error:
        raise BadDataset(str(error)) from error
    cells: list[tuple[Path, Said]] = []
    left_out: Counter[str] = Counter()
    for path in _files(root):
        said = says(path.relative_to(root))
        if isinstance(said, Said) and said.label is not None:
            cells.append((path, said))
        else:
            unlabelled = "it has no label" if said else f"{tree.expected} was expected"
            left_out[said.why if isinstance(said, Aside) else unlabelled] += 1
    if not cells:
        raise BadDataset(
            f"{root}: no labelled cell of {name}; {tree.expected} was expected"
            + (f". The set is: {tree.describes}" if left_out["it has no label"] else "")
        )
    unknown = sum(not said.patient for _, said in cells) if tree.patients else 0
    patients = tree.patients and not unknown
    alone = [f"{unknown} images whose patient is not known: each is a group of its own"]
    sources = [said.source or "" for _, said in cells]
    return _labelled(
        [(path, None, said.label or "", (tree.patients and said.patient)
          or str(path.relative_to(root))) for path, said in cells],
        name=name,
        unit="patient" if patients else "image",
        sources=np.array(sources) if all(sources) else None,
        patients=patients,
        notes=(
            *(f"{n} images left out: {why}" for why, n in sorted(left_out.items())),
            *(alone if unknown else ()),
            *tree.notes,
        ),
    )  # fmt: skip


def fixed_test(labelled: Labelled, table: Path) -> NDArray[np.bool_]:
    """Which cells a published table of test images names (n flags).

    The table is a CSV whose first column is a path, as the authors of DinoBloom publish them
    (`Image Path,Label`), a CSV with `path` and `split`, or a path on each line. Since the paths
    are those of another machine, an image is known by its folder and its name.

    Raises:
        BadDataset: a path that is not in the set, or nothing of the set left to train on.
    """
    if not table.is_file():
        raise BadDataset(f"there is no table of test images {table}")
    wanted: dict[str, int] = {}
    with table.open(newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.DictReader(lines, ("path", "second")), 1):
            path, second = (row["path"] or "").strip(), (row["second"] or "").strip().lower()
            header = number == 1 and path.lower() in ("path", "image path", "image")
            if path and not header and second not in ("train", "val", "valid", "validation"):
                wanted["/".join(path.replace("\\", "/").split("/")[-2:])] = number
    there = np.array(["/".join(path.parts[-2:]) for path in labelled.paths])
    if strange := set(wanted) - set(there.tolist()):
        first = min(strange, key=wanted.__getitem__)
        raise BadDataset(
            f"{table} line {wanted[first]}: {labelled.name} has no image {first} "
            f"({len(strange)} of {len(wanted)} are not there)"
        )
    test = np.isin(there, list(wanted))
    if not test.any() or test.all():
        raise BadDataset(f"{table} leaves {'no test' if not test.any() else 'no training'} images")
    return np.asarray(test)


READERS: dict[str, Callable[[Path], Labelled]] = {
    "pbc": lambda data: pbc(data / "pbc"),
    "chula": lambda data: chula(data / "chula"),
    "chula-no-12": lambda data: chula(data / "chula", class_12=False),
    "lc25000": lambda data: lc25000(data / "lc25000"),
    "bccd": lambda data: bccd(data / "bccd"),
    "bmc": lambda data: bmc(data / "bmc"),
    "attri": lambda data: attri(data / "attri"),
    "pbc-bccd": lambda data: pbc_bccd(data / "pbc", data / "bccd"),
    **{name: partial(lambda data, name: published(data / name, name), name=name) for name in TREES},
}
"""Sets that have a name; to add one, add its line."""


def read(name: str, data: Path) -> Labelled:
    """A named set under the data folder, `folder:PATH`, or a published tree as `NAME:PATH`.

    Raises:
        BadDataset: no such set, or not there.
    """
    if name.startswith("folder:"):
        return folder(Path(name.removeprefix("folder:")))
    kind, _, path = name.partition(":")
    if path and kind in TREES:
        return published(Path(path), kind)
    if name not in READERS:
        raise BadDataset(
            f"unknown data set {name!r}. Known: {', '.join(READERS)}, folder:PATH, or any of "
            f"{', '.join(TREES)} as NAME:PATH"
        )
    return READERS[name](data)


def _files(root: Path) -> tuple[Path, ...]:
    if not root.is_dir():
        raise BadDataset(f"no folder {root}; is the data folder right?")
    return tuple(sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES))


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        raise BadDataset(f"no table {path}; is the data folder right?")
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if lacking := set(columns) - set(reader.fieldnames or ()):
            raise BadDataset(f"{path} lacks the columns {sorted(lacking)}")
        return list(reader)

"""Published sets in which the place of an image says what it shows: one rule for each.

Ingest reads them as layouts, evaluation as labelled sets; what is in no path stays unknown.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath


@dataclass(frozen=True)
class Said:
    """What the place of an image says."""

    label: str | None = None
    patient: str | None = None
    source: str | None = None
    """Laboratory, or part of the set that was acquired together."""


@dataclass(frozen=True)
class Aside:
    """An image that is none of the set's cells, and why."""

    why: str


Says = Callable[[PurePath], Said | Aside | None]
"""An image's path below the root in, what it says out; `None` for a place that is not known."""


class BadTree(ValueError):
    """A tree that is not that of its set."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A published set."""

    name: str
    describes: str
    expected: str
    """What a path looks like."""
    rule: Callable[[Path], Says]
    """The root in; reads its tables once."""
    marks: tuple[str, ...] = ()
    """Places below the root; where there is one of them, it is no other set's tree."""
    tables: str = ""
    """Names of the tables that the rule reads, as a glob."""
    patients: bool = False
    """Whether patients are named."""
    notes: tuple[str, ...] = ()
    """What a score on it cannot show."""


CHULA_TYPES = (
    "normal",
    "macrocyte",
    "microcyte",
    "spherocyte",
    "target cell",
    "stomatocyte",
    "ovalocyte",
    "teardrop",
    "burr cell",
    "schistocyte",
    "uncategorised",
    "hypochromia",
    "elliptocyte",
)
"""By type number, of Chula RBC-12 (Naruenatthanaset et al. 2020; 12 was added in 2021)."""
AML_HEHR = ("CBFB_MYH11", "NPM1", "PML_RARA", "RUNX1_RUNX1T1", "control")
LISC = {
    "baso": "basophil",
    "eosi": "eosinophil",
    "lymp": "lymphocyte",
    "mono": "monocyte",
    "neut": "neutrophil",
}
SSLSEG = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""Of the class labels 1 to 5."""
ELSAFTY_SLIDE = re.compile(r"^Slide (\d+)\b")
SOURCE = re.compile(r"^(?:source|group|set|dataset)[ _-]*(\d+)$", re.I)
CODE = re.compile(r"^([A-Za-z]{2,12})_\d+$")
MASKS = frozenset(["mask", "masks", "label", "labels", "gt", "annotations", "instances"])
A_MASK = Aside("it is a mask, not a picture of a cell")


def _aml_hehr(inner: PurePath) -> Said | None:
    """`data/<class>/<patient>/image_N.tif` (Hehr et al. 2023, TCIA)."""
    parts = inner.parts
    if len(parts) < 3 or parts[-3] not in AML_HEHR:
        return None
    return Said(label=parts[-3], patient=parts[-2])


def _lisc(inner: PurePath) -> Said | Aside | None:
    """`Main Dataset/<class>/N.bmp`, masks in `Ground Truth Segmentation` (Rezatofighi 2011)."""
    if any(part.lower().startswith("ground truth") for part in inner.parts):
        return A_MASK
    name = inner.parts[-2].lower() if len(inner.parts) > 1 else ""
    if name.startswith("mixt"):
        return Aside("cells of several types lie in it (mixt)")
    return Said(label=LISC[name[:4]]) if name[:4] in LISC else None


def _sslseg(root: Path) -> Says:
    """`Dataset N/NNN.bmp` beside masks `NNN.png`, and `Class Labels of Dataset N.csv`."""
    known: dict[tuple[str, int], str] = {}
    tables = sorted(root.rglob("Class Labels of Dataset *.csv"))
    if not tables:
        raise BadTree(f"no 'Class Labels of Dataset 1.csv' under {root}")
    for table in tables:
        part = table.stem.removeprefix("Class Labels of ")
        with table.open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.reader(lines):
                if len(row) < 2 or not row[0].strip().isdecimal():
                    continue  # the line of names
                number = int(row[1])
                if not 1 <= number <= len(SSLSEG):
                    raise BadTree(f"{table}: class labels are 1 to 5, got {number}")
                known[part, int(row[0])] = SSLSEG[number - 1]

    def says(inner: PurePath) -> Said | Aside | None:
        if inner.suffix.lower() == ".png":
            return A_MASK
        part = inner.parts[-2] if len(inner.parts) > 1 else ""
        label = known.get((part, int(inner.stem))) if inner.stem.isdecimal() else None
        return None if label is None else Said(label=label, source=part)

    return says


def _nuclick(inner: PurePath) -> Said | Aside | None:
    """Pictures in folders `images`, masks beside them in `masks` (Koohbanani et al. 2020)."""
    folders = [part.lower() for part in inner.parts[:-1]]
    if any(part in MASKS for part in folders):
        return A_MASK
    return Said() if "images" in folders else None


def _warty_pig(inner: PurePath) -> Said | Aside | None:
    """`<original>/<class>/<image>`, augmented copies apart (Alipo-on et al. 2022)."""
    folders = inner.parts[:-1]
    if any("augment" in part.lower() for part in inner.parts):
        return Aside("it is an augmented copy of another picture")
    return Said(label=folders[-1].lower()) if folders else None


def _elsafty(inner: PurePath) -> Said | None:
    """`<source>/Cropped images/<class>/Slide N (...).png` (Elsafty et al. 2024)."""
    slide = ELSAFTY_SLIDE.match(inner.stem)
    if slide is None or len(inner.parts) < 2:
        return None
    sources = [match[1] for part in inner.parts if (match := SOURCE.match(part))]
    source = f"source {sources[0]}" if sources else None
    who = f"slide-{slide[1]}"  # counted anew in each source
    return Said(inner.parts[-2], who if source is None else f"{source} {who}", source)


def _by_code(inner: PurePath) -> Said | None:
    """`<CODE>/.../<CODE>_NNNN.<ending>`: BMC and AML-Cytomorphology_LMU (Matek et al.)."""
    code = CODE.match(inner.stem)
    return Said(label=code[1]) if code and code[1] in inner.parts[:-1] else None


def _by_folder(inner: PurePath) -> Said | None:
    """`<class>/<image>`: the folder that an image lies in is its class."""
    return Said(label=inner.parts[-2]) if len(inner.parts) > 1 else None


TREES: dict[str, Tree] = {
    tree.name: tree
    for tree in (
        Tree(
            name="aml-hehr",
            describes="AML-Cytomorphology_MLL_Helmholtz: class/patient/image",
            expected="data/PML_RARA/AAA/image_0.tif",
            rule=lambda root: _aml_hehr,
            marks=("PML_RARA", "data/PML_RARA"),
            patients=True,
            notes=("the label is the patient's, not the cell's: score patients (--bags)",),
        ),
        Tree(
            name="lisc",
            describes="LISC: Main Dataset/class/N.bmp, masks apart",
            expected="Main Dataset/Baso/1.bmp",
            rule=lambda root: _lisc,
            marks=("Main Dataset/Baso", "Main Dataset/baso"),
        ),
        Tree(
            name="sslseg",
            describes="segmentation_WBC (zxaoyou): two datasets with tables of class labels",
            expected="Dataset 1/001.bmp with a line in its table of class labels",
            rule=_sslseg,
            marks=("Class Labels of Dataset 1.csv",),
            tables="Class Labels of Dataset *.csv",
        ),
        Tree(
            name="nuclick",
            describes="NuClick's white cells: images and masks, no labels",
            expected="Train/images/NAME.png",
            rule=lambda root: _nuclick,
        ),
        Tree(
            name="warty-pig",
            describes="white cells of the juvenile Visayan warty pig: class folders",
            expected="Original/basophil/NAME.jpg",
            rule=lambda root: _warty_pig,
        ),
        Tree(
            name="elsafty",
            describes="Elsafty's red cells: classes, slides, sources",
            expected="Source 1/Cropped images/01-Rounded RBC/Slide 1 (1).png",
            rule=lambda root: _elsafty,
            patients=True,
        ),
        Tree(
            name="dse",
            describes="DSE's red cells: a folder for each class",
            expected="elliptocyte/NAME.png",
            rule=lambda root: _by_folder,
        ),
        Tree(
            name="bmc-full",
            describes="bone marrow cells of MLL, Helmholtz and Fraunhofer, whole",
            expected="BM_cytomorphology_data/BLA/0001-1000/BLA_00001.jpg",
            rule=lambda root: _by_code,
            notes=("945 patients that the set does not name: image-level only",),
        ),
        Tree(
            name="aml-matek",
            describes="AML-Cytomorphology_LMU, whole",
            expected="AML-Cytomorphology_LMU/NGS/NGS_0001.tiff",
            rule=lambda root: _by_code,
            notes=("200 patients that the set does not name: image-level only",),
        ),
    )
}
"""The sets by name."""

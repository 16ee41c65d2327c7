"""Every layout of files that can be ingested. To add one, add its line to `LAYOUTS`."""

from __future__ import annotations

import csv
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from ingest.layouts import boxes, folders, mixed, published
from ingest.layouts.scan import IMAGES, Layout, LayoutError, Options, Scan, read_text, walk
from ingest.layouts.table import manifest


def _voc(root: Path) -> bool:
    return any((root / "Annotations").glob("*.xml"))


def _chula(root: Path) -> bool:
    return (root / "Dataset").is_dir() and any((root / "Label").glob("*.txt"))


def _aslan(root: Path) -> bool:
    table = root / "annotations.csv"
    if not table.is_file():
        return False
    first = next(csv.reader(StringIO(read_text(table)[:1000])), [])
    return tuple(first) == published.ASLAN_COLUMNS


def _yolo(root: Path) -> bool:
    named = any(root.glob("*.y*ml")) or (root / "classes.txt").is_file()
    return named and (any(root.glob("labels")) or any(root.glob("*/labels")))


def _coco(root: Path) -> bool:
    if root.is_file():
        return root.suffix == ".json" and boxes.coco_body(root) is not None
    if any(root.glob("_annotations.coco.json")) or any(root.glob("*/_annotations.coco.json")):
        return True
    return any((root / "annotations").glob("instances_*.json"))


def _qupath(root: Path) -> bool:
    return any(root.glob("*.geojson"))


def _aml(root: Path) -> bool:
    return (root / "annotations.dat").is_file()


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("labels", "sub-folders are labels, one cell to an image", folders.labels),
        Layout("cells", "one cell to an image, no labels", folders.cells),
        Layout(
            "manifest",
            "a CSV table of paths and what is known of them",
            manifest,
            lambda path: path.is_file() and path.suffix.lower() == ".csv",
        ),
        Layout("voc", "Pascal VOC boxes (BCCD)", boxes.voc, _voc),
        Layout("yolo", "YOLO boxes", boxes.yolo, _yolo),
        Layout("coco", "COCO boxes", boxes.coco, _coco),
        Layout("chula", "Chula RBC-12: fields with points", published.chula, _chula),
        Layout("aslan", "Aslan's fields with boxes", published.aslan, _aslan),
        Layout("aml", "AML-Cytomorphology_LMU", folders.aml, _aml),
        Layout(
            "bmc",
            "bone marrow cells of MLL, Helmholtz and Fraunhofer",
            folders.bmc,
            lambda root: (
                (root / "BM_cytomorphology_data").is_dir()
                or (root.name == "BM_cytomorphology_data" and root.is_dir())
            ),
        ),
        Layout(
            "acevedo",
            "PBC of Acevedo et al., with the finer classes of its file names",
            folders.acevedo,
            lambda root: (
                (root / "PBC_dataset_normal_DIB").is_dir()
                or (root.name == "PBC_dataset_normal_DIB" and root.is_dir())
            ),
        ),
        Layout("raabin", "Raabin-WBC: cropped cells, or fields with boxes", published.raabin),
        Layout("elsafty", "Elsafty's red cells for classification", folders.elsafty),
        Layout("qupath", "QuPath GeoJSON beside each image", published.qupath, _qupath),
        Layout("mixed", "a tree of slides, smear photographs and known sets", mixed.mixed),
        Layout("slides", "whole slides, cut into tiles", mixed.slides),
        Layout("fields", "smear photographs whose cells are to be found", mixed.photographs),
    )
}


def scan(path: Path, layout: str | None = None, options: Options | None = None) -> Scan:
    """Find what there is to ingest.

    Args:
        path: A folder, or a table.
        layout: Its name in `LAYOUTS`; `None` recognises what is unmistakable, and takes any
            other folder for one whose sub-folders are labels.
        options: What a person says about it.

    Returns:
        The tasks in a fixed order, and a report with what is wrong already.

    Raises:
        LayoutError: the path, the layout or a table cannot be used, or there is no image.
    """
    if not path.exists():
        raise LayoutError(f"{path} does not exist")
    options = options or Options()
    chosen = named(layout) if layout is not None else LAYOUTS[recognise(path)]
    if layout is None and options.find is not None and chosen.name == "labels":
        chosen = LAYOUTS["mixed"]  # to be searched for cells, or not: so nothing is labelled
    found = Scan(path, options, known=LAYOUTS)
    chosen.read(found)
    if not found.tasks and not found.report.failures:
        raise LayoutError(f"{path} has nothing to ingest as layout {chosen.name!r}{_hint(path)}")
    return found


def named(layout: str) -> Layout:
    """A layout by name.

    Raises:
        LayoutError: no such name.
    """
    if layout not in LAYOUTS:
        near = get_close_matches(layout, LAYOUTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise LayoutError(f"unknown layout {layout!r}.{hint} Known: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout]


def recognise(path: Path) -> str:
    """The one layout that a path is unmistakably of, or `labels`.

    Raises:
        LayoutError: more than one, or a file of none.
    """
    sure = [one.name for one in LAYOUTS.values() if one.sure is not None and one.sure(path)]
    if len(sure) > 1:
        raise LayoutError(f"{path} looks like {' and '.join(sure)}; choose one with --layout")
    if sure:
        return sure[0]
    if mixed.holds_slides(path) or (path.is_file() and path.suffix.lower() in IMAGES):
        return "mixed"  # one image may be a slide, a field or a cell: its reader looks
    if path.is_file():
        raise LayoutError(f"{path} is no folder, no CSV manifest and no COCO file")
    return "labels"


def _hint(path: Path) -> str:
    if path.is_file():
        return ": it names no image"
    images, others = walk(path)
    if not images and not others:
        return ": the folder is empty"
    if not images:
        kinds = sorted({other.suffix.lower() or other.name for other in others})
        return (
            f": it has no images, only {', '.join(kinds)}; accepted are {', '.join(sorted(IMAGES))}"
        )
    return f", though it has {len(images)} images"

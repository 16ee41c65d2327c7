"""Every layout of files that can be ingested. To add one, add its line to `LAYOUTS`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from ingest.layouts import boxes, coco, folders, mixed, published, qupath, tools, yolo
from ingest.layouts.scan import IMAGES, Files, Layout, LayoutError, Options, Scan, read_text
from ingest.layouts.table import manifest
from ingest.slides.source import SLIDES, SlideReader
from ingest.sources.marked import BOXED, Marked
from search.trees import TREES


def _aslan(files: Files) -> bool:
    table = files.root / "annotations.csv"
    if not table.is_file():
        return False
    first = next(csv.reader(StringIO(read_text(table)[:1000])), [])
    return tuple(first) == published.ASLAN_COLUMNS


def _chula(files: Files) -> bool:
    root = files.root
    return (root / "Dataset").is_dir() and any((root / "Label").glob("*.txt"))


def _named(name: str) -> Callable[[Files], bool]:
    """Whether a folder, or one directly in it, has a name."""
    return lambda files: (files.root / name).is_dir() or files.root.name == name


def _marked(marks: tuple[str, ...]) -> Callable[[Files], bool]:
    """Whether one of some places lies below a root."""
    return lambda files: any((files.root / mark).exists() for mark in marks)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("labels", "sub-folders are labels, one cell to an image", folders.labels),
        Layout("cells", "one cell to an image, no labels", folders.cells),
        Layout(
            "manifest",
            "a CSV table of paths and what is known of them",
            manifest,
        ),
        Layout("voc", "Pascal VOC boxes (BCCD)", boxes.voc, boxes.is_voc),
        Layout("yolo", "YOLO boxes", yolo.yolo, yolo.is_yolo),
        Layout("coco", "COCO boxes", coco.coco, coco.is_coco),
        Layout(
            "csv",
            "boxes in _annotations.csv, or classes in _classes.csv",
            tools.csv_boxes,
            tools.is_csv,
        ),
        Layout(
            "labelstudio", "Label Studio's JSON export", tools.labelstudio, tools.is_labelstudio
        ),
        Layout("cvat", "CVAT's XML for images", tools.cvat, tools.is_cvat),
        Layout("labelme", "LabelMe's JSON beside each image", tools.labelme, tools.is_labelme),
        Layout("chula", "Chula RBC-12: fields with points", published.chula, _chula),
        Layout("aslan", "Aslan's fields with boxes", published.aslan, _aslan),
        Layout(
            "aml",
            "AML-Cytomorphology_LMU",
            folders.aml,
            lambda files: (files.root / "annotations.dat").is_file(),
        ),
        Layout(
            "bmc",
            "bone marrow cells of MLL, Helmholtz and Fraunhofer",
            folders.bmc,
            _named("BM_cytomorphology_data"),
        ),
        Layout(
            "acevedo",
            "PBC of Acevedo et al., with the finer classes of its file names",
            folders.acevedo,
            _named("PBC_dataset_normal_DIB"),
        ),
        Layout("raabin", "Raabin-WBC: cropped cells, or fields with boxes", published.raabin),
        *(
            Layout(one.name, one.describes, folders.tree(one.name), _marked(one.marks))
            for one in TREES.values()
            if one.name not in ("bmc-full", "aml-matek")  # `bmc` and `aml` read those
        ),
        Layout("qupath", "QuPath GeoJSON beside each image", qupath.qupath, qupath.is_qupath),
        Layout("mixed", "a tree of slides, smear photographs and known sets", mixed.mixed),
        Layout("slides", "whole slides, cut into tiles", mixed.slides),
        Layout("fields", "smear photographs whose cells are to be found", mixed.photographs),
    )
}


def scan_all(
    paths: Sequence[Path], layout: str | None = None, options: Options | None = None
) -> list[Scan]:
    """Find what there is to ingest below each path; see `scan`.

    Raises:
        LayoutError: as of `scan`, or an option can apply to nothing that was found.
    """
    options = options or Options()
    found = [scan(path, layout, options) for path in paths]
    readers = [task.reader for one in found for task in one.tasks]
    slides = any(isinstance(one, SlideReader | mixed.MixedReader) for one in readers)
    given = {
        "--crop-um and --crop-px apply to annotated cells, and none": (
            options.rule != BOXED and not any(isinstance(one, Marked) for one in readers)
        ),
        "--find and --no-find apply to images without annotations, and none": (
            options.find is not None and not any(one.uses_find for one in found)
        ),
        "--tile-px, --tile-um-per-px, --overlap, --regions and --stain-norm apply to slides, and "
        "none": options.slides != SlideReader() and not slides,
    }
    for what, wrong in given.items():
        if wrong and readers:
            raise LayoutError(f"{what} was found below {', '.join(map(str, paths))}; leave it out")
    return found


def scan(path: Path, layout: str | None = None, options: Options | None = None) -> Scan:
    """Find what there is to ingest.

    Args:
        path: A folder, or a table.
        layout: Its name in `LAYOUTS`; `None` recognises what is unmistakable, and takes any
            other folder for one whose sub-folders are labels.
        options: What a person states about it.

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
    found = Scan(path, options, named=layout is not None, known=LAYOUTS)
    chosen.into(found)
    found.account()
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
    if path.is_file():
        return _recognise_file(path)
    files = Files(path)
    sure = [one.name for one in LAYOUTS.values() if one.sure is not None and one.sure(files)]
    if len(sure) > 1:
        raise LayoutError(f"{path} looks like {' and '.join(sure)}; choose one with --layout")
    if sure:
        return sure[0]
    return "mixed" if mixed.holds_slides(files) else "labels"


def _recognise_file(path: Path) -> str:
    if path.suffix.lower() == ".csv":
        return "manifest"
    if path.suffix.lower() == ".json" and coco.coco_body(path) is not None:
        return "coco"
    if path.suffix.lower() in IMAGES | SLIDES:
        return "mixed"  # one image may be a slide, a field or a cell: its reader looks
    raise LayoutError(f"{path} is no folder, no CSV manifest and no COCO file")


def _hint(path: Path) -> str:
    if path.is_file():
        return ": it names no image"
    files = Files(path)
    images, others = files.images, files.others
    if not images and not others:
        return ": the folder is empty"
    if not images:
        kinds = sorted({other.suffix.lower() or other.name for other in others})
        return (
            f": it has no images, only {', '.join(kinds)}; accepted are {', '.join(sorted(IMAGES))}"
        )
    return f", though it has {len(images)} images"

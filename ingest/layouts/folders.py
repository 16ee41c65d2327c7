"""Layouts in which every image is one cell, and its place in the tree says what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ingest.layouts.scan import LayoutError, Scan, read_text, walk
from ingest.sources.source import Facts

SLIDE = re.compile(r"^Slide (\d+)\b")
CODE = re.compile(r"^([A-Za-z]{2,12})_\d+$")


def labels(scan: Scan) -> None:
    """Sub-folders are labels, with the images directly inside."""

    def facts(inner: Path) -> Facts | str:
        if len(inner.parts) == 1:
            return "it lies beside the label folders, so it has no label; move it into one"
        return Facts(label=inner.parts[0])

    images, _ = walk(scan.root)
    deep = [path for path in images if len(path.relative_to(scan.root).parts) > 2]
    if deep:
        raise LayoutError(
            f"{len(deep)} images lie deeper than one sub-folder of {scan.root} (the first: "
            f"{deep[0].relative_to(scan.root)}), so what is a label is not plain; name the folder "
            "above the labels, or the layout (--layout)"
        )
    if images and all(len(path.relative_to(scan.root).parts) == 1 for path in images):
        raise LayoutError(
            f"the images lie directly in {scan.root}; put those of each label in a sub-folder "
            "named for it, or name the layout: --layout cells for single cells without labels"
        )
    _each(scan, facts)


def cells(scan: Scan) -> None:
    """Single cells without labels, anywhere in the tree; or one image."""
    if scan.root.is_file():
        scan.whole(scan.root)
    else:
        _each(scan, lambda _: Facts())


def aml(scan: Scan) -> None:
    """AML-Cytomorphology_LMU (Matek et al. 2019, TCIA): `<CODE>/<CODE>_NNNN.tiff`.

    `annotations.dat` has, without a header and separated by blanks: path, label, and the labels
    of the first and the second re-annotation, `nan` where there was none. The first label is
    taken; the re-annotations stay in the files.
    """
    tables = sorted(scan.root.rglob("annotations.dat"))
    if not tables:
        raise LayoutError(
            f"no annotations.dat under {scan.root}; it belongs to AML-Cytomorphology_LMU. "
            "For folders that are labels use --layout labels"
        )
    table = tables[0]
    known: dict[str, str] = {}
    for number, line in enumerate(read_text(table).splitlines(), 1):
        words = line.split()
        if len(words) in {2, 3, 4}:
            known[words[0].replace("\\", "/")] = words[1]
        elif words:
            scan.fail(table, f"2 to 4 columns were expected, got {len(words)}", f"line {number}")
    named = {"/".join(Path(path).parts[-2:]): label for path, label in known.items()}
    met: set[str] = set()

    def facts(inner: Path) -> Facts | str:
        name = "/".join(inner.parts[-2:])
        met.add(name)
        if name not in named:
            return f"{table.name} has no line for it"
        return Facts(label=named[name])

    _each(scan, facts, known=(table.name, "abbreviations.txt"))
    for name in sorted(set(named) - met):
        scan.fail(table, f"its image {name} is missing", name)


def bmc(scan: Scan) -> None:
    """Bone marrow cells (Matek et al. 2021, TCIA): `<CODE>/<from>-<to>/<CODE>_NNNNN.jpg`."""
    top = _inside(scan.root, "BM_cytomorphology_data")

    def facts(inner: Path) -> Facts | str:
        parts = (scan.root / inner).relative_to(top).parts if _under(scan, inner, top) else ()
        match = CODE.match(inner.stem)
        if len(parts) < 2 or match is None or match[1] != parts[0]:
            return "CODE/0001-1000/CODE_00001.jpg was expected"
        return Facts(label=parts[0])

    _each(scan, facts)


def acevedo(scan: Scan) -> None:
    """PBC_dataset_normal_DIB (Acevedo et al. 2020): `<class>/<CODE>_NNNNNN.jpg`.

    The label is the code before the number, which is finer than the folder: folder `neutrophil`
    has BNE, SNE and NEUTROPHIL, folder `ig` has MY, MMY, PMY and IG.
    """

    def facts(inner: Path) -> Facts | str:
        match = CODE.match(inner.stem)
        return Facts(label=match[1]) if match else "a name like BNE_123456.jpg was expected"

    _each(scan, facts)


def elsafty(scan: Scan) -> None:
    """Elsafty RBCs for classification (2024): `Cropped images/<class>/Slide N (...).png`.

    Every slide is of another person (Elsafty et al., Scientific Data 11, 2024), so the slide is
    case and patient. What the numbers in brackets mean is not documented there; they stay out.
    """

    def facts(inner: Path) -> Facts | str:
        match = SLIDE.match(inner.stem)
        if match is None or len(inner.parts) < 2:
            return "class/Slide 1 (...).png was expected"
        slide = f"slide-{match[1]}"
        return Facts(label=inner.parts[-2], case=slide, patient=slide)

    _each(scan, facts)


def _each(scan: Scan, facts: Callable[[Path], Facts | str], known: tuple[str, ...] = ()) -> None:
    """Each image under the root, with what its place says; a sentence where it says nothing."""
    images, others = walk(scan.root)
    for path in images:
        told = facts(path.relative_to(scan.root))
        if isinstance(told, str):
            scan.fail(path, told)
        else:
            scan.whole(path, told)
    scan.left_alone(path for path in others if path.name not in known)


def _inside(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root


def _under(scan: Scan, inner: Path, top: Path) -> bool:
    return (scan.root / inner).is_relative_to(top)

"""Layouts in which every image is one cell, and its place in the tree says what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ingest.layouts.scan import LayoutError, Scan
from ingest.sources.source import Facts
from search.text import is_missing
from search.trees import TREES, Aside, BadTree

CODE = re.compile(r"^([A-Za-z]{2,12})_\d+$")
ROLES = frozenset(
    [
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
        *("jpegimages", "pngimages", "jpg", "jpeg", "png", "tif", "tiff", "thumb", "thumbs"),
        *("mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots"),
        *("bbox", "bboxes", "ground", "truth", "groundtruth", "gt", "segmentation", "overlay"),
        *("segmentationclass", "segmentationobject", "overlays", "prediction", "predictions"),
        *("train", "training", "trainset", "valid", "validation", "val", "valset", "dev"),
        *("test", "testing", "testset", "eval", "split", "splits", "fold", "folds", "set"),
        *("data", "dataset", "datasets", "original", "originals", "input", "inputs", "output"),
    ]
)
"""Words that say what files in a folder are for; a folder named by such words alone is no label."""
ANNOTATIONS = frozenset({".json", ".xml", ".txt", ".csv"})
"""Endings of files that may hold annotations of the image beside them."""
MASK = re.compile(r"(.+?)[-_ .](mask|masks|seg|label|labels|gt|overlay)(?:[-_ ]?\d+)?", re.I)
"""The name of a mask that lies beside its picture."""


def labels(scan: Scan) -> None:
    """Sub-folders are labels, with the images directly inside."""
    images, others = scan.walk()
    _refuse_other_trees(scan, images, others)
    names = {path.with_suffix("") for path in images}

    def facts(inner: Path) -> Facts | Aside | str:
        mask = MASK.fullmatch(inner.stem)
        if mask and (scan.root / inner).with_name(mask[1]) in names:
            return Aside("it is a mask of the picture beside it")
        if len(inner.parts) == 1:
            return "it lies beside the label folders, so it has no label; move it into one"
        return Facts(label=inner.parts[0])

    _each(scan, facts)


def _refuse_other_trees(scan: Scan, images: list[Path], others: list[Path]) -> None:
    """Refuse a tree whose folders are no labels, and say what to do.

    Raises:
        LayoutError: what is a label is not plain.
    """
    root = scan.root
    deep = [path for path in images if len(path.relative_to(root).parts) > 2]
    if deep:
        raise LayoutError(
            f"{len(deep)} images lie deeper than one sub-folder of {root} (the first: "
            f"{deep[0].relative_to(root)}), so what is a label is not plain; name the folder "
            "above the labels, or the layout (--layout)"
        )
    if images and all(path.parent == root for path in images):
        raise LayoutError(
            f"the images lie directly in {root}; put those of each label in a sub-folder "
            "named for it, or name the layout: --layout cells for single cells without labels"
        )
    if scan.named:
        return
    folders = sorted({path.parent.name for path in images if path.parent != root})
    roles = [name for name in folders if is_role(name)]
    if roles:
        raise LayoutError(
            f"the folders {', '.join(roles)} in {root} do not look like labels; name the folder of "
            "the pictures alone with --layout cells (single cells) or --layout fields (cells are "
            "found), or --layout labels if they are labels"
        )
    unclear = [name for name in folders if is_missing(name)]
    if unclear:
        raise LayoutError(
            f"the folder {unclear[0]!r} in {root} may be a label or say that there is none; rename "
            "it, or name --layout labels if it is a label"
        )
    _refuse_unknown_annotations(root, images, others)


def _refuse_unknown_annotations(root: Path, images: list[Path], others: list[Path]) -> None:
    """Refuse a tree in which most images have a file beside them that no layout reads.

    Raises:
        LayoutError: names the first of them.
    """
    stems = {path.with_suffix("") for path in images}
    beside = [
        path
        for path in others
        if path.suffix.lower() in ANNOTATIONS and path.with_suffix("") in stems
    ]
    if 2 * len(beside) >= len(images) > 0:
        raise LayoutError(
            f"most images in {root} have a file beside them that may hold annotations (the first: "
            f"{beside[0].relative_to(root)}), in no layout that is known; export them as COCO, or "
            "name --layout labels to leave them out"
        )


def is_role(name: str) -> bool:
    """Whether a folder's name says what its files are for, and so is no label."""
    words = [word for word in re.split(r"[\W_]+|(?<=\D)(?=\d)", name.lower()) if word]
    return any(word in ROLES for word in words) and all(
        word in ROLES or word.isdecimal() for word in words
    )


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
    for number, line in enumerate(scan.table(table).splitlines(), 1):
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
    inside = scan.root / "BM_cytomorphology_data"
    top = inside if inside.is_dir() else scan.root

    def facts(inner: Path) -> Facts | str:
        path = scan.root / inner
        parts = path.relative_to(top).parts if path.is_relative_to(top) else ()
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


def tree(name: str) -> Callable[[Scan], None]:
    """A published set in which an image's place says what it shows: `search.trees`.

    Patients are those that the set names (of Elsafty's red cells, every slide is of another person:
    Scientific Data 11, 2024), and are the case too. A source becomes the site.
    """
    found = TREES[name]

    def read(scan: Scan) -> None:
        try:
            says = found.rule(scan.root)
        except BadTree as error:
            raise LayoutError(str(error)) from error

        def facts(inner: Path) -> Facts | Aside | str:
            said = says(inner)
            if isinstance(said, Aside):
                return said
            if said is None:
                return f"{found.expected} was expected"
            return Facts(
                label=said.label, case=said.patient, patient=said.patient, site=said.source
            )

        tables = scan.root.rglob(found.tables) if found.tables else ()
        _each(scan, facts, known=tuple(path.name for path in tables))

    return read


def _each(
    scan: Scan, facts: Callable[[Path], Facts | Aside | str], known: tuple[str, ...] = ()
) -> None:
    """Each image under the root, with what its place says; a sentence where it says nothing."""
    images, others = scan.walk()
    aside: dict[str, list[Path]] = {}
    for path in images:
        found = facts(path.relative_to(scan.root))
        if isinstance(found, Aside):
            aside.setdefault(found.why, []).append(path)
        elif isinstance(found, str):
            scan.fail(path, found)
        else:
            scan.whole(path, found)
    for why, paths in aside.items():
        scan.leave(paths, why)
        scan.warn(f"{len(paths)} images in {scan.root} are left out, each because {why}")
    scan.left_alone(path for path in others if path.name not in known)

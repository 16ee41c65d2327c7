"""What the shipped encoder learns from, and the quarter of PBC that it never sees."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.features.descriptors import GUIDE, WEIGHTS, Axes, fit, in_a_row, measure
from encoder.image import read_rgb
from train.data import datasets
from train.data.datasets import Labelled, Square
from train.data.images import Files
from train.data.packs import INDEX, Form, pack
from train.data.source import DataError, Source

SEED = 20_261_121
"""Of the split. Another number would be another held-out quarter."""
SHARE = 0.25
"""Of each class of PBC is held out."""
CONTEXT = 1.5
"""Side of a crop over the longer side of its box."""
PX = 112
"""Side that images are packed at, by default."""


def held_out(cells: Labelled, share: float = SHARE, seed: int = SEED) -> NDArray[np.bool_]:
    """Which cells are held out: `share` of each class, whole groups only.

    Every class is shuffled by file name and its first part taken; a group that would lie on
    both sides goes back to training. It depends on file names and the seed alone, so that any
    machine holds out the same cells.

    Args:
        cells: Image files of distinct names within a class.
        share: Of each class.
        seed: Of the shuffle.
    """
    rng = random.Random(seed)
    chosen = np.zeros(len(cells), bool)
    for label in sorted(set(cells.labels.tolist())):
        own = np.flatnonzero(cells.labels == label)
        rows = sorted(own.tolist(), key=lambda row: cells.paths[row].name)
        rng.shuffle(rows)
        chosen[rows[: round(len(rows) * share)]] = True
    parted = np.intersect1d(cells.groups[chosen], cells.groups[~chosen])
    chosen[np.isin(cells.groups, parted)] = False
    return chosen


@dataclass(frozen=True)
class Crops:
    """Squares out of larger pictures, as a source to pack from."""

    name: str
    paths: tuple[Path, ...]
    squares: tuple[Square, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason and number of what could not be cut."""
    _last: dict[Path, RGB] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, at: int) -> str | None:
        """None: what is trained on has no labels."""
        return None

    def title(self, at: int) -> str:
        """The file and the square."""
        return f"{self.paths[at]} {self.squares[at]}"

    def content(self, at: int) -> bytes:
        """The crop as PNG."""
        from PIL import Image

        path = self.paths[at]
        if path not in self._last:  # crops of one picture come one after another
            self._last.clear()
            self._last[path] = read_rgb(path)
        buffer = BytesIO()
        crop = datasets.cut(self._last[path], self.squares[at])
        Image.fromarray(crop).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def around(
    box: tuple[float, float, float, float], width: int, height: int, context: float = CONTEXT
) -> Square | None:
    """The square about a box, moved to stay inside the picture; `None` for an empty box."""
    x0, y0, x1, y1 = box
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    side = min(round(context * max(x1 - x0, y1 - y0)), width, height)
    x = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    y = min(max(round((y0 + y1 - side) / 2), 0), height - side)
    return x, y, side


def pbc_files(folder: Path) -> Files:
    """Three quarters of PBC, without their labels."""
    cells = datasets.pbc(folder)
    rows = np.flatnonzero(~held_out(cells))
    paths = tuple(cells.paths[row] for row in rows)
    return Files("pbc, three quarters", paths, (None,) * len(paths))


def chula_crops(folder: Path) -> Crops:
    """The red cells of Chula around their points, as they are evaluated."""
    cells = datasets.chula(folder)
    squares = tuple(square for square in cells.squares if square is not None)
    return Crops("chula", cells.paths, squares, Counter(cells.notes))


def bccd_crops(folder: Path) -> Crops:
    """Every boxed cell and platelet of BCCD."""
    return _boxed("bccd", _bccd_boxes(folder))


def aslan_crops(folder: Path) -> Crops:
    """Every boxed cell of the Aslan set."""
    return _boxed("aslan", _aslan_boxes(folder))


Box = tuple[Path, tuple[float, float, float, float], int, int]
"""File, left, top, right and bottom in pixels, width and height of the file."""


def _boxed(name: str, boxes: Iterator[Box]) -> Crops:
    paths, squares, left_out = [], [], Counter[str]()
    for path, box, width, height in boxes:
        square = around(box, width, height)
        if square is None:
            left_out["box without a size"] += 1
            continue
        paths.append(path)
        squares.append(square)
    return Crops(name, tuple(paths), tuple(squares), left_out)


def _bccd_boxes(folder: Path) -> Iterator[Box]:
    names = ("xmin", "ymin", "xmax", "ymax")
    for table in sorted((folder / "Annotations").glob("*.xml")):
        root = ElementTree.parse(table).getroot()  # noqa: S314 - the set's own files
        path = folder / "JPEGImages" / f"{table.stem}.jpg"
        for thing in root.iter("object"):
            x0, y0, x1, y1 = (float(thing.findtext(f"bndbox/{n}") or 0) for n in names)
            yield path, (x0, y0, x1, y1), 640, 480


def _aslan_boxes(folder: Path) -> Iterator[Box]:
    import csv

    with (folder / "annotations.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            x0, y0, x1, y1 = (256 * float(row[n]) for n in ("xmin", "ymin", "xmax", "ymax"))
            yield folder / "images" / row["image"], (x0, y0, x1, y1), 256, 256


SETS = ("pbc", "chula", "bccd", "aslan")
"""What may be learned from."""


def sources(data: Path, names: Sequence[str] = SETS, *, pbc: bool = True) -> dict[str, Source]:
    """The sets to learn from, by name.

    Args:
        data: Folder with a folder for each of them.
        names: Which.
        pbc: Without it, no image of PBC is among them (the papers' external protocol).

    Raises:
        BadDataset: a set that is not there.
        DataError: nothing is left to learn from.
    """
    readers: dict[str, Callable[[Path], Source]] = {
        "pbc": pbc_files,
        "chula": chula_crops,
        "bccd": bccd_crops,
        "aslan": aslan_crops,
    }
    chosen = [name for name in names if pbc or name != "pbc"]
    if not chosen:
        raise DataError("nothing is left to learn from without PBC; take a recipe of several sets")
    return {name: readers[name](data / name) for name in chosen}


def guide_for(packs: dict[str, Path], px: int, dim: int) -> Path:
    """Measure every packed image once; what a network is to predict, in the packs' order.

    Args:
        packs: Name and folder, in the order in which a run reads them.
        px: Side at which they were packed.
        dim: Numbers per image.

    Returns:
        The table, an .npy of n x dim.
    """
    from train.data.images import Images, open_source

    folder = next(iter(packs.values())).parent
    out = folder / f"guide-{'-'.join(path.name for path in packs.values())}-{dim}.npy"
    if out.is_file():
        return out
    tables = []
    for path in packs.values():
        images = Images([open_source(path)], px, "lanczos")
        decoded = (images.decode(at) for at in range(len(images)))
        known = (image for image in decoded if image is not None)
        tables.append(measure_all(known, GUIDE, even=False))
    axes = fit(tables[0], widths(), dim, weights=GUIDE)
    part = out.with_suffix(".part.npy")
    np.save(part, axes.vectors(np.concatenate(tables)))
    part.replace(out)
    return out


def axes_for(source: Source, dim: int, power: float) -> Axes:
    """Axes of the measured numbers, decided by the images of one set; no label is read."""
    images = (read_rgb(source.content(at)) for at in range(len(source)))
    return fit(measure_all(images), widths(), dim, power=power)


def measured_row(
    image: RGB, weights: Mapping[str, float] | None = None, *, even: bool = True
) -> NDArray[np.float32]:
    """All numbers that are measured on an image."""
    return in_a_row(measure(image, even=even), weights or WEIGHTS)


def widths() -> dict[str, int]:
    """How many numbers each measured group has."""
    groups = measure(np.zeros((8, 8, 3), np.uint8))
    return {name: len(groups[name]) for name in WEIGHTS}


def measure_all(
    images: Iterable[RGB], weights: Mapping[str, float] = WEIGHTS, *, even: bool = True
) -> NDArray[np.float32]:
    """n x numbers, measured on every core, in order."""
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    one = partial(measured_row, weights=dict(weights), even=even)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return np.stack(list(pool.map(one, images, chunksize=64)))


def pack_all(
    data: Path,
    out: Path,
    px: int = PX,
    *,
    names: Sequence[str] = SETS,
    pbc: bool = True,
    quality: int = 95,
    form: Form = "jpeg",
) -> dict[str, Path]:
    """Pack the named sources once, squashed to `px`; packs that are there stay.

    Returns:
        Name and folder of each pack.
    """
    packs: dict[str, Path] = {}
    for name, source in sources(data, names, pbc=pbc).items():
        packs[name] = out / f"{name}-{px}-{form}-{quality}"
        if not (packs[name] / INDEX).is_file():
            pack([source], packs[name], px, quality, form)
    return packs

"""What the shipped encoder learns from, and the quarter of PBC that it never sees."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.contract import RGB
from encoder.features.descriptors import WEIGHTS, Axes, fit, measure
from encoder.features.measured import measured_row
from encoder.image import read_rgb, resize
from search.trees import CHULA_TYPES
from train.augmentation.randomisation import RED, WHITE
from train.data import datasets
from train.data.datasets import Labelled
from train.data.images import Files
from train.data.source import DataError, Source
from train.shipped.labels import allowed

SEED = 20_261_121
"""Of the split. Another number would be another held-out quarter."""
SHARE = 0.25
"""Of each class of PBC is held out."""
PX = 224
"""Side that pictures are kept at."""
SHARES: Mapping[str, float] = {"pbc": 0.58, "bmc": 0.24, "chula": 0.14, "aslan": 0.04}
"""Of each batch, by set."""
RARE = 0.6
"""A class of n cells is drawn as often as n to the power of 1 - `RARE`."""


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


def pbc_files(folder: Path) -> Files:
    """Three quarters of PBC, without their labels."""
    cells = datasets.pbc(folder)
    rows = np.flatnonzero(~held_out(cells))
    paths = tuple(cells.paths[row] for row in rows)
    return Files("pbc, three quarters", paths, (None,) * len(paths))


@dataclass(frozen=True)
class Pictures:
    """One set in memory, or mapped from disk."""

    name: str
    images: Tensor
    """n x side x side x 3, uint8."""
    labels: tuple[str, ...]
    """Of each picture, in the set's own words."""
    um: float
    """Side of a picture in micrometres, estimated from its red cells where nothing is recorded."""
    sources: tuple[str, ...] = ()
    """Capture batch of each picture, where the set has batches."""

    def of(self, rows: NDArray[np.bool_]) -> Pictures:
        """Some rows."""
        keep = np.flatnonzero(rows)
        labels = tuple(self.labels[row] for row in keep)
        sources = tuple(self.sources[row] for row in keep) if self.sources else ()
        return Pictures(self.name, self.images[torch.from_numpy(keep)], labels, self.um, sources)

    def labelled(self) -> Labelled:
        """Labels without files, each cell its own group."""
        names = np.array([f"{self.name}-{at}" for at in range(len(self.labels))])
        return Labelled(
            name=self.name, paths=tuple(map(Path, names)), squares=(None,) * len(names),
            labels=np.array(self.labels), groups=names, unit="image",
        )  # fmt: skip


def around(field: RGB, x: float, y: float, side: float) -> RGB:
    """The square about a point; what lies outside the picture is mirrored."""
    columns = round(x - side / 2) + np.arange(round(side))
    rows = round(y - side / 2) + np.arange(round(side))
    return field[_mirrored(rows, field.shape[0])[:, None], _mirrored(columns, field.shape[1])]


def _mirrored(at: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    period = 2 * (size - 1)
    at = np.abs(at) % period
    return np.where(at >= size, period - at, at)


Made = tuple[Iterator[RGB], Sequence[str], float, Sequence[str]]
"""Pictures of any size, their labels, the micrometres of a side, and their capture batches."""


def _pbc(data: Path) -> Made:
    cells = datasets.pbc(data / "pbc")
    rows = np.flatnonzero(~held_out(cells))
    return cells.images(rows), cells.labels[rows].tolist(), 34.2, ()


def _bmc(data: Path) -> Made:
    cells = datasets.bmc(data / "bmc")
    return cells.images(), cells.labels.tolist(), 22.1, ()


def _chula(data: Path) -> Made:
    """Twice the side at which the points are evaluated, so that views may be zoomed out."""
    cells = datasets.chula(data / "chula")
    half = datasets.CHULA_SIDE // 2

    def images() -> Iterator[RGB]:
        for path, square in zip(cells.paths, cells.squares, strict=True):
            if square is not None:
                yield around(_read(path), square[0] + half, square[1] + half, 4 * half)

    batches = () if cells.sources is None else cells.sources.tolist()
    return images(), cells.labels.tolist(), 26.6, batches


def _aslan(data: Path) -> Made:
    """Whole cells only."""
    table = data / "aslan" / "annotations.csv"
    if not table.is_file():
        raise datasets.BadDataset(f"no table {table}; is the data folder right?")
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    boxes = [[256 * float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax")] for row in rows]
    whole = [
        at
        for at, (x0, y0, x1, y1) in enumerate(boxes)
        if min(x1 - x0, y1 - y0) >= 30 and min(x0, y0) >= 2 and max(x1, y1) <= 254
    ]

    def images() -> Iterator[RGB]:
        for at in whole:
            x0, y0, x1, y1 = boxes[at]
            field = _read(data / "aslan" / "images" / rows[at]["image"])
            yield around(field, (x0 + x1) / 2, (y0 + y1) / 2, 186)

    return images(), [rows[at]["label"] for at in whole], 26.6, ()


def _boxed(name: str) -> Callable[[Path], Made]:
    """A set that is only evaluated on: squares about the boxes of its white cells."""

    def made(data: Path) -> Made:
        cells = datasets.read(name, data)
        return cells.images(), cells.labels.tolist(), 21.0, ()

    return made


_LAST: dict[Path, RGB] = {}


def _read(path: Path) -> RGB:
    """A field; cells of one come one after another."""
    if path not in _LAST:
        _LAST.clear()
        _LAST[path] = read_rgb(path)
    return _LAST[path]


MADE: Mapping[str, Callable[[Path], Made]] = {
    "pbc": _pbc,
    "bmc": _bmc,
    "chula": _chula,
    "aslan": _aslan,
    "bccd": _boxed("bccd"),
    "attri": _boxed("attri"),
}
"""Sets that may be packed. To learn from one more, add its line and its share in `SHARES`."""
CARRIED_PX: Mapping[str, int] = MappingProxyType({"pbc": 192, "bmc": 192, "chula": 144})
"""Side at which pictures are carried to another machine, where that is less than `PX`."""
QUALITY = 86
"""Of WebP when carried."""


def pictures(name: str, data: Path, packs: Path) -> Pictures:
    """A set, packed at its first use: from its files, or from what `carry` wrote.

    Args:
        name: In `MADE`.
        data: Folder with a folder for each set.
        packs: Where arrays are kept.

    Raises:
        BadDataset: a set that is not there.
    """
    table, array = packs / f"{name}-{PX}.json", packs / f"{name}-{PX}.npy"
    carried = packs / f"{name}.carried.npz"
    if not table.is_file() and carried.is_file():
        packed = np.load(carried)
        np.save(array, _unpacked(packed["bytes"], packed["ends"]))
        table.write_bytes(packed["table"].tobytes())
    if not table.is_file():
        images, labels, um, sources = MADE[name](data)
        packs.mkdir(parents=True, exist_ok=True)
        np.save(array, np.stack([resize(image, PX, "lanczos") for image in images]))
        facts = {"labels": list(labels), "um": um, "sources": list(sources)}
        table.write_text(json.dumps(facts), encoding="utf-8")
    facts = json.loads(table.read_text(encoding="utf-8"))
    held = torch.from_numpy(np.load(array, mmap_mode="c"))
    sources = tuple(facts.get("sources", ()))
    return Pictures(name, held, tuple(facts["labels"]), float(facts["um"]), sources)


def carry(name: str, packs: Path, folder: Path) -> Path:
    """A packed set in a few megabytes (WebP), for a machine that has a GPU but not the data."""
    from PIL import Image

    def coded(image: RGB) -> bytes:
        side, buffer = CARRIED_PX.get(name, PX), BytesIO()
        small = Image.fromarray(resize(image, side, "lanczos"))
        small.save(buffer, "WEBP", quality=QUALITY)
        return buffer.getvalue()

    array = np.load(packs / f"{name}-{PX}.npy", mmap_mode="r")
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(coded, array))
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{name}.carried.npz"
    table = (packs / f"{name}-{PX}.json").read_bytes()
    np.savez(
        out,
        table=np.frombuffer(table, np.uint8),
        ends=np.cumsum([len(row) for row in rows]),
        bytes=np.frombuffer(b"".join(rows), np.uint8),
    )
    return out


def _unpacked(coded: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Pictures one after another, and where each ends, to n x side x side x 3."""
    parts = np.split(coded, ends[:-1])
    with ThreadPoolExecutor() as pool:
        return np.stack(
            list(pool.map(lambda p: resize(read_rgb(p.tobytes()), PX, "bicubic"), parts))
        )


@dataclass(frozen=True)
class Batch:
    """Pictures of several laboratories."""

    images: Tensor
    """n x 3 x side x side, 0 to 1."""
    allowed: Tensor
    """n x leaves: which each may be."""
    laboratories: Tensor
    """n numbers."""
    um: Tensor
    """Side of each picture."""
    fields: Tensor
    """n x 5: how much of each a view shows (`Field.row`)."""


class Draw:
    """Batches of all sets, each class as its rarity asks."""

    def __init__(self, sets: Sequence[Pictures], device: torch.device) -> None:
        """Of the sets.

        Args:
            sets: Named as in `SHARES`.
            device: Where batches go. On a GPU the sets themselves go there too.

        Raises:
            DataError: nothing to learn from.
        """
        if not sets:
            raise DataError("no set to learn from")
        self._device = device
        gpu = device.type == "cuda"
        self._images = [one.images.to(device) if gpu else one.images for one in sets]
        counts = torch.tensor([len(one.labels) for one in sets])
        self._starts = [0, *counts.cumsum(0).tolist()]
        self._weights = torch.cat([
            SHARES[one.name] * functional.normalize(torch.from_numpy(_rarity(one.labels)), 1, 0)
            for one in sets
        ])  # fmt: skip
        labels = [label for one in sets for label in one.labels]
        fields = {True: RED.row(), False: WHITE.row()}
        self._fields = torch.stack([fields[label in RED_LABELS] for label in labels]).to(device)
        self._allowed = torch.stack([allowed(label) for label in labels]).to(device)
        self._laboratories = torch.arange(len(sets)).repeat_interleave(counts).to(device)
        self._um = torch.tensor([one.um for one in sets]).to(device)

    def batch(self, n: int) -> Batch:
        """n pictures, set by set."""
        rows = torch.multinomial(self._weights, n, replacement=True).sort().values
        images = []
        for at, held in enumerate(self._images):
            own = rows[(rows >= self._starts[at]) & (rows < self._starts[at + 1])]
            images.append(held[(own - self._starts[at]).to(held.device)])
        rows = rows.to(self._device)
        laboratories = self._laboratories[rows]
        return Batch(
            torch.cat(images).to(self._device).permute(0, 3, 1, 2).float() / 255,
            self._allowed[rows],
            laboratories,
            self._um[laboratories],
            self._fields[rows],
        )


RED_LABELS = frozenset({*CHULA_TYPES, "rbc"})


def _rarity(labels: Sequence[str]) -> NDArray[np.float64]:
    _, kind, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(counts[kind].astype(np.float64) ** -RARE)


def axes_for(source: Source, dim: int, power: float) -> Axes:
    """Axes of the measured numbers, decided by the images of one set; no label is read."""
    images = (read_rgb(source.content(at)) for at in range(len(source)))
    return fit(measure_all(images), widths(), dim, power=power)


def widths() -> dict[str, int]:
    """How many numbers each measured group has."""
    groups = measure(np.zeros((8, 8, 3), np.uint8))
    return {name: len(groups[name]) for name in WEIGHTS}


def measure_all(images: Iterable[RGB]) -> NDArray[np.float32]:
    """n x numbers, measured on every core, in order."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return np.stack(list(pool.map(measured_row, images, chunksize=64)))

"""Images for training: where they are, in which order they come, and what could not be read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.card import Resample
from encoder.contract import RGB
from encoder.image import ImageError, read_rgb, resize
from train.config import Cuts
from train.data.cutting import Pieces, cut, slides_of
from train.data.source import DataError, Source

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Files of a folder that count as images."""


@dataclass(frozen=True)
class Files:
    """Image files of a folder or a manifest."""

    name: str
    paths: tuple[Path, ...]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, at: int) -> str | None:
        """The folder that the file lies in, or the manifest's column `label`."""
        return self.labels[at]

    def title(self, at: int) -> str:
        """The path."""
        return str(self.paths[at])

    def image(self, at: int) -> RGB:
        """The pixels of the file."""
        return read_rgb(self.content(at))

    def content(self, at: int) -> bytes:
        """The file."""
        return self.paths[at].read_bytes()


def open_source(path: Path) -> Source:
    """A packed folder, a folder of images, or a CSV manifest.

    Raises:
        DataError: nothing there, or nothing that is an image.
    """
    from train.data.packs import INDEX, Shards

    if (path / INDEX).is_file():
        return Shards(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        labels = tuple(p.parent.name if p.parent != path else None for p in found)
        return _some(Files(str(path), tuple(found), labels))
    if path.suffix.lower() == ".csv" and path.is_file():
        return _some(_manifest(path))
    raise DataError(
        f"{path} is no folder and no .csv manifest; give a folder of images, a CSV with a column "
        "`path`, or a folder made by `python -m train pack`"
    )


def open_sources(paths: Sequence[Path], cuts: Cuts, workers: int = 8) -> list[Source]:
    """Every source as its setting `cut` says: whole files, or pieces that are cut when drawn.

    Args:
        paths: Folders, manifests or packed folders; with `tiles` folders of slides, or slides.
        cuts: How pieces are cut.
        workers: Files that are looked at side by side.

    Raises:
        DataError: a source without images, or from which nothing can be cut.
    """
    kinds = cuts.cut if len(cuts.cut) == len(paths) else cuts.cut * len(paths)
    sources: list[Source] = []
    for path, kind in zip(paths, kinds, strict=True):
        if kind == "tiles":
            slides = slides_of(path)
            labels = tuple(one.parent.name if one.parent != path else None for one in slides)
            sources.append(cut(Files(str(path), slides, labels), slides, kind, cuts, workers))
        elif kind != "whole":
            sources.append(cut(open_source(path), (), kind, cuts, workers))
        else:
            sources.append(open_source(path))
    return sources


def _some(files: Files) -> Files:
    if not files.paths:
        raise DataError(f"{files.name} holds no images ({', '.join(sorted(SUFFIXES))})")
    return files


def _manifest(path: Path) -> Files:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise DataError(f"{path} needs a column `path`, it has {reader.fieldnames}")
        rows = list(reader)
    paths = tuple(path.parent / row["path"] for row in rows)
    return Files(str(path), paths, tuple(row.get("label") or None for row in rows))


@dataclass
class Corrupt:
    """Images that could not be read: counted, named, and left out."""

    limit: float
    """Largest share of all images."""
    total: int
    titles: dict[str, str] = field(default_factory=dict)
    """Image and reason."""

    def add(self, title: str, error: Exception) -> None:
        """Note one.

        Raises:
            DataError: more than the limit.
        """
        self.titles[title] = str(error)
        if len(self.titles) > self.limit * self.total:
            first = "; ".join(f"{t}: {e}" for t, e in list(self.titles.items())[:3])
            raise DataError(
                f"{len(self.titles)} of {self.total} images cannot be read, more than "
                f"max_corrupt {self.limit:g}: {first}. Remove them or raise max_corrupt"
            )


class Images:
    """All images of all sources as one numbered list of squares."""

    def __init__(
        self, sources: Sequence[Source], px: int, resample: Resample, max_corrupt: float = 0.01
    ) -> None:
        self.sources = list(sources)
        self.px = px
        self.resample = resample
        self.starts = np.cumsum([0, *(len(s) for s in self.sources)])
        self.corrupt = Corrupt(max_corrupt, len(self))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, at: int) -> tuple[Source, int]:
        """The source of an image, and its number there."""
        source = int(np.searchsorted(self.starts, at, side="right")) - 1
        return self.sources[source], at - int(self.starts[source])

    def decode(self, at: int) -> NDArray[np.uint8] | None:
        """An image as px x px x 3; `None`, and a note in `corrupt`, if it cannot be read."""
        source, own = self.place(at)
        try:
            return resize(source.image(own), self.px, self.resample)
        except (ImageError, OSError) as error:
            self.corrupt.add(source.title(own), error)
            return None

    def notes(self) -> list[str]:
        """What was cut from which source, and what was left out."""
        return [f"{one.name}: {one.note}" for one in self.sources if isinstance(one, Pieces)]

    def close(self) -> None:
        """Stop what reads slides."""
        for source in self.sources:
            if isinstance(source, Pieces):
                source.close()


class Order:
    """Which image comes when, as a pure function of the position.

    Without weights every image comes once per epoch in an order of its own. With weights, an
    epoch has as many images, each source has its share of them, and within a source every
    image comes once before one comes twice. No position need be saved: it is the number of
    images drawn so far.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] = (), seed: int = 0) -> None:
        self.sizes = list(sizes)
        self.seed = seed
        self.total = sum(self.sizes)
        self.counts = self._counts(weights)
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def _counts(self, weights: Sequence[float]) -> list[int]:
        if not weights:
            return self.sizes
        shares = np.array(weights, float) / sum(weights) * self.total
        counts = np.floor(shares).astype(int)
        for at in np.argsort(counts - shares, kind="stable")[: self.total - counts.sum()]:
            counts[at] += 1
        return [int(c) for c in counts]

    def take(self, position: int, n: int) -> NDArray[np.int64]:
        """The images at positions `position` to `position + n`."""
        parts = []
        while n > 0:
            epoch, at = divmod(position, self.total)
            part = self._epoch(epoch)[at : at + n]
            parts.append(part)
            position += len(part)
            n -= len(part)
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            start, parts = 0, []
            for source, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
                parts.append(start + self._stream(source, size, epoch * count, count))
                start += size
            mixed = np.random.default_rng((self.seed, 1, epoch)).permutation(np.concatenate(parts))
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1}
            self._epochs[epoch] = mixed
        return self._epochs[epoch]

    def _stream(self, source: int, size: int, first: int, n: int) -> NDArray[np.int64]:
        """Part of a source's endless sequence of permutations."""
        parts = []
        while n > 0:
            turn, at = divmod(first, size)
            order = np.random.default_rng((self.seed, 2, source, turn)).permutation(size)
            parts.append(order[at : at + n])
            first += len(parts[-1])
            n -= len(parts[-1])
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def free_bytes() -> int | None:
    """Memory that can be had without swapping; `None` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


class Feed:
    """Batches by position, decoded ahead of time, with the seconds that the caller waited."""

    def __init__(
        self, images: Images, order: Order, device: torch.device, hold: str, workers: int
    ) -> None:
        self.images = images
        self.order = order
        self.device = device
        self.waited = 0.0
        self.numbers = np.empty(0, np.int64)
        """Of the images in the last batch, counted over all sources."""
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._ahead: dict[tuple[int, int], list[Future[NDArray[np.uint8] | None]]] = {}
        self._held: Tensor | None = None
        self._row = np.empty(0, np.int64)
        if hold != "disk":
            self._hold(device if hold == "device" else torch.device("cpu"))

    def _hold(self, where: torch.device) -> None:
        """Decode everything once. The good rows stay as uint8; the others are noted.

        Raises:
            DataError: more than there is memory for.
        """
        n, px = len(self.images), self.images.px
        free = free_bytes()
        if free is not None and n * px * px * 3 > free:
            raise DataError(
                f"{n:,} images of {px} px take {n * px * px * 3 / 1e9:,.1f} GB and "
                f"{free / 1e9:,.1f} GB of memory are free; decode them as they come (--hold disk)"
            )
        held = np.empty((n, px, px, 3), np.uint8)
        self._row = np.full(n, -1, np.int64)
        kept = 0
        for at, image in enumerate(self._pool.map(self.images.decode, range(n))):
            if image is not None:
                held[kept] = image
                self._row[at] = kept
                kept += 1
        self._held = torch.from_numpy(held[:kept]).to(where)

    def batch(self, position: int, n: int) -> Tensor:
        """The images at a position, m x 3 x px x px uint8 on the device.

        m is less than n by the images that cannot be read.

        Raises:
            DataError: none of them can be read.
        """
        begun = perf_counter()
        held = self._held
        rows = self._decoded(position, n) if held is None else self._from(held, position, n)
        if not len(rows):
            raise DataError(f"none of {n} images could be read; see the log for their names")
        rows = rows.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        self.waited += perf_counter() - begun
        return rows

    def expect(self, position: int, n: int) -> None:
        """Begin to decode a batch that will be needed."""
        if self._held is None and (position, n) not in self._ahead:
            wanted = self.order.take(position, n).tolist()
            self._ahead[position, n] = [self._pool.submit(self.images.decode, at) for at in wanted]

    def close(self) -> None:
        """Stop the decoding threads, and what reads slides."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.images.close()

    def _from(self, held: Tensor, position: int, n: int) -> Tensor:
        numbers = self.order.take(position, n)
        rows = self._row[numbers]
        self.numbers = numbers[rows >= 0]
        index = torch.from_numpy(rows[rows >= 0])
        return held[index.to(held.device, non_blocking=True)]

    def _decoded(self, position: int, n: int) -> Tensor:
        self.expect(position, n)
        images = [future.result() for future in self._ahead.pop((position, n))]
        good = [image for image in images if image is not None]
        found = np.array([image is not None for image in images], bool)
        self.numbers = self.order.take(position, n)[found]
        rows = torch.from_numpy(np.stack(good)) if good else torch.empty(0, 1, 1, 3)
        return rows.pin_memory() if self.device.type == "cuda" else rows

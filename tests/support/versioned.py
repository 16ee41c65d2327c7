"""A small library of drawn fields, and encoders that differ, for the tests of versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder
from encoder.registry import load
from search.library.indexes import Stores, embedded
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.library.sources import PlainImages
from search.schemas.items import Box, Item, item_id, source_id

SIDE = 48
COLOURS = {"lymphocyte": (110, 60, 150), "monocyte": (150, 120, 190), "eosinophil": (220, 90, 80)}


@dataclass
class Mixed:
    """Mean colours of a 4 x 4 grid, mixed by a matrix: another encoder for every seed."""

    matrix: NDArray[np.float64]
    bias: float = 0.0
    seen: int = 0

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        self.seen += len(images)
        rows = np.stack(
            [np.asarray(Image.fromarray(i).resize((4, 4), Image.Resampling.BOX)) for i in images]
        )
        flat = rows.reshape(len(images), -1) / 255.0 - 0.7
        return np.asarray(flat @ self.matrix + self.bias, np.float64)

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        raise NotImplementedError


def mixed(seed: int, dim: int = 24, bias: float = 0.0) -> Encoder:
    """An encoder of its own fingerprint for every seed; with a bias it collapses."""
    matrix = np.random.default_rng(seed).normal(size=(48, dim))
    card = EncoderCard(id=f"mixed-{seed}", architecture=f"mixed-{seed}-{bias}", dim=dim)
    return Encoder(card, Mixed(matrix, bias))


def draw(folder: Path, fields: int = 4, cells: int = 6, seed: int = 0) -> list[tuple[Item, Path]]:
    """Fields with cells in them, one patient each; some boxes hang over the border."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for at in range(fields):
        field = rng.normal((235, 225, 235), 4, (200, 260, 3)).clip(0, 255).astype(np.uint8)
        boxes = []
        for label in list(COLOURS) * (cells // 3):
            x, y = int(rng.integers(-8, 230)), int(rng.integers(-8, 170))
            inside = field[max(y, 0) + 8 : y + SIDE - 8, max(x, 0) + 8 : x + SIDE - 8]
            inside[:] = rng.normal(COLOURS[label], 12, inside.shape).clip(0, 255)
            boxes.append((label, Box(x=x, y=y, w=SIDE, h=SIDE)))
        path = folder / f"field-{seed}-{at}.png"
        Image.fromarray(field).save(path)
        source = source_id(path.read_bytes())
        for label, box in boxes:
            item = Item(
                id=item_id("drawn", source, box),
                dataset="drawn",
                source=source,
                bbox=box,
                label=label,
                patient=f"patient {seed}-{at}",
                site=f"site {at % 2}",
            )
            found.append((item, path))
    return found


def embedded_entries(found: Sequence[tuple[Item, Path]], encoder: Encoder) -> list[Entry]:
    """What an ingest would store."""
    read = PlainImages()
    images = [read(path, item) for item, path in found]
    vectors = encoder.embed(images)
    return [
        Entry(item, row, make_thumbnail(image), str(path))
        for (item, path), row, image in zip(found, vectors, images, strict=True)
    ]


def fill(folder: Path, encoder: Encoder | None = None, stores: Stores = embedded) -> Library:
    """A library with the collection `cells` of 24 drawn cells."""
    library = Library.open(folder / "library", stores)
    encoder = encoder or load("colour")
    with library.create("cells", encoder.card) as cells:
        cells.add(embedded_entries(draw(folder / "drawn"), encoder))
    return library

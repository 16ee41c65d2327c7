"""The pixels of a stored item, read from its source again as they were when it came in."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.card import CellKind, EncoderCard
from encoder.contract import RGB
from encoder.field_of_view import looked_at
from encoder.image import ImageError, read_rgb
from search.library.source_folders import SourceFolders
from search.schemas.items import Box, Item, source_id

LARGEST = 1 << 30
"""Bytes; a larger file is a slide, which plain images are not read from."""


class SourceGone(ValueError):
    """Pixels that cannot be had again, and why."""


NO_NOTES: Mapping[str, str] = MappingProxyType({})


KINDS: Mapping[str, CellKind] = {"white": "white", "red": "red", "platelet": "red"}
"""What an ingest notes of a cell that it found in a smear (`cell`)."""


class ReadPixels(Protocol):
    """How the pixels of a stored item are read again."""

    def __call__(self, path: Path, item: Item, notes: Mapping[str, str] = NO_NOTES) -> RGB:
        """The picture that was ingested, before any stain normalisation.

        Args:
            path: The file, which is verified against `item.source`.
            item: What is wanted.
            notes: What the ingest noted beside it; of a tile they name its size and scale.

        Raises:
            SourceGone, ImageError, OSError: it is not to be had.
        """
        ...


class PlainImages:
    """Reads items of plain image files; of slides, `ingest` knows the levels and tiles.

    The last file stays decoded, because the cells of one field come together. Safe to call
    from many threads.
    """

    def __init__(self, folders: SourceFolders | None = None) -> None:
        self._folders = folders or SourceFolders()
        self._turn = threading.Lock()
        self._last: tuple[tuple[object, ...], RGB] | None = None

    def __call__(self, path: Path, item: Item, notes: Mapping[str, str] = NO_NOTES) -> RGB:
        """The picture of an item; see `ReadPixels`."""
        if item.kind == "tile":
            raise SourceGone("a tile of a slide is read again only by the slide reader")
        need_allowed(path, self._folders)
        facts = path.stat()
        key = (path, facts.st_size, facts.st_mtime_ns, item.source)
        with self._turn:
            if self._last is None or self._last[0] != key:
                self._last = (key, _read(path, item.source))
            image = self._last[1]
        return image if item.bbox is None else crop(image, item.bbox)


def need_allowed(path: Path, folders: SourceFolders) -> None:
    """Raise `SourceGone` for a file that is there and may not be opened."""
    if path.exists() and not folders.allow(path):
        raise SourceGone(
            "the file may not be opened: it is no regular file, or lies in no folder that was "
            "ingested from here or that HEMASEEK_SOURCE_FOLDERS names"
        )


def _read(path: Path, source: str) -> RGB:
    if path.stat().st_size > LARGEST:
        raise SourceGone(f"the file has more than {LARGEST >> 20} MiB, too many for a plain image")
    content = path.read_bytes()
    if source_id(content) != source:
        raise SourceGone("the file has changed since it was ingested")
    return read_rgb(content, name=path.name)


def read_again(
    read_pixels: ReadPixels, path: str | None, item: Item, notes: Mapping[str, str] = NO_NOTES
) -> RGB | str:
    """The picture of an item, or the reason why it cannot be read."""
    if path is None:
        return "no file is known"
    try:
        return read_pixels(Path(path), item, notes)
    except (SourceGone, ImageError) as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"


def seen(card: EncoderCard, image: RGB, item: Item, notes: Mapping[str, str] = NO_NOTES) -> RGB:
    """What an encoder is shown of an item's picture: its field of view, where the scale is known.

    Tiles of slides and whole fields are shown as they are.
    """
    if item.kind != "cell":
        return image
    return looked_at(image, card.fields_um, item.um_per_px, KINDS.get(notes.get("cell", "")))


def crop(image: RGB, box: Box, fill: NDArray[np.uint8] | None = None) -> RGB:
    """Cut a box; what lies past the border gets the colour `fill`, or that of the glass."""
    height, width = image.shape[:2]
    left, top = max(box.x, 0), max(box.y, 0)
    right, bottom = min(box.x + box.w, width), min(box.y + box.h, height)
    inside = image[top : max(bottom, top), left : max(right, left)]
    if inside.shape[:2] == (box.h, box.w):
        return np.ascontiguousarray(inside)
    out = np.empty((box.h, box.w, 3), np.uint8)
    out[:] = glass(image) if fill is None else fill
    y, x = top - box.y, left - box.x
    out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return out


def glass(image: RGB) -> NDArray[np.uint8]:
    """The colour of the empty glass: the median of the brightest quarter of a field.

    White, or the repeated last row, would make cells at a border resemble each other.
    """
    step = max(1, int(math.sqrt(image.shape[0] * image.shape[1] / 20_000)))
    few = image[::step, ::step].reshape(-1, 3)
    light = few.sum(axis=1, dtype=np.int64)
    bright = few[light >= np.quantile(light, 0.75)]
    colour: NDArray[np.uint8] = np.median(bright, axis=0).astype(np.uint8)
    return colour

"""Pieces of fields and slides to train on, cut anew when they are drawn: nothing is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import entry_points
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from encoder.contract import RGB
from encoder.image import ImageError, frame_of
from train.config import Cuts
from train.data.source import DataError, Source

PIECES = "hemaseek.pieces"
"""Entry points by which `ingest` offers what it can cut: packages beside each other do not import
each other."""
FIELDS = 16
"""Decoded fields that are kept, for their next piece."""


@dataclass(frozen=True)
class Place:
    """Where one piece lies."""

    at: int
    """Number of its file."""
    box: tuple[int, int, int, int] | None
    """Left, top, width, height in pixels of the field, or of level 0 of the slide; `None` for a
    file that could not be searched, so that drawing it says why."""
    um_per_px: float | None = None
    """Scale of a slide's tile."""


@dataclass
class Pieces:
    """A source whose images are pieces of its files."""

    name: str
    files: Source
    """The fields or slides themselves."""
    places: Sequence[Place]
    read: Callable[[Place], RGB]
    """The pixels of a piece; raises `ImageError` or `OSError`."""
    note: str = ""
    end: Callable[[], None] = field(default=lambda: None)

    def __len__(self) -> int:
        return len(self.places)

    def label(self, at: int) -> str | None:
        """What the file's class is called, if anything."""
        return self.files.label(self.places[at].at)

    def title(self, at: int) -> str:
        """The file, and where in it."""
        place = self.places[at]
        return f"{self.files.title(place.at)} at {place.box}"

    def image(self, at: int) -> RGB:
        """The piece, height x width x 3, cut anew."""
        return self.read(self.places[at])

    def content(self, at: int) -> bytes:
        """The piece as PNG, for `pack`."""
        from PIL import Image

        buffer = BytesIO()
        Image.fromarray(self.image(at)).save(buffer, "png")
        return buffer.getvalue()

    def close(self) -> None:
        """Stop the child processes that read slides."""
        self.end()


def offered(name: str) -> Any:
    """What `ingest` offers under a name.

    Raises:
        DataError: it is not installed.
    """
    try:
        (found,) = entry_points(group=PIECES, name=name)
        return found.load()
    except (ModuleNotFoundError, ValueError) as error:
        raise DataError(
            f"cutting {name} needs ingest, which is not installed ({error}); install "
            "hemaseek[ingest]"
        ) from error


def cut(files: Source, paths: Sequence[Path], kind: str, cuts: Cuts, workers: int) -> Pieces:
    """The pieces of a source.

    Every file is looked at once, to know where pieces lie (without a blank rule its header is
    enough for patches); a field's pixels and a slide's tiles are read when they are drawn. Files
    that cannot be read count as one piece each, which is left out and named when it is drawn.

    Args:
        files: Fields or slides.
        paths: Slides; unused for fields.
        kind: `patches`, `cells` or `tiles`.
        cuts: Sizes, scales and the blank rule.
        workers: Fields that are looked at side by side.

    Raises:
        DataError: nothing to cut, or a part of the installation is missing.
    """
    made = _tiles(files, paths, cuts) if kind == "tiles" else _fields(files, kind, cuts, workers)
    if not made.places:
        made.close()
        raise DataError(
            f"{made.name} gives no {kind} ({made.note}); lower cut_px or cut_covered, or train on "
            "whole images (--cut whole)"
        )
    return made


# ---------------------------------------------------------------- fields


Looked = tuple[list[Place], int]
"""The pieces of one file, and how many were left out."""


def _fields(files: Source, kind: str, cuts: Cuts, workers: int) -> Pieces:
    boxes = offered(kind)
    how: tuple[Any, ...] = (cuts.cut_px, cuts.cut_covered)
    if kind == "cells":
        how = (cuts.cut_kinds, cuts.finder, cuts.finder_weights)

    @lru_cache(maxsize=FIELDS)
    def decoded(at: int) -> RGB:
        return files.image(at)

    def one(at: int) -> Looked:
        try:
            if kind == "patches" and cuts.cut_covered == 0:  # then the header tells enough
                frame = frame_of(files.content(at))
                image = np.broadcast_to(np.uint8(0), (frame.height, frame.width, 3))
            else:
                image = files.image(at)
            found, left_out = boxes(image, *how)
        except (ImageError, OSError):
            return [Place(at, None)], 0
        return [Place(at, box) for box in found], left_out

    with ThreadPoolExecutor(workers) as pool:
        seen = list(pool.map(one, range(len(files))))
    places = [place for some, _ in seen for place in some]
    left = sum(count for _, count in seen)
    without = sum(not some for some, _ in seen)
    note = f"{len(files)} fields, {without} of them without any; {left} {kind} left out"
    return Pieces(files.name, files, places, partial(_piece, decoded), note)


def _piece(decoded: Callable[[int], RGB], place: Place) -> RGB:
    from search.library.sources import crop
    from search.schemas.items import Box

    image = decoded(place.at)
    if place.box is None:
        return image
    x, y, w, h = place.box
    return crop(image, Box(x=x, y=y, w=w, h=h))  # past the border: the colour of the glass


# ---------------------------------------------------------------- slides


def slides_of(path: Path) -> tuple[Path, ...]:
    """The slides of a folder, or the one file.

    Raises:
        DataError: nothing there that is a slide.
    """
    endings = offered("tiles")().endings
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    found = [one for one in found if one.suffix.lower() in endings]
    if not found:
        raise DataError(f"{path} holds no slides ({', '.join(sorted(endings))})")
    return tuple(found)


def _tiles(files: Source, paths: Sequence[Path], cuts: Cuts) -> Pieces:
    readers = offered("tiles")()
    places: list[Place] = []
    kept: Counter[float] = Counter()
    for at, path in enumerate(paths):
        for scale in cuts.cut_um_per_px:
            try:
                boxes = readers.places(path, _plan(cuts, scale))
                places += [Place(at, box, scale) for box in boxes]
                kept[scale] += len(boxes)
            except ImageError:
                places.append(Place(at, None, scale))
    words = ", ".join(f"{count} tiles at {scale:g} um per pixel" for scale, count in kept.items())
    read = partial(_tile, readers, paths, cuts)
    return Pieces(files.name, files, places, read, f"{len(paths)} slides: {words}", readers.close)


def _plan(cuts: Cuts, scale: float) -> dict[str, float]:
    return {"size": cuts.cut_px, "um_per_px": scale, "min_tissue": cuts.cut_covered}


def _tile(readers: Any, paths: Sequence[Path], cuts: Cuts, place: Place) -> RGB:
    path, plan = paths[place.at], _plan(cuts, place.um_per_px or 0.0)
    if place.box is None:  # asked again for the reason
        readers.places(path, plan)
        raise ImageError("the slide could not be read before, and can be now; start anew")
    image: RGB = readers.tile(path, plan, place.box)
    return image

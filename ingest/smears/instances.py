"""From a map of instances to cells with a kind: what every learned segmenter leaves to be done."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from encoder.contract import RGB
from ingest.smears.cells import KINDS, CellKind, FinderError, FoundCell
from ingest.smears.density import Background
from ingest.smears.nuclei import NuclearRule

STAINED = 0.2
"""Share of an instance that takes up the nuclear dye, from which it is no red cell."""
PLATELET = 0.3
"""Area of the largest platelet, in median instances."""


def package(name: str, needs: str, called: str) -> Any:
    """The package of an optional finder.

    Raises:
        FinderError: it is not installed; the message names what to do and what works without.
    """
    if importlib.util.find_spec(name) is None:
        raise FinderError(
            f"the finder {called!r} needs the package {needs!r}, which is not installed; install "
            f"it (pip install {needs}) or use the finder 'classical', which needs nothing"
        )
    return importlib.import_module(name)


def weights_file(weights: Path | None, called: str) -> Path:
    """The weights of a learned finder, which are never downloaded.

    Raises:
        FinderError: none given, or no such file.
    """
    if weights is None:
        raise FinderError(
            f"the finder {called!r} needs a weights file and never downloads one: give its path"
        )
    if not weights.is_file():
        raise FinderError(f"the finder {called!r} was given the weights {weights}: no such file")
    return weights


def cells_of(labels: NDArray[np.integer], image: RGB) -> list[FoundCell]:
    """The cells of a map of instances, told apart by the nuclear dye and by their size.

    Args:
        labels: Height x width; 0 is background, every other number one instance.
        image: The field, of the same height and width.

    Returns:
        White cells, red cells, platelets; the score is 1 for all: a map holds no other.

    Raises:
        FinderError: a map of another size.
    """
    if labels.shape != image.shape[:2]:
        raise FinderError(
            f"the map of instances is {labels.shape}, the field {image.shape[:2]}; they must agree"
        )
    parts = ndimage.find_objects(labels)
    planes = Background.of(image).planes(image, 1.0)
    dye = np.zeros(labels.shape, bool) if planes is None else planes.nuclear > NuclearRule().floor
    seen = [at for at, part in enumerate(parts, start=1) if part is not None]
    areas = {at: int((labels[parts[at - 1]] == at).sum()) for at in seen}
    usual = float(np.median(list(areas.values()))) if areas else 0.0
    height, width = labels.shape
    cells = []
    for at in seen:
        rows, columns = parts[at - 1]
        mask = labels[rows, columns] == at
        stained = float(dye[rows, columns][mask].mean()) >= STAINED
        kind: CellKind = "red"
        if stained:
            kind = "platelet" if areas[at] < PLATELET * usual else "white"
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        cut = not (
            rows.start > 0 and rows.stop < height and columns.start > 0 and columns.stop < width
        )
        cells.append(FoundCell(kind=kind, bbox=box, score=1.0, touches_border=cut))
    cells.sort(key=lambda cell: (KINDS.index(cell.kind), cell.bbox))
    return cells

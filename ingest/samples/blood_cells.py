"""Every type of blood cell that is drawn, with its size and kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from ingest.samples import red_cells as drawn_redcells
from ingest.samples import white_cells as drawn_whitecells
from ingest.samples.drawing import Drawn, Grid, Ink
from ingest.samples.red_cells import Build

Kind = Literal["white", "red", "platelet"]
Painter = Callable[[np.random.Generator, Grid, Ink, float], Drawn]

RED: dict[str, Callable[[np.random.Generator, Grid, Ink, float, Build], Drawn]] = {
    "red cell": drawn_redcells.red_cell,
    "target cell": drawn_redcells.target_cell,
    "spherocyte": drawn_redcells.spherocyte,
    "teardrop": drawn_redcells.teardrop,
    "elliptocyte": drawn_redcells.elliptocyte,
    "stomatocyte": drawn_redcells.stomatocyte,
    "burr cell": drawn_redcells.burr_cell,
    "schistocyte": drawn_redcells.schistocyte,
}
"""Red cells."""
WHITE: dict[str, tuple[Painter, float, float]] = {
    "segmented neutrophil": (drawn_whitecells.segmented, 12.0, 14.0),
    "band neutrophil": (drawn_whitecells.band, 12.0, 14.2),
    "eosinophil": (drawn_whitecells.eosinophil, 12.5, 15.0),
    "basophil": (drawn_whitecells.basophil, 10.5, 12.5),
    "lymphocyte": (drawn_whitecells.lymphocyte, 8.6, 11.0),
    "monocyte": (drawn_whitecells.monocyte, 14.5, 18.0),
    "blast": (drawn_whitecells.blast, 13.0, 17.0),
    "erythroblast": (drawn_whitecells.erythroblast, 8.5, 11.0),
}
"""White cells and other nucleated cells, with their least and greatest diameter in micrometres."""
PLATELET = ("platelet", 2.0, 3.6)
LABELS: tuple[str, ...] = (*WHITE, *RED, PLATELET[0])
"""Every label that is drawn."""


def kind_of(label: str) -> Kind:
    """Which kind a label is.

    Raises:
        ValueError: it is none of `LABELS`.
    """
    if label in RED:
        return "red"
    if label in WHITE:
        return "white"
    if label == PLATELET[0]:
        return "platelet"
    raise ValueError(f"no cell is drawn for {label!r}; the labels are {', '.join(LABELS)}")


def paint(
    label: str, rng: np.random.Generator, ink: Ink, build: Build, um_per_px: float
) -> tuple[Drawn, float]:
    """Draw one cell in a square that just holds it.

    Returns:
        The drawing, and the radius in micrometres of a circle around the cell.

    Raises:
        ValueError: an unknown label.
    """
    kind = kind_of(label)
    if kind == "red":
        size = build.diameter * float(np.clip(rng.normal(1, build.variation), 0.7, 1.35))
    else:
        low, high = WHITE[label][1:] if kind == "white" else PLATELET[1:]
        size = rng.uniform(low, high)
    reach = size * {"red": 0.56, "white": 0.58, "platelet": 0.68}[kind]
    if label in ("teardrop", "elliptocyte"):
        reach = size * 0.8
    side = 2 * int(np.ceil((reach + 0.6) / um_per_px)) + 1
    g = Grid.around(side, um_per_px)
    if kind == "red":
        return RED[label](rng, g, ink, size, build), reach
    draw = WHITE[label][0] if kind == "white" else drawn_whitecells.platelet
    return draw(rng, g, ink, size), reach

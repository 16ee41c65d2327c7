"""Where the tiles of a slide lie: grid arithmetic in units that cannot be mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from ingest.sandbox.messages import Refusal

Microns = NewType("Microns", float)
"""A length on the glass, in micrometres."""
SlidePixels = NewType("SlidePixels", int)
"""A length in pixels of level 0 of its slide."""
TilePixels = NewType("TilePixels", int)
"""A length in pixels of a tile, as an encoder sees it."""
MicronsPerPixel = NewType("MicronsPerPixel", float)
"""Micrometres per pixel; of level 0 unless stated otherwise."""
Boxes = NDArray[np.int64]
"""n x 4: left, top, width, height in SlidePixels."""

FINEST = MicronsPerPixel(0.01)
COARSEST = MicronsPerPixel(1000.0)
"""A scale outside these limits is not one."""
MAX_TILES = 4_000_000
"""A slide with more tiles than this is refused: its header lies, or its plan does."""
SAME_SCALE = 0.02
"""Levels within this share of the wanted scale are cut as they are, without resampling."""
MAX_ENLARGED = 1.2
"""A slide whose finest level is coarser than wanted by more than this factor is refused."""


class TooCoarse(Refusal):
    """Tiles are wanted at a finer scale than the slide has."""

    def __init__(self, finest: MicronsPerPixel, wanted: MicronsPerPixel) -> None:
        super().__init__(
            f"the finest level has {finest:.4g} um per pixel, far too coarse for tiles at "
            f"{wanted:.4g} um per pixel: enlarging would invent detail. Ask for "
            f"{finest / MAX_ENLARGED:.4g} um per pixel or more (--tile-um-per-px, in training "
            "--cut-um-per-px), or scan at a higher power"
        )


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """What tiles are wanted."""

    size: TilePixels = TilePixels(256)
    """Side of a tile."""
    um_per_px: MicronsPerPixel = MicronsPerPixel(0.5)
    """Scale of a tile."""
    overlap: float = 0.0
    """Share of the side that neighbours have in common, 0 up to 0.9."""
    min_tissue: float = 0.10
    """Tiles with a smaller share of tissue are dropped."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise Refusal(f"a tile has 16 to 4096 pixels a side; got {self.size}")
        check_scale(self.um_per_px, "the scale of the tiles")
        if not 0 <= self.overlap <= 0.9:
            raise Refusal(f"overlap is a share from 0 to 0.9; got {self.overlap}")
        if not 0 <= self.min_tissue <= 1:
            raise Refusal(f"min_tissue is a share from 0 to 1; got {self.min_tissue}")

    @property
    def side(self) -> Microns:
        """Side of a tile on the glass."""
        return Microns(self.size * self.um_per_px)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """From which level tiles are cut, and how large."""

    level: int
    """The coarsest level that is fine enough."""
    width: float
    """Width of a tile in pixels of that level, before resampling."""
    height: float
    """Height in pixels of that level."""
    exact: bool
    """Whether tiles are taken pixel by pixel: no resampling."""


def check_scale(um_per_px: float, what: str) -> MicronsPerPixel:
    """A believable scale, or a refusal in words."""
    if not isfinite(um_per_px) or not FINEST <= um_per_px <= COARSEST:
        raise Refusal(
            f"{what} is {um_per_px:g} um per pixel, which cannot be; "
            f"{FINEST:g} to {COARSEST:g} are possible"
        )
    return MicronsPerPixel(float(um_per_px))


def choose_level(
    plan: TilePlan,
    um_per_px: tuple[MicronsPerPixel, MicronsPerPixel],
    downsamples: Sequence[float],
) -> Cut:
    """The coarsest level that needs no enlarging, else the finest.

    Args:
        plan: What is wanted.
        um_per_px: Scale of level 0 along x and y.
        downsamples: Of each level, finest first.

    Raises:
        TooCoarse: the finest level is coarser than wanted by more than `MAX_ENLARGED`.
    """
    finest = MicronsPerPixel(max(um_per_px))
    if finest > plan.um_per_px * MAX_ENLARGED:
        raise TooCoarse(finest, plan.um_per_px)
    fine = [
        level
        for level, down in enumerate(downsamples)
        if finest * down <= plan.um_per_px * (1 + SAME_SCALE)
    ]
    level = max(fine, key=lambda at: downsamples[at], default=0)
    width, height = (plan.side / (scale * downsamples[level]) for scale in um_per_px)
    near = all(abs(side / plan.size - 1) <= SAME_SCALE for side in (width, height))
    if near:
        return Cut(level=level, width=plan.size, height=plan.size, exact=True)
    return Cut(level=level, width=width, height=height, exact=False)


def grid(plan: TilePlan, cut: Cut, level_size: tuple[int, int]) -> NDArray[np.float64]:
    """Left and top of every whole tile of a level, in pixels of that level, row by row.

    Tiles that would hang over the right or the lower border are not made; at most one tile's
    width of slide is lost there. Where tiles are cut as they are, positions are whole pixels.

    Returns:
        n x 2.

    Raises:
        Refusal: more than `MAX_TILES`.
    """
    starts = []
    for side, extent in zip((cut.width, cut.height), level_size, strict=True):
        step = side * (1 - plan.overlap)
        if cut.exact:
            step = max(1, round(step))
        count = 0 if extent < side else int((extent - side) / step + 1e-9) + 1
        starts.append((count, step))
    (columns, step_x), (rows, step_y) = starts
    if columns * rows > MAX_TILES:
        raise Refusal(
            f"{columns * rows:,} tiles would come of it; at most {MAX_TILES:,} are cut from one "
            "slide. Ask for a coarser scale or less overlap, or the header is damaged"
        )
    x, y = np.meshgrid(np.arange(columns) * step_x, np.arange(rows) * step_y)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def boxes(starts: NDArray[np.float64], cut: Cut, downsample: tuple[float, float]) -> Boxes:
    """The tiles in pixels of level 0, rounded outwards no further than half a pixel."""
    left, top = starts[:, 0] * downsample[0], starts[:, 1] * downsample[1]
    width, height = cut.width * downsample[0], cut.height * downsample[1]
    out = np.empty((len(starts), 4), np.int64)
    out[:, 0], out[:, 1] = np.rint(left), np.rint(top)
    out[:, 2], out[:, 3] = max(1, round(width)), max(1, round(height))
    return out


def start_of(
    box: Sequence[int], plan: TilePlan, cut: Cut, downsample: tuple[float, float]
) -> tuple[float, float]:
    """Where in its level a tile begins whose box in pixels of level 0 is known: `boxes` reversed.

    Raises:
        Refusal: no tile of this plan lies there.
    """
    starts: list[float] = []
    for place, side, down in zip(box[:2], (cut.width, cut.height), downsample, strict=True):
        step = side * (1 - plan.overlap)
        if cut.exact:
            step = max(1, round(step))
        starts.append(max(0, round(place / (step * down))) * step)
    here = boxes(np.array([starts]), cut, downsample)[0].tolist()
    if here != list(box):
        raise Refusal(
            f"no tile of {plan.size} px at {plan.um_per_px:g} um per pixel and overlap "
            f"{plan.overlap:g} lies at {box[0]}, {box[1]}, {box[2]} px wide; ingest the slide anew"
        )
    return starts[0], starts[1]


def window(start: float, side: float, extent: int, margin: int = 4) -> tuple[int, int, float]:
    """The whole pixels that cover a stretch, with a margin for the resampling filter.

    Returns:
        First pixel, number of pixels, and where in them the stretch begins.
    """
    first = max(0, int(start) - margin)
    last = min(extent, ceil(start + side) + margin)
    return first, last - first, start - first

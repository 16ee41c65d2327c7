"""Cells cut from fields: an annotation becomes a square, and the square a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from ingest.sources.report import Failure
from ingest.sources.source import NOTHING, BadFacts, Facts, Plan, Planned, Source, make_item
from search.library.sources import crop, glass
from search.schemas.items import Box, Kind

Unit = Literal["px", "fraction"]
"""Pixels of the source, or fractions of its width and height."""
MAX_SIDE = 8192
"""A crop with a longer side is refused: no cell is that large, so a unit is wrong."""


class CropError(ValueError):
    """A mark that cannot be cut, or a rule that cannot be followed."""


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """How large a square is cut around a cell.

    The first that is given counts: `um`, then `px`, then the box of the cell itself.
    """

    um: float | None = None
    """Side in micrometres. Where a source's scale is not known, `px` is the fallback; without
    one its cells fail."""
    px: int | None = None
    """Side in pixels."""
    margin: float = 0.1
    """Without `um` and `px`: added on each side of the box, as a share of its longer side."""
    point_px: int | None = None
    """Side for marks that are points and have no size of their own, without `um` and `px`."""

    def __post_init__(self) -> None:
        for name, value in (("um", self.um), ("px", self.px), ("point_px", self.point_px)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise CropError(f"the crop size {name} must be above 0, got {value}")
        if not 0 <= self.margin <= 10:
            raise CropError(f"the margin must lie in 0 to 10, got {self.margin}")

    def side(self, um_per_px: float | None, longest: float | None) -> int:
        """Side of the square in pixels.

        Args:
            um_per_px: Scale of the source, where it is known.
            longest: Longer side of the cell's box in pixels; `None` for a point.

        Raises:
            CropError: the scale is needed and not known, or a point has no size.
        """
        if self.um is not None and um_per_px is not None:
            side = self.um / um_per_px
        elif self.px is not None:
            side = self.px
        elif self.um is not None:
            raise CropError(
                f"a crop of {self.um:g} um was asked, but the scale is not known; give "
                "um_per_px, or a size in pixels beside it"
            )
        elif longest is not None:
            side = longest * (1 + 2 * self.margin)
        elif self.point_px is not None:
            side = self.point_px
        else:
            raise CropError("a point has no size; give the crop's side in pixels or micrometres")
        if side > MAX_SIDE:
            raise CropError(f"the crop would be {side:.0f} px wide; is the unit right?")
        return max(1, _round(side))


BOXED = CropRule()
"""The box of the cell with a margin, made square."""


@dataclass(frozen=True)
class Mark:
    """One cell that an annotation points at."""

    x: float
    """Left edge of its box, or the point itself."""
    y: float
    """Top edge of its box, or the point itself."""
    w: float | None = None
    """Width; `None` for a point."""
    h: float | None = None
    """Height; `None` for a point."""
    unit: Unit = "px"
    facts: Facts = NOTHING
    """What is said of this cell; it goes over what is said of the source."""
    kind: Kind = "cell"
    where: str = ""
    """Where the annotation stands, for the report: a line, an object."""
    notes: tuple[tuple[str, str], ...] = ()
    """Remarks of the annotation."""


@dataclass(frozen=True)
class Marked:
    """A field in which cells are marked."""

    marks: Sequence[Mark]
    rule: CropRule = BOXED
    size: tuple[int, int] | None = None
    """Width and height that the annotation was made for, where it says so."""

    def plan(self, source: Source, facts: Facts) -> Plan:
        """One item per mark; only the header of the image is read.

        Raises:
            CropError: the annotation was made for an image of another size.
        """
        size = source.size
        if self.size is not None and self.size != size:
            raise CropError(
                f"the annotation is for an image of {_by(self.size)} px, this one has {_by(size)}"
            )
        planned: list[Planned] = []
        failures: list[Failure] = []
        for mark in self.marks:
            try:
                planned.append(self._one(source, facts, mark, size))
            except (CropError, BadFacts) as error:
                failures.append(Failure(str(source.path), str(error), mark.where))
        return Plan(planned, failures)

    def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
        """The square of each item, filled up with the colour of the glass past the border."""
        fill: NDArray[np.uint8] | None = None
        for one in planned:
            if one.item.bbox is None:
                raise CropError(f"item {one.item.id} has no box")
            if fill is None and "padded" in one.notes:
                fill = glass(source.image)
            yield crop(source.image, one.item.bbox, fill)

    def _one(self, source: Source, facts: Facts, mark: Mark, size: tuple[int, int]) -> Planned:
        own = mark.facts.over(facts)
        marked = in_pixels(mark, size)
        longest = None if mark.w is None else max(marked[2:])
        box = square(marked, self.rule.side(own.um_per_px, longest))
        notes = dict(mark.notes)
        if mark.w is not None:
            notes["marked"] = ",".join(f"{value:g}" for value in marked)
        if share := outside(box, size):
            notes["padded"] = f"{share:.3f}"
        return Planned(make_item(source, own, box, mark.kind), notes)


def in_pixels(mark: Mark, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, width and height of a mark in pixels; a point has width and height 0.

    Raises:
        CropError: not a number, of zero size, or with its centre outside the image.
    """
    wide, high = size if mark.unit == "fraction" else (1, 1)
    x, y = mark.x * wide, mark.y * high
    w, h = (mark.w or 0) * wide, (mark.h or 0) * high
    if not all(math.isfinite(value) for value in (x, y, w, h)):
        raise CropError("a coordinate is not a number")
    if mark.w is not None and (w <= 0 or h <= 0):
        raise CropError("the box has zero size" if w == 0 or h == 0 else "the box is inside out")
    if not (0 <= x + w / 2 < size[0] and 0 <= y + h / 2 < size[1]):
        raise CropError(
            f"it lies outside the image: centre {x + w / 2:.0f}, {y + h / 2:.0f} in {_by(size)} px"
        )
    return x, y, w, h


def square(marked: tuple[float, float, float, float], side: int) -> Box:
    """The square of a side around the centre of a mark."""
    x, y, w, h = marked
    return Box(x=_round(x + (w - side) / 2), y=_round(y + (h - side) / 2), w=side, h=side)


def outside(box: Box, size: tuple[int, int]) -> float:
    """Share of a box's area past the border of an image of `size` (width, height)."""
    wide = max(0, min(box.x + box.w, size[0]) - max(box.x, 0))
    high = max(0, min(box.y + box.h, size[1]) - max(box.y, 0))
    return 1 - wide * high / (box.w * box.h)


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"

"""Cells cut from fields: an annotation becomes a square, and the square a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoder.card import FieldsUm
from encoder.contract import RGB
from encoder.field_of_view import kind_of_box, side_px
from encoder.image import Frame
from ingest.sources.report import Failure
from ingest.sources.source import (
    NOTHING,
    BadFacts,
    Facts,
    Plan,
    Planned,
    Source,
    Task,
    make_item,
)
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
    fields: FieldsUm | None = None
    """Without `um` and `px`, and where the scale is known: a box becomes the square that the
    encoder is shown about a cell of its size, so that one cell is one picture however its box was
    drawn."""

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
                f"a crop of {self.um:g} um was wanted, but the scale is not known; give "
                "um_per_px, or a size in pixels beside it"
            )
        elif longest is not None:
            side = self._about(um_per_px, longest)
        elif self.point_px is not None:
            side = self.point_px
        else:
            raise CropError("a point has no size; give the crop's side in pixels or micrometres")
        if side > MAX_SIDE:
            raise CropError(f"the crop would be {side:.0f} px wide; is the unit right?")
        return max(1, _round(side))

    def _about(self, um_per_px: float | None, longest: float) -> float:
        """Side of the square about a box, without a size that was asked for."""
        boxed = longest * (1 + 2 * self.margin)
        if self.fields is None or um_per_px is None:
            return boxed
        kind = kind_of_box(longest, um_per_px)
        return max(side_px(self.fields, um_per_px, kind), longest)


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
            CropError: the annotation was made for an image of another size, or it is not known
                whether for the picture as stored or as its EXIF orientation shows it.
        """
        frame = source.frame
        size = frame.size
        marks = self.marks
        if frame.orientation != 1 and _made_as_stored(marks, self.size, frame):
            marks = [turned(mark, frame) for mark in marks]
        elif self.size is not None and self.size != size:
            raise CropError(
                f"the annotation is for an image of {_by(self.size)} px, this one has {_by(size)}"
            )
        planned: list[Planned] = []
        failures: list[Failure] = []
        for mark in marks:
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


def framed(task: Task, fields: FieldsUm | None) -> Task:
    """The task, with boxes of a known scale cut to the fields of the encoder that is to see them.

    Args:
        task: Of any reader; one of another reader stays as it is.
        fields: Of the encoder's card.
    """
    reader = task.reader
    if fields is None or not isinstance(reader, Marked):
        return task
    return replace(task, reader=replace(reader, rule=replace(reader.rule, fields=fields)))


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


def _made_as_stored(marks: Sequence[Mark], size: tuple[int, int] | None, frame: Frame) -> bool:
    """Whether marks were made on an oriented picture as it is stored, not as it is shown.

    Raises:
        CropError: neither the size of the annotation nor the marks themselves say so.
    """
    if frame.size != frame.stored_size:
        if size in {frame.size, frame.stored_size}:
            return size == frame.stored_size
        fits = [_all_inside(marks, one) for one in (frame.size, frame.stored_size)]
        if size is None and fits[0] != fits[1]:
            return fits[1]
    if size is not None and size != frame.size:
        return False  # the size is wrong in either frame, and is refused for that
    raise CropError(
        f"its EXIF orientation ({frame.orientation}) turns the picture, and nothing says whether "
        "the boxes were made on it as stored or as shown; save it upright and ingest it again"
    )


def _all_inside(marks: Sequence[Mark], size: tuple[int, int]) -> bool:
    try:
        return all(in_pixels(mark, size) is not None for mark in marks)
    except CropError:
        return False


def turned(mark: Mark, frame: Frame) -> Mark:
    """A mark made on the stored picture, in pixels of the upright one.

    Raises:
        CropError: it lies outside.
    """
    wide, high = frame.stored_size
    x, y, w, h = in_pixels(mark, frame.stored_size)
    orientation = frame.orientation
    if orientation in {5, 6, 7, 8}:
        x, y, w, h, wide, high = y, x, h, w, high, wide
    if orientation in {2, 3, 6, 7}:
        x = wide - x - w
    if orientation in {3, 4, 7, 8}:
        y = high - y - h
    sides = (None, None) if mark.w is None else (w, h)
    return replace(mark, x=x, y=y, w=sides[0], h=sides[1], unit="px")


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

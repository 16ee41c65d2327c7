"""A smear field cut into cells, each in the middle of a square of fixed field of view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from encoder.card import EncoderCard
from encoder.contract import RGB
from encoder.field_of_view import USUAL
from ingest.smears.cells import CellKind, Found, FoundCell
from ingest.smears.finders import Finder
from ingest.smears.scale import RED_CELL_UM
from ingest.sources.marked import Marked, outside, square
from ingest.sources.report import Failure
from ingest.sources.source import Facts, Plan, Planned, Source, make_item
from search.library.sources import crop, glass
from search.schemas.items import Box, ScaleOrigin

FIELD_OF_VIEW_UM: dict[CellKind, float] = {
    "white": USUAL.white, "red": USUAL.red, "platelet": USUAL.red
}  # fmt: skip
"""Side of the square around a cell in micrometres; a platelet is shown as a red cell is."""
USUAL_UM: dict[CellKind, float] = {"white": 14.0, "red": RED_CELL_UM, "platelet": 2.5}
"""Usual diameter, which stands in where neither a scale nor one red cell is there to measure by."""
SPREAD = "um_per_px spread"
"""Under which an item's notes have the spread of its estimated scale."""
Basis = Literal["um", "red cells", "cell"]
"""What the side of a square was measured by: a scale; the few whole red cells of a field without
one (pixels relative to their diameter); or the cell's own box, in a field without red cells."""


@dataclass(frozen=True, kw_only=True)
class FieldOfView:
    """How cells are cut from a field."""

    kinds: tuple[CellKind, ...] = ("white", "red")
    """The kinds that are cut."""
    um: dict[CellKind, float] = field(default_factory=lambda: dict(FIELD_OF_VIEW_UM))
    """Side of the square per kind, in micrometres."""
    fill: tuple[int, int, int] | None = None
    """RGB of what lies outside the field; `None` for the colour of the field's empty glass."""

    @classmethod
    def of(cls, card: EncoderCard, kinds: tuple[CellKind, ...]) -> FieldOfView:
        """As an encoder is shown cells, where its card says that."""
        if card.fields_um is None:
            return cls(kinds=kinds)
        white, red = card.fields_um.white, card.fields_um.red
        return cls(kinds=kinds, um={"white": white, "red": red, "platelet": red})


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One cell cut from a field, at the field's own resolution."""

    kind: CellKind
    """White cell, red cell or platelet."""
    bbox: tuple[int, int, int, int]
    """The cell's own box in the field: x, y, width, height in pixels."""
    box: Box
    """The square that was cut; hangs over the border where it was padded."""
    image: RGB
    """side x side x 3."""
    score: float
    """The finder's score."""
    um_per_px: float | None
    """Micrometres per pixel, of the field and of the crop; `None` where it is not known."""
    um_per_px_origin: ScaleOrigin | None
    """Where the scale comes from; an estimate is never shown as a fact."""
    basis: Basis
    """What the side of the square was measured by; only with `um` is it a number of micrometres."""
    padded: float
    """Share of the square that lies outside the field and was filled."""
    touches_border: bool
    """Whether the field cuts the cell itself."""


def crops_of(image: RGB, found: Found, rule: FieldOfView | None = None) -> Iterator[Crop]:
    """Cut the cells of a field, one by one, in the order in which they were found.

    Args:
        image: The field that `found` was found in.
        found: Its cells and its scale.
        rule: Which kinds, how large, and what fills the outside.

    Raises:
        ValueError: `found` belongs to a picture of another size.
    """
    rule = rule or FieldOfView()
    if found.size != (image.shape[1], image.shape[0]):
        raise ValueError(
            f"the cells were found in a picture of {found.size}, this one is "
            f"{(image.shape[1], image.shape[0])} pixels; find them in the same picture"
        )
    fill = glass(image) if rule.fill is None else np.asarray(rule.fill, np.uint8)
    scale = found.scale
    for cell in found.cells:
        if cell.kind not in rule.kinds:
            continue
        box, basis = placed(cell, found, rule)
        yield Crop(
            kind=cell.kind,
            bbox=cell.bbox,
            box=box,
            image=crop(image, box, fill),
            score=cell.score,
            um_per_px=scale.um_per_px if scale else None,
            um_per_px_origin=scale.origin if scale else None,
            basis=basis,
            padded=outside(box, found.size),
            touches_border=cell.touches_border,
        )


def placed(cell: FoundCell, found: Found, rule: FieldOfView) -> tuple[Box, Basis]:
    """The square around a cell in pixels of the field, and what its side was measured by."""
    um = rule.um[cell.kind]
    basis: Basis = "cell"
    if found.scale is not None:
        basis, side = "um", um / found.scale.um_per_px
    elif found.red_diameter_px is not None:
        basis, side = "red cells", um / RED_CELL_UM * found.red_diameter_px
    else:
        side = um / USUAL_UM[cell.kind] * max(cell.bbox[2:])
    return square(cell.bbox, max(1, round(side))), basis


@dataclass(frozen=True, kw_only=True)
class Smear:
    """A reader for fields without annotations: the cells are found, then cut.

    An item's record has no word for the kind of cell, so it stands in the notes (`cell`), beside
    the finder's score, the share that was padded, and how the scale was estimated.
    """

    finder: Finder
    """What finds the cells."""
    rule: FieldOfView = field(default_factory=FieldOfView)
    """How they are cut."""

    def plan(self, source: Source, facts: Facts) -> Plan:
        """One item per cell; the image is decoded and searched.

        A scale from the source goes to the finder; without one, items carry the estimate, marked
        as one. A field in which nothing is found is a failure with a reason.
        """
        found = self.finder.find(
            source.image, facts.um_per_px, facts.um_per_px_origin or "manifest"
        )
        if found.scale is not None:
            facts = replace(
                facts, um_per_px=found.scale.um_per_px, um_per_px_origin=found.scale.origin
            )
        planned = [
            Planned(make_item(source, facts, box, "cell"), _notes(cell, found, box, basis))
            for cell in found.cells
            if cell.kind in self.rule.kinds
            for box, basis in (placed(cell, found, self.rule),)
        ]
        if planned:
            return Plan(planned)
        reason = (
            f"the finder {found.finder!r} found no {' or '.join(self.rule.kinds)} cell in it; "
            "is it a smear field, and in focus?"
        )
        return Plan([], [Failure(str(source.path), reason)])

    def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
        """The square of each item, filled up with the colour of the glass past the border."""
        return Marked(()).cut(source, planned)


def _notes(cell: FoundCell, found: Found, box: Box, basis: Basis) -> dict[str, str]:
    """What the item's record has no word for."""
    notes = {
        "cell": cell.kind,
        "found": ",".join(map(str, cell.bbox)),
        "finder": found.finder,
        "score": f"{cell.score:.3f}",
        "measured by": basis,
    }
    if share := outside(box, found.size):
        notes["padded"] = f"{share:.3f}"
    if cell.touches_border:
        notes["cut by the border"] = "yes"
    if found.scale is not None and found.scale.spread is not None:
        notes[SPREAD] = f"{found.scale.spread:.4f}"
        notes["um_per_px cells"] = str(found.scale.n)
    return notes

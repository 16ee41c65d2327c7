"""Unlabelled smear photographs as sources of a run: cells are found and cut in a child."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encoder.contract import RGB
from encoder.image import ImageError, frame_of
from ingest.sandbox import messages
from ingest.sandbox.messages import Piece, Refusal
from ingest.smears.crops import SPREAD
from ingest.smears.finders import scale_of_picture
from ingest.sources.marked import Marked
from ingest.sources.source import (
    ChildReader,
    Facts,
    Plan,
    Planned,
    Reader,
    Source,
    Taken,
    Task,
    Whole,
    make_item,
    recipe_of,
)
from search.schemas.items import Box, ScaleOrigin

VERSION = 3
"""Counts up when the same photograph would give other cells."""
BATCH = 64
"""Cells sent at once."""


SINGLE_PX, LONG_PX = 400, 600
"""An image with a shorter or a longer side of so many pixels shows a field, a smaller one a cell,
unless a person says otherwise: single cells of published sets have up to 400 x 400 pixels, fields
from cameras 640 x 386 and more."""


def is_field(path: Path) -> bool:
    """Whether an image is as large as a field; one that cannot be opened is not."""
    try:
        size = frame_of(path).size
        return min(size) >= SINGLE_PX or max(size) >= LONG_PX
    except (ImageError, OSError):
        return False


@dataclass(frozen=True, kw_only=True)
class FieldReader(ChildReader):
    """Finds the cells of a photograph and cuts them at a fixed field of view, in a child."""

    finder: str = "classical"
    """Its name in `ingest.smears.finders.FINDERS`."""
    white: bool = False
    """Whether white cells alone are cut, where red ones are cut too by default."""

    def recipe(self, facts: Facts) -> str:
        """See `ChildReader.recipe`."""
        return recipe_of("cells", VERSION, self.finder, facts, *(["white"] if self.white else []))

    def job(self, path: Path, facts: Facts) -> messages.Task:
        """See `ChildReader.job`."""
        args = self.args(facts)
        return messages.Task(reader="ingest.smears.source:cells", source=str(path), args=args)

    def args(self, facts: Facts) -> dict[str, Any]:
        """What the child has to know."""
        return {
            "finder": self.finder,
            "um_per_px": facts.um_per_px,
            "um_per_px_origin": facts.um_per_px_origin,
            "white": self.white,
        }

    def take(self, source: Source, facts: Facts, batch: messages.Batch) -> Taken:
        """See `ChildReader.take`."""
        found = batch.facts
        if found["um_per_px"] is not None:
            facts = replace(
                facts, um_per_px=found["um_per_px"], um_per_px_origin=found["um_per_px_origin"]
            )
        planned = [
            Planned(
                make_item(source, facts, None if box is None else Box(**box), found["kind"]), notes
            )
            for box, notes in found["cells"]
        ]
        return Taken(planned=planned, images=batch.images, remark=found["remark"])


@dataclass(frozen=True)
class Measured:
    """A reader of pictures whose scale may be recorded nowhere: it is estimated then, picture by
    picture, from their red cells, and marked as estimated with its spread."""

    reader: Reader
    """What reads them, where their scale is known."""

    def plan(self, source: Source, facts: Facts) -> Plan:
        """See `Reader.plan`; a picture without a scale is decoded and searched for red cells."""
        found = None if facts.um_per_px is not None else scale_of_picture(source.image)
        if found is None:
            return self.reader.plan(source, facts)
        um, spread = found
        plan = self.reader.plan(source, replace(facts, um_per_px=um, um_per_px_origin="estimate"))
        return Plan([_with_spread(one, spread) for one in plan.planned], plan.failures)

    def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
        """See `Reader.cut`."""
        return self.reader.cut(source, planned)


def _with_spread(one: Planned, spread: float) -> Planned:
    if one.item.um_per_px_origin != "estimate":  # a mark that says its own scale
        return one
    return replace(one, notes={**one.notes, SPREAD: f"{spread:.4f}"})


def measured(task: Task) -> Task:
    """The task, with a scale that nobody recorded estimated from red cells. Slides have their own,
    and photographs that are searched for cells are measured as they are searched."""
    if not isinstance(task.reader, Whole | Marked):
        return task
    return replace(task, reader=Measured(task.reader))


# ---------------------------------------------------------------- the child's side


def cells(
    source: str,
    finder: str = "classical",
    um_per_px: float | None = None,
    um_per_px_origin: ScaleOrigin | None = None,
    white: bool = False,
) -> Iterator[Piece]:
    """Reader: the cells of a photograph (`white` ones alone), a batch at a time.

    Raises:
        Refusal: no cell was found, or the scale cannot be.
        ImageError: no image, damaged, or too many pixels.
    """
    from ingest.smears.cells import FinderError
    from ingest.smears.crops import FieldOfView, Smear
    from ingest.smears.finders import finder as by_name

    opened = Source(Path(source), "")
    try:
        rule = FieldOfView(kinds=("white",)) if white else FieldOfView()
        reader = Smear(finder=by_name(finder), rule=rule)
        yield Piece(note="decoding")
        _ = opened.image
        yield Piece(note="finding cells")
        scale = Facts(um_per_px=um_per_px, um_per_px_origin=um_per_px_origin)
        # An item needs a dataset; the parent makes it anew with the real one.
        plan: Plan = reader.plan(_named(opened), scale)
    except FinderError as error:
        raise Refusal(str(error)) from error
    for failure in plan.failures:
        raise Refusal(failure.reason)
    for at in range(0, len(plan.planned), BATCH):
        part = plan.planned[at : at + BATCH]
        first = part[0].item
        boxes = [None if one.item.bbox is None else one.item.bbox.model_dump() for one in part]
        yield Piece(
            facts={
                "kind": "cell",
                "remark": opened.remark,
                "um_per_px": first.um_per_px,
                "um_per_px_origin": first.um_per_px_origin,
                "cells": [[b, dict(one.notes)] for b, one in zip(boxes, part, strict=True)],
            },
            images=list(reader.cut(opened, part)),
        )


def whole(source: str, **_: object) -> Iterator[Piece]:
    """Reader: one image that is one item, as it is.

    Raises:
        ImageError: no image, damaged, or too many pixels.
    """
    opened = Source(Path(source), "")
    image = opened.image
    facts: dict[str, Any] = {"kind": "cell", "cells": [[None, {}]], "remark": opened.remark}
    facts |= {"um_per_px": None, "um_per_px_origin": None}
    yield Piece(facts=facts, images=[image])


def _named(source: Source) -> Source:
    source.dataset = "photographs"
    return source

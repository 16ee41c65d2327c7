"""The route that finds the cells of an uploaded field; handed to the service from above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from ingest.smears.cells import FinderError
from ingest.smears.crops import FieldOfView, placed
from ingest.smears.finders import DEFAULT, finder
from ingest.smears.judged import as_found, judge_field
from search.api.access import Lists, Reads, api_router
from search.api.bodies import Posted, body_of, form_of, posted, read_question
from search.api.problems import Expected
from search.query.context import Context
from search.query.pictures import Pictures
from search.schemas.cells import Field, FoundCells, JudgedField
from search.schemas.items import ScaleOrigin, source_id
from search.schemas.questions import Question

PROBLEMS: Sequence[Expected] = ((FinderError, 422, "Cells cannot be found in this picture"),)
"""What this route raises, for the service's table of refusals."""
MOST = 500
"""Cells in the answer at most, unless another number is given."""


MODELS: tuple[type[BaseModel], ...] = (Field,)
"""Bodies that are parsed by hand, for the OpenAPI file."""
FORM = {"schema": form_of("image", "Field", "A smear field: JPEG, PNG, TIFF, BMP, WebP, GIF.")}
BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": FORM}}}
FIELD = body_of(Question, {"k": 10}, words="A smear field: JPEG, PNG, TIFF, BMP, WebP, GIF.")
router = api_router()


async def field(request: Request, access: Lists) -> tuple[Field, list[bytes]]:
    """The field in a request, with its picture."""
    return await read_question(request, Field, "image", 1, access.settings.max_upload_mb)


@router.post("/cells", openapi_extra=BODY)
async def cells(
    sent: Annotated[tuple[Field, list[bytes]], Depends(field)],
    access: Lists,
    most: Annotated[int, Query(ge=1, le=5000, description="Cells in the answer.")] = MOST,
) -> FoundCells:
    """Find the cells of a smear field; nothing is stored, and no collection is looked at."""
    known, images = sent
    if not images:
        raise FinderError("send the field as a picture, in the form field 'image'")
    return await run_in_threadpool(find_cells, images[0], known.um_per_px, most, access.pictures)


def find_cells(
    content: bytes, um_per_px: float | None, most: int, pictures: Pictures
) -> FoundCells:
    """The cells of an encoded picture, with the squares that an ingest would cut.

    Raises:
        ImageError: not a picture, or too large; Busy: no memory for it now.
        FinderError: a picture that the finder cannot take.
    """
    with pictures.opened(content, "the uploaded field", finding=True) as field:
        found = finder(DEFAULT).find(field.pixels, um_per_px)
    rule = FieldOfView(kinds=("white", "red", "platelet"))
    origin: ScaleOrigin | None = None if found.scale is None else found.scale.origin
    cells = tuple(as_found(cell, placed(cell, found, rule)[0]) for cell in found.cells[:most])
    return FoundCells(
        cells=cells,
        width=found.size[0],
        height=found.size[1],
        um_per_px=None if found.scale is None else found.scale.um_per_px,
        um_per_px_origin=origin,
        um_per_px_spread=None if found.scale is None else found.scale.spread,
        finder=found.finder,
        left_out=len(found.cells) - len(cells),
    )


@router.post("/fields", openapi_extra=FIELD)
async def judged(
    sent: Annotated[Posted[Question], Depends(posted(Question))], access: Reads
) -> JudgedField:
    """Judge a whole smear field: every white cell with the vote of its neighbours, and the
    differential count. Nothing is stored."""
    found = await run_in_threadpool(judge_cells, sent.context, sent.question, sent.image)
    access.note(items=[one.nearest.id for one in found.cells if one.nearest is not None])
    return found


def judge_cells(context: Context, question: Question, content: bytes | None) -> JudgedField:
    """A whole field judged; see `ingest.smears.judged.judge_field`.

    Raises:
        FinderError: no picture, or one that the finder cannot take.
        ImageError, Busy, BadQuestion: as a search does.
    """
    if content is None:
        raise FinderError("send the field as a picture, in the form field 'image'")
    with context.pictures.opened(content, "the uploaded field", finding=True) as field:
        found = finder(DEFAULT).find(field.pixels, question.about.um_per_px)
        return judge_field(context, question, field.pixels, source_id(content), found)

"""The route that applies a case model to smear fields; handed to the service from above it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Annotated

from fastapi import Depends
from PIL import Image
from starlette.concurrency import run_in_threadpool

from encoder.contract import RGB
from ingest.smears.cells import FinderError
from ingest.smears.crops import FieldOfView, crops_of
from ingest.smears.finders import DEFAULT, finder
from search.api.access import Reads, api_router
from search.api.bodies import Posted, body_of, posted
from search.errors import BadQuestion
from search.mil.models import Trained
from search.mil.predict import predict
from search.query.context import Context
from search.query.exclusion import with_records
from search.schemas.filters import Filter
from search.schemas.items import Box, source_id
from search.schemas.mil import MOST_CELLS, MilAnswer, MilQuestion

MOST_FIELDS = 100
"""Fields of one case."""
EXAMPLE = {"model": "0" * 32, "about": {"patient": "P-031"}, "order": "effect"}
WORDS = "Smear fields of one case: JPEG, PNG, TIFF, BMP, WebP or GIF."
router = api_router()


@router.post(
    "/collections/{name}/mil/predict/fields",
    openapi_extra=body_of(MilQuestion, EXAMPLE, "fields", WORDS, many=True),
)
async def predict_fields(
    sent: Annotated[Posted[MilQuestion], Depends(posted(MilQuestion, "fields", MOST_FIELDS))],
    access: Reads,
) -> MilAnswer:
    """Apply a case model to smear fields: their cells are found, cut as an ingest cuts them, and
    placed in the answer with what each did for it. Nothing is stored."""
    trained = access.models.open(sent.question.model, sent.context.collection.name)
    answer = await run_in_threadpool(
        of_fields, sent.context, trained, sent.question, list(sent.images)
    )
    access.note(query="fields")
    return answer


def of_fields(
    context: Context, trained: Trained, question: MilQuestion, fields: Sequence[bytes]
) -> MilAnswer:
    """What a model says of smear fields, each cell with its field and its square.

    Cells are of the kinds that the model was trained on, white ones where no finder found those.
    A field that is stored brings its patient along, so that the networks that saw it do not
    answer.

    Raises:
        BadQuestion: no field, or a question that starts from something else too; fields of two
            patients.
        FinderError: a picture that the finder cannot take, or fields without a cell.
        ImageError, Busy: as a search does.
    """
    if question.case is not None or question.items or question.vectors or not fields:
        raise BadQuestion(
            "send the smear fields as pictures in the form field 'fields', and no case, items or "
            "vectors beside them"
        )
    context.pictures.check_together(fields)
    about = question.about
    patient = about.patient or stored_patient(context, fields)
    rule = FieldOfView.of(context.collection.card, trained.card.kinds or ("white",))
    cells: list[tuple[bytes, tuple[int, Box]]] = []
    for at, content in enumerate(fields):
        with context.pictures.opened(content, f"field {at}", finding=True) as field:
            found = finder(DEFAULT).find(field.pixels, about.um_per_px)
            for crop in crops_of(field.pixels, found, rule):
                if len(cells) < MOST_CELLS:
                    cells.append((png(crop.image), (at, crop.box)))
    if not cells:
        raise FinderError(
            f"no {' or '.join(rule.kinds)} cell was found in the {len(fields)} fields; are they "
            "smear fields, and in focus?"
        )
    answer = placed_answer(context, trained, question, patient, cells)
    return answer.model_copy(update={"complete": len(cells) < MOST_CELLS})


def placed_answer(
    context: Context,
    trained: Trained,
    question: MilQuestion,
    patient: str | None,
    cells: Sequence[tuple[bytes, tuple[int, Box]]],
) -> MilAnswer:
    """What a model says of pictures that were cut here, each with its field and its box."""
    # they are cut to what the encoder is shown: their scale must not cut them a second time
    about = question.about.model_copy(update={"patient": patient, "um_per_px": None})
    question = question.model_copy(update={"about": about})
    answer = predict(context, trained, question, [picture for picture, _ in cells])
    placed = []
    for one in answer.cells:
        field, box = cells[one.cell][1]
        placed.append(one.model_copy(update={"field": field, "box": box}))
    return answer.model_copy(update={"cells": tuple(placed)})


def stored_patient(context: Context, fields: Sequence[bytes]) -> str | None:
    """The patient of fields that are stored; `None` where none is, or none is known."""
    collection, sources = context.collection, {source_id(one) for one in fields}
    whole = Filter(source=tuple(sorted(sources)))
    facets = {name: set(collection.store.facet(name, whole)) for name in ("case", "patient")}
    own = with_records(collection.cases, {"source": sources, **facets})
    known = sorted(own["patient"])
    if len(known) > 1:
        raise BadQuestion(
            f"the pictures are stored of {len(known)} patients or more ({', '.join(known)}); a "
            "case is of one: send those of one patient"
        )
    return next(iter(known), None)


def png(picture: RGB) -> bytes:
    """A picture as a file, without loss."""
    out = BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()

"""The routes of refined searches, similar cases, calibration, and counts under a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Body, Depends, Path, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from search.api.access import Reads, Writes, api_router
from search.api.bodies import MIB, read_body
from search.api.routes.collections import CollectionName, Facets
from search.query.refine import Refinement
from search.schemas.cases import CaseAnswer, CaseFacts, CaseQuestion
from search.schemas.items import Answer, BagField, Filter, Keyword, Record
from search.service import BadQuestion
from search.votes.calibration import Calibration, CalibrationPlan

MODELS: tuple[type[BaseModel], ...] = (Refinement, CaseQuestion)
"""Bodies that are parsed by hand: their schemas belong into the OpenAPI file as well."""
MOST_IMAGES = 500
"""Images of one case."""
Model = TypeVar("Model", bound=BaseModel)


class CalibrationFacts(Record):
    """The calibration of a collection, and whether it still holds."""

    stale: bool
    """Whether the collection has changed since; it is then not applied to votes."""
    calibration: Calibration


async def read_question(
    request: Request, model: type[Model], field: str, most: int, cap_mb: float
) -> tuple[Model, list[bytes]]:
    """A question in JSON, or a form with images under `field` and the question beside them.

    Raises:
        BadQuestion: another content type, no image in the form, or a form that is damaged.
        TooLarge: over the cap, counted while it streams.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(request, f"the field {field!r} with the question", cap_mb)
    if kind == "application/json":
        return model.model_validate_json(body), []
    if kind != "multipart/form-data":
        raise BadQuestion(
            "send application/json, or multipart/form-data with the fields "
            f"{field!r} and 'question'; got {kind or 'no content type'}"
        )

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    replay = Request(request.scope, receive)
    try:
        form = await replay.form(max_files=most, max_fields=1, max_part_size=8 * MIB)
    except (MultiPartException, HTTPException) as error:
        why = error.message if isinstance(error, MultiPartException) else error.detail
        raise BadQuestion(f"the form is damaged: {why}") from error
    try:
        uploads = [part for part in form.getlist(field) if isinstance(part, UploadFile)]
        if not uploads:
            raise BadQuestion(f"the form has no file in the field {field!r}")
        text = form.get("question", "{}")
        if not isinstance(text, str):
            raise BadQuestion("the field 'question' must hold JSON text, got a file")
        return model.model_validate_json(text), [await upload.read() for upload in uploads]
    finally:
        await form.close()


def body_of(
    model: type[BaseModel],
    field: str,
    many: bool,
    example: dict[str, Any],
    words: str = "JPEG, PNG, TIFF, BMP, WebP or GIF; one cell each.",
) -> Any:
    """The description of such a body for the OpenAPI file."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": file, "minItems": 1} if many else file
    form = {
        "type": "object",
        "required": [field],
        "properties": {
            field: {**images, "description": words},
            "question": {
                "type": "string",
                "description": f"A {model.__name__} as JSON; {{}} if left out.",
            },
        },
    }
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {
        "application/json": {"schema": schema, "example": example},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


async def refinement(request: Request, service: Reads) -> tuple[Refinement, list[bytes]]:
    """The refinement in a request, with at most one image."""
    cap = service.settings.max_upload_mb
    return await read_question(request, Refinement, "image", 1, cap)


async def case_question(request: Request, service: Reads) -> tuple[CaseQuestion, list[bytes]]:
    """The question about cases in a request, with its images; their cap is that of a shard."""
    cap = service.settings.max_shard_mb
    return await read_question(request, CaseQuestion, "images", MOST_IMAGES, cap)


ITEM = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
OTHER = "8a4d3b52-1f6e-5b1c-8d7a-6b1d0c2e9f45"
router = api_router()


@router.post(
    "/refine",
    openapi_extra=body_of(
        Refinement,
        "image",
        False,
        {"item": ITEM, "like": [OTHER], "strategy": "best_score", "k": 10},
    ),
)
async def refine(
    asked: Annotated[tuple[Refinement, list[bytes]], Depends(refinement)], service: Reads
) -> Answer:
    """More like these, less like those, or by a region of the uploaded image."""
    question, images = asked
    return await run_in_threadpool(service.refine, question, images[0] if images else None)


@router.post(
    "/cases/similar",
    openapi_extra=body_of(
        CaseQuestion, "images", True, {"case": "C-0117", "k": 5, "distance": "max_sim"}
    ),
)
async def similar_cases(
    asked: Annotated[tuple[CaseQuestion, list[bytes]], Depends(case_question)], service: Reads
) -> CaseAnswer:
    """The cases (or slides, or patients) whose cells look like the cells of the query."""
    question, images = asked
    service.note(
        query="case" if question.case else "images" if images else "items",
        k=question.k,
        where=sorted(question.where.model_fields_set),
        exclude=sorted({*question.exclude, *question.not_these.model_fields_set}),
    )
    answer = await run_in_threadpool(service.similar_cases, question, images)
    service.note(items=[pair.item.id for case in answer.cases for pair in case.pairs])
    return answer


@router.get("/cases/{case:path}")
def case(
    case: Annotated[
        str,
        Path(min_length=1, max_length=200, description="Name of the case.", examples=["C-0117"]),
    ],
    service: Reads,
    collection: CollectionName = None,
    by: Annotated[
        BagField, Query(description="A case, a patient, or a source: for tiles, a slide.")
    ] = "case",
) -> CaseFacts:
    """What there is of one case, with its differential count."""
    return service.case(case, collection, by)


@router.post("/collections/{name}/calibration")
def calibrate(
    name: str,
    service: Writes,
    plan: Annotated[
        CalibrationPlan, Body(examples=[{"ks": [5, 10, 20], "weighting": "similarity"}])
    ] = CalibrationPlan(),  # noqa: B008 - frozen
) -> CalibrationFacts:
    """Fit the calibration of votes on the collection itself, own patients left out."""
    return CalibrationFacts(stale=False, calibration=service.calibrate(plan, name))


@router.get("/collections/{name}/calibration")
def calibration(name: str, service: Reads) -> CalibrationFacts:
    """The calibration of a collection: curves, errors, and whether it still holds."""
    fitted, stale = service.calibration(name)
    return CalibrationFacts(stale=stale, calibration=fitted)


@router.post("/collections/{name}/facets/{field}")
def facets_under(
    name: str,
    field: Keyword,
    service: Reads,
    where: Annotated[Filter, Body(examples=[{"label": ["eosinophil"], "site": ["A"]}])],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Facets:
    """Values of a field with their counts, among the items that meet a filter."""
    return Facets(field=field, values=service.facet(field, where, name, limit))


__all__: Sequence[str] = ["MODELS", "router"]

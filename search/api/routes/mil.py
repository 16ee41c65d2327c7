"""Routes of case models: list, read, delete, and apply one to a case."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Access, Reads, Writes, api_router
from search.api.bodies import Posted, body_of, posted
from search.api.routes.cases import MOST_IMAGES
from search.library.contents import content_digest
from search.mil.predict import predict
from search.schemas.mil import MilAnswer, MilModel, MilQuestion

MODELS: tuple[type[BaseModel], ...] = (MilQuestion,)
"""Bodies that are parsed by hand."""
EXAMPLE = {"model": "0" * 32, "case": "C-0117", "top": 20}
IMAGES = "Cells of one case: JPEG, PNG, TIFF, BMP, WebP or GIF; one cell each."
Id = Annotated[str, Path(description="Id of a case model.", pattern="^[0-9a-f]{32}$")]
router = api_router()


@router.get("/collections/{name}/mil/models")
def models(name: str, access: Reads) -> list[MilModel]:
    """The case models of a collection, oldest first, with scores and what they saw."""
    called = access.context(name).collection.name
    return [_aged(access, card) for card in access.models.all(called)]


@router.get("/collections/{name}/mil/models/{id}")
def model(name: str, id: Id, access: Reads) -> MilModel:
    """The card of one case model."""
    return _aged(access, access.models.get(id, access.context(name).collection.name))


@router.delete("/collections/{name}/mil/models/{id}")
def forget_model(name: str, id: Id, access: Writes) -> MilModel:
    """Delete a case model for good; returns its card."""
    return access.models.forget(id, access.context(name).collection.name)


@router.post(
    "/collections/{name}/mil/predict",
    openapi_extra=body_of(MilQuestion, EXAMPLE, "images", IMAGES, many=True),
)
async def predict_case(
    posted: Annotated[Posted[MilQuestion], Depends(posted(MilQuestion, "images", MOST_IMAGES))],
    access: Reads,
) -> MilAnswer:
    """Apply a case model: calibrated probabilities, how sure, and what each cell did for it."""
    return await run_in_threadpool(_predict, access, posted)


def _predict(access: Access, sent: Posted[MilQuestion]) -> MilAnswer:
    question = sent.question
    trained = access.models.open(question.model, sent.context.collection.name)
    answer = predict(sent.context, trained, question, sent.images)
    kind = "case" if question.case else "images" if sent.images else "items"
    access.note(query=kind, items=[one.item.id for one in answer.cells[:50] if one.item])
    return answer


def _aged(access: Access, card: MilModel) -> MilModel:
    collection = access.context(card.collection).collection
    other = card.records not in (None, collection.cases.digest() or "")
    stale = other or content_digest(collection.folder) != card.content
    return card.model_copy(update={"stale": stale})

"""The route that applies a case model to a whole slide; handed to the service from above it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import Depends
from starlette.concurrency import run_in_threadpool

from encoder.image import ImageError
from ingest.routes.case_models import placed_answer, png, stored_patient
from ingest.sandbox.messages import SourceError
from ingest.sandbox.pool import ReaderPool
from ingest.slides.grid import TilePlan
from ingest.slides.source import noted_plan
from ingest.slides.tiling import SlideResult, as_tiles, tile_task
from search.api.access import Reads, api_router
from search.api.bodies import Posted, body_of, posted
from search.errors import BadQuestion
from search.library.collection import Collection
from search.mil.models import Trained
from search.query.context import Context
from search.schemas.filters import Filter
from search.schemas.items import Box
from search.schemas.mil import MOST_CELLS, MilAnswer, MilQuestion

BATCH = 32
"""Tiles in memory at once before they are packed."""
EXAMPLE = {"model": "0" * 32, "about": {"patient": "P-031"}, "order": "effect"}
WORDS = "One slide in one file: SVS, TIFF, NDPI, SCN, BIF or DICOM."
router = api_router()


@router.post(
    "/collections/{name}/mil/predict/slide",
    openapi_extra=body_of(MilQuestion, EXAMPLE, "slide", WORDS),
)
async def predict_slide(
    sent: Annotated[Posted[MilQuestion], Depends(posted(MilQuestion, "slide"))], access: Reads
) -> MilAnswer:
    """Apply a case model to a slide: it is cut into tiles as those of the collection were, and
    each comes back with its place and what it did for the answer. Nothing is stored."""
    trained = access.models.open(sent.question.model, sent.context.collection.name)
    answer = await run_in_threadpool(of_slide, sent.context, trained, sent.question, sent.image)
    access.note(query="slide")
    return answer


def of_slide(
    context: Context, trained: Trained, question: MilQuestion, content: bytes | None
) -> MilAnswer:
    """What a model says of a slide, each tile with its place in pixels of level 0.

    Of a slide with more than `MOST_CELLS` tiles every second, or fourth, is looked at. A slide that
    is stored brings its patient along.

    Raises:
        BadQuestion: no slide, or a question that starts from something else too; a collection
            without tiles, or whose tiles had their stain normalised.
        ImageError: no slide, a damaged one, or none with tissue.
    """
    if question.case is not None or question.items or question.vectors or not content:
        raise BadQuestion(
            "send one slide as a file in the form field 'slide', and no case, items or vectors "
            "beside it; a stored slide is asked for as a case, by source"
        )
    about = question.about
    patient = about.patient or stored_patient(context, [content])
    plan = _plan(context.collection)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        path.write_bytes(content)
        tiles, places, every = _tiles(path, plan, about.um_per_px)
    found = [(tile, (0, box)) for tile, box in zip(tiles, places, strict=True)]
    answer = placed_answer(context, trained, question, patient, found)
    return answer.model_copy(update={"complete": every == 1})


def _plan(collection: Collection) -> TilePlan:
    """How the collection's tiles were cut."""
    some = collection.store.scroll(Filter(kind=("tile",)), 1).items
    entry = collection.rows.entry(some[0].item.id) if some else None
    plan = noted_plan(entry.notes.get("tile", "")) if entry is not None else None
    if entry is None or plan is None:
        raise BadQuestion(
            f"collection {collection.name!r} has no tiles of slides, so that nothing says how to "
            "cut this one; choose a collection of slides, or send smear fields as 'fields'"
        )
    if "stain normalisation" in entry.notes:
        raise BadQuestion(
            f"the tiles of collection {collection.name!r} had their stain normalised when they "
            "were ingested, and those of an uploaded slide have not; ingest the slide, and ask for "
            "it by source"
        )
    return plan


def _tiles(
    path: Path, plan: TilePlan, um_per_px: float | None
) -> tuple[list[bytes], list[Box], int]:
    """Tiles as PNG, where they lie, and of how many tiles each stands for."""
    tiles: list[bytes] = []
    places: list[Box] = []
    seen, every = 0, 1
    task = tile_task(path, plan, um_per_px=um_per_px, batch=BATCH)
    try:
        with ReaderPool(1) as pool:
            for batch in pool.read(task):
                found = as_tiles(batch)
                if isinstance(found, SlideResult):
                    break
                for image, (x, y, w, h) in zip(found.images, found.boxes.tolist(), strict=True):
                    if seen % every == 0:
                        tiles.append(png(image))
                        places.append(Box(x=x, y=y, w=w, h=h))
                    seen += 1
                    if len(tiles) > MOST_CELLS:
                        tiles, places, every = tiles[::2], places[::2], 2 * every
    except SourceError as error:
        raise ImageError(error.reason) from error
    if not tiles:
        raise ImageError("no tile of the slide has enough tissue, so that there is no case to read")
    return tiles, places, every

"""Routes of maps: read, computed as a job, new cells placed on them, and effects of origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import numpy as np
from fastapi import Depends, Query, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from search.api.access import Reads, Writes, api_router
from search.api.bodies import Posted, body_of, posted
from search.api.routes.versions import STARTED, started
from search.atlas.batch_effects import batch_effects
from search.atlas.maps import (
    COLUMNS,
    FEWEST,
    CannotMap,
    Map,
    NoMap,
    compute_map,
    map_path,
    need_packages,
    place_on,
    vectors_of,
    with_recorded,
)
from search.errors import BadQuestion
from search.index.contract import checked_vectors, need_fingerprint, scroll_all
from search.library.collection import Collection
from search.library.contents import Truth, content_digest
from search.library.jobs import Run
from search.query.context import Context
from search.query.exclusion import exclusion_filter, own_groups, patients_of, with_records
from search.schemas.items import Item, source_id
from search.schemas.maps import (
    BatchEffects,
    MapAnswer,
    MapColumn,
    MapFacts,
    MapWanted,
    Method,
    Origin,
    PlaceAnswer,
    PlacedCell,
    PlaceQuestion,
)
from search.schemas.questions import About
from search.schemas.versions import JobRecord

AT_ONCE = 200_000
"""Items of a collection up to which a map by PCA is computed while the caller waits."""
MOST_IMAGES = 500


MODELS: tuple[type[BaseModel], ...] = (PlaceQuestion,)
"""Bodies that are parsed by hand."""
router = api_router()
MethodQuery = Annotated[
    Method, Query(description="`pca` at once, `tsne` and `umap` once computed.")
]


@router.get("/collections/{name}/map")
def read_map(name: str, access: Reads, method: MethodQuery = "pca") -> MapAnswer:
    """A collection as a map. One by PCA is computed when first wanted, and after each write."""
    context = access.context(name)
    collection = context.collection
    found = with_recorded(map_of(collection, method), context.patients())
    known = collection.known(found.ids)
    here = [at for at, id in enumerate(found.ids) if id in known]
    access.note(query="map", k=len(here))
    places = found.places[here].astype(np.float64).round(4)
    return MapAnswer(
        collection=collection.name,
        version=collection.version.id,
        fingerprint=collection.card.fingerprint,
        encoder=collection.card.id,
        method=found.method,
        of=found.of,
        stale=found.digest != content_digest(collection.folder),
        made=found.made,
        seconds=found.seconds,
        perplexity=found.perplexity,
        neighbours=found.neighbours,
        explained=found.explained,
        ids=tuple(found.ids[at] for at in here),
        x=tuple(float(value) for value in places[:, 0]),
        y=tuple(float(value) for value in places[:, 1]),
        columns={
            column: MapColumn(values=values, codes=tuple(codes[here].tolist()))
            for column, (values, codes) in found.columns.items()
            if column in COLUMNS
        },
    )


@router.get("/collections/{name}/maps")
def list_maps(name: str, access: Reads) -> list[MapFacts]:
    """The maps that were computed of the version that answers."""
    collection = access.context(name).collection
    digest, found = content_digest(collection.folder), []
    for method in FEWEST:
        path = map_path(collection.folder, method)
        if path.exists():
            one = Map.read(path)
            found.append(
                MapFacts(
                    method=one.method,
                    items=len(one.ids),
                    of=one.of,
                    made=one.made,
                    seconds=one.seconds,
                    stale=one.digest != digest,
                )
            )
    return found


@router.post("/collections/{name}/map", **STARTED)
def start_map(name: str, wanted: MapWanted, access: Writes, response: Response) -> JobRecord:
    """Compute a map of the version that answers; a job."""
    library, called = access.library(name)
    need_packages(wanted.method)

    def work(run: Run) -> dict[str, Any]:
        versions = library.versions(called)
        version = versions.current()
        try:
            made = compute_map(
                versions.path(version.id),
                version.card,
                wanted.method,
                perplexity=wanted.perplexity,
                neighbours=wanted.neighbours,
                most=wanted.most,
                progress=run.progress,
                stop=run.stop,
            )
        except NoMap:
            run.check()
            raise
        return {
            "method": made.method,
            "version": version.id,
            "items": len(made.ids),
            "of": made.of,
            "seconds": made.seconds,
        }

    return started(access, "map", called, work, response)


@router.post(
    "/collections/{name}/map/place",
    openapi_extra=body_of(
        PlaceQuestion,
        {"method": "pca", "items": [], "about": {"patient": "P1"}},
        "images",
        many=True,
    ),
)
async def place(
    name: str,
    posted: Annotated[Posted[PlaceQuestion], Depends(posted(PlaceQuestion, "images", MOST_IMAGES))],
    access: Reads,
) -> PlaceAnswer:
    """Where cells lie on a map that stays as it is: of a new patient, or stored ones."""
    return await run_in_threadpool(_place, posted.context, posted.question, posted.images)


@router.get("/collections/{name}/batch-effects")
def effects(
    name: str,
    access: Reads,
    field: Annotated[Origin, Query(description="What is compared with the label.")] = "site",
    k: Annotated[int, Query(ge=1, le=100)] = 10,
) -> dict[str, Any]:
    """Whether neighbours are alike because of what they show, or because of where they were
    made: shares of neighbours against what is expected, robustness, silhouettes."""
    context = access.context(name)
    collection = context.collection
    found: BatchEffects = batch_effects(
        collection.folder, collection.card, context.patients(), field, k
    )
    return found.model_dump()


def map_of(collection: Collection, method: Method) -> Map:
    """A map of what answers; one by PCA is computed when it is not there or not of today.

    Raises:
        NoMap: one by another method that was not computed yet.
        CannotMap: a collection that is too large for one at once.
    """
    path, digest = map_path(collection.folder, method), content_digest(collection.folder)
    try:
        found = Map.read(path)
        if method != "pca" or found.digest == digest:
            return found
    except NoMap:
        if method != "pca":
            raise NoMap(
                f"the map of collection {collection.name!r} by {method} was not computed yet; "
                f"POST /v1/collections/{collection.name}/map starts it"
            ) from None
    if collection.store.count() > AT_ONCE:
        raise CannotMap(
            f"collection {collection.name!r} is too large for a map at once; "
            f"POST /v1/collections/{collection.name}/map computes it as a job"
        )
    return compute_map(collection.folder, collection.card, "pca")


def _own(
    context: Context, about: About, items: Sequence[Item], sources: Sequence[str]
) -> tuple[set[str], bool]:
    """Ids of what shares a patient, case or source with what is placed; whether its patient is
    known."""
    groups, collection = own_groups(items), context.collection
    for name in groups:
        groups[name] |= {getattr(about, name)} - {None}
    groups["source"] |= set(sources)
    groups = with_records(collection.cases, groups)
    own = exclusion_filter(groups, groups)
    ids = {one.item.id for part in own.parts for one in scroll_all(collection.store, part)}
    if items and about.patient is None:
        return ids, None not in patients_of(collection.cases, items)
    return ids, bool(groups["patient"])


def _place(context: Context, question: PlaceQuestion, images: list[bytes]) -> PlaceAnswer:
    given = [bool(question.items), bool(question.vectors), bool(images)]
    if sum(given) != 1:
        raise BadQuestion("send exactly one of items, vectors and images")
    collection = context.collection
    card = collection.card
    need_fingerprint(collection.name, card, question.fingerprint)
    about, items = question.about, []
    if images:
        vectors = context.pictures.embedded(context.encoder(), images)
    elif question.vectors:
        if question.fingerprint is None:
            raise BadQuestion("a vector needs the fingerprint of the encoder that made it")
        if len({len(row) for row in question.vectors}) > 1:
            raise BadQuestion("the vectors must all have the same length")
        vectors = np.asarray(question.vectors, np.float64)
    else:
        stored = collection.store.get(question.items)
        if not stored:
            raise BadQuestion("none of these items is in the collection")
        vectors, items = np.stack([one.vector for one in stored]), [one.item for one in stored]
    rows = checked_vectors(vectors, card.dim)
    found = map_of(collection, question.method)
    truth = Truth.read(collection.folder, card)
    here = [at for at, id in enumerate(found.ids) if UUID(id).bytes in truth.rows]
    ids = [UUID(found.ids[at]).bytes for at in here]
    reference = vectors_of(truth, ids)
    own, known = _own(context, about, items, [source_id(image) for image in images])
    banned = np.array([found.ids[at] in own for at in here], bool)
    cut = Map(
        **{**vars(found), "ids": tuple(found.ids[at] for at in here), "places": found.places[here]}
    )
    placed = place_on(cut, reference, rows, question.k, banned)
    return PlaceAnswer(
        collection=collection.name,
        method=found.method,
        fingerprint=card.fingerprint,
        stale=found.digest != content_digest(collection.folder),
        patient_known=known,
        cells=tuple(
            PlacedCell(x=float(x), y=float(y), nearest=nearest, score=float(scores[0]))
            for (x, y), nearest, scores in zip(
                placed.places, placed.nearest, placed.scores, strict=True
            )
        ),
    )

"""Routes that show a stored source: what it is, and its pixels in tiles.

They lie in this part because reading a slide does; the service is assembled with them by
whoever starts it (`search.api.app.create_app(routers=...)`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from ingest.routes.ledger import add_ledger_routes
from ingest.slides.deepzoom import OVERLAP, TILE, DeepZoom, SourceUnreadable
from search.api.access import Access, Reads, api_router
from search.api.problems import Expected
from search.library.collection import Collection
from search.library.source_folders import SourceFolders
from search.schemas.collections import SourceFacts
from search.schemas.filters import Filter
from search.schemas.items import Item

PROBLEMS: Sequence[Expected] = ((SourceUnreadable, 404, "The source cannot be shown"),)
"""What these routes raise, for `create_app(problems=...)`."""
FOR_EVER = "private, max-age=86400, immutable"
"""A source id is a digest of the bytes, so what it shows never changes."""

SourceId = Annotated[
    str, Path(pattern="^[0-9a-f]{32}$", description="Id of the source, as its items have it.")
]
Name = Annotated[str | None, Query(description="Collection; the default if left out.")]


def deepzoom_router(stop: Callable[[], None], folders: SourceFolders) -> APIRouter:
    """These routes and those of `ingest.routes.ledger`, with the children that both read in; they
    stop with the application, and `stop` is called then."""
    zoom = DeepZoom()
    router = api_router()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for close in (zoom.close, stop):
            await run_in_threadpool(close)

    router.lifespan_context = lifespan

    @router.get("/sources/{id}")
    def source(id: SourceId, access: Reads, collection: Name = None) -> SourceFacts:
        """What a stored source is: a slide or an image, its size and its scale."""
        item, path, opened = _found(access, id, collection, folders)
        pyramid = zoom.describe(path, id)
        return SourceFacts(
            source=id,
            collection=opened.name,
            items=opened.store.count(Filter(source=(id,))),
            dataset=item.dataset,
            case=item.case,
            width=pyramid.width,
            height=pyramid.height,
            um_per_px=item.um_per_px or pyramid.um_per_px,
            slide=pyramid.slide,
            tile_size=TILE,
            overlap=OVERLAP,
            min_level=pyramid.min_level,
            max_level=pyramid.max_level,
        )

    @router.get(
        "/sources/{id}/dzi",
        response_class=Response,
        responses={200: {"content": {"application/xml": {}}, "description": "The descriptor"}},
    )
    def descriptor(id: SourceId, access: Reads, collection: Name = None) -> Response:
        """The Deep Zoom descriptor of a source."""
        _, path, _ = _found(access, id, collection, folders)
        text = zoom.describe(path, id).xml()
        return Response(text, media_type="application/xml")

    @router.get(
        "/sources/{id}/dzi_files/{level}/{column}_{row}.jpeg",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}, "description": "One tile"}},
    )
    def tile(
        id: SourceId,
        level: Annotated[int, Path(ge=0, le=40)],
        column: Annotated[int, Path(ge=0, le=100_000)],
        row: Annotated[int, Path(ge=0, le=100_000)],
        access: Reads,
        collection: Name = None,
    ) -> Response:
        """One tile of a source, as JPEG; never of its label or macro image."""
        _, path, _ = _found(access, id, collection, folders)
        content = zoom.tile(path, id, level, column, row)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": FOR_EVER})

    add_ledger_routes(router, zoom)
    return router


def _found(
    access: Access, id: str, name: str | None, folders: SourceFolders
) -> tuple[Item, FilePath, Collection]:
    """An item of a source, its file, and the collection: whoever may read the one may see it.

    Raises:
        SourceUnreadable: no item of it is stored, or its file may not be read or is not there.
    """
    collection = access.context(name).collection
    page = collection.store.scroll(Filter(source=(id,)), 1).items
    if not page:
        raise SourceUnreadable(f"no item of source {id} is in collection {collection.name!r}")
    entry = collection.rows.entry(page[0].item.id)
    path = None if entry is None else entry.path
    if path is None or not folders.allow(FilePath(path)):
        raise SourceUnreadable(
            "the file of this source is not to be had: it is gone, was stored without a path, or "
            "lies in no folder that HEMASEEK_SOURCE_FOLDERS names"
        )
    return page[0].item, FilePath(path), collection

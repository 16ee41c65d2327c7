"""Routes of selections and exports: items kept under a name, and as files for other programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Response

from search.api.access import Reads, Writes, api_router
from search.disk.named import Named
from search.errors import BadQuestion
from search.exports.files import export, opener
from search.exports.rows import rows_of
from search.library.collection import Collection
from search.library.source_folders import SourceFolders
from search.library.versions import SELECTIONS, now
from search.schemas.exports import ExportWanted, SelectionRecord, Selections, SelectionWanted

MOST_SELECTIONS = 500
"""Of one collection."""
SelectionName = Annotated[str, Path(min_length=1, max_length=60, pattern=r"^[^/\x00-\x1f]+$")]

router = api_router()


@router.post(
    "/collections/{name}/export",
    response_class=Response,
    responses={
        200: {
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in (
                    "application/x-hdf5",
                    "application/octet-stream",
                    "application/geo+json",
                    "application/dicom",
                    "application/zip",
                )
            },
            "description": "The file; its name is in Content-Disposition",
        }
    },
)
def export_items(name: str, wanted: ExportWanted, access: Reads) -> Response:
    """The items of a search, a case, a filter or a whole collection, with their vectors, as HDF5,
    safetensors, AnnData, GeoJSON for QuPath or DICOM SR."""
    collection = access.context(name).collection
    rows = rows_of(collection, wanted)
    folders = SourceFolders.of(access.settings)
    made = export(rows, wanted.format, opener(collection, folders))
    access.note(query="export", k=len(rows))
    headers = {"Content-Disposition": f'attachment; filename="{made.name}"'}
    return Response(made.content, media_type=made.media_type, headers=headers)


@router.get("/collections/{name}/selections")
def list_selections(name: str, access: Reads) -> Selections:
    """The items that people keep together under a name."""
    collection = access.context(name).collection
    found = _selections(collection).all()
    access.note(query="selections", k=len(found))
    return Selections(collection=collection.name, selections=found)


@router.put("/collections/{name}/selections/{selection}")
def put_selection(
    name: str, selection: SelectionName, wanted: SelectionWanted, access: Writes
) -> SelectionRecord:
    """Keep items together under a name; a selection of that name is replaced."""
    collection = access.context(name).collection
    items = tuple(dict.fromkeys(wanted.items))
    if missing := set(items) - {one.item.id for one in collection.store.get(items)}:
        raise BadQuestion(
            f"collection {collection.name!r} lacks {len(missing)} of the {len(items)} items, "
            f"{min(missing)} for one; find the cells again and keep those"
        )
    made = SelectionRecord(
        name=selection, items=items, note=wanted.note, by=access.caller.id, at=now()
    )
    _selections(collection).keep(made)
    access.note(written=1)
    return made


@router.delete("/collections/{name}/selections/{selection}")
def delete_selection(name: str, selection: SelectionName, access: Writes) -> Selections:
    """Forget a selection; its items stay. Those that are left."""
    collection = access.context(name).collection
    _selections(collection).drop(selection)
    access.note(written=1)
    return Selections(collection=collection.name, selections=_selections(collection).all())


def _selections(collection: Collection) -> Named[SelectionRecord]:
    path = collection.versions.folder / SELECTIONS
    return Named(path, SelectionRecord, "selection", MOST_SELECTIONS)

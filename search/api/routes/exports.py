"""Route of exports: items with their vectors as a file that other programs read."""

from __future__ import annotations

from fastapi import Response

from search.api.access import Reads, api_router
from search.exports.files import export, opener
from search.exports.rows import rows_of
from search.library.source_folders import SourceFolders
from search.schemas.exports import ExportWanted

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

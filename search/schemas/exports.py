"""Items with their vectors as files that other programs read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.filters import Filter
from search.schemas.items import DISCLAIMER, ItemId, NamedRecord, Record
from search.schemas.questions import Labels

ExportFormat = Literal["hdf5", "safetensors", "h5ad", "geojson", "dicom-sr"]


class ExportWanted(Record):
    """What is exported, and as what."""

    format: ExportFormat
    """`hdf5` (`features` and `coords`, as CLAM and TRIDENT keep them), `safetensors`, `h5ad`
    (AnnData), `geojson` (QuPath's objects) or `dicom-sr` (structured reports with outlines)."""
    items: Annotated[tuple[ItemId, ...], Field(max_length=100_000)] = ()
    """Ids of items, in the order they are wanted: those of a search, say. None: see `where`."""
    scores: Annotated[
        tuple[Annotated[float, Field(ge=-1.001, le=1.001, allow_inf_nan=False)], ...],
        Field(max_length=100_000),
    ] = ()
    """Of each of `items`, its score in the search."""
    labels: Labels = "reviewed"
    """Labels in the file: a reviewer's where there is one, else the recorded one; or `recorded`
    alone. Files of arrays list the former beside the recorded ones (`reviewed`)."""
    where: Filter = Filter()
    """Without `items`: which items of the collection, all if it is empty."""


class SelectionWanted(Record):
    """Items that are to be kept together; the name that they are kept under is their tag."""

    items: Annotated[tuple[ItemId, ...], Field(min_length=1, max_length=20_000)]
    """Ids, in the order they were selected."""
    note: Annotated[str, Field(max_length=500)] = ""
    """What they are, in a person's words."""


class SelectionRecord(SelectionWanted, NamedRecord):
    """Items that are kept together under a name, whichever version of the collection serves."""

    by: str
    """The key of who kept them."""
    at: str
    """When, in UTC."""


class Selections(Record):
    """The selections of a collection."""

    collection: str
    selections: tuple[SelectionRecord, ...]
    """In order of name; items that were removed since are still named in them."""
    disclaimer: str = DISCLAIMER

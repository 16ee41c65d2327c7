"""Items: what is stored and searched, and how it is identified."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from typing import Annotated, Literal
from uuid import UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAMESPACE = UUID("6f1d7a52-3c0e-5b8e-9a53-0c5f4e1f7b11")
"""The root of every item id; it must never change."""
DISCLAIMER = "Research use only. Similar images are not a finding about a patient."

Kind = Literal["cell", "tile", "field"]
ScaleOrigin = Literal["file", "manifest", "estimate"]
Text = Annotated[str, Field(min_length=1, max_length=200)]


def canonical(id: str) -> str:
    """An item id in its one spelling.

    Raises:
        ValueError: not a UUID.
    """
    try:
        return str(UUID(id))
    except ValueError:
        raise ValueError("an item id is a UUID, as the service gives it") from None


ItemId = Annotated[str, AfterValidator(canonical)]


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NamedRecord(Record):
    """A record that a person keeps under a name."""

    name: str


class Box(Record):
    """A rectangle in level-0 pixels of its source."""

    x: int
    """Left edge; negative where a crop hangs over the border and was padded."""
    y: int
    """Top edge."""
    w: Annotated[int, Field(ge=1)]
    """Width."""
    h: Annotated[int, Field(ge=1)]
    """Height."""


class Item(Record):
    """One searchable thing: a cell, a tile of a slide, or a whole field."""

    id: ItemId
    """Deterministic: see `item_id`."""
    kind: Kind = "cell"
    """What it shows."""
    dataset: Text
    """The collection of sources that it was published or acquired in."""
    source: Text
    """The image or slide it was cut from: the first 32 hex digits of the file's SHA-256."""
    bbox: Box | None = None
    """Where in the source, in level-0 pixels; `None` for the whole image."""
    um_per_px: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    """Micrometres per level-0 pixel; `None` where it is not known."""
    um_per_px_origin: ScaleOrigin | None = None
    """Where the scale was read; an estimate is never shown as a fact."""
    label: Text | None = None
    """The label that the source carries, in the source's own words."""
    case: Text | None = None
    """One specimen or examination; a case belongs to one patient."""
    patient: Text | None = None
    """Pseudonym of the patient."""
    site: Text | None = None
    """Laboratory or hospital."""
    stain: Text | None = None
    """Stain, for instance `May-Grunwald-Giemsa`."""
    scanner: Text | None = None
    """Instrument that took the image."""
    acquired: date | None = None
    """Day of acquisition."""


KEYWORDS = (
    "kind",
    "dataset",
    "source",
    "label",
    "case",
    "patient",
    "site",
    "stain",
    "scanner",
)
"""The fields of `Item` that are indexed as words, can be filtered, and have facets."""
RANGES = ("um_per_px", "acquired")
"""The fields of `Item` that are indexed as numbers (`acquired` as days since 1970-01-01)."""
Keyword = Literal[
    "kind", "dataset", "source", "label", "case", "patient", "site", "stain", "scanner"
]
"""One of `KEYWORDS`."""


def with_patient(item: Item, patients: Mapping[str, str]) -> Item:
    """An item with its patient, where only the record of its case names one.

    Args:
        item: Any.
        patients: By case: `search.library.case_records.CaseRecords.patients`.
    """
    named = patients.get(item.case or "")
    if item.patient is not None or named is None:
        return item
    return item.model_copy(update={"patient": named})


def source_id(content: bytes) -> str:
    """The id of a source: the first 32 hex digits of the SHA-256 of its bytes."""
    return sha256(content).hexdigest()[:32]


def item_id(dataset: str, source: str, bbox: Box | None = None, kind: Kind = "cell") -> str:
    """The id of an item, equal wherever and whenever it is made.

    The same bytes and box under the same dataset are the same item, wherever the file lies.
    The encoder is not part of it: a collection belongs to one encoder, and the same item in
    two collections keeps its id.
    """
    place = "whole" if bbox is None else f"{bbox.x},{bbox.y},{bbox.w},{bbox.h}"
    return str(uuid5(NAMESPACE, f"{dataset}|{source}|{kind}|{place}"))

"""The service and its collections: facts, facets, items written, and sources ingested."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.items import DISCLAIMER, Item, ItemId, Record


class CollectionFacts(Record):
    """One collection."""

    name: str
    items: int
    encoder: str
    fingerprint: str
    dim: int
    default: bool
    """Whether it is searched when none is named."""
    state: str = ""
    """Changes with every write to what its answers rest on: items, the version that serves, its
    calibration, reviews and records of cases; empty from older services."""
    reviews_state: str = ""
    """Changes with every review, so that answers kept by a client can be told to be of before;
    empty where there is none."""


class Facets(Record):
    """Values of a field with their counts, most frequent first."""

    field: str
    values: dict[str, int]


class Ids(Record):
    """Ids to look up."""

    ids: Annotated[tuple[ItemId, ...], Field(max_length=20_000)]


class Known(Record):
    """Payload digests of the ids that are stored."""

    known: dict[str, str]


class Items(Record):
    """Items whose metadata is to be replaced."""

    items: Annotated[tuple[Item, ...], Field(max_length=20_000)]


class Written(Record):
    """What a write changed."""

    stored: int
    updated: int
    unchanged: int


class Built(Record):
    """What a build of the index measured."""

    points: int
    seconds: float
    recall: float
    filtered_recall: float
    sample: int


class Health(Record):
    """Whether the service can answer, and with which encoder."""

    status: Literal["ok", "empty"]
    version: str
    collections: int
    set_aside: int = 0
    """Collections that cannot be opened; `hemaseek doctor` says which and why."""
    encoder: str | None
    """Id of the default collection's encoder; `None` while there is no such collection."""
    fingerprint: str | None
    disclaimer: str = DISCLAIMER


class SourceFacts(Record):
    """A stored source, as a viewer shows it."""

    source: str
    collection: str
    items: int
    """Items that were cut from it."""
    dataset: str
    case: str | None
    width: int
    height: int
    um_per_px: float | None
    """As its items have it, else as the file says."""
    slide: bool
    """Whether it is a slide; else it is a plain image."""
    tile_size: int
    overlap: int
    min_level: int
    max_level: int


class RunRecord(Record):
    """One run of an ingest."""

    id: int
    started: str
    ended: str
    """Empty while it runs, and after a kill."""
    state: Literal["running", "done", "failed"]
    summary: str
    """The counts of its report; of a failed one, why, unless that names files."""


class SetAside(Record):
    """A file that could not be read, without its name."""

    key: str
    """Its name here, derived from its path."""
    dataset: str
    ending: str
    """Of its name, for instance `.svs`."""
    bytes: int
    reason: str
    attempts: int


class Brought(Record):
    """What was ingested into a collection."""

    collection: str
    done: int
    """Sources that are in the library completely."""
    pending: int
    """Sources that were started, or will be read again by the next run."""
    quarantined: int
    """Sources that were set aside."""
    runs: tuple[RunRecord, ...]
    """The last twenty, newest first."""
    set_aside: tuple[SetAside, ...]
    """The first five hundred, in order of where they lie."""


class ReleaseWanted(Record):
    """Files that the next run is to read again."""

    keys: Annotated[tuple[str, ...], Field(max_length=10_000)] = ()
    """None for all."""


class Released(Record):
    """How many will be read again."""

    released: int

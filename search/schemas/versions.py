"""Versions of a collection: building, checks, switching, pruning; and jobs, which build them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from search.schemas.items import ItemId, Record

State = Literal["building", "ready", "refused"]
"""Incomplete; complete and fit to serve; complete, but a check failed."""
JobState = Literal["queued", "running", "done", "failed", "stopped", "interrupted"]
ENDED: tuple[JobState, ...] = ("done", "failed", "stopped", "interrupted")


class GateFacts(Record):
    """One check of a version, and its result."""

    name: str
    passed: bool | None
    """`None` where it could not be measured; `note` says why."""
    figures: dict[str, float]
    limits: dict[str, float]
    note: str


class VersionRecord(Record):
    """One version of a collection."""

    id: str
    encoder: str
    fingerprint: str
    dim: int
    items: int
    bytes: int
    """On disk."""
    state: State
    served: bool
    """Whether it answers."""
    previous: bool
    """Whether a rollback leads to it."""
    parent: str | None
    made: str
    gates: tuple[GateFacts, ...]
    """Empty for one that was ingested."""


class IndexWanted(Record):
    """Settings of the search graph of a new version; see `IndexSettings`."""

    m: Annotated[int, Field(ge=4, le=128)] = 16
    ef_construct: Annotated[int, Field(ge=16, le=2048)] = 128
    ef: Annotated[int, Field(ge=8, le=4096)] = 64
    int8: bool = False
    """Walk the graph over bytes, and compare what it finds with the floats again."""
    vectors_on_disk: bool = False
    graph_on_disk: bool = False
    shards: Annotated[int, Field(ge=0, le=1024)] = 0
    """On a Qdrant cluster; 0 for the server's own default."""
    replicas: Annotated[int, Field(ge=0, le=16)] = 0
    """On a Qdrant cluster; 0 for the server's own default."""


class ReindexWanted(Record):
    """A version to be built."""

    encoder: Annotated[str, Field(min_length=1, max_length=500)]
    """What loads the encoder: a name, or a folder on the machine of the service."""
    index: IndexWanted | None = None
    """`None` keeps the settings of the version that serves."""
    allow_missing: bool = False
    """Leave items out whose source is gone or changed."""
    force: bool = False
    """Serve it even if a check fails; that is recorded."""


class AdaptWanted(Record):
    """An adapted version to be built."""

    kind: Annotated[str, Field(pattern=r"^[a-z]+(\+[a-z]+)*$", max_length=100)] = "metric"
    """`align`: sites brought to one mean and spread, labels not read; `metric`: axes that labels
    choose, so that they separate labels at unseen sites; `fuse`: of two encoders the first, and
    what the other agrees with it on, labels not read; `align+metric`: one after the other."""
    field: Literal["site", "scanner", "stain", "dataset"] = "site"
    """What distinguishes sites."""
    force: bool = False
    """Serve it even if a check fails; that is recorded."""


class RollbackWanted(Record):
    """Which version is to serve."""

    version: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | None = None
    """`None` for the one that served before."""
    force: bool = False
    """Also one whose checks failed."""


class SwitchRecord(Record):
    """What a switch did."""

    collection: str
    left: str
    served: str
    revised: int
    """Items whose newer metadata was carried over."""
    removed: int
    """Items whose removal was carried over."""
    lacking: int
    """Items of the version that was left which this one does not have."""
    lacking_ids: tuple[ItemId, ...]
    """The first thousand of them."""


class ReconcileRecord(Record):
    """What a reconciliation found."""

    collection: str
    version: str
    points: int
    """Items that live by the shards."""
    shards: str
    """Point hash of the shards."""
    index: str
    """Point hash of the index, after mending, where it was mended."""
    missing: int
    """Items that the index lacked."""
    phantom: int
    """Points of the index that no shard has."""
    payload: int
    """Points with other metadata than their shard."""
    vector: int
    """Points with another vector than their shard."""
    catalogue: int
    """Items that the catalogue placed wrongly, lacked, or had too many."""
    mended: bool
    equal: bool
    """Whether the index is the shards, point by point."""


class Pruned(Record):
    """Versions that are gone."""

    pruned: tuple[str, ...]


class RemoveWanted(Record):
    """Items to be removed for good."""

    ids: Annotated[tuple[ItemId, ...], Field(max_length=20_000)]


class Removed(Record):
    """What a removal did."""

    removed: int
    """How many of the ids were there."""


class JobRecord(Record):
    """Work that takes longer than a call."""

    id: str
    kind: str
    collection: str
    state: JobState
    done: int
    total: int
    """0 while it is not known."""
    made: str
    ended: str | None
    result: dict[str, Any] | None
    error: str | None

"""Versions listed, switched, rolled back and pruned: what an operator does with them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from search.disk.lock import lock_version
from search.errors import StoreBusy, StoreError
from search.library.collection import Collection
from search.library.contents import Truth
from search.library.library import Library
from search.library.versions import NoSuchVersion, Version, Versions
from search.schemas.versions import State

WAIT_S = 5.0
"""How long a switch waits for the last questions of the version that it goes back to."""


@dataclass(frozen=True, kw_only=True)
class VersionFacts:
    """One version, as it is listed."""

    id: str
    encoder: str
    fingerprint: str
    dim: int
    items: int
    bytes: int
    """On disk: shards, index and catalogue."""
    state: State
    served: bool
    """Whether it answers."""
    previous: bool
    """Whether a rollback leads to it."""
    parent: str | None
    made: str
    report: Mapping[str, Any]
    """The checks with their figures, where it was built by a re-index."""


@dataclass(frozen=True, kw_only=True)
class Switched:
    """What a switch did."""

    collection: str
    left: str
    """The version that answered before."""
    served: str
    """The version that answers now."""
    revised: int
    """Items whose newer metadata was carried over."""
    removed: int
    """Items whose removal was carried over."""
    lacking: tuple[str, ...]
    """Items of the version that was left which this one does not have: they came after it was
    made, and only its own encoder could bring them in. Ingest them again."""


def list_versions(library: Library, name: str) -> list[VersionFacts]:
    """Every version of a collection, oldest first; nothing is opened.

    Raises:
        NoSuchCollection: there is none of that name.
    """
    versions = library.versions(name)
    versions.finish_interrupted()
    pointer = versions.pointer()
    return [
        VersionFacts(
            id=version.id,
            encoder=version.card.id,
            fingerprint=version.card.fingerprint,
            dim=version.card.dim,
            items=count_items(versions.path(version.id)),
            bytes=count_bytes(versions.path(version.id)),
            state=version.state,
            served=version.id == pointer.version,
            previous=version.id == pointer.previous,
            parent=version.parent,
            made=version.made,
            report=version.report,
        )
        for version in versions.all()
    ]


def rollback(
    library: Library, name: str, to: str | None = None, *, force: bool = False
) -> Switched:
    """Serve the version that was served before; a second call returns.

    Metadata that changed and items that were removed since are carried over first.

    Args:
        library: Where the collection is.
        name: Of the collection.
        to: Another version than the one before.
        force: Also one that failed a check; that is kept in the history.

    Raises:
        NoSuchVersion: there is none to go back to, or none of that id.
        StoreError: it is not whole, or it failed a check.
    """
    versions = library.versions(name)
    versions.finish_interrupted()
    pointer = versions.pointer()
    wanted = to or pointer.previous
    if wanted is None:
        raise NoSuchVersion(name, "before this one", versions.ids())
    version = versions.get(wanted)
    if wanted == pointer.version:
        raise StoreError(f"version {wanted} of collection {name!r} is the one that answers")
    if version.state == "building":
        raise StoreError(f"version {wanted} of collection {name!r} is not whole; re-index again")
    if version.state == "refused" and not force:
        raise StoreError(
            f"version {wanted} of collection {name!r} did not pass its checks: "
            f"{', '.join(refused_by(version))}; force it if that is meant"
        )
    why = "rollback" if to is None else "switch"
    return _switch(library, versions, version, why + (", forced" if force else ""))


def prune(library: Library, name: str, keep: int = 1, *, unfinished: bool = False) -> list[str]:
    """Remove old versions for good; returns which.

    Args:
        library: Where the collection is.
        name: Of the collection.
        keep: Versions that stay beside the one that answers: those that answered last.
        unfinished: Also those that are not whole or were refused.

    Raises:
        ValueError: `keep` is negative.
        StoreBusy: one of them still answers a question, or is being built.
    """
    if keep < 0:
        raise ValueError(f"keep must be at least 0, got {keep}")
    versions = library.versions(name)
    versions.finish_interrupted()
    with versions.writing():
        pointer = versions.pointer()
        last = list(dict.fromkeys(turn.version for turn in reversed(pointer.history)))
        whole = [v.id for v in versions.all() if v.state == "ready" and v.id != pointer.version]
        whole.sort(key=lambda id: last.index(id) if id in last else len(last) + 1 / int(id))
        going = whole[keep:]
        if unfinished:
            going += [
                v.id for v in versions.all() if v.state != "ready" and v.id != pointer.version
            ]
        for id in sorted(going, key=int):
            version = versions.get(id)
            with lock_version(versions.path(id), name):
                library.stores.drop(version)
                versions.drop(id)
    return sorted(going, key=int)


def refused_by(version: Version) -> list[str]:
    """The checks that a version failed, with what they measured."""
    return [
        f"{check['name']} ({', '.join(f'{k} {v:.4g}' for k, v in check['figures'].items())})"
        for check in version.report.get("gates", [])
        if check["passed"] is False
    ]


def count_items(folder: Path) -> int:
    """The items of a version, from its catalogue; 0 where it has none yet."""
    path = folder / "catalogue.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as catalogue:
        return int(catalogue.execute("SELECT count(*) FROM items").fetchone()[0])


def count_bytes(folder: Path) -> int:
    """Bytes that a folder takes on the disk, as `du` counts them: holes in files take none, and a
    file under two names counts once. What goes meanwhile counts nothing."""
    blocks: dict[tuple[int, int], int] = {}
    for path in (folder, *folder.rglob("*")):
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        blocks[facts.st_dev, facts.st_ino] = facts.st_blocks
    return 512 * sum(blocks.values())


def _switch(library: Library, versions: Versions, version: Version, why: str) -> Switched:
    """Carry over what needs no encoder, and point to the version."""
    left = versions.current()
    old = Truth.read(versions.path(left.id), left.card)
    here = Truth.read(versions.path(version.id), version.card)
    with versions.writing():
        if versions.pointer().version != left.id:
            raise StoreError(f"collection {versions.name!r} was switched meanwhile; look again")
        old.refresh()
        gone = [id for id in old.removed if id not in here.removed]
        stale = [
            id
            for id, row in old.rows.items()
            if (mine := here.rows.get(id)) is not None and mine.digest != row.digest
        ]
        if gone or stale:
            with _soon(library, versions.name, version.id) as target:
                target.bury([str(UUID(bytes=id)) for id in gone])
                target.update([entry.item for entry in old.entries(stale)])
        lacking = sorted(str(UUID(bytes=id)) for id in old.rows if id not in here.rows)
        library.stores.point(version)
        versions.point(version.id, why)
    return Switched(
        collection=versions.name,
        left=left.id,
        served=version.id,
        revised=len(stale),
        removed=sum(id in here.rows for id in gone),
        lacking=tuple(lacking),
    )


def _soon(library: Library, name: str, id: str) -> Collection:
    """A version, open; the last questions that it answers may keep it open a moment longer."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return library.version(name, id)
        except StoreBusy:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)

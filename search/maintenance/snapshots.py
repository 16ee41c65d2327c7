"""Snapshots: the shards of a version, what people and case models add, and how they come back."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from encoder.durable import left_behind, sync
from search.disk.lines import bring_back, whole_lines
from search.disk.lock import lock_version
from search.errors import StoreBusy, StoreError
from search.library.case_records import FILE as CASE_RECORDS
from search.library.collection import Collection
from search.library.contents import Truth, shard_files
from search.library.library import NAME, Library
from search.library.reviews import FILE as REVIEWS
from search.library.shards import ShardError
from search.library.versions import SELECTIONS, Version, Versions, now
from search.maintenance import case_models
from search.maintenance.reconcile import index_points, point_hash, shard_points

FORMAT = 1
LIST = "snapshot.json"
"""What is in the snapshot; the last file that is written."""
DERIVED = re.compile(r"index|catalogue\.sqlite.*|held\.lock|\..*")
"""What is made again from the shards, and is left out."""

UNPACKED = ".restore-"
"""How the names of folders begin in which archives are unpacked."""
LOGS = (REVIEWS, CASE_RECORDS, SELECTIONS)
"""In the folder of the collection: they belong to no version."""


class SnapshotError(ValueError):
    """A snapshot that is damaged, not whole, or no snapshot."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The facts of a snapshot."""

    collection: str
    version: str
    encoder: str
    fingerprint: str
    made: str
    points: int
    point_hash: str
    """See `search.maintenance.reconcile.point_hash`."""
    files: dict[str, dict[str, Any]]
    """SHA-256 and bytes of each file, by its path."""

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(int(one["bytes"]) for one in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore made."""

    collection: str
    version: str
    points: int
    point_hash: str
    served: bool
    """False where the collection was there already: the version lies beside the one that
    answers, and `rollback --to` serves it."""


def snapshot(library: Library, name: str, out: Path, version: str | None = None) -> Snapshot:
    """Write a snapshot of a version: a tar file if `out` ends in `.tar`, else a folder.

    Writers wait only while the list of shards is taken; shards never change after that. The
    index is not in it: it is made again from the shards.

    Args:
        library: Where the collection is; another process may have it open.
        name: Of the collection.
        out: Must not exist.
        version: Other than the one that answers.

    Raises:
        StoreError: `out` exists.
        ShardError: a shard is damaged.
    """
    if out.exists():
        raise StoreError(f"{out} exists; name a new file or folder for the snapshot")
    versions = library.versions(name)
    versions.finish_interrupted()
    chosen = versions.get(version or versions.pointer().version)
    folder = versions.path(chosen.id)
    with versions.writing():
        truth = Truth.read(folder, chosen.card)
        names = _truth_files(folder)
        # logs of people's work lie beside the versions; they grow, shards do not
        logs = {one: text for one in LOGS if (text := whole_lines(versions.folder / one))}
        beside = logs | case_models.saved(library.folder, name)
    damaged = truth.damaged()
    if damaged:
        raise ShardError(
            f"{len(damaged)} shards of collection {name!r} are not what was written: "
            f"{', '.join(damaged[:5])}; restore them from an older snapshot first"
        )
    points = shard_points(truth)
    facts = Snapshot(
        collection=name,
        version=chosen.id,
        encoder=chosen.encoder,
        fingerprint=chosen.card.fingerprint,
        made=now(),
        points=len(points),
        point_hash=point_hash(points.items()),
        files={one: _described(folder / one) for one in names}
        | {one: _described_bytes(text) for one, text in beside.items()},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in left_behind(out):  # of one that was killed
        _remove(left)
    part = out.with_name(f".{out.name}.{uuid4().hex[:8]}.part")
    try:
        (_write_tar if out.suffix == ".tar" else _write_folder)(part, folder, facts, beside)
        part.rename(out)
    finally:
        _remove(part)
    return facts


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def restore(library: Library, source: Path, name: str | None = None) -> Restored:
    """Bring a snapshot back, verified file by file and, once indexed, point by point.

    A collection that does not exist is made and served. Beside one that does, the snapshot
    becomes a version that does not serve yet.

    Args:
        library: Where to.
        source: What `snapshot` wrote.
        name: Of the collection; `None` for the name in the snapshot.

    Raises:
        SnapshotError: a file is missing, too many, or not what was written.
    """
    with _opened(source) as folder:
        facts = verify(folder)
        wanted = name or facts.collection
        if not NAME.fullmatch(wanted):
            raise StoreError(f"a collection cannot be called {wanted!r}")
        versions = Versions(library.folder / "collections" / wanted)
        new = not versions.exists
        versions.drop_abandoned()
        versions.folder.mkdir(parents=True, exist_ok=True)
        made = Version.read(folder / "collection.json")
        with versions.writing():
            begun = versions.begin(made.card, made.encoder, index=made.index)
            held = lock_version(versions.path(begun.id), wanted)
        with held:
            _copy(folder, facts, versions.path(begun.id))
            with versions.writing():
                for one in set(LOGS) & set(facts.files):
                    bring_back((folder / one).read_bytes(), versions.folder / one)
                case_models.bring_back(folder, facts.files, library.folder, wanted)
                held.close()  # to whom opens it next, and nobody looks for what was left meanwhile
                collection = Collection(versions, begun, library.stores, aside=True)
    with collection:
        found = point_hash(index_points(collection))
        if found != facts.point_hash:
            raise SnapshotError(
                f"the restored index has point hash {found[:16]}, the snapshot says "
                f"{facts.point_hash[:16]}; it is not served, and `prune` removes it"
            )
    versions.write(replace(begun, state="ready", report={"restored": facts.made, **made.report}))
    if new:
        with versions.writing():
            library.stores.point(begun)
            versions.point(begun.id, "restore")
    return Restored(
        collection=wanted,
        version=begun.id,
        points=facts.points,
        point_hash=found,
        served=new,
    )


def _copy(folder: Path, facts: Snapshot, there: Path) -> None:
    for one in facts.files:
        if one not in ("collection.json", *LOGS) and not case_models.is_model_file(one):
            (there / one).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / one, there / one)
            sync(there / one)
    sync(there / "shards")


def verify(folder: Path) -> Snapshot:
    """Compare every file of a snapshot with its list.

    Raises:
        SnapshotError: names the first file that is not what was written.
    """
    facts = _listed(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    for one in sorted(there ^ {*facts.files, LIST}):
        raise SnapshotError(
            f"{one} is {'not in the list of the snapshot' if one in there else 'missing'}"
        )
    for one, listed in facts.files.items():
        found = _described(folder / one)
        if found != listed:
            raise SnapshotError(
                f"{one} has {found['bytes']} bytes and SHA-256 {found['sha256'][:16]}; written "
                f"were {listed['bytes']} bytes with {listed['sha256'][:16]}"
            )
    return facts


def _truth_files(folder: Path) -> list[str]:
    """What cannot be made again: shards, and what was kept beside them."""
    others = [path.name for path in folder.iterdir() if path.is_file()]
    kept = [name for name in others if not DERIVED.fullmatch(name)]
    return sorted(kept) + [f"shards/{name}" for name in shard_files(folder / "shards")]


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        digest = file_digest(handle, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _described_bytes(content: bytes) -> dict[str, Any]:
    return {"sha256": sha256(content).hexdigest(), "bytes": len(content)}


def _list_bytes(facts: Snapshot) -> bytes:
    return json.dumps({"format": FORMAT, **facts.__dict__}, indent=1).encode()


def _write_folder(out: Path, folder: Path, facts: Snapshot, beside: dict[str, bytes]) -> None:
    for one in facts.files:
        (out / one).parent.mkdir(parents=True, exist_ok=True)
        if one in beside:
            (out / one).write_bytes(beside[one])
        else:
            shutil.copyfile(folder / one, out / one)
        sync(out / one)
    (out / LIST).write_bytes(_list_bytes(facts))
    sync(out / LIST)


def _write_tar(out: Path, folder: Path, facts: Snapshot, beside: dict[str, bytes]) -> None:
    with out.open("wb") as handle:
        with tarfile.open(fileobj=handle, mode="w") as tar:
            for one in facts.files:
                if one in beside:
                    _add_bytes(tar, one, beside[one])
                else:
                    tar.add(folder / one, one, filter=_anonymous)
            _add_bytes(tar, LIST, _list_bytes(facts))
        handle.flush()
        os.fsync(handle.fileno())


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of the archive without owner and time."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """The folder of a snapshot; a tar is unpacked beside itself for as long as needed."""
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise SnapshotError(f"there is no snapshot at {source}")
    for left in source.parent.glob(f"{UNPACKED}*"):  # of restores that were killed
        with suppress(StoreBusy), lock_version(left, "restored"):
            shutil.rmtree(left)
    with TemporaryDirectory(dir=source.parent, prefix=UNPACKED) as name, ExitStack() as last:
        last.enter_context(lock_version(Path(name), "restored"))
        folder = Path(name) / "content"
        try:
            with tarfile.open(source) as tar:
                for member in tar:
                    parts = PurePosixPath(member.name).parts
                    if not member.isfile() or len(parts) > 2 or ".." in parts or "/" in parts:
                        raise SnapshotError(f"{member.name!r} does not belong in a snapshot")
                    tar.extract(member, folder, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise SnapshotError(f"{source} is not a tar file or is damaged: {error}") from error
        yield folder


def _listed(folder: Path) -> Snapshot:
    path = folder / LIST
    if not path.exists():
        raise SnapshotError(f"{folder} is no snapshot, or one that was cut off: no {LIST}")
    try:
        facts = json.loads(path.read_bytes())
        if facts.pop("format") != FORMAT:
            raise SnapshotError(f"{path} is of another format than {FORMAT}")
        return Snapshot(**facts)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"{path} cannot be read: {error!r}") from error

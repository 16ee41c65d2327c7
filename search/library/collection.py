"""One collection: its shards, catalogue and index."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from time import time_ns
from types import MappingProxyType
from typing import IO
from uuid import UUID
from weakref import finalize

from search.disk.atomic import write_durably
from search.disk.closing import Closing
from search.disk.lock import lock_version
from search.disk.space import COPIES, in_disk_words, need_room
from search.errors import StoreError
from search.index.contract import BATCH, BuildReport, is_id
from search.index.recorded import RecordedStore
from search.library.case_records import CaseRecords
from search.library.catalogue import Catalogue
from search.library.contents import shard_files, shard_name
from search.library.indexes import Stores
from search.library.rows import ShardRows
from search.library.shards import Entry, Shard, ShardError, make_shard_bytes, make_tombstone_bytes
from search.library.versions import Version, Versions
from search.neighbours.duplicates import hashes_of
from search.schemas.items import Item
from search.transforms.adaptation import Adaptation

_revisions = count(time_ns() // 1_000_000)
"""Rising across restarts too, so that no two states of a library are called the same."""


@dataclass(frozen=True)
class Added:
    """What adding a shard changed."""

    stored: int
    """Items that are new."""
    updated: int
    """Items that were there and changed."""
    unchanged: int
    """Items that were there and are the same."""


class Collection(Closing):
    """One collection, open in this process until `close`.

    The shards are the truth. The catalogue (which id lies where) and the index are derived:
    what a shard holds and they do not is brought in when the collection is opened, so a
    process killed at any moment loses nothing and leaves nothing half done.
    """

    def __init__(
        self, versions: Versions, version: Version, stores: Stores, *, aside: bool = False
    ) -> None:
        """Use `Library.collection`; with `aside`, a version that is not the served one."""
        self._aside = aside
        self.versions = versions
        self.version = version
        self.folder = folder = versions.path(version.id)
        self.name = version.name
        self.card = version.card
        self.adaptation = Adaptation.read(folder, version.card)
        self.base = version.card if self.adaptation is None else self.adaptation.base
        """Of the vectors that are written to it, and lie in its shards."""
        self.cases = CaseRecords(versions)
        self.stores = stores
        self.derived: dict[str, Closing] = {}
        """What features keep open beside it; closed with it."""
        self.revision = next(_revisions)
        self.settled = True
        """Whether no write is under way; see `changing`."""
        self._writing = threading.RLock()
        with in_disk_words(folder):
            lock = lock_version(folder, version.name)
        catalogue = None
        try:
            with in_disk_words(folder):
                if not (folder / "catalogue.sqlite").exists():
                    need_room(folder)
                catalogue = self.catalogue = Catalogue(folder / "catalogue.sqlite")
                items, fresh = stores.open(folder / "index", version)
                self.store = RecordedStore(items, self.cases)
                self._bring_in(everything=fresh)
                if not aside:
                    with versions.writing():
                        if versions.pointer().version == version.id:
                            stores.point(version)  # a switch may have been cut off before it
        except BaseException:
            if hasattr(self, "store"):
                self.store.close()
            _release(catalogue, lock)
            raise
        self.rows = ShardRows(folder / "shards", self.base, catalogue)
        # Nothing here refers back to the collection: once the last query that uses it is
        # answered, it goes, and this runs. The store goes with its own last question.
        self._finish = finalize(self, _release, catalogue, lock, self.derived)

    @property
    def key(self) -> str:
        """Name and version: what may be remembered of a collection is remembered under this."""
        return f"{self.name}@{self.version.id}"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around whatever changes what the index or the catalogue holds: a new `revision` before
        and after it, and no `settled` meanwhile.

        No two handles of this process have a revision in common, so values that were computed from
        a collection may be kept under it, and what was computed between two equal ones of a settled
        collection saw every batch whole.
        """
        self.revision, self.settled = next(_revisions), False
        try:
            yield
        finally:
            self.revision, self.settled = next(_revisions), True

    @property
    def label_axes(self) -> Adaptation | None:
        """Its adaptation, if labels of its items chose the axes: those items lie nearer to their
        own label than a new one would."""
        found = self.adaptation
        return found if found is not None and found.reads_labels else None

    @property
    def reference(self) -> str:
        """What loads its encoder: a name or a folder."""
        return self.version.encoder

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """The payload digests of those of `ids` that are stored."""
        found = self.catalogue.known([UUID(id).bytes for id in ids])
        return {str(UUID(bytes=id)): digest for id, digest in found.items()}

    def add(self, entries: Sequence[Entry]) -> Added:
        """Store entries: shard first, then index; durable when it returns.

        Entries that are stored already and have not changed are left out, so adding twice
        changes nothing.
        """
        return self.add_shard(make_shard_bytes(entries, self.base)) if entries else Added(0, 0, 0)

    def add_shard(self, content: bytes) -> Added:
        """Store a shard made elsewhere by `make_shard_bytes`.

        Raises:
            ShardError: damaged, or with an id twice.
            WrongEncoder: made by another encoder.
        """
        shard = Shard(content, self.base)
        if shard.tombstone:
            raise ShardError("the uploaded shard is a tombstone; items are removed by their ids")
        came = {str(UUID(bytes=id)): digest for id, digest in shard.digests()}
        if len(came) != shard.rows:
            raise ShardError(f"a shard of {shard.rows} rows has only {len(came)} different ids")
        with self._writing, self._to_this_version():
            known = self.known(list(came))
            changed = {id for id, digest in came.items() if known.get(id) != digest}
            if not changed:
                return Added(0, 0, len(came))
            if len(changed) < len(came):
                kept = [entry for entry in shard.entries() if entry.item.id in changed]
                content = make_shard_bytes(kept, self.base)
            self._keep(content)
        new = sum(1 for id in changed if id not in known)
        return Added(new, len(changed) - new, len(came) - len(changed))

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items for good: a tombstone among the shards, so that a rebuild honours it.

        Their vectors and pictures stay in the older shards until a re-index makes new ones and
        the old version is pruned. An item that is ingested again comes back.

        Returns:
            How many of them were there.
        """
        with self._writing, self._to_this_version():
            there = sorted(self.known([id for id in ids if is_id(id)]))
            self.bury(there)
        return len(there)

    def bring_back(self, ids: Sequence[str]) -> int:
        """Undo a removal: items as they were, from the shards that still hold them.

        Returns:
            How many came back; an item that is there, or that no shard holds any more, does not.
        """
        with self._writing:
            gone = {UUID(id).bytes for id in ids if is_id(id)}
            gone -= {UUID(id).bytes for id in self.known([str(UUID(bytes=id)) for id in gone])}
            found: list[Entry] = []
            for name in reversed(shard_files(self.folder / "shards")):
                shard = Shard(self.folder / "shards" / name, self.base)
                here = [] if shard.tombstone else [id for id, _ in shard.digests()]
                rows = [row for row, id in enumerate(here) if id in gone]
                found += shard.entries(rows) if rows else []
                gone -= set(here)
            self.add(found)
        return len(found)

    def bury(self, ids: Sequence[str]) -> None:
        """Write a tombstone, also for items that are not here: an older version may have them."""
        with self._writing:
            if ids:
                self._keep(make_tombstone_bytes(ids, self.base))

    def update(self, items: Sequence[Item]) -> Added:
        """New metadata for stored items; vectors and thumbnails stay.

        Raises:
            StoreError: an item that is not stored.
        """
        with self._writing:
            return self.add([self._revised(item) for item in items])

    def build(self) -> BuildReport:
        """Build the search graph and measure its recall."""
        with in_disk_words(self.folder):
            return self.store.build()

    def close(self) -> None:
        """Release the collection; safe to call twice."""
        if self._finish.alive:
            self.store.close()
            self._finish()

    def _revised(self, item: Item) -> Entry:
        before = self.rows.entry(item.id)
        if before is None:
            raise StoreError(f"item {item.id} is not in collection {self.name!r}; ingest it first")
        return Entry(item, before.vector, before.thumbnail, before.path, before.notes)

    @contextmanager
    def still(self) -> Iterator[None]:
        """No write from anywhere while this lasts.

        Raises:
            StoreBusy: another version serves by now.
        """
        with self._writing, self._to_this_version():
            yield

    @contextmanager
    def _to_this_version(self) -> Iterator[None]:
        """A write to the served version waits for a switch, and is refused after it."""
        if self._aside:
            yield
            return
        with self.versions.writing_to(self.version.id):
            yield

    def _keep(self, content: bytes) -> None:
        names = shard_files(self.folder / "shards")
        name = shard_name(int(names[-1].split("-")[0]) + 1 if names else 1, content)
        with in_disk_words(self.folder):
            need_room(self.folder, COPIES * len(content))
            write_durably(self.folder / "shards" / name, content)
            self._index(name)

    def _bring_in(self, *, everything: bool) -> None:
        """Index the shards that are on disk and not in the index yet, in order."""
        if everything:
            self.catalogue.clear()
        have = self.catalogue.shards()
        for name in shard_files(self.folder / "shards"):
            if name not in have:
                need_room(self.folder, COPIES * (self.folder / "shards" / name).stat().st_size)
                self._index(name)

    def _index(self, name: str) -> None:
        """Put one shard into the index and then into the catalogue; idempotent."""
        shard = Shard(self.folder / "shards" / name, self.base, self.adaptation)
        gone = shard.removed()
        if gone:
            with self.changing():
                self.store.delete([str(UUID(bytes=id)) for id in gone])
                self.store.flush()
                self.catalogue.remove(name, gone)
            return
        pictures = _pictures(shard)
        items, vectors = shard.items(), shard.vectors()
        with self.changing():
            for at in range(0, len(items), BATCH):
                self.store.upsert(items[at : at + BATCH], vectors[at : at + BATCH])
            self.store.flush()
            self.catalogue.put(name, shard.digests(), pictures)


def _pictures(shard: Shard) -> list[tuple[bytes, bytes]]:
    """Id and perceptual hash of every row; an empty hash where nothing can be compared."""
    found = hashes_of(shard.thumbnails())
    return [
        (id, b"" if hash is None else hash.to_bytes())
        for (id, _), hash in zip(shard.digests(), found, strict=True)
    ]


def _release(
    catalogue: Catalogue | None,
    lock: IO[str],
    derived: Mapping[str, Closing] = MappingProxyType({}),
) -> None:
    for one in derived.values():
        one.close()
    if catalogue is not None:
        catalogue.close()
    lock.close()

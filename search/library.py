"""A library on disk: collections, each with its shards, its catalogue and its index."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from encoder.card import CardError, EncoderCard
from search.records import Item
from search.shards import Entry, Shard, ShardError, make_shard_bytes, write_durably
from search.store import (
    BATCH,
    BuildReport,
    NoSuchCollection,
    Store,
    StoreBusy,
    StoreError,
    WrongEncoder,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
"""What a collection may be called."""
MakeStore = Callable[[Path, str, EncoderCard], tuple[Store, bool]]
"""Folder of the index, collection and card: an open store, and whether it is new and empty."""


def embedded(folder: Path, name: str, card: EncoderCard) -> tuple[Store, bool]:
    """The store without a server: the Qdrant engine in this process."""
    from search.edge import EdgeStore

    if (folder / "collection.json").exists():
        return EdgeStore.open(folder, name, card), False
    return EdgeStore.create(folder, name, card), True


def on_server(url: str, api_key: str | None = None) -> MakeStore:
    """Stores on a Qdrant server, over one connection."""
    client: QdrantClient | None = None

    def make(folder: Path, name: str, card: EncoderCard) -> tuple[Store, bool]:
        nonlocal client
        from search.server import ServerStore, connect

        client = client or connect(url, api_key)
        try:
            return ServerStore.open(client, name, card), False
        except NoSuchCollection:
            return ServerStore.create(client, name, card), True

    return make


@dataclass(frozen=True)
class Added:
    """What adding a shard changed."""

    stored: int
    """Items that are new."""
    updated: int
    """Items that were there and changed."""
    unchanged: int
    """Items that were there and are the same."""


class Library:
    """A folder with collections. It opens nothing until a collection is asked for."""

    def __init__(self, folder: Path, make_store: MakeStore = embedded) -> None:
        self.folder = folder
        self._make_store = make_store

    @classmethod
    def open(cls, folder: Path, make_store: MakeStore = embedded) -> Library:
        """Open a library, making its folder if need be.

        Raises:
            StoreError: the path is a file, or cannot be written.
        """
        try:
            (folder / "collections").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot keep a library in {folder}: {error.strerror}") from error
        return cls(folder, make_store)

    def names(self) -> list[str]:
        """The collections, in alphabetical order."""
        found = (self.folder / "collections").glob("*/collection.json")
        return sorted(path.parent.name for path in found)

    def card(self, name: str) -> EncoderCard:
        """The encoder card of a collection, without opening its index."""
        path = self._path(name) / "collection.json"
        if not path.exists():
            raise NoSuchCollection(name, self.names())
        try:
            return EncoderCard.from_json(
                json.dumps(json.loads(path.read_text())["card"]), str(path)
            )
        except (json.JSONDecodeError, KeyError, TypeError, CardError) as error:
            raise StoreError(f"{path} is damaged ({error}); restore it from a backup") from error

    def reference(self, name: str) -> str:
        """How the encoder of a collection is loaded: the name or folder given when it was made."""
        card = self.card(name)
        facts = json.loads((self._path(name) / "collection.json").read_text())
        return str(facts.get("encoder") or card.id)

    def create(self, name: str, card: EncoderCard, encoder: str = "") -> Collection:
        """A collection for an encoder: made if it is new, opened if it is there.

        Args:
            name: What to call it.
            card: Card of the encoder, loaded.
            encoder: What loads it again, where that is not the card's id: a folder, say.

        Raises:
            WrongEncoder: it is there and belongs to another encoder.
            StoreBusy: another process holds it.
        """
        if not NAME.fullmatch(name):
            raise StoreError(
                f"a collection cannot be called {name!r}: use 1 to 63 of a-z 0-9 _ . -, "
                "starting with a letter or digit"
            )
        if name not in self.names():
            folder = self._path(name)
            (folder / "shards").mkdir(parents=True, exist_ok=True)
            facts = {
                "format": 1,
                "name": name,
                "encoder": encoder or card.id,
                "card": json.loads(card.to_json()),
            }
            write_durably(folder / "collection.json", json.dumps(facts, indent=2).encode())
        return self.collection(name, card)

    def collection(self, name: str, card: EncoderCard | None = None) -> Collection:
        """Open a collection; with a card, only if it belongs to that encoder."""
        held = self.card(name)
        if card is not None and held.fingerprint != card.fingerprint:
            raise WrongEncoder(
                name, f"{held.id} ({held.fingerprint})", f"{card.id} ({card.fingerprint})"
            )
        return Collection(self._path(name), name, held, self._make_store)

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise NoSuchCollection(name, self.names())
        return self.folder / "collections" / name


class Collection:
    """One collection, held by this process until `close`.

    The shards are the truth. The catalogue (which id lies where) and the index are derived:
    what a shard holds and they do not is brought in when the collection is opened, so a
    process killed at any moment loses nothing and leaves nothing half done.
    """

    def __init__(self, folder: Path, name: str, card: EncoderCard, make_store: MakeStore) -> None:
        self.folder = folder
        self.name = name
        self.card = card
        self._writing = threading.RLock()
        self._lock = hold(folder / "held.lock", name)
        try:
            self._catalogue = open_catalogue(folder / "catalogue.sqlite")
            self.store, fresh = make_store(folder / "index", name, card)
            self._bring_in(everything=fresh)
        except BaseException:
            self._lock.close()
            raise
        self._shard = lru_cache(maxsize=64)(self._open_shard)

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """The payload digests of those of `ids` that are stored."""
        found: dict[str, str] = {}
        for batch in _runs([UUID(id).bytes for id in ids], 900):
            marks = ",".join("?" * len(batch))
            query = f"SELECT id, digest FROM items WHERE id IN ({marks})"  # noqa: S608 (marks only)
            with self._writing:
                rows = self._catalogue.execute(query, batch).fetchall()
            found.update({str(UUID(bytes=id)): digest for id, digest in rows})
        return found

    def add(self, entries: Sequence[Entry]) -> Added:
        """Store entries: shard first, then index; durable when it returns.

        Entries that are stored already and have not changed are left out, so adding twice
        changes nothing.
        """
        return self.add_shard(make_shard_bytes(entries, self.card)) if entries else Added(0, 0, 0)

    def add_shard(self, content: bytes) -> Added:
        """Store a shard made elsewhere by `make_shard_bytes`.

        Raises:
            ShardError: damaged, or with an id twice.
            WrongEncoder: made by another encoder.
        """
        shard = Shard(content, self.card)
        came = {str(UUID(bytes=id)): digest for id, digest in shard.digests()}
        if len(came) != shard.rows:
            raise ShardError(f"a shard of {shard.rows} rows has only {len(came)} different ids")
        with self._writing:
            known = self.known(list(came))
            changed = {id for id, digest in came.items() if known.get(id) != digest}
            if not changed:
                return Added(0, 0, len(came))
            if len(changed) < len(came):
                kept = [entry for entry in shard.entries() if entry.item.id in changed]
                content = make_shard_bytes(kept, self.card)
            name = f"{self._next():08d}-{sha256(content).hexdigest()[:16]}.parquet"
            write_durably(self.folder / "shards" / name, content)
            self._index(name)
        new = sum(1 for id in changed if id not in known)
        return Added(new, len(changed) - new, len(came) - len(changed))

    def update(self, items: Sequence[Item]) -> Added:
        """New metadata for stored items; vectors and thumbnails stay.

        Raises:
            StoreError: an item that is not stored.
        """
        with self._writing:
            return self.add([self._revised(item) for item in items])

    def entry(self, id: str) -> Entry | None:
        """Everything that the shards hold of an item; `None` if it is not stored."""
        place = self._place(id)
        if place is None:
            return None
        shard, row = self._shard(place[0]), place[1]
        (stored,) = self.store.get([id]) or (None,)
        if stored is None:
            return None
        notes = shard.cell(row, "notes")
        return Entry(
            stored.item,
            np.asarray(shard.cell(row, "vector"), np.float32),
            shard.cell(row, "thumbnail"),
            shard.cell(row, "path"),
            json.loads(notes) if notes else {},
        )

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG of an item; `None` if it is not stored."""
        place = self._place(id)
        if place is None:
            return None
        content: bytes = self._shard(place[0]).cell(place[1], "thumbnail")
        return content

    def path(self, id: str) -> str | None:
        """The file that an item came from, for the operator; `None` if it is not known."""
        place = self._place(id)
        if place is None:
            return None
        path: str | None = self._shard(place[0]).cell(place[1], "path")
        return path

    def build(self) -> BuildReport:
        """Build the search graph and measure its recall."""
        return self.store.build()

    def close(self) -> None:
        """Release the collection; safe to call twice."""
        if self._lock.closed:
            return
        self.store.close()
        self._catalogue.close()
        self._lock.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, id: str) -> tuple[str, int] | None:
        with self._writing:
            row = self._catalogue.execute(
                "SELECT shards.name, items.row FROM items JOIN shards ON shards.seq = items.shard "
                "WHERE items.id = ?",
                (UUID(id).bytes,),
            ).fetchone()
        return None if row is None else (str(row[0]), int(row[1]))

    def _revised(self, item: Item) -> Entry:
        before = self.entry(item.id)
        if before is None:
            raise StoreError(f"item {item.id} is not in collection {self.name!r}; ingest it first")
        return Entry(item, before.vector, before.thumbnail, before.path, before.notes)

    def _next(self) -> int:
        names = self._files()
        return int(names[-1].split("-")[0]) + 1 if names else 1

    def _files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "shards").glob("[0-9]*.parquet"))

    def _open_shard(self, name: str) -> Shard:
        return Shard(self.folder / "shards" / name, self.card)

    def _bring_in(self, *, everything: bool) -> None:
        """Index the shards that are on disk and not in the index yet, in order."""
        if everything:
            with self._catalogue:
                self._catalogue.execute("DELETE FROM items")
                self._catalogue.execute("DELETE FROM shards")
        have = {name for (name,) in self._catalogue.execute("SELECT name FROM shards")}
        for name in self._files():
            if name not in have:
                self._index(name)

    def _index(self, name: str) -> None:
        """Put one shard into the index and then into the catalogue; twice is as once."""
        shard = self._open_shard(name)
        items, vectors = shard.items(), shard.vectors()
        for at in range(0, len(items), BATCH):
            self.store.upsert(items[at : at + BATCH], vectors[at : at + BATCH])
        self.store.flush()
        seq = int(name.split("-")[0])
        rows = [(id, digest, seq, row) for row, (id, digest) in enumerate(shard.digests())]
        with self._catalogue:
            self._catalogue.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", rows)
            self._catalogue.execute("INSERT OR REPLACE INTO shards VALUES (?, ?)", (seq, name))


def open_catalogue(path: Path) -> sqlite3.Connection:
    """The catalogue of a collection: which id lies in which row of which shard."""
    catalogue = sqlite3.connect(path, check_same_thread=False)
    catalogue.execute("PRAGMA journal_mode = WAL")
    catalogue.execute("PRAGMA synchronous = FULL")
    catalogue.executescript(
        """
        CREATE TABLE IF NOT EXISTS shards (seq INTEGER PRIMARY KEY, name TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS items (
            id BLOB PRIMARY KEY, digest TEXT NOT NULL, shard INTEGER NOT NULL, row INTEGER NOT NULL
        ) WITHOUT ROWID;
        """
    )
    return catalogue


def hold(path: Path, name: str) -> IO[str]:
    """Hold a lock file until it is closed or the process ends.

    Raises:
        StoreBusy: another process holds it; the message names that process.
    """
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise StoreBusy(
            f"collection {name!r} is in use by {holder}; stop that process, "
            "or work through the service that owns the library"
        ) from error
    handle.truncate(0)
    handle.write(f"process {os.getpid()}")
    handle.flush()
    return handle


def _runs(values: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (values[at : at + size] for at in range(0, len(values), size))

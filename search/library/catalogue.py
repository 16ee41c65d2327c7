"""The catalogue of a version: which item lies in which row of which shard."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search.library.contents import Truth, shard_files

AT_ONCE = 900
"""Ids in one question to SQLite."""


class Catalogue:
    """A small database beside the shards, made from them; ids are 16 bytes throughout.

    Safe to use from many threads. It does not wait for writes to the index, so that
    pictures are shown while a shard comes in.
    """

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        self._file = sqlite3.connect(path, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")
        self._file.executescript(
            """
            CREATE TABLE IF NOT EXISTS shards (seq INTEGER PRIMARY KEY, name TEXT NOT NULL);
            CREATE TABLE IF NOT EXISTS items (
                id BLOB PRIMARY KEY, digest TEXT NOT NULL,
                shard INTEGER NOT NULL, row INTEGER NOT NULL
            ) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS pictures (id BLOB PRIMARY KEY, hash BLOB NOT NULL)
                WITHOUT ROWID;
            """
        )

    def known(self, ids: Sequence[bytes]) -> dict[bytes, str]:
        """The payload digests of those of `ids` that are there."""
        return self._of("SELECT id, digest FROM items", ids)

    def place(self, id: bytes) -> tuple[str, int] | None:
        """Shard and row of an item."""
        rows = self._all(
            "SELECT shards.name, items.row FROM items JOIN shards ON shards.seq = items.shard "
            "WHERE items.id = ?",
            (id,),
        )
        return (str(rows[0][0]), int(rows[0][1])) if rows else None

    def picture(self, id: bytes) -> bytes | None:
        """The perceptual hash of an item, empty if it has none; `None` if it was not kept."""
        rows = self._all("SELECT hash FROM pictures WHERE id = ?", (id,))
        return bytes(rows[0][0]) if rows else None

    def pictures(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The perceptual hashes that are kept of some items; empty for what shows nothing."""
        return self._of("SELECT id, hash FROM pictures", ids)

    def _of(self, query: str, ids: Sequence[bytes]) -> dict[bytes, Any]:
        found: dict[bytes, Any] = {}
        for batch in _runs(ids, AT_ONCE):
            found.update(self._all(f"{query} WHERE id IN ({','.join('?' * len(batch))})", batch))
        return found

    def shards(self) -> set[str]:
        """The shards that it knows."""
        return {str(name) for (name,) in self._all("SELECT name FROM shards")}

    def put(
        self,
        name: str,
        digests: Sequence[tuple[bytes, str]],
        pictures: Iterable[tuple[bytes, bytes]],
    ) -> None:
        """Place the rows of a shard; idempotent."""
        seq = _seq(name)
        rows = [(id, digest, seq, row) for row, (id, digest) in enumerate(digests)]
        with self._turn, self._file as file:
            file.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", rows)
            file.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?)", pictures)
            file.execute("INSERT OR REPLACE INTO shards VALUES (?, ?)", (seq, name))

    def remove(self, name: str, ids: Iterable[bytes]) -> None:
        """Forget the items that a tombstone removes."""
        gone = [(id,) for id in ids]
        with self._turn, self._file as file:
            file.executemany("DELETE FROM items WHERE id = ?", gone)
            file.executemany("DELETE FROM pictures WHERE id = ?", gone)
            file.execute("INSERT OR REPLACE INTO shards VALUES (?, ?)", (_seq(name), name))

    def places(self) -> dict[bytes, tuple[str, str, int]]:
        """Digest, shard and row of every item."""
        rows = self._all(
            "SELECT items.id, items.digest, shards.name, items.row FROM items "
            "LEFT JOIN shards ON shards.seq = items.shard"
        )
        return {bytes(id): (str(digest), str(name), int(row)) for id, digest, name, row in rows}

    def place_anew(self, truth: Truth) -> None:
        """Write it from the shards; perceptual hashes of what lives are kept."""
        rows = [(id, row.digest, _seq(row.shard), row.row) for id, row in truth.rows.items()]
        names = [(_seq(name), name) for name in shard_files(truth.folder)]
        with self._turn, self._file as file:
            file.execute("DELETE FROM items")
            file.execute("DELETE FROM shards")
            file.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
            file.executemany("INSERT INTO shards VALUES (?, ?)", names)
            file.execute("DELETE FROM pictures WHERE id NOT IN (SELECT id FROM items)")

    def clear(self) -> None:
        """Forget everything: the index is new, and every shard comes in again."""
        with self._turn, self._file as file:
            for table in ("items", "shards", "pictures"):
                file.execute(f"DELETE FROM {table}")  # noqa: S608 (our own names)

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._turn:
            self._file.close()

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._turn:
            return self._file.execute(query, values).fetchall()


def _seq(name: str) -> int:
    return int(name.split("-")[0])


def _runs(values: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (values[at : at + size] for at in range(0, len(values), size))

"""The ledger of ingests: every run and every source with its state, in one SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

from search.disk.closing import Closing
from search.errors import StoreError

State = Literal["pending", "done", "quarantined"]
"""What became of a source: begun or to be read again; whole in the library; set aside."""
RunState = Literal["running", "done", "failed"]
SAMPLE = 16
"""Ids kept of each source, to see later whether the library still has it."""
BUSY_S = 30.0


class LedgerError(StoreError):
    """The ledger cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One source of one collection."""

    path: str
    """The file, absolute."""
    dataset: str
    """The dataset that it was ingested under."""
    state: State
    """What became of it."""
    recipe: str = ""
    """Digest of how it was read: parameters and facts; empty where that does not matter."""
    size: int = 0
    """Bytes of the file then."""
    mtime_ns: int = 0
    """Its time of change then."""
    source: str = ""
    """Its id, where it came so far."""
    reason: str = ""
    """Why it is quarantined, in words."""
    attempts: int = 0
    """How often it was read."""
    items: int = 0
    """Items that it gave."""
    sample: tuple[str, ...] = ()
    """The ids of some of them."""
    run: int = 0
    """The run that wrote this."""

    def same(self, size: int, mtime_ns: int, recipe: str) -> bool:
        """Whether this is about the same file, read in the same way."""
        return (self.size, self.mtime_ns, self.recipe) == (size, mtime_ns, recipe)


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run."""

    id: int
    collection: str
    started: str
    """UTC."""
    ended: str
    """UTC; empty while it runs, and after a kill."""
    state: RunState
    request: dict[str, Any]
    """The request, complete enough to run it again."""
    summary: str
    """The counts of its report, or what stopped it; how far it is while it runs."""


class Ledger(Closing):
    """The ledger of one collection under one encoder. Safe to use from several threads.

    It is a record beside the library, not part of its truth: that is the shards. Where the two
    disagree (`sample` is not stored any more), the source is read again.

    Raises:
        LedgerError: the file cannot be opened, or a write fails (a full disk, say).
    """

    def __init__(self, path: Path, collection: str = "", fingerprint: str = "") -> None:
        self.path = path
        self.collection = collection
        self._of = (collection, fingerprint)
        self._lock = threading.RLock()
        self._run = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"cannot keep the ledger of ingests in {path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._file as connection:
                yield connection
        except sqlite3.Error as error:
            raise LedgerError(
                f"cannot write the ledger {self.path}: {error}. Make room or give the permission, "
                "then run the same command: it goes on where it stopped"
            ) from error

    def begin(self, request: dict[str, Any]) -> int:
        """Note that a run begins; its number."""
        with self._writing() as write:
            # One that still counts as running was killed, or says so itself when it ends.
            write.execute(
                "UPDATE runs SET state = 'failed', summary = 'it was stopped before its end' "
                "WHERE state = 'running' AND collection = ?",
                (self.collection,),
            )
            cursor = write.execute(
                "INSERT INTO runs (collection, started, ended, state, request, summary) "
                "VALUES (?, ?, '', 'running', ?, '')",
                (self.collection, _now(), json.dumps(request)),
            )
            self._run = int(cursor.lastrowid or 0)
            write.execute(
                "INSERT OR REPLACE INTO processes VALUES (?, ?, ?)",
                (self._run, gethostname(), os.getpid()),
            )
        return self._run

    def note(self, progress: str) -> None:
        """How far the run is, for those who look at it."""
        with self._writing() as write:
            write.execute("UPDATE runs SET summary = ? WHERE id = ?", (progress, self._run))

    def end(self, state: RunState, summary: str) -> None:
        """Note that the run has ended."""
        with self._writing() as write:
            write.execute(
                "UPDATE runs SET ended = ?, state = ?, summary = ? WHERE id = ?",
                (_now(), state, summary, self._run),
            )

    def write(self, rows: Iterable[Row]) -> None:
        """Set down what became of sources, all or none."""
        with self._writing() as write:
            write.executemany(
                "INSERT OR REPLACE INTO sources VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    (
                        *self._of,
                        row.path,
                        row.dataset,
                        row.state,
                        row.recipe,
                        row.size,
                        row.mtime_ns,
                        row.source,
                        row.reason,
                        row.attempts,
                        row.items,
                        json.dumps(row.sample),
                        self._run,
                        _now(),
                    )
                    for row in rows
                ],
            )

    def rows(self, state: State | None = None) -> list[Row]:
        """Every source of the collection (of every collection where none was named)."""
        query = (
            "SELECT path, dataset, state, recipe, size, mtime_ns, source, reason, attempts, items, "
            "sample, run FROM sources WHERE (collection = :c OR :c = '') "
            "AND (fingerprint = :f OR :f = '') AND (state = :s OR :s = '') ORDER BY path, dataset"
        )
        values = {"c": self._of[0], "f": self._of[1], "s": state or ""}
        with self._lock:
            found = self._file.execute(query, values).fetchall()
        names = ["path", "dataset", "state", "recipe", "size", "mtime_ns", "source", "reason"]
        names += ["attempts", "items", "sample", "run"]
        facts = [dict(zip(names, row, strict=True)) for row in found]
        return [Row(**{**fact, "sample": tuple(json.loads(fact["sample"]))}) for fact in facts]

    def counts(self) -> dict[str, int]:
        """Sources by state."""
        counted = dict.fromkeys(("done", "pending", "quarantined"), 0)
        for row in self.rows():
            counted[row.state] += 1
        return counted

    def retry(self, paths: Sequence[str] = ()) -> int:
        """Let quarantined sources be read again by the next run; all of them if none is named."""
        rows = [row for row in self.rows("quarantined") if not paths or row.path in paths]
        with self._writing() as write:
            write.executemany(
                "UPDATE sources SET state = 'pending' WHERE path = ? AND dataset = ? "
                "AND collection = ?",
                [(row.path, row.dataset, self.collection) for row in rows],
            )
        return len(rows)

    def runs(self, last: int = 20) -> list[RunRow]:
        """The last runs, newest first; one whose process is gone from this machine has failed."""
        query = "SELECT id, collection, started, ended, state, request, summary FROM runs"
        query += " WHERE collection = ? OR ? = '' ORDER BY id DESC LIMIT ?"
        with self._lock:
            found = self._file.execute(query, (self.collection, self.collection, last)).fetchall()
            of = {run: (host, pid) for run, host, pid in self._file.execute(PROCESSES)}
        names = ("id", "collection", "started", "ended", "state", "request", "summary")
        facts = [dict(zip(names, row, strict=True)) for row in found]
        for fact in facts:
            host, pid = of.get(fact["id"], ("", 0))
            if fact["state"] == "running" and host == gethostname() and not _lives(pid):
                fact["state"] = "failed"
                fact["summary"] = f"its process is gone, after: {fact['summary'] or 'nothing'}"
        return [RunRow(**{**fact, "request": json.loads(fact["request"])}) for fact in facts]

    def keep_replaced(self, ids: Sequence[str]) -> None:
        """Note which items this run removed, so that they can be brought back."""
        with self._writing() as write:
            write.executemany(
                "INSERT OR IGNORE INTO replaced VALUES (?, ?, ?)",
                [(self.collection, self._run, id) for id in ids],
            )

    def replaced(self) -> tuple[int, list[str]]:
        """The last run that removed items, and their ids; 0 and none if there was no such run."""
        query = (
            "SELECT run, id FROM replaced WHERE collection = :c AND run = "
            "(SELECT max(run) FROM replaced WHERE collection = :c) ORDER BY id"
        )
        with self._lock:
            found = self._file.execute(query, {"c": self.collection}).fetchall()
        return (int(found[0][0]) if found else 0), [str(id) for _, id in found]

    @property
    def unbuilt(self) -> bool:
        """Whether something was stored after the index was last built, by whichever run."""
        with self._lock:
            query = "SELECT 1 FROM unbuilt WHERE collection = ? AND fingerprint = ?"
            return self._file.execute(query, self._of).fetchone() is not None

    def mark_unbuilt(self) -> None:
        """Before anything is stored: the index will not cover it."""
        with self._writing() as write:
            write.execute("INSERT OR IGNORE INTO unbuilt VALUES (?, ?)", self._of)

    def mark_built(self) -> None:
        """The index covers everything."""
        with self._writing() as write:
            write.execute("DELETE FROM unbuilt WHERE collection = ? AND fingerprint = ?", self._of)


PROCESSES = "SELECT run, host, pid FROM processes"
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, collection TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL,
    state TEXT NOT NULL, request TEXT NOT NULL, summary TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sources (
    collection TEXT NOT NULL, fingerprint TEXT NOT NULL, path TEXT NOT NULL, dataset TEXT NOT NULL,
    state TEXT NOT NULL, recipe TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    source TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, items INTEGER NOT NULL,
    sample TEXT NOT NULL, run INTEGER NOT NULL, updated TEXT NOT NULL,
    PRIMARY KEY (collection, fingerprint, path, dataset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS processes (
    run INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS replaced (
    collection TEXT NOT NULL, run INTEGER NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (collection, run, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unbuilt (
    collection TEXT NOT NULL, fingerprint TEXT NOT NULL, PRIMARY KEY (collection, fingerprint)
) WITHOUT ROWID;
"""


def ledger_path(library: Path) -> Path:
    """Where the ledger of a library lies."""
    return library / "ingests" / "ledger.sqlite"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _lives(pid: int) -> bool:
    """Whether there is a process of that number here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True

"""Who called what: JSON lines that are only added to, each with the hash of the one before."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from encoder.durable import sync
from search.disk.lock import lock_or_refuse

FIRST = "0" * 64
"""What stands for the hash before the first line."""
NOTED = ("collection", "beside", "query", "k", "where", "exclude", "items", "written", "fields")
"""What a call may note, beside who, when, which route and how it ended: names, numbers
and item ids. Never pixels, filter values, file names, free text or pseudonyms."""
SYNC_SECONDS = 1.0
HEAD = "head"
"""The file beside the log that says how far it went."""


class AuditError(ValueError):
    """A log whose chain of hashes is broken."""


@dataclass(frozen=True)
class Checked:
    """A chain of hashes that is whole."""

    lines: int
    files: int
    head: str
    """Hash of the last line: kept elsewhere, it proves later that nothing was cut off."""
    missing: int
    """Lines that a start of the service found missing at the end, as the log itself says: lost
    in a power cut, or cut off."""


def need_free(folder: Path) -> None:
    """Ask, before anything is started, whether a log may be written here.

    Raises:
        StoreBusy: another process writes there.
    """
    if folder.is_dir():
        _locked(folder).close()


def _locked(folder: Path) -> IO[str]:
    """The lock of a log, kept until it is closed."""
    return lock_or_refuse(
        folder / "held.lock",
        lambda holder: (
            f"{holder} writes the audit log in {folder}: a service is running on this "
            "library. Use that one, or stop it first"
        ),
    )


class AuditLog:
    """The log of one service: one file a day, one chain through all of them.

    A line is with the kernel before its answer leaves, so a killed process loses none. It is on
    the disk (fsync) before the answer of a write leaves, and within a second otherwise, so a
    power cut loses at most the questions of its last second.

    Raises:
        StoreBusy: another process writes there.
        AuditError: the last line of the log is not whole JSON with a hash.
    """

    def __init__(
        self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._now = now
        self._lock = threading.Lock()
        self._file_lock = _locked(folder)
        try:
            torn = mend(folder)
            self._seq, self._head = end(folder)
            missing = max(0, _read_head(folder)[0] - self._seq)
            self._noted = os.open(folder / HEAD, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except BaseException:
            self._file_lock.close()
            raise
        self._file = -1
        self._day = ""
        self._dirty = False
        self._stop = threading.Event()
        self._syncer = threading.Thread(target=self._sync_often, daemon=True, name="audit")
        self._syncer.start()
        self.add({"event": "opened", "torn_bytes": torn, "missing": missing}, durable=True)

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line."""
        with self._lock:
            return self._seq, self._head

    def add(self, facts: dict[str, Any], *, durable: bool = False) -> None:
        """Add a line; when this returns the kernel has it, and the disk too if `durable`.

        Raises:
            OSError: it cannot be written, and neither can the answer it is about be given.
        """
        with self._lock:
            at = self._now()
            self._turn_to(at.strftime("%Y-%m-%d"))
            line = {
                "seq": self._seq + 1,
                "at": at.isoformat(timespec="milliseconds"),
                **facts,
                "prev": self._head,
            }
            hash = hash_of(line)
            content = (json.dumps({**line, "hash": hash}) + "\n").encode()
            start = os.fstat(self._file).st_size
            if os.write(self._file, content) != len(content):
                os.ftruncate(self._file, start)  # a full disk: half a line is no line
                raise OSError(28, "the audit log cannot be written: no space left")
            self._seq, self._head, self._dirty = self._seq + 1, hash, True
            _write_head(self._noted, self._seq, hash)
            if durable:
                self._sync()

    def close(self) -> None:
        """Write what is left to the disk, and close; idempotent."""
        if self._file_lock.closed:
            return
        self.add({"event": "closed"})
        self._stop.set()
        self._syncer.join()
        with self._lock:
            self._sync()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            os.close(self._noted)
            self._file_lock.close()

    def _turn_to(self, day: str) -> None:
        """Go to the file of a day; never back to an earlier one, whatever the clock says."""
        if self._file >= 0 and day <= self._day:
            return
        names = files(self.folder)
        if names:
            day = max(day, names[-1].stem)
        if self._file >= 0:
            self._sync()
            os.close(self._file)
        path = self.folder / f"{day}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._day = day
        sync(self.folder)

    def _sync(self) -> None:
        if self._dirty and self._file >= 0:
            os.fsync(self._file)
            self._dirty = False

    def _sync_often(self) -> None:
        while not self._stop.wait(SYNC_SECONDS):
            with self._lock:
                self._sync()


def hash_of(line: dict[str, Any]) -> str:
    """Hash of a line without its own hash: SHA-256 of its JSON with sorted keys."""
    plain = {name: value for name, value in line.items() if name != "hash"}
    return sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of one file with their numbers in it.

    Raises:
        AuditError: a line that is cut or is not JSON.
    """
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            try:
                found = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise AuditError(f"{path.name}, line {number}: cut off, or not JSON")
            yield number, found


def verify(folder: Path, head: str | None = None) -> Checked:
    """Walk the whole chain.

    Args:
        folder: Of the log; or one of its files, which then is checked by itself.
        head: A hash of a last line that was kept elsewhere; it must be in the chain.

    Raises:
        AuditError: names the file and line where the chain breaks, or what is missing.
    """
    if not folder.exists():
        raise AuditError(f"there is no audit log at {folder}; a service begins one when it starts")
    whole = folder.is_dir()
    paths = files(folder) if whole else [folder]
    noted_seq, noted = _read_head(folder) if whole else (0, FIRST)  # first: the log may grow
    last, seq, count, missing = FIRST if whole else None, 0, 0, 0
    found = head is None
    for path in paths:
        for number, line in lines(path):
            where = f"{path.name}, line {number}"
            if line.get("hash") != hash_of(line):
                raise AuditError(f"{where}: changed after it was written")
            if last is not None and (line.get("prev") != last or line.get("seq") != seq + 1):
                raise AuditError(f"{where}: lines before it were removed, added or moved")
            last, seq, count = str(line["hash"]), int(line["seq"]), count + 1
            missing += int(line.get("missing", 0)) if line.get("event") == "opened" else 0
            found = found or last == head
            if whole and seq == noted_seq and last != noted:
                raise AuditError(f"{where}: not the line that was written there")
    if whole and (noted_seq > seq or (seq and not noted_seq)):
        raise AuditError(f"the log ends at line {seq}, but line {noted_seq} was written")
    if not found:
        raise AuditError(f"no line has the hash {head}: the log was cut or rewritten")
    return Checked(count, len(paths), last or FIRST, missing)


def mend(folder: Path) -> int:
    """Set a half-written last line aside, which a crash can leave; returns its bytes."""
    names = files(folder)
    torn = tail(names[-1]).rpartition(b"\n")[2] if names else b""
    if torn:
        with names[-1].with_suffix(".torn").open("ab") as aside:
            aside.write(torn)
            aside.flush()
            os.fsync(aside.fileno())
        os.truncate(names[-1], names[-1].stat().st_size - len(torn))
    return len(torn)


def end(folder: Path) -> tuple[int, str]:
    """Number and hash of the last line of a log.

    Raises:
        AuditError: that line has none.
    """
    for path in reversed(files(folder)):
        *_, last = tail(path).rstrip(b"\n").rsplit(b"\n", 1)
        if last:
            try:
                found = json.loads(last)
                return int(found["seq"]), str(found["hash"])
            except (KeyError, TypeError, ValueError) as error:
                raise AuditError(
                    f"{path.name}: its last line has no number or hash; `hemaseek audit verify` "
                    "says where the log breaks. Move the folder aside to begin a new one"
                ) from error
    return 0, FIRST


def tail(path: Path) -> bytes:
    """The end of a file: at least its last whole line and whatever follows it."""
    with path.open("rb") as handle:
        size, take = path.stat().st_size, 64 * 1024
        while True:
            handle.seek(max(0, size - take))
            content = handle.read(take)
            if take >= size or content.count(b"\n") > 1:
                return content
            take *= 2


def _write_head(handle: int, seq: int, hash: str) -> None:
    """Note the end beside the log, so that a cut tail is seen; in place, so never torn."""
    os.pwrite(handle, f"{seq:020d} {hash}\n".encode(), 0)


def _read_head(folder: Path) -> tuple[int, str]:
    try:
        text = (folder / HEAD).read_text()
        seq, hash = text.split() if text else ("0", FIRST)  # made, and not yet written to
        return int(seq), hash
    except FileNotFoundError:
        return 0, FIRST
    except ValueError as error:
        raise AuditError(f"{folder / HEAD} is damaged") from error

"""The versions of one collection on disk, and the pointer to the served one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from encoder.card import CardError, EncoderCard
from search.disk.atomic import write_durably
from search.disk.lock import lock_version, wait_for_lock
from search.errors import StoreBusy, StoreError
from search.index.contract import IndexSettings
from search.schemas.versions import State

FORMAT = 2
"""Of `collection.json` in the folder of a version; 1 had no versions."""
FIRST = "1"
"""The version that a new collection begins with."""
SELECTIONS = "selections.jsonl"
"""In the folder of a collection, as reviews are: items that people keep together under a name."""
PIECES = ("shards", "index", "catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm")
"""What lay beside `collection.json` in format 1."""


class NoSuchVersion(StoreError):
    """A version that a collection does not have."""

    def __init__(self, name: str, version: str, known: list[str]) -> None:
        have = ", ".join(known) or "none"
        super().__init__(f"collection {name!r} has no version {version!r}; there are {have}")


class Superseded(StoreBusy):
    """A write reached a version that was replaced while it was on its way."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version: everything that was embedded with one encoder, and how that went."""

    name: str
    """Of the collection."""
    id: str
    """A whole number, rising."""
    card: EncoderCard
    """Of its encoder."""
    encoder: str
    """What loads that encoder: a name or a folder."""
    index: IndexSettings = field(default_factory=IndexSettings)
    """Of its search graph, as it was made."""
    parent: str | None = None
    """The version that it was built from; `None` for one that was ingested or restored."""
    state: State = "ready"
    made: str = ""
    """When it was begun, in UTC."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Of its build: the checks with their figures; empty for one that was ingested."""

    def to_json(self) -> str:
        """As `collection.json` holds it."""
        facts = {
            "format": FORMAT,
            "name": self.name,
            "version": self.id,
            "encoder": self.encoder,
            "index": asdict(self.index),
            "parent": self.parent,
            "state": self.state,
            "made": self.made,
            "report": dict(self.report),
            "card": json.loads(self.card.to_json()),
        }
        return json.dumps(facts, indent=2)

    @classmethod
    def read(cls, path: Path) -> Version:
        """Read `collection.json` of a version, or of a collection of format 1.

        Raises:
            StoreError: it is damaged, or of a newer format.
        """
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts.get("format") not in (1, FORMAT):
                raise StoreError(
                    f"{path} has format {facts.get('format')}, this version of Hemaseek reads up "
                    f"to {FORMAT}; update it"
                )
            card = EncoderCard.from_json(json.dumps(facts["card"]), str(path))
            return cls(
                name=facts["name"],
                id=str(facts.get("version", FIRST)),
                card=card,
                encoder=facts.get("encoder") or card.id,
                index=IndexSettings(**facts.get("index", {})),
                parent=facts.get("parent"),
                state=facts.get("state", "ready"),
                made=facts.get("made", ""),
                report=facts.get("report", {}),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, CardError) as error:
            raise StoreError(f"{path} is damaged ({error}); restore it from a backup") from error


@dataclass(frozen=True)
class Turn:
    """One switch of the pointer."""

    version: str
    at: str
    """When, in UTC."""
    why: str
    """`created`, `reindex`, `rollback`, `restore`, `forced` too if it failed a check."""


@dataclass(frozen=True)
class Pointer:
    """The content of `current.json`."""

    version: str
    """The version that is served."""
    history: tuple[Turn, ...]
    """Every switch, the last one last."""

    @property
    def previous(self) -> str | None:
        """The version that was served before this one."""
        others = [turn.version for turn in self.history if turn.version != self.version]
        return others[-1] if others else None

    def turned(self, version: str, why: str) -> Pointer:
        """The pointer after a switch."""
        return Pointer(version, (*self.history, Turn(version, now(), why)))


class Versions:
    """The folder of one collection: `current.json`, and one folder for each version.

    Nothing in it opens an index. Every change of the pointer, and every write to the version
    that it points to, happens under one lock (`writing`), so that a switch loses no write,
    whichever process made it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @property
    def exists(self) -> bool:
        """Whether there is a collection here."""
        return self.pointer_file.exists() or (self.folder / "collection.json").exists()

    @property
    def pointer_file(self) -> Path:
        """The file whose change is the switch."""
        return self.folder / "current.json"

    def path(self, id: str) -> Path:
        """The folder of a version."""
        if not id.isdecimal():
            raise NoSuchVersion(self.name, id, self.ids())
        return self.folder / "versions" / id

    def ids(self) -> list[str]:
        """The versions that there are, oldest first."""
        found = {path.parent.name for path in self.folder.glob("versions/*/collection.json")}
        if (self.folder / "collection.json").exists():
            found.add(FIRST)
        return sorted((id for id in found if id.isdecimal()), key=int)

    def get(self, id: str) -> Version:
        """What is known of a version.

        Raises:
            NoSuchVersion: there is none of that id.
        """
        path = self.path(id) / "collection.json"
        old = self.folder / "collection.json"
        if id == FIRST and old.exists():
            path = old
        if not path.exists():
            raise NoSuchVersion(self.name, id, self.ids())
        return Version.read(path)

    def all(self) -> list[Version]:
        """Every version, oldest first."""
        return [self.get(id) for id in self.ids()]

    def pointer(self) -> Pointer:
        """Which version is served.

        Raises:
            StoreError: `current.json` is damaged.
        """
        try:
            facts = json.loads(self.pointer_file.read_text(encoding="utf-8"))
            return Pointer(str(facts["version"]), tuple(Turn(**t) for t in facts["history"]))
        except FileNotFoundError:
            return Pointer(FIRST, ())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.pointer_file} is damaged ({error}); restore it from a backup"
            ) from error

    def current(self) -> Version:
        """The version that is served."""
        return self.get(self.pointer().version)

    def stamp(self) -> tuple[int, int, int]:
        """Something that changes with the pointer and costs one look at the file."""
        try:
            facts = self.pointer_file.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (facts.st_mtime_ns, facts.st_size, facts.st_ino)

    def write(self, version: Version) -> Version:
        """Keep what is known of a version, making its folder if need be."""
        folder = self.path(version.id)
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        write_durably(folder / "collection.json", version.to_json().encode())
        return version

    def begin(
        self,
        card: EncoderCard,
        encoder: str,
        *,
        index: IndexSettings | None = None,
        parent: str | None = None,
        state: State = "building",
    ) -> Version:
        """A new, empty version."""
        taken = [int(path.name) for path in self.folder.glob("versions/*") if path.name.isdecimal()]
        taken += [int(id) for id in self.ids()]
        version = Version(
            name=self.name,
            id=str(max(taken, default=0) + 1),
            card=card,
            encoder=encoder or card.id,
            index=index or IndexSettings(),
            parent=parent,
            state=state,
            made=now(),
        )
        return self.write(version)

    def finish(self, id: str, state: State, report: Mapping[str, Any]) -> Version:
        """Write how the build of a version ended."""
        return self.write(replace(self.get(id), state=state, report=report))

    def point(self, id: str, why: str) -> Pointer:
        """Serve a version from now on; the caller is inside `writing`, or made the folder."""
        self.get(id)
        pointer = self.pointer() if self.pointer_file.exists() else Pointer(id, ())
        turned = pointer.turned(id, why)
        write_durably(self.pointer_file, json.dumps(asdict(turned), indent=2).encode())
        return turned

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep every writer and every switch of this collection waiting, in all processes."""
        with wait_for_lock(self.folder / "write.lock"):
            yield

    @contextmanager
    def writing_to(self, id: str) -> Iterator[None]:
        """`writing`, for a write to the served version.

        Raises:
            Superseded: another version is served by now.
        """
        with self.writing():
            served = self.pointer().version
            if served != id:
                raise Superseded(
                    f"collection {self.name!r} was switched from version {id} to {served} "
                    "meanwhile; send it again"
                )
            yield

    def drop(self, id: str) -> None:
        """Remove the folder of a version: out of sight at once, then from the disk."""
        folder = self.path(id)
        gone = folder.with_name(f"gone-{id}")
        folder.rename(gone)
        shutil.rmtree(gone)

    def drop_abandoned(self) -> None:
        """Remove what restores that were killed left: unfinished versions that are built from no
        other. One that is being restored is held, and stays."""
        if not (self.folder / "versions").is_dir():
            return
        with self.writing():
            for version in self.all():
                if version.state != "building" or version.parent is not None:
                    continue
                with suppress(StoreBusy), lock_version(self.path(version.id), self.name):
                    self.drop(version.id)

    def finish_interrupted(self) -> None:
        """Finish what was interrupted: a migration from format 1, a removal.

        In format 1 the one version lay in the collection's own folder. The pointer is written
        first and `collection.json` is moved last, so this can be killed anywhere and go on.
        """
        for gone in self.folder.glob("versions/gone-*"):
            shutil.rmtree(gone)
        old = self.folder / "collection.json"
        if not old.exists():
            return
        with self.writing():
            if not old.exists():  # another process was quicker
                return
            version = Version.read(old)
            folder = self.path(FIRST)
            folder.mkdir(parents=True, exist_ok=True)
            if not self.pointer_file.exists():
                text = asdict(Pointer(FIRST, (Turn(FIRST, now(), "created"),)))
                write_durably(self.pointer_file, json.dumps(text, indent=2).encode())
            for piece in PIECES:
                if (self.folder / piece).exists():
                    (self.folder / piece).rename(folder / piece)
            self.write(version)
            old.unlink()


def now() -> str:
    """This second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")

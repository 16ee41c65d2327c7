"""Records that people keep under a name, such as gates and selections: one file for each kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from search.disk.atomic import write_durably
from search.disk.lock import wait_for_lock
from search.errors import BadQuestion, NoSuchItem, StoreError
from search.schemas.items import NamedRecord

R = TypeVar("R", bound=NamedRecord)


class NoSuchName(NoSuchItem):
    """A name under which nothing is kept."""

    def __init__(self, what: str, name: str, known: Sequence[str]) -> None:
        have = ", ".join(known) or "none"
        LookupError.__init__(self, f"there is no {what} {name!r}; kept are {have}")


@dataclass(frozen=True)
class Named(Generic[R]):
    """The records of one kind. Safe to change from many threads, and beside other processes."""

    path: Path
    """The file, one JSON list; or `.jsonl`, a record a line, of which the last of a name counts,
    so that a snapshot's lines can be put before those that are there. Its folder is made."""
    kind: type[R]
    what: str
    """One record in a word, such as `gate`."""
    most: int
    """Records at most."""

    def all(self) -> tuple[R, ...]:
        """Every record, in order of name.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
            kept = (
                [json.loads(one) for one in text.splitlines()] if self._lines else json.loads(text)
            )
            found = {one.name: one for one in map(self.kind.model_validate, kept)}
        except FileNotFoundError:
            return ()
        except ValueError as error:
            raise StoreError(
                f"{self.path} is damaged ({str(error)[:200]}); restore it from a snapshot, or "
                f"delete it and keep each {self.what} again"
            ) from error
        return tuple(found[name] for name in sorted(found))

    def keep(self, made: R) -> None:
        """Keep a record; one of that name is replaced.

        Raises:
            BadQuestion: there are `most` others.
        """
        with self._changing():
            others = [one for one in self.all() if one.name != made.name]
            if len(others) >= self.most:
                raise BadQuestion(f"{self.most} {self.what}s are kept already; remove one first")
            self._write([*others, made])

    def drop(self, name: str) -> None:
        """Remove a record.

        Raises:
            NoSuchName: it is not kept.
        """
        with self._changing():
            kept = self.all()
            left = [one for one in kept if one.name != name]
            if len(left) == len(kept):
                raise NoSuchName(self.what, name, [one.name for one in kept])
            self._write(left)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.path.parent.mkdir(exist_ok=True)
        with wait_for_lock(self.path.with_suffix(".lock")):
            yield

    def _write(self, records: Sequence[R]) -> None:
        body = [one.model_dump(mode="json") for one in sorted(records, key=lambda one: one.name)]
        lines = "".join(f"{json.dumps(one)}\n" for one in body)
        write_durably(self.path, (lines if self._lines else json.dumps(body, indent=1)).encode())

    @property
    def _lines(self) -> bool:
        return self.path.suffix == ".jsonl"

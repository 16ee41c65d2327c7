"""The messages between a run and the processes that read its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB

JSON = dict[str, Any]


class SourceError(Exception):
    """A file that gave nothing, or not all; the run goes on without it."""

    def __init__(self, source: str, reason: str, note: str = "") -> None:
        super().__init__(reason)
        self.source = source
        self.reason = reason
        """One sentence without names from the file."""
        self.note = note
        """What the reader was doing, if it sent a note."""


class SourceDied(SourceError):
    """The child that read the file died or had to be stopped."""


class SourceRefused(SourceError):
    """The reader refused the file, in words."""


class Refusal(Exception):
    """What a reader raises to refuse its file; the text reaches reports, so it quotes nothing."""


class PoolClosed(RuntimeError):
    """A pool that was closed cannot read."""

    def __init__(self) -> None:
        super().__init__("this pool of readers is closed; open a new one with ReaderPool(...)")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file (or one bundle) for one reader."""

    reader: str
    """`module:function`, a module of `ingest`."""
    source: str
    """Path, or any name that the reader understands."""
    args: JSON = field(default_factory=dict)
    """Keyword arguments, JSON values only."""
    threads: int = 1
    """How many threads the reader may decode with, where it can use more than one."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a reader yields."""

    facts: JSON = field(default_factory=dict)
    """JSON values only, nothing that names a patient."""
    images: Sequence[RGB] | NDArray[np.uint8] = ()
    """Arrays of any shapes, uint8; an n x h x w x 3 stack counts as n images."""
    note: str = ""
    """If set, the piece is only a sign of life; it carries nothing else."""


@dataclass
class Batch:
    """Facts and images of one piece, in the parent."""

    task: Task
    facts: JSON
    images: Sequence[RGB]
    """Read-only views of shared memory, valid until the next event; a stack where all images
    have one shape (n x h x w x 3), else a list."""


@dataclass(frozen=True)
class Finished:
    """A task that was read to its end."""

    task: Task


@dataclass(frozen=True)
class Failed:
    """A task that ended in an error."""

    task: Task
    error: SourceError


Event = Batch | Finished | Failed

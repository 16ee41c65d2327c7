"""Background jobs and their states."""

from __future__ import annotations

from typing import Any, Literal

from search.schemas.items import Record

State = Literal["queued", "running", "done", "failed", "stopped", "interrupted"]


ENDED: tuple[State, ...] = ("done", "failed", "stopped", "interrupted")


class JobRecord(Record):
    """Work that takes longer than a call."""

    id: str
    kind: str
    collection: str
    state: State
    done: int
    total: int
    """0 while it is not known."""
    made: str
    ended: str | None
    result: dict[str, Any] | None
    error: str | None

"""Routes of what was brought in: runs, how many sources are done, and what was set aside.

Names and paths of files stay with the operator (`hemaseek quarantine` prints them): they often
carry names of patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as InPath

from ingest.pipeline.ledger import Ledger, Row, ledger_path
from ingest.slides.deepzoom import DeepZoom, SourceUnreadable
from search.api.access import Access, Reads, Writes
from search.api.problems import without_names
from search.schemas.collections import Brought, Released, ReleaseWanted, RunRecord, SetAside

SHOWN = 500
"""Files set aside that an answer lists; the count is always the whole."""
SMALL = 8
"""Level of a pyramid that is shown as a thumbnail: at most 256 pixels a side."""
Key = Annotated[str, InPath(pattern="^[0-9a-f]{16}$", description="As the list has it.")]


def add_ledger_routes(router: APIRouter, zoom: DeepZoom) -> None:
    """Add these routes to a router; `zoom` reads the thumbnails, in children."""

    @router.get("/collections/{name}/ingests")
    def ingests(name: str, access: Reads) -> Brought:
        """What was brought into a collection, and what was set aside, without names of files."""
        called = access.context(name).collection.name
        path = ledger_path(access.settings.library)
        if not path.exists():
            return Brought(
                collection=called, done=0, pending=0, quarantined=0, runs=(), set_aside=()
            )
        with Ledger(path, called) as ledger:
            counts, aside, runs = ledger.counts(), ledger.rows("quarantined"), ledger.runs(20)
        return Brought(
            collection=called,
            **counts,
            runs=tuple(
                RunRecord(
                    id=run.id,
                    started=run.started,
                    ended=run.ended,
                    state=run.state,
                    summary=_unnamed(run.summary) if run.state == "failed" else run.summary,
                )
                for run in runs
            ),
            set_aside=tuple(_told(row) for row in aside[:SHOWN]),
        )

    @router.get(
        "/collections/{name}/ingests/{key}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}, "description": "What can be seen of it"}},
    )
    def thumbnail(name: str, key: Key, access: Reads) -> Response:
        """What can be seen of a file that was set aside: many cannot be read at all."""
        row = next((row for row in _aside(access, name) if key_of(row) == key), None)
        if row is None:
            raise SourceUnreadable(f"no file {key} is set aside in collection {name!r}")
        return Response(zoom.overview(Path(row.path), SMALL), media_type="image/jpeg")

    @router.post("/collections/{name}/ingests/release")
    def release(name: str, wanted: ReleaseWanted, access: Writes) -> Released:
        """Let files that were set aside be read again by the next run of their ingest."""
        rows = [
            row for row in _aside(access, name) if not wanted.keys or key_of(row) in wanted.keys
        ]
        if not rows:
            return Released(released=0)
        with Ledger(ledger_path(access.settings.library), name) as ledger:
            released = ledger.retry([row.path for row in rows])
        access.note(written=released)
        return Released(released=released)


def key_of(row: Row) -> str:
    """Sixteen hex digits that name a file without saying its name."""
    return sha256(f"{row.dataset}|{row.path}".encode()).hexdigest()[:16]


def _aside(access: Access, name: str) -> Sequence[Row]:
    called = access.context(name).collection.name
    path = ledger_path(access.settings.library)
    if not path.exists():
        return ()
    with Ledger(path, called) as ledger:
        return ledger.rows("quarantined")


def _told(row: Row) -> SetAside:
    return SetAside(
        key=key_of(row),
        dataset=row.dataset,
        ending=Path(row.path).suffix.lower()[:12],
        bytes=row.size,
        reason=without_names(row.reason, row.path),
        attempts=row.attempts,
    )


def _unnamed(text: str) -> str:
    return "`hemaseek jobs` says why" if "/" in text or "\\" in text else text

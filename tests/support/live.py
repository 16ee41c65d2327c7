"""A library of drawn cells, and a service that answers over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.settings import Settings
from ui.cli.demo import free_port

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Live:
    """A service that answers over real HTTP, on a library of drawn cells."""

    url: str
    folder: Path
    """The drawn cells on disk, with their manifest."""
    settings: Settings


def drawn_library(folder: Path) -> Settings:
    """Drawn cells, ingested with the `colour` encoder."""
    from encoder.registry import load
    from ingest.layouts.known import scan
    from ingest.pipeline.run import ingest
    from ingest.pipeline.sink import LibrarySink
    from ingest.samples.synthetic import write_library
    from search.library.library import Library

    written = write_library(folder / "drawn", patients=3, fields_per_patient=1, cells_per_label=2)
    found = scan(written.manifest)
    encoder = load("colour")
    settings = Settings(library=folder / "library", port=free_port())
    library = Library.open(settings.library)
    with LibrarySink.open(library, "cells", encoder.card) as sink:
        report = ingest(found.tasks, encoder, sink, report=found.report)
        sink.build()
    assert report.ok, report.failures
    return settings


@contextmanager
def served(settings: Settings) -> Iterator[None]:
    """The service, in a thread of this process."""
    import uvicorn

    from ui.cli.serving import application

    config = uvicorn.Config(
        application(settings), port=settings.port, log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end, "the service did not start"
        time.sleep(0.05)
    yield
    server.should_exit = True
    thread.join(30)

"""The parts of a run on Ray that need no cluster: shares, a worker's work, and taking it in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from encoder.registry import load
from ingest.layouts import scan
from ingest.ledger import Ledger
from ingest.mixed import MixedReader
from ingest.rayrun import ids_of, shares, take_in, work
from ingest.report import Report
from ingest.sink import LibrarySink
from ingest.task import Task, Whole
from search.library import Library


def test_sources_that_children_read_are_shares_of_their_own() -> None:
    readers = [Whole(), MixedReader(), Whole(), Whole()]
    tasks = [Task(path=Path(f"{n}"), dataset="d", reader=r) for n, r in enumerate(readers)]

    found = [[task.path.name for task in share] for share in shares(tasks, 2)]

    assert found == [["1"], ["0", "2"], ["3"]]


def test_what_a_worker_gives_is_stored_once(tmp_path: Path, rng: np.random.Generator) -> None:
    for at in range(5):
        path = tmp_path / "cells" / "EO" / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    encoder, tasks = load("colour"), scan(tmp_path / "cells").tasks
    with (
        LibrarySink.open(Library.open(tmp_path / "l"), "cells", encoder.card) as sink,
        Ledger(tmp_path / "l.sqlite", "cells", encoder.card.fingerprint) as ledger,
    ):
        first = Report()
        take_in(work(tasks, encoder.card, "colour", {}, []), sink, first, ledger)
        again = Report()
        known = sink.known(ids_of(tasks))
        take_in(work(tasks, encoder.card, "colour", known, ledger.rows()), sink, again, ledger)

        assert (first.stored, again.stored, again.unchanged) == (5, 0, 5)
        assert ledger.counts()["done"] == 5
        assert ledger.unbuilt

"""A run on Ray: shares, a worker's work, taking it in, and all of it on two workers."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qdrant_standin import standin

from benchmarks.made import blob, level_of, svs_description, write_tiff
from encoder.registry import load
from ingest.layouts.known import scan
from ingest.layouts.mixed import MixedReader
from ingest.pipeline.ledger import Ledger
from ingest.pipeline.on_ray import ids_of, shares, take_in, work
from ingest.pipeline.sink import LibrarySink
from ingest.sources.report import Report
from ingest.sources.source import Task, Whole
from search.library.indexes import Stores, embedded, stores_at
from search.library.library import Library
from search.maintenance.reconcile import reconcile
from search.settings import Settings
from ui.cli.demo import free_port
from ui.cli.ingesting import Request, perform
from ui.cli.jobs import print_runs


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


@pytest.mark.filterwarnings("ignore")
def test_a_run_on_two_workers_is_a_run_like_any_other(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed; `uv sync --extra ray`")
    root = tmp_path / "lab"
    root.mkdir()
    for at in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(root / f"{at}.png")
    picture = blob(256, 384, rng, share=0.5)
    write_tiff(root / "a.svs", [level_of(picture)], description=svs_description(384, 256))
    (root / "broken.svs").write_bytes((root / "a.svs").read_bytes()[:900])
    request = Request(paths=[root], tile_px=64, stain_norm="macenko", engine="ray", find=False)
    settings = Settings(library=tmp_path / "library", encoder="colour", _env_file=None)
    plain = replace(request, stain_norm=None)  # a photograph is refused together with slides
    with started(ray):
        first = perform(plain, settings).report
        again = perform(plain, settings).report
        stained = perform(
            replace(request, paths=[str(root / "a.svs")]),
            settings.model_copy(update={"collection": "stained"}),
        ).report
    local = perform(
        replace(plain, engine="local"),
        settings.model_copy(update={"library": tmp_path / "local"}),
    ).report

    assert (first.stored, first.quarantined) == (local.stored, local.quarantined)
    assert (first.stored > 10, first.quarantined) == (True, 1)
    assert (again.stored, again.unchanged) == (0, first.stored)
    assert stained.stored == first.stored - 6
    assert digest(settings.library) == digest(tmp_path / "local")
    print_runs(settings)
    newest, oldest, sources = map(json.loads, capsys.readouterr().out.splitlines())
    assert (oldest["state"], oldest["request"]["engine"]) == ("done", "ray")
    assert oldest["summary"] == str(first)
    assert newest["state"] == "done"
    assert sources["sources"] == {"done": 7, "pending": 0, "quarantined": 1}


@pytest.mark.filterwarnings("ignore")
def test_on_two_workers_a_killed_one_costs_nothing_and_a_vector_server_gets_all(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed; `uv sync --extra ray`")
    root = tmp_path / "lab" / "EO"
    root.mkdir(parents=True)
    for at in range(200):
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(root / f"{at}.png")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = Settings(
        library=tmp_path / "library", encoder="colour", qdrant_url=url, _env_file=None
    )
    request = Request(paths=[root.parent], engine="ray")
    killed: list[int] = []
    hunter = threading.Thread(target=kill_one, args=(killed,), daemon=True)
    with standin(port, tmp_path / "server"):
        with started(ray):
            hunter.start()
            run = perform(request, settings).report
            hunter.join(60)
            again = perform(request, settings).report
        on_the_server = digest(settings.library, stores_at(url, None))
    plain = settings.model_copy(update={"library": tmp_path / "local", "qdrant_url": None})
    perform(replace(request, engine="local"), plain)

    assert len(killed) == 1
    assert (run.stored, again.stored, again.unchanged) == (200, 0, 200)
    assert on_the_server == digest(plain.library)


def kill_one(killed: list[int]) -> None:
    """Kill the first worker of Ray that is at work on a share."""
    while not killed:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "cmdline").read_bytes().startswith(b"ray::work"):
                    os.kill(int(folder.name), signal.SIGKILL)
                    killed.append(int(folder.name))
                    return
        time.sleep(0.01)


@contextmanager
def started(ray: Any) -> Iterator[None]:
    """Ray with two workers on this machine, or a skipped test where it does not start."""
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises nothing narrower
        ray.shutdown()
        gc.collect()  # what it left is told here, where warnings are not errors
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray did not start within its 30 s: the machine is too busy")
    try:
        yield
    finally:
        ray.shutdown()
        gc.collect()


def digest(library: Path, stores: Stores = embedded) -> str:
    with Library.open(library, stores).collection("cells") as held:
        found = reconcile(held, mend=False)
    assert found.equal
    return found.index

"""The demo: the product's main job on a fresh machine, in a minute or two."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from ui.cli.output import complain, hits_table, say

if TYPE_CHECKING:
    from ingest.layouts.scan import Scan
    from search.client.client import Client
    from search.settings import Settings

PER_LABEL = 120
"""Cells of each label that the demo ingests."""
FIELDS = 24
"""Fields of each set that it ingests."""
K = 10
"""Neighbours that the demo shows."""
START_S = 120
"""How long the service and the page may take to answer for the first time."""


@dataclass(frozen=True)
class Cells:
    """The cells that the demo ingests, and its query."""

    scans: list[Scan]
    query: Path
    """An image that is not ingested."""
    truth: str
    """Its label."""
    real: bool
    origin: str
    """Where the cells come from."""


def run_demo(settings: Settings, out: Path, *, serve: bool) -> None:
    """Ingest, one query, neighbours printed, a contact sheet; then the API and the page."""
    from encoder.registry import default_encoder, load
    from ui.cli.ingesting import print_report, run_ingest
    from ui.exports.contact_sheet import contact_sheet

    out.mkdir(parents=True, exist_ok=True)
    name = settings.encoder or default_encoder()
    encoder = load(name, device=settings.device)
    cells = find_cells(settings, out)
    say(f"[bold]1.[/] {cells.origin}")
    collection = f"demo-{encoder.card.fingerprint[:6]}"
    settings = settings.model_copy(update={"library": out / "library", "collection": collection})
    say(f"[bold]2.[/] Ingest with encoder {encoder.card.id} ({encoder.card.dim} dimensions)")
    run = run_ingest(cells.scans, settings, encoder, name)
    print_report(run)
    say(f"[bold]3.[/] Search: what looks like {cells.query.name} ({cells.truth})?")
    with running(settings) as client:
        from search.schemas.questions import Question

        image = cells.query.read_bytes()
        found = client.vote(Question(k=K), image)
        hits_table(found.answer)
        say(f"vote: [bold]{found.vote.label if found.sure else 'not sure'}[/]. {found.reason}")
        pictures = [client.image(hit.item.id) for hit in found.answer.hits]
        sheet = contact_sheet(image, found.answer, pictures, out / "neighbours.png")
        say(f"[bold]4.[/] The neighbours as a picture: {sheet}")
        if not cells.real:
            say("[yellow]These cells are synthetic: drawn by a program, of no patient.[/]")
        if serve:
            show_page(settings, client.url)


def show_page(settings: Settings, url: str) -> None:
    """Serve until Ctrl-C; where no terminal is attached, see that the page answers, and end."""
    with page(settings) as address:
        say(f"[bold]5.[/] API {url}/docs, page {address}")
        if not sys.stdin.isatty():
            say("No terminal is attached: both answer, and the demo ends here.")
            return
        say("Drop in a cell image on the page. Ctrl-C ends.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("\nStopped.")


def find_cells(settings: Settings, out: Path) -> Cells:
    """Real cells if there are any to be had, else synthetic ones."""
    from ingest.samples.download import default_folder, is_complete

    if settings.data is not None:
        if not settings.data.is_dir():
            raise NoSuchFolder(f"there is no folder {settings.data}; correct --data")
        return from_real(settings.data, f"Real cells from {settings.data}")
    folder = default_folder()
    if not is_complete(folder, ("bccd",)):
        fetch_samples(folder, ["bccd", "chula"])
    if is_complete(folder, ("bccd",)):
        return from_real(folder, f"Real cells, openly licensed, from {folder}")
    return drawn(out / "synthetic")


class NoSuchFolder(FileNotFoundError):
    """A folder that was named and is not there."""


def fetch_samples(folder: Path | None, sets: list[str] | None) -> bool:
    """Download the sample sets and print what came; returns whether all of it did."""
    from ingest.samples.download import SampleError, default_folder, download

    target = folder or default_folder()
    try:
        with counting("samples") as progress:
            report = download(target, sets=sets, on_progress=progress)
    except SampleError as error:
        complain(str(error))
        return False
    say(str(report))
    return report.ok


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error for something that counts files."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        job = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(job, completed=done, total=total)


def from_real(folder: Path, origin: str) -> Cells:
    """A few cells of each label of the sets in a folder, and one that is kept back to ask with."""
    from ingest.layouts.known import scan
    from ingest.layouts.scan import Options

    scans = []
    pbc = folder / "pbc" / "cells"
    if pbc.is_dir():
        found = scan(pbc, "labels", Options(dataset="pbc"))
        query, truth = keep_back(found)
        scans.append(found)
    for name in ("bccd", "chula", "aslan"):
        if (folder / name).is_dir():
            scans.append(a_few(scan(folder / name, None, Options(dataset=name))))
    if not scans:
        raise NoSuchFolder(f"{folder} has none of the sets pbc, bccd, chula, aslan; correct --data")
    if not pbc.is_dir():
        query, truth = cut_query(scans[0])
    return Cells(scans, query, truth, True, origin)


def keep_back(found: Scan) -> tuple[Path, str]:
    """Thin a scan out to a few cells of each label, and keep one image back."""
    groups = defaultdict(list)
    for task in found.tasks:
        groups[task.facts.label].append(task)
    found.tasks = [task for tasks in groups.values() for task in tasks[:PER_LABEL]]
    chosen = groups.get("EO") or next(iter(groups.values()))
    return chosen[-1].path, str(chosen[-1].facts.label)


def a_few(found: Scan) -> Scan:
    """The first fields of a scan; what is missing in the rest is not this run's concern."""
    found.tasks = found.tasks[:FIELDS]
    found.report.failures.clear()
    return found


def cut_query(found: Scan) -> tuple[Path, str]:
    """One cell cut from the first field, and that field left out of the ingest."""
    from PIL import Image

    from ingest.sources.source import Source

    first = found.tasks.pop(0)
    source = Source(first.path, first.dataset)
    planned = first.reader.plan(source, first.facts).planned
    chosen = max(planned, key=lambda one: (one.item.label == "WBC", one.item.id))
    (image,) = first.reader.cut(source, [chosen])
    path = default_query(first.path)
    Image.fromarray(image).save(path)
    return path, chosen.item.label or "no label"


def default_query(field: Path) -> Path:
    """Where a query that was cut from a field is kept."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="hemaseek-")) / f"{field.stem}-cell.png"


def drawn(folder: Path) -> Cells:
    """A synthetic smear, drawn into a folder, and a cell of a patient who is not in it."""
    from PIL import Image

    from ingest.layouts.known import scan
    from ingest.layouts.scan import Options
    from ingest.samples.synthetic import DATASET, draw_cell, write_library

    label = "eosinophil"
    written = write_library(folder, patients=6, fields_per_patient=1, cells_per_label=6)
    found = scan(written.manifest, None, Options(dataset=DATASET))
    query = folder / f"query-{label}.png"
    Image.fromarray(draw_cell(label, 777, patient=9)).save(query)
    words = (
        "No real cells found (no --data, no HEMASEEK_DATA, no network): "
        f"{written.cells} synthetic cells were drawn into {folder}"
    )
    return Cells([found], query, label, False, words)


@contextmanager
def running(settings: Settings) -> Iterator[Client]:
    """The service over the demo's library, as a process of its own."""
    from search.client.client import Client
    from ui.cli.serving import service_command

    settings = settings.model_copy(update={"port": free_port(settings.port), "service_url": ""})
    with process(service_command(settings), None):
        wait_for(f"{settings.url}/health", "the service")
        with Client(settings.url) as client:
            yield client


@contextmanager
def page(settings: Settings) -> Iterator[str]:
    """The page, as a process of its own; its address."""
    from ui.cli.backend import running_service
    from ui.cli.serving import page_command, page_environment

    client = running_service(settings)
    url = settings.url if client is None else client.url
    if client is not None:
        client.close()
    changes = {"page_port": free_port(settings.page_port), "service_url": url}
    settings = settings.model_copy(update=changes)
    address = f"http://127.0.0.1:{settings.page_port}"
    with process(page_command(settings), page_environment(settings)):
        wait_for(f"{address}/_stcore/health", "the page")
        yield address


@contextmanager
def process(command: list[str], environment: dict[str, str] | None) -> Iterator[None]:
    """A process that ends with the block."""
    started = subprocess.Popen(  # noqa: S603 (our own command)
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(url: str, what: str) -> None:
    """Wait until an address answers.

    Raises:
        NotStarted: it did not, in time.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise NotStarted(f"{what} did not answer at {url} within {START_S} s; see the lines above")


class NotStarted(RuntimeError):
    """A process that was started and does not answer."""


def free_port(wanted: int = 0) -> int:
    """A free port: the wanted one where possible, else any."""
    import socket

    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise NotStarted("no port can be had on 127.0.0.1")

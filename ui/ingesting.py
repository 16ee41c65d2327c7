"""An ingest as a person runs it: the right sink, a progress bar, a report in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encoder.encoder import Encoder
    from ingest.report import OnProgress, Report
    from ingest.scan import Options, Scan
    from ingest.sink import Sink
    from search.settings import Settings
    from search.store import BuildReport

SHOWN_FAILURES = 20
"""How many failures are printed; the report file has all."""


@dataclass(frozen=True)
class Run:
    """An ingest that has ended."""

    report: Report
    index: BuildReport | None
    """What the build of the graph measured; `None` if nothing was stored."""


def run_ingest(scans: list[Scan], settings: Settings, encoder: Encoder, reference: str) -> Run:
    """Ingest what was found, in one report.

    Args:
        scans: What `ingest.layouts.scan` found.
        settings: Which library and collection.
        encoder: The encoder, loaded.
        reference: What loads it again.
    """
    from ingest.pipeline import ingest

    report, tasks = scans[0].report, list(scans[0].tasks)
    for found in scans[1:]:
        tasks += found.tasks
        report.failures += found.report.failures
        report.warnings += found.report.warnings
    with open_sink(settings, encoder, reference) as sink, progress_bar() as tell:
        ingest(tasks, encoder, sink, progress=tell, report=report)
        changed = report.stored or report.updated
        return Run(report, sink.build() if changed else None)


def find(paths: list[Path], layout: str | None, options: Options) -> list[Scan]:
    """What there is to ingest below each path."""
    from ingest.layouts import scan

    return [scan(path, layout, options) for path in paths]


@contextmanager
def open_sink(settings: Settings, encoder: Encoder, reference: str) -> Iterator[Sink]:
    """The service that owns the library, if one runs; else the library itself."""
    from ingest.sink import LibrarySink, ServiceSink
    from search.library import Library, embedded, on_server
    from ui.backend import running_service

    client = running_service(settings)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    sink: Sink
    if client is not None:
        client.close()
        sink = ServiceSink(
            client.url, settings.collection, encoder.card, encoder=reference, api_key=key
        )
    else:
        remote = settings.qdrant_api_key
        make = (
            on_server(settings.qdrant_url, remote.get_secret_value() if remote else None)
            if settings.qdrant_url
            else embedded
        )
        library = Library.open(settings.library, make)
        sink = LibrarySink.open(library, settings.collection, encoder.card, reference)
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar on standard error with items per second and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} files"),
        TextColumn("{task.fields[items]:,} items, {task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        job = bar.add_task("ingest", total=1, items=0, rate=0.0)

        def tell(progress: object) -> None:
            from ingest.report import Progress as Told

            if isinstance(progress, Told):
                bar.update(
                    job,
                    completed=progress.done,
                    total=progress.total or max(progress.done, 1),
                    items=progress.items,
                    rate=progress.rate,
                )

        yield tell


def tell_report(run: Run) -> None:
    """Print what a run did: counts, warnings, failures with their reasons, the index."""
    from rich.markup import escape

    from ui.output import say

    report = run.report
    say(f"[bold]{report}[/]")
    for warning in report.warnings[:SHOWN_FAILURES]:
        say(f"[yellow]![/] {escape(warning)}")
    for failure in report.failures[:SHOWN_FAILURES]:
        say(f"[red]failed[/] {escape(str(failure))}")
    if report.failed > SHOWN_FAILURES:
        say(f"... and {report.failed - SHOWN_FAILURES} more; --report FILE keeps all of them")
    if run.index is not None:
        index = run.index
        say(
            f"index of {index.points:,} items built in {index.seconds:.1f} s, "
            f"recall@10 {index.recall:.3f}, filtered {index.filtered_recall:.3f}"
        )

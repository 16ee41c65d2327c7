"""The ledger of ingests at the terminal: runs, sources, and rejected files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ui.cli.output import for_people, say, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.pipeline.ledger import Ledger, Row
    from search.settings import Settings


class NoJobs(RuntimeError):
    """A library into which nothing was ingested."""


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger of the library.

    Raises:
        NoJobs: there is none yet.
    """
    from ingest.pipeline.ledger import Ledger, ledger_path

    path = ledger_path(settings.library)
    if not path.is_file():
        raise NoJobs(f"nothing was ingested into {settings.library} yet; see `hemaseek ingest -h`")
    with Ledger(path, settings.collection) as ledger:
        yield ledger


def print_runs(settings: Settings) -> None:
    """Print the last runs, and the number of sources by state."""
    with open_ledger(settings) as ledger:
        runs, counts = ledger.runs(), ledger.counts()
    if not for_people():
        _lines([asdict(run) for run in runs])
        _lines([{"sources": counts}])
        return
    rows = [
        (
            run.id,
            _short(run.started),
            _short(run.ended),
            run.state,
            _what(run.request),
            run.summary,
        )
        for run in runs
    ]
    table("Runs", ("run", "started", "ended", "state", "what", "summary"), rows)
    table("Sources", ("state", "n"), list(counts.items()))


def print_sources(settings: Settings) -> None:
    """Print every source with its state."""
    with open_ledger(settings) as ledger:
        found = ledger.rows()
    _print("Sources", found)


def print_quarantined(settings: Settings, paths: Sequence[str]) -> int:
    """Print the rejected files; returns how many there are."""
    with open_ledger(settings) as ledger:
        found = [row for row in ledger.rows("quarantined") if not paths or row.path in paths]
    _print("Quarantined; `hemaseek quarantine --retry [PATH]` reads them again", found)
    return len(found)


def retry_quarantined(settings: Settings, paths: Sequence[str]) -> None:
    """Run the ingests again in which the rejected files were met."""
    from ui.cli.ingesting import Request, perform, print_report

    with open_ledger(settings) as ledger:
        found = [row for row in ledger.rows("quarantined") if not paths or row.path in paths]
        numbers = {row.run for row in found}
        requests = [run.request for run in ledger.runs(10_000) if run.id in numbers and run.request]
        ledger.retry(paths)
    different: list[dict[str, object]] = []
    for request in requests:
        if request not in different:
            different.append(request)
    for request in different:
        run = perform(Request.of_kept(request), settings)
        if for_people():
            print_report(run)


def _print(title: str, found: Sequence[Row]) -> None:
    if not for_people():
        _lines([asdict(row) for row in found])
        return
    if not found:
        say("none")
        return
    rows = [
        (row.state, Path(row.path).name, row.dataset, row.items, row.attempts, row.reason)
        for row in found
    ]
    table(title, ("state", "file", "dataset", "items", "attempts", "reason"), rows)


def _lines(facts: Sequence[dict[str, object]]) -> None:
    import json
    import sys

    for fact in facts:
        sys.stdout.write(json.dumps(fact) + "\n")


def _short(when: str) -> str:
    """A time of the ledger to the minute."""
    return when[:16].replace("T", " ")


def _what(request: dict[str, object]) -> str:
    paths = request.get("paths")
    return " ".join(map(str, paths)) if isinstance(paths, list) else ""

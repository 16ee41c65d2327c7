"""What a run did: counts, every failure with its reason, and how fast."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from encoder.durable import replacing

MOST_TOLD = 3
"""Reasons for failures that a run is summed up with."""


@dataclass(frozen=True)
class Failure:
    """One thing that could not be ingested."""

    path: str
    """The file."""
    reason: str
    """What was wrong, in words."""
    where: str = ""
    """Which part of it: a line, a row, an object; empty for the whole file."""

    def __str__(self) -> str:
        return f"{self.path}{f' ({self.where})' if self.where else ''}: {self.reason}"


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    """Sources finished, failed ones among them."""
    total: int | None
    """Sources in all; `None` where they are not known beforehand."""
    items: int
    """Items finished: stored, unchanged, updated and duplicates."""
    rate: float
    """Items per second since the start."""
    eta: float | None
    """Seconds left at the pace so far; `None` where it is not known."""

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        left = "" if self.eta is None else f", about {self.eta / 60:.0f} min left"
        return f"{self.done:,}{of} files, {self.items:,} items, {self.rate:.0f} a second{left}"


OnProgress = Callable[[Progress], None]
"""Called from the thread that runs `ingest`, a few times a second at most."""


@dataclass
class Report:
    """The outcome of a run; a run with failures is not `ok`."""

    stored: int = 0
    """Items that are new."""
    unchanged: int = 0
    """Items that were stored already, just so."""
    updated: int = 0
    """Items whose metadata changed; their vectors stayed."""
    duplicates: int = 0
    """Items met again in the same run: the same bytes, box and kind under one dataset."""
    removed: int = 0
    """Items of sources that were ingested again and no longer give them."""
    padded: int = 0
    """New items whose crop hung over the border of the image and was filled up."""
    sources: int = 0
    """Files finished, failed ones among them."""
    failures: list[Failure] = field(default_factory=list)
    """Everything that could not be ingested."""
    warnings: list[str] = field(default_factory=list)
    """What a person should know and no item was lost by."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Files that were there and not read, by reason; hidden ones do not count."""
    tables: int = 0
    """Files of annotations that were read."""
    skipped: int = 0
    """Files that the ledger knows as done, and that were not opened; their items are unchanged."""
    quarantined: int = 0
    """Files set aside with a reason; they are among the failures."""
    slides: list[str] = field(default_factory=list)
    """What became of each slide, in a sentence."""
    seconds: float = 0.0
    """Duration of the run."""

    def add(self, other: Report) -> None:
        """Add the counts, failures and warnings of another report."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, dict):
                theirs = mine | {key: mine.get(key, 0) + count for key, count in theirs.items()}
                setattr(self, one.name, theirs)
            else:
                setattr(self, one.name, mine + theirs)

    @property
    def failed(self) -> int:
        """How many failures there are."""
        return len(self.failures)

    def summary(self) -> str:
        """The counts, and the reasons of the failures without the names of files."""
        reasons = Counter(
            failure.reason.replace(failure.path, "the file").replace(Path(failure.path).name, "it")
            for failure in self.failures
        )
        words = [f"{reason} ({n:,})" for reason, n in reasons.most_common(MOST_TOLD)]
        more = len(reasons) - MOST_TOLD
        return "; ".join([str(self), *words, *([f"{more:,} more reasons"] if more > 0 else [])])

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def items(self) -> int:
        """Items finished."""
        return self.stored + self.unchanged + self.updated + self.duplicates

    @property
    def items_per_second(self) -> float:
        """Items finished per second."""
        return self.items / self.seconds if self.seconds > 0 else 0.0

    def reasons(self) -> dict[str, int]:
        """Failures per reason, most frequent first."""
        counts = Counter(failure.reason for failure in self.failures)
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def to_json(self) -> str:
        """The whole report."""
        facts = asdict(self) | {
            "failed": self.failed,
            "ok": self.ok,
            "items_per_second": round(self.items_per_second, 1),
        }
        return json.dumps(facts, indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Keep the report in a file, whole or not at all."""
        with replacing(path) as file:
            file.write(self.to_json().encode())

    def __str__(self) -> str:
        parts = [f"{self.stored:,} stored", f"{self.unchanged:,} unchanged"]
        parts += [f"{self.updated:,} updated", f"{self.duplicates:,} duplicates"]
        parts += [f"{self.removed:,} removed"] if self.removed else []
        parts += [f"{self.failed:,} failed"]
        return f"{', '.join(parts)} in {self.seconds:.1f} s ({self.items_per_second:.1f} items/s)"


class Clock:
    """Times a run and calls back with its progress, not more often than `every` seconds."""

    def __init__(
        self, report: Report, total: int | None, callback: OnProgress | None, every: float = 0.1
    ) -> None:
        self._report = report
        self._total = total
        self._callback = callback
        self._every = every
        self._started = time.perf_counter()
        self._called = 0.0

    def tick(self, items: int, *, last: bool = False) -> None:
        """Bring the duration up to date, and call back if it is time.

        Args:
            items: Items finished; a few of them may not be durable yet.
            last: Call back in any case.
        """
        report = self._report
        seconds = report.seconds = time.perf_counter() - self._started
        if self._callback is None or not (last or seconds - self._called >= self._every):
            return
        self._called = seconds
        left: float | None = None
        if self._total is not None and report.sources:
            left = max(self._total - report.sources, 0) * seconds / report.sources
        rate = items / seconds if seconds > 0 else 0.0
        self._callback(Progress(report.sources, self._total, items, rate, left))

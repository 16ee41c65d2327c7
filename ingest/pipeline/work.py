"""What the steps of one run share: its parts, and the calls that go through several of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ingest.pipeline.choosing import Choosing
from ingest.pipeline.embedding import Embedding
from ingest.pipeline.reading import SHARD_ITEMS, Picture
from ingest.pipeline.replacing import Replacing
from ingest.pipeline.sink import Sink
from ingest.pipeline.states import State, States
from ingest.pipeline.storing import Storing
from ingest.sandbox.pool import TIMEOUT_S
from ingest.sources.report import OnProgress, Report
from ingest.sources.source import Planned, Source, Task
from search.text import composed


@dataclass(frozen=True, kw_only=True)
class How:
    """How a run works; none of it changes what is stored."""

    batch_size: int = 64
    """Images embedded at once."""
    workers: int | None = None
    """Threads that read, decode and cut; `None` for one per core, at most 8."""
    shard_items: int = SHARD_ITEMS
    """A shard is closed at the first end of a source after so many items."""
    reports: Path | None = None
    """Folder for the report and the picture of each slide; `None` for none."""
    timeout_s: float = TIMEOUT_S
    """Longest pause of a child before its file is given up."""
    progress: OnProgress | None = None
    """Called with how far the run is."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(kw_only=True)
class Work:
    """One run under way."""

    sink: Sink
    report: Report
    how: How
    workers: int
    """Threads that read."""
    readers: ThreadPoolExecutor
    storing: Storing
    embedding: Embedding
    choosing: Choosing
    states: States
    replacing: Replacing
    remarks: dict[str, set[str]] = field(default_factory=dict)
    """Paths by what a person should know of how they were decoded."""

    def feed(self, state: State, pictures: Sequence[Picture]) -> None:
        """Hand the pictures of a source on to the encoder."""
        state.waiting += len(pictures)
        self.embedding.add(pictures)

    def given(self, task: Task, source: Source, planned: Sequence[Planned]) -> None:
        """Note which items a source gives; what it gave before and gives no more is removed."""
        path, dataset = str(task.path), composed(task.dataset)
        self.replacing.add(path, dataset, source.id, planned)
        if (before := self.states.replaced_source(task, source.id)) is not None:
            self.replacing.changed(path, dataset, before)

    def incomplete(self, task: Task, source: Source) -> None:
        """Note that some of a source could not be read, so that nothing of it is removed."""
        self.replacing.incomplete(str(task.path), composed(task.dataset), source.id)

    def remark(self, path: str, text: str) -> None:
        """Note what a person should know of how a file was decoded."""
        if text:
            self.remarks.setdefault(text, set()).add(path)

    def warn_of_remarks(self) -> None:
        """One warning for each remark, however many files it is about."""
        for text, paths in self.remarks.items():
            first = min(paths)
            which = first if len(paths) == 1 else f"{len(paths)} pictures, the first {first}"
            self.report.warnings.append(f"{which}: {text}")

"""A source that is ingested again replaces its items: what it no longer gives is removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingest.pipeline.ledger import Ledger
from ingest.pipeline.sink import Sink
from ingest.sources.report import Report
from ingest.sources.source import Planned
from search.schemas.items import Item

AT_ONCE = 200
"""Sources that are looked up together."""


@dataclass
class _Given:
    """What a source gave in this run."""

    path: str
    whole: bool = True
    """Whether all of it was read: of a source with failures, earlier items are kept."""
    tile_sides: set[tuple[int, int]] = field(default_factory=set)


class Replacing:
    """Finds and removes what sources of a run gave before and give no more.

    An item belongs to the bytes of its file: where the picture itself was replaced under the same
    path, the items of the picture before are removed. Tiles of another size are another reading
    of a slide, and are kept.

    Args:
        sink: Where the items are.
        report: Takes the counts.
        ledger: Notes what was removed, so that it can be undone; `None` for no ledger.
    """

    def __init__(self, sink: Sink, report: Report, ledger: Ledger | None) -> None:
        self._sink = sink
        self._report = report
        self._ledger = ledger
        self._given: dict[tuple[str, str], _Given] = {}
        self._before: dict[tuple[str, str], str] = {}

    def add(self, path: str, dataset: str, source: str, planned: Sequence[Planned]) -> None:
        """Items that a source gives; it may be called several times for one."""
        given = self._given.setdefault((dataset, source), _Given(path))
        for one in planned:
            if one.item.kind == "tile" and one.item.bbox is not None:
                given.tile_sides.add((one.item.bbox.w, one.item.bbox.h))

    def incomplete(self, path: str, dataset: str, source: str) -> None:
        """Some of a source could not be read."""
        self._given.setdefault((dataset, source), _Given(path)).whole = False

    def changed(self, path: str, dataset: str, before: str) -> None:
        """The file of a path is another one than in an earlier run."""
        self._before[dataset, before] = path

    def remove(self, is_given: Callable[[str], bool]) -> None:
        """Remove what is gone; call it once, when everything else is stored.

        Args:
            is_given: Whether the run has met an item, by its id.
        """
        for key, path in self._before.items():
            self._given.setdefault(key, _Given(path))
        by_dataset: dict[str, list[str]] = {}
        for (dataset, source), given in self._given.items():
            if given.whole:
                by_dataset.setdefault(dataset, []).append(source)
        gone: dict[str, list[Item]] = {}
        for dataset, sources in by_dataset.items():
            for at in range(0, len(sources), AT_ONCE):
                for item in self._sink.of_sources(dataset, sources[at : at + AT_ONCE]):
                    given = self._given[dataset, item.source]
                    if not is_given(item.id) and not _is_other_reading(item, given):
                        gone.setdefault(given.path, []).append(item)
        ids = [item.id for items in gone.values() for item in items]
        if not ids:
            return
        if self._ledger is not None:
            self._ledger.mark_unbuilt()
            self._ledger.keep_replaced(ids)
        self._sink.remove(ids)
        self._report.removed += len(ids)
        for path, items in gone.items():
            labels = ", ".join(sorted({item.label or "no label" for item in items}))
            self._report.warnings.append(
                f"{path}: {len(items)} items of an earlier ingest that it no longer gives were "
                f"removed ({labels}); their reviews are kept, `hemaseek undo` brings them back"
            )


def _is_other_reading(item: Item, given: _Given) -> bool:
    """Whether a stored tile was cut in another size than those of this run."""
    return (
        item.kind == "tile"
        and item.bbox is not None
        and (item.bbox.w, item.bbox.h) not in given.tile_sides
    )

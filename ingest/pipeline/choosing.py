"""Which planned items are new, which changed, and which were met before in the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.pipeline.sink import Sink
from ingest.sources.report import Report
from ingest.sources.source import Planned
from search.library.shards import payload_digest
from search.schemas.items import Item


@dataclass(frozen=True)
class Choice:
    """Of some planned items, those that need work."""

    fresh: list[int]
    """Positions of the items that are not stored, or that the encoder is to be shown anew."""
    changed: list[Item]
    """Stored items whose metadata is new, and whose vector stays."""


class Choosing:
    """Compares planned items with what is stored, and with what the run has met so far."""

    def __init__(self, sink: Sink, report: Report) -> None:
        self._sink = sink
        self._report = report
        self._met: dict[str, tuple[str, str | None, int]] = {}
        """By id: path, label and hash of the item that was met first."""

    def is_met(self, id: str) -> bool:
        """Whether the run has met an item."""
        return id in self._met

    def stored(self, planned: Sequence[Planned]) -> dict[str, str]:
        """The payload digests of those that are stored."""
        return self._sink.known([one.item.id for one in planned]) if planned else {}

    def choose(self, path: str, planned: Sequence[Planned], stored: Mapping[str, str]) -> Choice:
        """Sort the items of one source; those that need no work are counted in the report."""
        choice, changed = Choice([], []), []
        for at, one in enumerate(planned):
            first = self._met.get(one.item.id)
            if first is not None:
                self._report.duplicates += 1
                self._contradiction(first, path, one.item)
                continue
            self._met[one.item.id] = (path, one.item.label, hash(one.item))
            digest = stored.get(one.item.id)
            if digest is None:
                choice.fresh.append(at)
            elif digest == payload_digest(one.item):
                self._report.unchanged += 1
            else:
                changed.append(at)
        anew = self._rescaled([planned[at].item for at in changed])
        for at in changed:
            if planned[at].item.id in anew:
                choice.fresh.append(at)
            else:
                choice.changed.append(planned[at].item)
        choice.fresh.sort()
        return choice

    def _rescaled(self, items: Sequence[Item]) -> set[str]:
        """Ids of stored items that an encoder with a field of view sees otherwise now: their
        scale is new."""
        if self._sink.card.fields_um is None or not items:
            return set()
        sources = sorted({item.source for item in items})
        before = {one.id: one for one in self._sink.of_sources(items[0].dataset, sources)}
        return {
            item.id
            for item in items
            if item.kind == "cell"
            and (item.id not in before or before[item.id].um_per_px != item.um_per_px)
        }

    def _contradiction(self, first: tuple[str, str | None, int], path: str, item: Item) -> None:
        first_path, label, digest = first
        if digest == hash(item):
            return
        where = "" if item.bbox is None else f" at {item.bbox.x}, {item.bbox.y}"
        what = "their metadata differs"
        if label != item.label:
            what = f"their labels differ: {label!r} and {item.label!r}"
        same = f"{first_path} and {path} are the same image{where}"
        if first_path == path:
            same = f"{path} marks the same place twice{where}"
        self._report.warnings.append(f"{same}, but {what}; the first is kept")

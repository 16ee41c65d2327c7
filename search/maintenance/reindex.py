"""A new version of a collection, built from the sources beside the one that serves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from uuid import UUID

import numpy as np

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder
from encoder.stains.stained import as_carded
from search.disk.atomic import write_durably
from search.errors import StoreError
from search.index.contract import BuildReport, IndexSettings
from search.library.collection import Collection
from search.library.contents import Truth
from search.library.library import Library
from search.library.shards import Entry
from search.library.sources import PlainImages, ReadPixels, read_again, seen
from search.library.versions import Version, Versions
from search.maintenance.checks import Check, Limits, Table, as_json, examine, failed, golden_vectors
from search.neighbours.groups import item_groups
from search.transforms.adaptation import Adaptation

PER_SHARD = 1024
"""Items in one shard of the new version; what a kill costs at most."""
MOST_BYTES = 64 << 20
"""Pixels of a batch, and as many that are read meanwhile; an encoder with many threads takes more
pictures at once than fit the memory where they are whole fields."""
ROUNDS = 5
"""How often what was written meanwhile is carried over before writers have to wait for it."""
LISTED = 5
"""Reasons that a message gives; file names stay in the list on the disk."""
AXES = ("knn", "centre")
IN_SAMPLE = "in-sample: labels of these very items chose the axes; 'transfer' is held out"
"""Note on the checks `AXES` of a version whose axes labels chose."""
MISSING = "missing.json"
"""The list, in the folder of the version."""


class SourcesMissing(StoreError):
    """Items that cannot be embedded again, and the run was not allowed to leave them out."""


class Stopped(StoreError):
    """The run was cancelled; it goes on from here when it is started again."""


@dataclass(frozen=True)
class Missing:
    """An item that could not be read again."""

    id: str
    path: str | None
    why: str


@dataclass(frozen=True, kw_only=True)
class ReindexPlan:
    """How a version is made, and what it must pass."""

    index: IndexSettings | None = None
    """Of the new search graph; `None` for those of the version that serves, with more links where
    it has grown large (`IndexSettings.for_points`)."""
    embed_all: bool = False
    """Embed again even where the encoder is the one that serves; else its vectors are copied."""
    allow_missing: bool = False
    """Leave items out whose source is gone or changed; they are counted and listed."""
    force: bool = False
    """Serve it even if a check fails; that is kept with the version."""
    adaptation: Adaptation | None = None
    """What the vectors go through in the index; the shards keep those of the encoder."""
    checked: tuple[Check, ...] = ()
    """Checks that were made before, to be kept with the others; one that failed refuses too."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Reindexed:
    """What a re-index did."""

    collection: str
    version: str
    parent: str
    encoder: str
    fingerprint: str
    items: int
    embedded: int
    """Items embedded by this run; fewer than `items` where an earlier one was interrupted."""
    copied: int
    """Items whose vectors were taken over: the encoder is the same."""
    revised: int
    """Items whose metadata changed while it ran."""
    removed: int
    """Items that were removed while it ran, or before."""
    missing: tuple[Missing, ...]
    """Items that were left out."""
    checks: tuple[Check, ...]
    built: BuildReport
    switched: bool
    """Whether it serves now."""
    forced: bool
    """Whether it serves although a check failed."""
    seconds: float

    @property
    def refused_by(self) -> tuple[str, ...]:
        """The checks that failed."""
        return tuple(check.name for check in failed(self.checks))


Progress = Callable[[int, int], None]
"""Items done and items in all."""


def reindex(
    library: Library,
    name: str,
    encoder: Encoder,
    *,
    reference: str = "",
    plan: ReindexPlan = ReindexPlan(),
    read_pixels: ReadPixels | None = None,
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Reindexed:
    """Make a version with another encoder, run the checks on it, and serve it.

    The serving version is only read, and by its shards alone, so this works in the process of
    the service as well as beside it. What is written to it meanwhile is carried over, the rest
    of it under the lock of the switch. Killed or stopped at any point, the same call goes on
    where it was.

    Args:
        library: Where the collection is.
        name: Of the collection.
        encoder: What embeds; a stain normalisation of the served version goes before it.
        reference: What loads the encoder again, where that is not its id.
        plan: What is wanted.
        read_pixels: Reads a stored item again; `None` reads plain images alone, and
            `ingest.slides.rereading.Rereader` tiles of slides too.
        progress: Callback after every shard.
        stop: Called after every shard; true ends the run with `Stopped`.

    Raises:
        NoSuchCollection: there is none of that name.
        SourcesMissing: items cannot be read again; those that can are embedded and kept.
        StoreBusy: another process builds this version.
        StoreError: another version was switched to meanwhile.
    """
    began = time.perf_counter()
    versions = library.versions(name)
    versions.finish_interrupted()
    served = versions.current()
    encoder = as_carded(encoder, served.card)  # behind the same stain normalisation
    old = Truth.read(versions.path(served.id), served.card)
    index = plan.index or served.index.for_points(len(old.rows))
    card = encoder.card if plan.adaptation is None else plan.adaptation.card
    new = _begin(versions, served, card, reference, index)
    if plan.adaptation is not None:
        plan.adaptation.write(versions.path(new.id))
    with library.version(name, new.id) as target:
        run = _Run(target, served, old, encoder, plan, read_pixels or PlainImages(), progress, stop)
        run.carry_until_little_is_left()
        run.check_missing()
        built = target.build()
        results = run.checks(built)
        refused = bool(failed(results))
        switched = plan.force or not refused
        report = _facts(run, built, results, forced=switched and refused)
        versions.finish(new.id, "refused" if refused else "ready", report)
        if switched:
            why = "reindex" if plan.adaptation is None else "adapt"
            run.switch(library, f"{why}, forced" if refused else why)
        items = len(run.there.rows)
    return Reindexed(
        collection=name,
        version=new.id,
        parent=served.id,
        encoder=encoder.card.id,
        fingerprint=card.fingerprint,
        items=items,
        embedded=run.embedded,
        copied=run.copied,
        revised=run.revised,
        removed=run.removed,
        missing=tuple(run.missing.values()),
        checks=tuple(results),
        built=built,
        switched=switched,
        forced=switched and refused,
        seconds=time.perf_counter() - began,
    )


def _begin(
    versions: Versions, served: Version, card: EncoderCard, reference: str, index: IndexSettings
) -> Version:
    """The version to build: one that was interrupted or refused, or a new one."""
    for version in reversed(versions.all()):
        if (
            version.state in ("building", "refused")
            and version.parent == served.id
            and version.card.fingerprint == card.fingerprint
            and version.index == index
        ):
            return versions.write(replace(version, state="building"))
    if os.sep in reference and Path(reference).is_dir():
        reference = str(Path(reference).resolve())  # the service may run elsewhere
    return versions.begin(card, reference, index=index, parent=served.id)


class _Run:
    """One re-index under way: an old version that is read, a new one that is filled."""

    def __init__(
        self,
        target: Collection,
        served: Version,
        old: Truth,
        encoder: Encoder,
        plan: ReindexPlan,
        read_pixels: ReadPixels,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self.target, self.served, self.old = target, served, old
        self.there = Truth.read(target.folder, target.card)
        self.missing: dict[bytes, Missing] = {}
        self.embedded = self.copied = self.revised = self.removed = 0
        self._encoder, self._plan, self._read = encoder, plan, read_pixels
        self._progress, self._stop = progress, stop
        same = encoder.card.fingerprint == old.base.fingerprint
        self._copies = same and not plan.embed_all

    def carry_until_little_is_left(self) -> None:
        """Bring over what the old version has and the new one has not, until it is a few."""
        for _ in range(ROUNDS):
            if self.carry() <= PER_SHARD:
                return

    def carry(self) -> int:
        """Bring over once whatever differs; returns how many items that were."""
        self.old.refresh()
        gone = [id for id in self.old.removed if id not in self.there.removed]
        self.removed += sum(id in self.there.rows for id in gone)
        self.target.bury([str(UUID(bytes=id)) for id in gone])
        self.there.refresh()
        lacking = [
            id for id in self.old.rows if id not in self.there.rows and id not in self.missing
        ]
        for some in self._portions(lacking):
            self._add(some)
            self.there.refresh()
            self._progress(len(self.there.rows), len(self.old.rows))
            if self._stop():
                raise Stopped(
                    f"stopped after {len(self.there.rows)} of {len(self.old.rows)} items; the "
                    "same command goes on from here"
                )
        stale = [
            id
            for id, row in self.old.rows.items()
            if (here := self.there.rows.get(id)) is not None and here.digest != row.digest
        ]
        for some in self._portions(stale):
            self.target.update([entry.item for entry in self.old.entries(some)])
        self.revised += len(stale)
        self.there.refresh()
        return len(gone) + len(lacking) + len(stale)

    def check_missing(self) -> None:
        """Refuse if items are missing and may not be; keep the list beside the version."""
        if not self.missing:
            return
        listed = [asdict(one) for one in self.missing.values()]
        write_durably(self.target.folder / MISSING, json.dumps(listed, indent=1).encode())
        if self._plan.allow_missing and self.there.rows:
            return
        whys = "; ".join(sorted({one.why for one in self.missing.values()})[:LISTED])
        raise SourcesMissing(
            f"{len(listed)} of {len(self.old.rows)} items of collection {self.served.name!r} "
            "cannot be read again, so the version that serves stays. Bring the files back and run "
            "the same command, or allow them to be left out. All are listed in "
            f"versions/{self.target.version.id}/{MISSING}. Why: {whys}"
        )

    def checks(self, built: BuildReport) -> list[Check]:
        """Every check, on what is stored now."""
        limits = self._plan.limits
        ids = sorted(self.there.rows)
        drawn = np.random.default_rng(0).permutation(len(ids))[: limits.golden]
        entries = list(self.there.entries([ids[at] for at in drawn]))
        golden = golden_vectors(entries, self._encoder, self._read, limits)
        patients = self.target.cases.patients()
        new, parent = (
            Table(*table, item_groups(table[1], patients, hashes))
            for table, hashes in (
                (self.there.table(), self.target.rows.picture_hashes),
                (self.old.table(), None),  # what both have goes by the groups of the new one
            )
        )
        found = examine(new, parent, built, golden, limits)
        if self.target.label_axes is not None:
            found = [replace(c, note=IN_SAMPLE) if c.name in AXES else c for c in found]
        return [*found, *self._plan.checked]

    def switch(self, library: Library, why: str) -> None:
        """Carry over the last writes while no other can come, and serve the new version.

        Raises:
            StoreError: another version was switched to meanwhile.
        """
        versions = self.target.versions
        with versions.writing():
            now = versions.pointer().version
            if now != self.served.id:
                raise StoreError(
                    f"collection {self.served.name!r} was switched from version {self.served.id} "
                    f"to {now} while version {self.target.version.id} was built from the former; "
                    "re-index again"
                )
            self.carry()
            self.check_missing()
            library.stores.point(self.target.version)
            versions.point(self.target.version.id, why)

    def _portions(self, ids: list[bytes]) -> Iterator[list[bytes]]:
        for some in self.old.by_shard(ids).values():
            for at in range(0, len(some), PER_SHARD):
                yield some[at : at + PER_SHARD]

    def _add(self, ids: list[bytes]) -> None:
        entries = sorted(self.old.entries(ids), key=lambda entry: entry.path or "")
        if self._copies:
            self.copied += self.target.add(entries).stored
            return
        made: list[Entry] = []
        for some, images in self._read_ahead(entries):
            vectors = self._encoder.embed(images)
            made += [replace(entry, vector=row) for entry, row in zip(some, vectors, strict=True)]
        self.embedded += self.target.add(made).stored

    def _read_ahead(self, entries: Sequence[Entry]) -> Iterator[tuple[list[Entry], list[RGB]]]:
        """The entries that can be read, with their pictures: a batch is read while one embeds."""
        rest = iter(entries)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._pictures, rest)
            while (ready := coming.result())[0]:
                coming = reader.submit(self._pictures, rest)
                yield ready

    def _pictures(self, entries: Iterator[Entry]) -> tuple[list[Entry], list[RGB]]:
        """The next ones: as many as the encoder takes at once, or as many pixels as are held."""
        some: list[Entry] = []
        images: list[RGB] = []
        nbytes = 0
        while len(some) < self._encoder.batch_size and nbytes < MOST_BYTES:
            if (entry := next(entries, None)) is None:
                break
            image = read_again(self._read, entry.path, entry.item, entry.notes)
            if isinstance(image, str):
                id = entry.item.id
                self.missing[UUID(id).bytes] = Missing(id, entry.path, image)
            else:
                some.append(entry)
                images.append(seen(self._encoder.card, image, entry.item, entry.notes))
                nbytes += images[-1].nbytes
        return some, images


def _facts(
    run: _Run, built: BuildReport, results: Sequence[Check], *, forced: bool
) -> dict[str, object]:
    return {
        "items": len(run.there.rows),
        "missing": len(run.missing),
        "seconds": built.seconds,
        "gates": as_json(results),
        "forced": forced,
    }

"""One collection, with everything that a question about it needs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np

from encoder.contract import Encoder
from search.errors import NoCalibration
from search.index.contract import Vectors
from search.library.collection import Collection
from search.library.contents import Truth, content_digest
from search.library.reviews import Reviews, labels_digest, standing_labels
from search.library.sources import ReadPixels
from search.neighbours.duplicates import PictureHash
from search.neighbours.groups import item_groups, patients_digest
from search.query.facets import MOST
from search.query.pictures import EstimateScale, Pictures
from search.query.searcher import ANYTHING
from search.schemas.answers import CalibrationState, ReviewedLabel
from search.schemas.calibration import Calibration, CalibrationPlan
from search.schemas.filters import Filter
from search.schemas.items import Kind
from search.schemas.questions import Labels
from search.settings import Settings
from search.transforms.contract import CannotFit
from search.votes import calibration as calibrations
from search.votes.familiarity import SAMPLE, Familiar, fitted
from search.votes.held_out import HeldOut

REMEMBERED = 200_000
"""Values kept in memory: counts, calibrations, and picture hashes of about 250 bytes."""

Value = TypeVar("Value")


class Memory:
    """Values computed from collections, each kept until its collection is written to.

    Safe to use from many threads; two that ask at once may both compute.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[Hashable, ...], tuple[Hashable, Any]] = OrderedDict()
        self._revisions: dict[str, int] = {}
        """By the name of a collection; values of another are forgotten."""
        self._turn = threading.Lock()

    def __len__(self) -> int:
        """Values that are kept."""
        return len(self._kept)

    def of(
        self,
        collection: Collection,
        key: tuple[Hashable, ...],
        compute: Callable[[], Value],
        stamp: Hashable = None,
    ) -> Value:
        """The value under `key`, computed if the collection has been written to since.

        `stamp` is of what lies beside the collection, such as its reviews: the value is computed
        again, in place of the one before, where it differs.
        """
        name, revision = collection.name, collection.revision
        whole = (name, *key)
        with self._turn:
            if self._revisions.get(name) != revision:
                self._revisions[name] = revision
                for old in [one for one in self._kept if one[0] == name]:
                    del self._kept[old]
            if whole in self._kept and self._kept[whole][0] == stamp:
                self._kept.move_to_end(whole)
                value: Value = self._kept[whole][1]
                return value
        value = compute()
        with self._turn:
            if self._revisions.get(name) == revision:
                self._kept[whole] = (stamp, value)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value


@dataclass(frozen=True)
class Context:
    """What answering needs; features take this, never the service.

    It keeps open the version of the collection that served when it was made: use it for one call,
    not for a job, which opens its own when it begins.
    """

    collection: Collection
    settings: Settings
    load: Callable[[Collection], Encoder]
    read_pixels: ReadPixels
    """Reads the pixels of stored items again, from their files."""
    memory: Memory
    pictures: Pictures
    """Decodes what is uploaded."""
    prototypes: Memory
    """Apart from the rest, because each value takes megabytes."""
    estimate_scale: EstimateScale | None = None
    """Estimates the scale of an uploaded picture; `None` where no part above does."""

    learned: Callable[[str], Callable[..., Vectors]] | None = None
    """How the case model of an id pools cells (`search.cases.learned.Pool`)."""

    def encoder(self) -> Encoder:
        """The encoder of the collection, loaded when it is first needed.

        Raises:
            WrongEncoder: the one installed here under that name makes other vectors.
            NoSuchNormaliser: its stain normalisation is not installed.
        """
        return self.load(self.collection)

    def count(self, where: Filter = ANYTHING) -> int:
        """How many items meet a filter."""
        key = ("count", where.model_dump_json(exclude_defaults=True))
        store, records = self.collection.store, self.collection.cases.revision
        return self.memory.of(self.collection, key, lambda: store.count(where), records)

    def labels(self, where: Filter = ANYTHING) -> Mapping[str, int]:
        """The recorded labels of the items that meet a filter, with their counts."""
        key = ("labels", where.model_dump_json(exclude_defaults=True))
        store, records = self.collection.store, self.collection.cases.revision
        return self.memory.of(
            self.collection, key, lambda: store.facet("label", where, MOST), records
        )

    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of items that the collection holds, in alphabetical order."""
        found = self.memory.of(
            self.collection, ("kinds",), lambda: sorted(self.collection.store.facet("kind"))
        )
        return tuple(kind for kind in get_args(Kind) if kind in found)

    def picture_hash(self, id: str) -> PictureHash | None:
        """The perceptual hash of a stored item's thumbnail; `None` if it has none."""
        return self.memory.of(
            self.collection, ("picture", id), lambda: self.collection.rows.picture_hash(id)
        )

    def calibrate(self, plan: CalibrationPlan) -> Calibration:
        """Fit the calibration of the collection on itself, and keep it with the collection.

        Raises:
            CannotCalibrate: too few labelled items.
        """
        collection = self.collection
        labels, patients = self.reviewed(plan.labels), self.patients()
        content = calibrations.Content(
            content_digest(collection.folder),
            labels_digest(labels),
            labels,
            patients,
            self.collection.rows.picture_hashes,
            self._held_out(patients),
        )
        fitted = calibrations.calibrate(collection.store, collection.card, content, plan)
        calibrations.write(collection.folder, fitted)
        return fitted

    def patients(self) -> Mapping[str, str]:
        """The patients that the records of cases name, by case."""
        records = self.collection.cases
        return self.memory.of(self.collection, ("patients",), records.patients, records.revision)

    def _held_out(self, patients: Mapping[str, str]) -> HeldOut | None:
        """The neighbours that a calibration is fitted on, where labels chose the axes."""
        collection = self.collection
        if collection.label_axes is None:
            return None
        _, items, vectors = Truth.read(collection.folder, collection.card).table(stored=True)
        return HeldOut(
            collection.label_axes, items, vectors, patients, collection.rows.picture_hashes
        )

    def calibration(
        self, labels: Labels | None = "reviewed"
    ) -> tuple[Calibration | None, CalibrationState]:
        """The calibration, `None` if there is none, and whether it holds: `stale` if the collection
        has changed since, `other question` if other labels counted than those that vote now.

        Args:
            labels: Which labels vote; `None` for those that it was fitted on.

        Raises:
            CannotCalibrate: its file is damaged.
        """
        collection = self.collection
        touched = (*calibrations.touched(collection.folder), *collection.cases.revision)
        found, stale = self.memory.of(collection, ("calibration",), self._read_calibration, touched)
        if found is None:
            return None, "none"
        if stale:
            return found, "stale"
        if found.reviews == labels_digest(self.reviewed(labels or found.plan.labels)):
            return found, "applied"
        same = found.reviews == labels_digest(self.reviewed(found.plan.labels))
        return found, "other question" if same else "stale"

    def reviewed(self, labels: Labels = "reviewed") -> Mapping[str, ReviewedLabel]:
        """The reviewers' labels that count, by item; none where only recorded ones do.

        Raises:
            ReviewsDamaged: their log cannot be read.
        """
        if labels == "recorded":
            return {}
        reviews = Reviews(self.collection.versions)
        return self.memory.of(
            self.collection,
            ("reviews",),
            lambda: standing_labels(reviews.all()),
            reviews.touched(),
        )

    def familiar(self) -> Familiar | None:
        """What tells a stranger from the collection's own; `None` where it holds too little."""
        return self.memory.of(
            self.collection, ("familiar",), self._fit_familiar, self.collection.cases.revision
        )

    def _fit_familiar(self) -> Familiar | None:
        """On a sample; where labels chose the axes, what is far is measured on items held out."""
        collection, patients = self.collection, self.patients()
        hashes = collection.rows.picture_hashes
        found = collection.store.scroll(None, SAMPLE).items
        if not found:
            return None
        adaptation = collection.label_axes
        if adaptation is None:
            groups = item_groups([one.item for one in found], patients, hashes)
            return fitted(np.stack([one.vector for one in found]), groups)
        entries = [entry for one in found if (entry := collection.rows.entry(one.item.id))]
        items, base = [one.item for one in entries], np.stack([one.vector for one in entries])
        held_out = HeldOut(adaptation, items, base, patients, hashes)
        try:
            return fitted(held_out.stored(), held_out.groups, held_out.vectors)
        except CannotFit:  # so few labels that their axes cannot be held out
            return None

    def fitted(self) -> tuple[Calibration, bool]:
        """As `calibration`, where there must be one.

        Raises:
            NoCalibration: it was not calibrated.
        """
        found, state = self.calibration(None)
        if found is None:
            raise NoCalibration(self.collection.name)
        return found, state == "stale"

    def _read_calibration(self) -> tuple[Calibration | None, bool]:
        collection = self.collection
        found = calibrations.read(collection.folder)
        stale = found is not None and (
            found.fingerprint != collection.card.fingerprint
            or found.items != self.count()
            or found.digest != content_digest(collection.folder)
            or found.patients != patients_digest(self.patients())
        )
        return found, stale

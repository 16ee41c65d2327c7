"""What the service does, without HTTP: questions in, answers out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoder.card import EncoderCard
from encoder.contract import Encoder
from encoder.registry import load
from encoder.stains.stained import as_carded
from search.cases.similar import case_facts, fit_prototypes, similar_cases
from search.disk.atomic import write_durably
from search.errors import BadQuestion, NoCalibration, NoSuchCollection, NoSuchItem, StoreError
from search.evaluation import kept as evaluations
from search.index.contract import Vectors, need_same_encoder
from search.library.collection import Collection
from search.library.contents import content_digest
from search.library.jobs import Jobs
from search.library.library import Library, embedded, on_server
from search.library.served import Holding
from search.library.sources import PlainImages, ReadPixels
from search.neighbours.duplicates import Hashes, PictureHash
from search.query.answer import answer
from search.query.caveats import cut
from search.query.facets import facet
from search.schemas.answers import Answer, VoteAnswer
from search.schemas.calibration import Calibration, CalibrationPlan
from search.schemas.cases import CaseAnswer, CaseFacts, CaseQuestion
from search.schemas.comparisons import PairedResult
from search.schemas.evaluations import EvaluationPlan, EvaluationRecord, ItemAnswers
from search.schemas.filters import Filter
from search.schemas.items import Item, Keyword
from search.schemas.questions import BagField, Question, Refinement, Weighting
from search.settings import Settings
from search.votes import calibration as calibrations
from search.votes.judgement import judged
from search.votes.knn import vote

REMEMBERED = 1000
"""Counts under different filters that are remembered."""
FITTED = 16
"""Sets of prototypes that are remembered."""


class Service:
    """A library that is held, and the encoders that its collections need.

    Safe to call from many threads.
    """

    def __init__(
        self,
        library: Library,
        settings: Settings,
        load_encoder: Callable[[str], Encoder] | None = None,
        read_pixels: ReadPixels | None = None,
    ) -> None:
        self.settings = settings
        self.read_pixels = read_pixels or PlainImages()
        """Reads stored items again."""
        self.library = library
        self._load = load_encoder or (lambda id: load(id, device=settings.device))
        self._encoders: dict[str, Encoder] = {}
        self._collections = Holding(library, self._prepare)
        self._opening = threading.RLock()
        self._loading = threading.Lock()
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._site_counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._calibrations: dict[str, tuple[tuple[int, int], Calibration | None, bool]] = {}
        self._prototypes: OrderedDict[tuple[str, int, str], Vectors] = OrderedDict()
        self._hashes = Hashes()
        self.jobs = Jobs(library.folder / "jobs")
        for name in library.names():
            self.collection(name)

    @classmethod
    def open(cls, settings: Settings, read_pixels: ReadPixels | None = None) -> Service:
        """Open the library that the settings name, and hold all of its collections.

        `read_pixels` reads stored items again; `None` reads plain images alone.

        Raises:
            StoreBusy: another process holds one of them.
        """
        if settings.qdrant_url:
            key = settings.qdrant_api_key
            make = on_server(settings.qdrant_url, key.get_secret_value() if key else None)
        else:
            make = embedded
        return cls(Library.open(settings.library, make), settings, read_pixels=read_pixels)

    def close(self) -> None:
        """Stop the jobs and release every collection."""
        self.jobs.close()
        with self._opening:
            for collection in self._collections.values():
                collection.close()
            self._collections.clear()

    def collection(self, name: str | None = None) -> Collection:
        """A collection by name, or the default one.

        Raises:
            NoSuchCollection: it does not exist.
        """
        wanted = name or self.settings.collection
        with self._opening:
            held = self._collections.get(wanted)
            if held is None:
                names = self.library.names()
                if name is None and wanted not in names and len(names) == 1:
                    return self.collection(names[0])
                held = self._collections[wanted] = self.library.collection(wanted)
            return held

    def create(self, name: str, card: EncoderCard, encoder: str = "") -> Collection:
        """A collection for an encoder: made if it is new, held if it is there.

        `encoder` is what loads it, where that is not the card's id.

        Raises:
            WrongEncoder: it belongs to another encoder.
        """
        with self._opening:
            held = self._collections.get(name)
            if held is None:
                held = self._collections[name] = self.library.create(name, card, encoder)
            else:
                need_same_encoder(name, held.card, card)
            return held

    def names(self) -> list[str]:
        """The collections."""
        return self.library.names()

    def count(self, collection: Collection) -> int:
        """How many items a collection holds; remembered until something is written."""
        held = self._counts.get(collection.key)
        if held is None:
            held = self._counts[collection.key] = collection.store.count()
        return held

    def written(self, collection: Collection) -> None:
        """Forget what was remembered of a collection, after a write."""
        name = collection.key
        self._counts.pop(name, None)
        self._calibrations.pop(name, None)
        self._hashes.forget(name)
        for key in [key for key in self._site_counts if key[0] == name]:
            self._site_counts.pop(key, None)

    def follow(self, name: str) -> Collection:
        """The version that serves now, held when this returns: for whoever just switched it."""
        return self._collections.follow(name)

    def _prepare(self, collection: Collection) -> None:
        """Load the encoder of a version before it is served, where one was needed before it."""
        if self._encoders and collection.card.fingerprint not in self._encoders:
            encoder = self._loaded(collection)  # seconds; nobody waits for this
            if encoder.card.fingerprint == collection.card.fingerprint:
                self._encoders[encoder.card.fingerprint] = encoder

    def encoder(self, collection: Collection) -> Encoder:
        """The encoder of a collection, loaded when it is first needed.

        Raises:
            WrongEncoder: the one installed here under that name makes other vectors.
            NoSuchNormaliser: its images went through a normalisation that is not installed.
        """
        card = collection.card
        with self._loading:  # takes seconds; questions that need no encoder go on meanwhile
            held = self._encoders.get(card.fingerprint)
            if held is None:
                held = self._loaded(collection)
                need_same_encoder("of this query", card, held.card)
                self._encoders[card.fingerprint] = held
            return held

    def preload(self) -> None:
        """Load the encoder of the default collection, if there is one and it is installed.

        Raises:
            EncoderError, StoreError: it cannot be loaded; whoever needs it is told the same.
        """
        if self.names():
            self.encoder(self.collection()).embed([np.zeros((64, 64, 3), np.uint8)])

    def _loaded(self, collection: Collection) -> Encoder:
        """What makes the vectors of a collection: the encoder, after its stain normalisation."""
        return as_carded(self._load(collection.reference), collection.card)

    def search(self, question: Question, image: bytes | None = None) -> Answer:
        """The neighbours of an image, a stored item or a vector.

        Raises:
            BadQuestion: not exactly one of image, item and vector; a vector without the
                fingerprint of its encoder; or two of group_by, mmr and balance at once.
            NoSuchCollection, NoSuchItem, WrongEncoder, ImageError, BadVector: as they say.
        """
        return answer(self, question, image)

    def refine(self, refinement: Refinement, image: bytes | None = None) -> Answer:
        """`search` with examples of what the hits should and should not resemble, or by a region.

        Raises:
            BadQuestion: neither a query nor an example under `like`; a region without an image,
                over its border, or of an encoder without patch tokens.
        """
        return self.search(refinement, image)

    def vote(
        self,
        question: Question,
        image: bytes | None = None,
        weighting: Weighting = "similarity",
        temperature: float = 0.07,
    ) -> VoteAnswer:
        """The label that the neighbours of a query carry, and whether to show it."""
        answered = self.search(question, image)
        found = vote(answered.hits, weighting, temperature)
        fitted, stale = self._calibration(self.collection(answered.collection))
        return judged(question, found, answered, weighting, temperature, fitted, stale=stale)

    def similar_cases(self, question: CaseQuestion, images: Sequence[bytes] = ()) -> CaseAnswer:
        """The cases (slides, patients) whose cells look like the cells of one.

        Raises:
            BadQuestion: not exactly one of a stored case, items, vectors and images.
        """
        return similar_cases(self, question, images)

    def case(self, value: str, collection: str | None = None, by: BagField = "case") -> CaseFacts:
        """What there is of a case (or a slide, or a patient).

        Raises:
            NoSuchItem: no item belongs to it.
        """
        return case_facts(self.collection(collection), by, value)

    def calibrate(
        self, plan: CalibrationPlan | None = None, collection: str | None = None
    ) -> Calibration:
        """Fit the calibration of a collection on itself, and keep it with the collection.

        Raises:
            CannotCalibrate: too few labelled items.
        """
        held = self.collection(collection)
        digest = content_digest(held.folder)
        fitted = calibrations.calibrate(held.store, held.card, digest, plan or CalibrationPlan())
        calibrations.write(held.folder, fitted)
        self._calibrations.pop(held.key, None)
        return fitted

    def calibration(self, collection: str | None = None) -> tuple[Calibration, bool]:
        """The calibration of a collection, and whether the collection has changed since.

        Raises:
            NoSuchItem: it has none.
        """
        held = self.collection(collection)
        fitted, stale = self._calibration(held)
        if fitted is None:
            raise NoCalibration(held.name)
        return fitted, stale

    def evaluate(
        self, plan: EvaluationPlan | None = None, labelled: bytes | Path | None = None
    ) -> EvaluationRecord:
        """Queue an evaluation of a collection, or of an uploaded set; see `search.evaluation.kept`.

        Raises:
            BadSet: the set is neither a ZIP nor a shard.
        """
        content = labelled.read_bytes() if isinstance(labelled, Path) else labelled
        return evaluations.start(self, plan or EvaluationPlan(), content)

    def evaluation(self, id: str) -> EvaluationRecord:
        """An evaluation, as it stands; with its result where it is done.

        Raises:
            NoSuchItem: it is not known.
        """
        return evaluations.evaluation(self, id)

    def evaluations(self, collection: str | None = None) -> list[EvaluationRecord]:
        """The evaluations of a collection, or of all, oldest first, without their results."""
        return evaluations.evaluations(self, collection)

    def end_evaluation(self, id: str) -> EvaluationRecord:
        """Stop an evaluation that runs; forget one that has ended."""
        return evaluations.end(self, id)

    def paired(
        self, id: str, other: str, method: str, other_method: str | None = None
    ) -> PairedResult:
        """Two evaluations over the items that both asked; see
        `search.evaluation.comparison.paired`."""
        from search.evaluation.comparison import paired

        return paired(self, id, other, method, other_method)

    def evaluation_answers(self, id: str, method: str, **conditions: Any) -> ItemAnswers:
        """What single items were called; conditions as in `search.evaluation.kept.answers`."""
        return evaluations.answers(self, id, method, **conditions)

    def facet(
        self, field: Keyword, where: Filter, collection: str | None = None, limit: int = 100
    ) -> dict[str, int]:
        """Values of a field among the items that meet a filter, with their counts."""
        return facet(self.collection(collection).store, field, where, Filter(), limit)

    def picture_hash(self, collection: Collection, id: str) -> PictureHash | None:
        """The perceptual hash of a stored item's thumbnail; `None` if it has none."""
        return self._hashes.of(collection.key, id, collection.picture_hash)

    def site_counts(self, collection: Collection, where: Filter, site: str) -> tuple[int, int]:
        """Items of a site, and all items, that meet a filter; remembered until a write."""
        of_site = where.both(Filter(site=(site,)))
        return (
            0 if of_site is None else self._count(collection, of_site),
            self.count(collection) if where.empty else self._count(collection, where),
        )

    def prototypes(self, collection: Collection, n: int) -> Vectors:
        """Prototypes of a collection (n x dim), fitted when first needed and after each write."""
        key = (collection.key, n, content_digest(collection.folder))
        held = self._prototypes.get(key)
        if held is None:
            held = self._prototypes[key] = fit_prototypes(collection.store, n)
            while len(self._prototypes) > FITTED:
                self._prototypes.popitem(last=False)
        return held

    def _count(self, collection: Collection, where: Filter) -> int:
        key = (collection.key, where.model_dump_json(exclude_defaults=True))
        held = self._site_counts.get(key)
        if held is None:
            held = self._site_counts[key] = collection.store.count(where)
            while len(self._site_counts) > REMEMBERED:
                self._site_counts.popitem(last=False)
        return held

    def _calibration(self, collection: Collection) -> tuple[Calibration | None, bool]:
        touched = calibrations.touched(collection.folder)
        held = self._calibrations.get(collection.key)
        if held is None or held[0] != touched:
            fitted = calibrations.read(collection.folder)
            stale = fitted is not None and (
                fitted.fingerprint != collection.card.fingerprint
                or fitted.items != self.count(collection)
                or fitted.digest != content_digest(collection.folder)
            )
            held = self._calibrations[collection.key] = (touched, fitted, stale)
        return held[1], held[2]

    def item(self, id: str, collection: str | None = None) -> Item:
        """A stored item.

        Raises:
            NoSuchItem: it is not there.
        """
        held = self.collection(collection)
        found = held.store.get([id])
        if not found:
            raise NoSuchItem(id, held.name)
        return found[0].item

    def thumbnail(self, id: str, collection: str | None = None) -> bytes:
        """The JPEG of a stored item, as the encoder saw it, at most 160 pixels a side."""
        held = self.collection(collection)
        content = held.thumbnail(id)
        if content is None:
            raise NoSuchItem(id, held.name)
        return content

    def picture(self, id: str, collection: str | None = None) -> tuple[bytes, bool]:
        """The JPEG of a stored item cut from its source at full size, where that is still there.

        Returns:
            The JPEG, and whether it is from the source (else it is the thumbnail).
        """
        held = self.collection(collection)
        item = self.item(id, held.name)
        path = held.path(id)
        content = None
        if path is not None:
            content = cut(self.read_pixels, Path(path), item, held.notes(id))
        return (content, True) if content else (self.thumbnail(id, held.name), False)


def announce(settings: Settings, pid: int) -> Path:
    """Say in the library who serves it, so that an ingest can go through that service."""
    path = settings.library / "service.json"
    write_durably(path, f'{{"url": "{settings.url}", "pid": {pid}}}\n'.encode())
    return path


__all__ = ["BadQuestion", "NoSuchCollection", "NoSuchItem", "Service", "StoreError", "announce"]

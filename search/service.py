"""The service without HTTP: what it opens, keeps open, and closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoder.card import EncoderCard
from encoder.contract import Encoder
from encoder.registry import load
from encoder.stains.stained import as_carded
from search.disk.atomic import sweep, write_durably
from search.disk.space import DiskTrouble
from search.errors import CannotOpen, OtherEncoder, StoreBusy, StoreDown, StoreError
from search.index.contract import need_same_encoder
from search.library.collection import Collection
from search.library.indexes import stores_at
from search.library.jobs import Jobs
from search.library.library import Library
from search.library.served import OpenCollections
from search.library.source_folders import SourceFolders
from search.library.sources import PlainImages, ReadPixels
from search.library.versions import Versions
from search.maintenance.case_models import FOLDER as CASE_MODELS
from search.mil.learned import pooling
from search.mil.models import Models
from search.query.context import Context, Memory
from search.query.pictures import EstimateScale, MemoryBudget, Pictures
from search.settings import Settings
from search.transforms.encoder import AdaptedEncoder

if TYPE_CHECKING:
    from search.evaluation.kept import Evaluations

PROTOTYPES = 16
"""Sets of prototypes that are kept in memory."""


class Encoders:
    """The encoders of the open collections, each loaded once, when it is first needed."""

    def __init__(self, load: Callable[[str], Encoder]) -> None:
        self._load = load
        self._loaded: dict[str, Encoder] = {}
        self._turn = threading.Lock()

    def of(self, collection: Collection) -> Encoder:
        """What makes the vectors of a collection: normalisation, encoder, adaptation.

        Raises:
            WrongEncoder: the one installed here under that name makes other vectors.
            NoSuchNormaliser: its stain normalisation is not installed.
        """
        card = collection.card
        with self._turn:  # takes seconds; questions that need no encoder go on meanwhile
            found = self._loaded.get(card.fingerprint)
            if found is None:
                found = self._made(collection)
                if found.card.fingerprint != card.fingerprint:
                    raise OtherEncoder(collection.name, card.title, found.card.title)
                self._loaded[card.fingerprint] = found
            return found

    def prepare(self, collection: Collection) -> None:
        """Load the encoder of a version before it serves, if the version before needed one."""
        card = collection.card
        if self._loaded and card.fingerprint not in self._loaded:
            found = self._made(collection)  # seconds; nobody waits
            if found.card.fingerprint == card.fingerprint:
                self._loaded[card.fingerprint] = found

    def _made(self, collection: Collection) -> Encoder:
        base = as_carded(self._load(collection.reference), collection.base)
        adaptation = collection.adaptation
        return base if adaptation is None else AdaptedEncoder(base, adaptation)


@dataclass(frozen=True)
class FromAbove:
    """What parts above the service do for it."""

    read_pixels: ReadPixels
    """Reads the pixels of stored items again."""
    estimate_scale: EstimateScale | None = None
    """Estimates the scale of an uploaded picture from its red cells; `None` estimates none."""


class Service:
    """An open library: its collections, their encoders, its jobs and evaluations.

    Safe to use from many threads. Features take a `Context` of it.
    """

    def __init__(
        self,
        library: Library,
        settings: Settings,
        load_encoder: Callable[[str], Encoder] | None = None,
        above: FromAbove | None = None,
    ) -> None:
        self.library = library
        self.settings = settings
        self.above = above or FromAbove(PlainImages(SourceFolders.of(settings)))
        self.encoders = Encoders(load_encoder or (lambda id: load(id, device=settings.device)))
        self.jobs = Jobs(library.folder / "jobs")
        self.models = Models(library.folder / CASE_MODELS)
        self._evaluations: Evaluations | None = None
        self.pictures = Pictures(
            MemoryBudget(settings.picture_bytes),
            int(settings.max_megapixels * 1e6),
            int(settings.max_call_megapixels * 1e6),
        )
        sweep(library.folder)
        self.models.sweep()
        for folder in (library.folder / "collections").glob("*"):
            with suppress(StoreError, OSError):  # said when it is opened
                Versions(folder).drop_abandoned()
        self._memory, self._prototypes = Memory(), Memory(PROTOTYPES)
        self._collections = OpenCollections(library, self.encoders.prepare)
        self._opening = threading.RLock()
        self.set_aside: dict[str, str] = {}
        """Collections that cannot be opened, and why; the others answer."""
        for name in library.names():
            self._try_to_open(name)

    @property
    def evaluations(self) -> Evaluations:
        """Its evaluations; what killed ones left is removed as they are first asked for."""
        from search.evaluation.kept import Evaluations  # a search need not wait for its import

        with self._opening:
            if self._evaluations is None:
                folder = self.library.folder / "evaluations"
                self._evaluations = Evaluations(folder, self.jobs, self.context)
                self._evaluations.sweep()
            return self._evaluations

    def _try_to_open(self, name: str) -> None:
        try:
            self.collection(name)
        except (StoreBusy, StoreDown, DiskTrouble):  # nothing is wrong with the collection
            raise
        except Exception as error:  # whatever damaged files raise, it must not stop the others
            self.set_aside[name] = f"{type(error).__name__}: {error}"

    @classmethod
    def open(cls, settings: Settings, above: FromAbove | None = None) -> Service:
        """Open the library that the settings name, with all of its collections.

        `above` is what parts above this one do for it; `None` reads plain images alone.

        Raises:
            StoreBusy: another process has one of them open.
        """
        make = stores_at(settings.qdrant_url, settings.qdrant_api_key)
        return cls(Library.open(settings.library, make), settings, above=above)

    def close(self) -> None:
        """Stop the jobs and close every collection."""
        self.jobs.close()
        with self._opening:
            for collection in self._collections.values():
                collection.close()
            self._collections.clear()

    def collection(self, name: str | None = None) -> Collection:
        """The version of a collection that serves now, by name; or that of the default one.

        Raises:
            NoSuchCollection: it does not exist.
            CannotOpen: its files are damaged.
        """
        wanted = name or self.default()
        if wanted in self.set_aside:
            raise CannotOpen(wanted)
        with self._opening:
            found = self._collections.get(wanted)
            if found is None:
                found = self._collections[wanted] = self.library.collection(wanted)
            return found

    def names(self) -> list[str]:
        """The collections that can be opened, in alphabetical order."""
        return [name for name in self.library.names() if name not in self.set_aside]

    def default(self) -> str:
        """The collection that is meant where none is named: by the settings, or the only one."""
        name = self.settings.collection
        if self._collections.get(name) is not None:
            return name
        names = self.names()
        return names[0] if name not in names and len(names) == 1 else name

    def context(self, name: str | None = None) -> Context:
        """What a question about a collection needs; see `collection`.

        Raises:
            NoSuchCollection: it does not exist.
        """
        collection = self.collection(name)
        return Context(
            collection=collection,
            settings=self.settings,
            load=self.encoders.of,
            read_pixels=self.above.read_pixels,
            estimate_scale=self.above.estimate_scale,
            memory=self._memory,
            pictures=self.pictures.for_card(collection.card),
            prototypes=self._prototypes,
            learned=lambda id: pooling(self.models.open(id, collection.name), collection.card),
        )

    def create(self, name: str, card: EncoderCard, encoder: str = "") -> Context:
        """A collection for an encoder: made if it is new, opened if it is there.

        `encoder` is what loads it, where that is not the card's id.

        Raises:
            WrongEncoder: it belongs to another encoder.
        """
        with self._opening:
            found = self._collections.get(name)
            if found is None:
                self._collections[name] = self.library.create(name, card, encoder)
            else:
                need_same_encoder(name, found.base, card)
        return self.context(name)

    def follow(self, name: str) -> None:
        """Return when the version that was just switched to serves here as well."""
        self._collections.follow(name)

    def preload(self) -> None:
        """Load the encoder of the default collection, if there is one and it is installed.

        Raises:
            EncoderError, StoreError: it cannot be loaded; questions that need it fail alike.
        """
        if self.names():
            self.context().encoder().embed([np.zeros((64, 64, 3), np.uint8)])


def announce(settings: Settings, pid: int) -> Path:
    """Write into the library who serves it, so that an ingest can go through that service."""
    path = settings.library / "service.json"
    write_durably(path, f'{{"url": "{settings.url}", "pid": {pid}}}\n'.encode())
    return path

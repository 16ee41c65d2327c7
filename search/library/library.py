"""A library on disk: collections, each with its shards, its catalogue and its index."""

from __future__ import annotations

import os
import re
from pathlib import Path

from encoder.card import EncoderCard
from search.disk.space import in_disk_words, need_room
from search.errors import NoSuchCollection, StoreError
from search.index.contract import IndexSettings, need_same_encoder
from search.library.collection import Collection
from search.library.indexes import Stores, embedded
from search.library.versions import Versions
from search.transforms.adaptation import Adaptation

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
"""What a collection may be called."""


class Library:
    """A folder with collections. It opens a collection when it is first needed."""

    def __init__(self, folder: Path, stores: Stores = embedded) -> None:
        self.folder = folder
        self.stores = stores

    @classmethod
    def open(cls, folder: Path, stores: Stores = embedded) -> Library:
        """Open a library, making its folder if need be.

        Raises:
            StoreError: the path is a file, or cannot be written.
        """
        try:
            (folder / "collections").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot keep a library in {folder}: {error.strerror}") from error
        if not os.access(folder / "collections", os.W_OK):  # even reading holds locks in it
            raise StoreError(
                f"cannot keep a library in {folder}: it may not be written; make the disk "
                "writable, give this user the permission, or work on a copy"
            )
        return cls(folder, stores)

    def names(self) -> list[str]:
        """The collections, in alphabetical order."""
        found = (self.folder / "collections").glob("*")
        return sorted(path.name for path in found if Versions(path).exists)

    def versions(self, name: str) -> Versions:
        """The versions of a collection.

        Raises:
            NoSuchCollection: it does not exist.
        """
        versions = Versions(self._path(name))
        if not versions.exists:
            raise NoSuchCollection(name, self.names())
        return versions

    def card(self, name: str) -> EncoderCard:
        """The encoder card of the served version of a collection, without opening its index."""
        return self.versions(name).current().card

    def base(self, name: str) -> EncoderCard:
        """The card of the encoder whose vectors its shards hold: that before an adaptation."""
        versions = self.versions(name)
        current = versions.current()
        adaptation = Adaptation.read(versions.path(current.id), current.card)
        return current.card if adaptation is None else adaptation.base

    def reference(self, name: str) -> str:
        """How the encoder of a collection is loaded: the name or folder given when it was made."""
        return self.versions(name).current().encoder

    def create(
        self, name: str, card: EncoderCard, encoder: str = "", index: IndexSettings | None = None
    ) -> Collection:
        """A collection for an encoder: made if it is new, opened if it is there.

        Args:
            name: What to call it.
            card: Card of the encoder, loaded.
            encoder: What loads it again, where that is not the card's id: a folder, say.
            index: Of the search graph of a new collection.

        Raises:
            WrongEncoder: it is there and belongs to another encoder.
            StoreBusy: another process has it open.
        """
        if not NAME.fullmatch(name):
            raise StoreError(
                f"a collection cannot be called {name!r}: use 1 to 63 of a-z 0-9 _ . -, "
                "starting with a letter or digit"
            )
        versions = Versions(self._path(name))
        if not versions.exists:
            need_room(self.folder)
            with in_disk_words(self.folder):
                versions.folder.mkdir(parents=True, exist_ok=True)
                with versions.writing():
                    if not versions.exists:
                        first = versions.begin(card, encoder, index=index, state="ready")
                        versions.point(first.id, "created")
        return self.collection(name, card)

    def collection(self, name: str, card: EncoderCard | None = None) -> Collection:
        """Open the served version of a collection; with a card, only if it is that encoder's."""
        versions = self.versions(name)
        served = versions.current()
        if card is not None:
            need_same_encoder(name, self.base(name), card)
        versions.finish_interrupted()
        return Collection(versions, served, self.stores)

    def served(self, name: str, id: str) -> Collection:
        """Open a version that was the served one a moment ago: it is written to only if it is."""
        versions = self.versions(name)
        versions.finish_interrupted()
        return Collection(versions, versions.get(id), self.stores)

    def version(self, name: str, id: str) -> Collection:
        """Open a version that is not the served one, to build or to compare it."""
        versions = self.versions(name)
        versions.finish_interrupted()
        return Collection(versions, versions.get(id), self.stores, aside=True)

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise NoSuchCollection(name, self.names())
        return self.folder / "collections" / name

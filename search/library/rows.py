"""Single items, as the shards and the catalogue have them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from encoder.card import EncoderCard
from search.library.catalogue import Catalogue
from search.library.shards import Entry, Shard
from search.neighbours.duplicates import PictureHash, hashes_of

OPEN = 64
"""Shards that stay open."""


class ShardRows:
    """Rows of a version's shards, by id of the item. Safe to use from many threads."""

    def __init__(self, folder: Path, card: EncoderCard, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._open = lru_cache(maxsize=OPEN)(lambda name: Shard(folder / name, card))

    def entry(self, id: str) -> Entry | None:
        """All of an item: facts, vector, thumbnail, path and notes; `None` if not stored."""
        place = self._catalogue.place(UUID(id).bytes)
        return None if place is None else self._open(place[0]).entry(place[1])

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG of an item; `None` if it is not stored."""
        place = self._catalogue.place(UUID(id).bytes)
        return None if place is None else self._open(place[0]).thumbnail(place[1])

    def picture_hash(self, id: str) -> PictureHash | None:
        """The perceptual hash of an item's thumbnail; `None` if there is nothing to compare."""
        kept = self._catalogue.picture(UUID(id).bytes)
        if kept is not None:
            return PictureHash.from_bytes(kept) if kept else None
        content = self.thumbnail(id)  # a catalogue from before hashes were kept
        return hashes_of([content])[0] if content else None

    def picture_hashes(self, ids: Sequence[str]) -> list[PictureHash | None]:
        """The perceptual hashes that are kept of many items; `None` where there is none."""
        kept = self._catalogue.pictures([UUID(id).bytes for id in ids])
        found = (kept.get(UUID(id).bytes) for id in ids)
        return [PictureHash.from_bytes(one) if one else None for one in found]

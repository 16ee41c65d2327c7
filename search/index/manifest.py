"""What a folder says about the collection in it: `collection.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from encoder.card import CardError, EncoderCard
from search.errors import NoSuchCollection, StoreError
from search.index.contract import IndexSettings

FORMAT = 1
"""Version of the folder's layout."""


@dataclass(frozen=True)
class Manifest:
    """What `collection.json` says about a folder."""

    name: str
    card: EncoderCard
    index: IndexSettings
    shard: str
    """Name of the folder inside that holds the points."""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it, without opening the points.

        Raises:
            NoSuchCollection: there is none; names those beside it.
            StoreError: it cannot be read, or was written by a newer version.
        """
        path = folder / "collection.json"
        if not path.exists():
            raise NoSuchCollection(folder.name, collections(folder.parent))
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise StoreError(
                    f"{path} has format {facts['format']}, this version reads {FORMAT}; "
                    "ingest again into a new collection"
                )
            card = EncoderCard.from_json(json.dumps(facts["card"]), str(path))
            return cls(facts["name"], card, IndexSettings(**facts["index"]), facts["shard"])
        except (KeyError, TypeError, ValueError, CardError) as error:
            raise StoreError(
                f"{path} cannot be read: {error!r}; restore it or ingest again"
            ) from error

    def write(self, folder: Path) -> None:
        """Write it whole or not at all: beside, fsynced, then renamed."""
        facts = {
            "format": FORMAT,
            "name": self.name,
            "shard": self.shard,
            "index": asdict(self.index),
            "card": json.loads(self.card.to_json()),
        }
        path, beside = folder / "collection.json", folder / "collection.json.part"
        with beside.open("w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def collections(folder: Path) -> list[str]:
    """Names of the folders inside a folder that hold a collection, in order."""
    return sorted(path.parent.name for path in folder.glob("*/collection.json"))

"""The description of the index in a folder: `index.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from encoder.card import CardError, EncoderCard
from search.disk.atomic import write_durably
from search.errors import NoSuchCollection, StoreError
from search.index.contract import IndexSettings

FORMAT = 1
"""Version of the folder's layout."""
NAME = "index.json"
EARLIER_NAME = "collection.json"
"""How earlier versions called the file; it is read until a build writes the new one."""


@dataclass(frozen=True)
class Manifest:
    """The content of `index.json`."""

    name: str
    card: EncoderCard
    index: IndexSettings
    shard: str
    """Name of the folder inside that holds the points."""

    @staticmethod
    def there(folder: Path) -> bool:
        """Whether a folder has one."""
        return (folder / NAME).exists() or (folder / EARLIER_NAME).exists()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it, without opening the points.

        Raises:
            NoSuchCollection: there is none; names those beside it.
            StoreError: it cannot be read, or was written by a newer version.
        """
        if not cls.there(folder):
            beside = sorted(path.name for path in folder.parent.glob("*") if cls.there(path))
            raise NoSuchCollection(folder.name, beside)
        path = folder / NAME
        if not path.exists():
            path = folder / EARLIER_NAME
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
        """Write it whole or not at all."""
        facts = {
            "format": FORMAT,
            "name": self.name,
            "shard": self.shard,
            "index": asdict(self.index),
            "card": json.loads(self.card.to_json()),
        }
        write_durably(folder / NAME, json.dumps(facts, indent=2).encode())
        (folder / EARLIER_NAME).unlink(missing_ok=True)

"""The items that the shards of a version contain together, and where each lies."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import filter as matching
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from encoder.card import EncoderCard
from search.index.contract import Vectors
from search.library.shards import Entry, Shard, ShardError
from search.schemas.items import Item
from search.transforms.adaptation import Adaptation


class Row(NamedTuple):
    """Where a living item lies."""

    digest: str
    """Of its payload."""
    shard: str
    """Name of the file."""
    row: int


class Truth:
    """The living items of one folder of shards.

    Later shards go over earlier ones, and tombstones remove. It holds ids and digests, about
    250 bytes for an item, and reads the rest on demand. `refresh` reads only what came since,
    so it can follow a version that is written to.
    """

    def __init__(
        self, folder: Path, card: EncoderCard, adaptation: Adaptation | None = None
    ) -> None:
        """Use `read`."""
        self.folder = folder
        self.card = card
        """Of the vectors that `table` gives."""
        self.base = card if adaptation is None else adaptation.base
        """Of the vectors in the shards, which `entries` gives."""
        self._adaptation = adaptation
        self.rows: dict[bytes, Row] = {}
        """Id (16 bytes) to place."""
        self.removed: set[bytes] = set()
        """Ids that were removed and did not come again."""
        self._seen: set[str] = set()

    @classmethod
    def read(cls, version: Path, card: EncoderCard) -> Truth:
        """The living items of a version, from its folder."""
        truth = cls(version / "shards", card, Adaptation.read(version, card))
        truth.refresh()
        return truth

    def refresh(self) -> None:
        """Read the shards that came since the last time."""
        for name in shard_files(self.folder):
            if name in self._seen:
                continue
            shard = self.open(name)
            if shard.tombstone:
                for id in shard.removed():
                    self.rows.pop(id, None)
                    self.removed.add(id)
            else:
                for row, (id, digest) in enumerate(shard.digests()):
                    self.rows[id] = Row(digest, name, row)
                    self.removed.discard(id)
            self._seen.add(name)

    def open(self, name: str) -> Shard:
        """One of its shards."""
        return Shard(self.folder / name, self.base, self._adaptation)

    def entries(self, ids: Sequence[bytes]) -> Iterator[Entry]:
        """Everything about some living items, shard by shard."""
        for name, some in self.by_shard(ids).items():
            yield from self.open(name).entries([self.rows[id].row for id in some])

    def by_shard(self, ids: Sequence[bytes]) -> dict[str, list[bytes]]:
        """Ids in runs that lie in one shard, each in order of row."""
        found: dict[str, list[bytes]] = defaultdict(list)
        for id in sorted(ids, key=lambda id: self.rows[id][1:]):
            found[self.rows[id].shard].append(id)
        return dict(found)

    def table(self, *, stored: bool = False) -> tuple[list[bytes], list[Item], Vectors]:
        """Ids, items and vectors (n x dim) of everything that lives, in order of id.

        Args:
            stored: Give the vectors as the encoder made them (n x `base.dim`), not adapted.
        """
        ids: list[bytes] = []
        items: list[Item] = []
        parts: list[Vectors] = [np.empty((0, (self.base if stored else self.card).dim), np.float32)]
        for name, some in self.by_shard(list(self.rows)).items():
            shard = self.open(name)
            rows = [self.rows[id].row for id in some]
            all_items = shard.items()
            ids += some
            items += [all_items[row] for row in rows]
            parts.append((shard.stored_vectors() if stored else shard.vectors())[rows])
        order = sorted(range(len(ids)), key=ids.__getitem__)
        vectors = np.concatenate(parts)[order]
        return [ids[at] for at in order], [items[at] for at in order], vectors

    def damaged(self) -> list[str]:
        """The shards whose bytes are not those that were written."""
        return [
            name
            for name in shard_files(self.folder)
            if sha256((self.folder / name).read_bytes()).hexdigest()[:16] != hash_in(name)
        ]


def shard_files(folder: Path) -> list[str]:
    """The shards of a folder, in the order that they were written."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - asked by every question, and paths take long
    except FileNotFoundError:
        return []
    return sorted(matching(names, "[0-9]*.parquet"))


def shard_name(seq: int, content: bytes) -> str:
    """What the shard of a number is called; its hash is part of the name."""
    return f"{seq:08d}-{sha256(content).hexdigest()[:16]}.parquet"


def hash_in(name: str) -> str:
    """The hash that the name of a shard carries.

    Raises:
        ShardError: it was not named by `shard_name`.
    """
    seq, dash, rest = name.partition("-")
    if not (dash and seq.isdecimal() and rest.endswith(".parquet")):
        raise ShardError(f"{name} is not named as a shard is")
    return rest.removesuffix(".parquet")


def content_digest(folder: Path) -> str:
    """Sixteen hex digits that change with every write to a collection: of its shards' names."""
    return sha256("\n".join(shard_files(folder / "shards")).encode()).hexdigest()[:16]

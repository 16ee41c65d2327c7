"""Parquet shards of embeddings: the truth from which every index can be rebuilt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB
from search.index.contract import checked_vectors, need_same_encoder
from search.schemas.items import Box, Item
from search.transforms.adaptation import Adaptation

ROW_GROUP = 128
"""Rows that are read together when one thumbnail is wanted."""
TOMBSTONE = b"hemaseek.removed"
"""Key in the metadata of a shard that holds no items but the ids of removed ones."""
THUMBNAIL_PX = 160
"""Longest side of a thumbnail, in pixels."""
TEXTS = (
    "kind",
    "dataset",
    "source",
    "um_per_px_origin",
    "label",
    "case",
    "patient",
    "site",
    "stain",
    "scanner",
)
"""The columns of text."""


class ShardError(ValueError):
    """A shard that is damaged or of another make."""


@dataclass(frozen=True)
class Entry:
    """One row of a shard: everything that is known of one item."""

    item: Item
    vector: NDArray[np.float32]
    """Length dim; normalised when the shard is written."""
    thumbnail: bytes
    """JPEG of what the encoder saw."""
    path: str | None = None
    """The file it came from; for the operator, never sent to a client."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks of the ingest, for instance the padded share of a crop at the border."""


def payload_digest(item: Item) -> str:
    """Sixteen hex digits that change when anything about an item changes."""
    return sha256(item.model_dump_json().encode()).hexdigest()[:16]


def make_thumbnail(image: RGB) -> bytes:
    """A JPEG of an image, its longest side at most `THUMBNAIL_PX`, without metadata."""
    import simplejpeg  # reading a shard needs none of it

    shrunk = np.ascontiguousarray(_shrunk(image, THUMBNAIL_PX))
    return bytes(simplejpeg.encode_jpeg(shrunk, 88, "RGB", "420", fastdct=False))


def _shrunk(image: RGB, side: int) -> RGB:
    """An image whose longest side is at most `side`: whole pixels averaged, then by less than 2.

    An eighth of the time of Pillow's filters for a cell of 224 pixels, and as near to Lanczos.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return image
    import cv2

    by = longest // side
    tall, wide = max(1, height // by), max(1, width // by)
    whole = image[: tall * by, : wide * by]  # up to `by` - 1 pixels of the last edges are left out
    averaged = cv2.resize(whole, (wide, tall), interpolation=cv2.INTER_AREA) if by > 1 else image
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    shrunk: RGB = cv2.resize(averaged, size, interpolation=cv2.INTER_LINEAR)
    return shrunk


def schema(card: EncoderCard) -> pa.Schema:
    """The columns of a shard of one encoder; the card travels in the schema's metadata."""
    return pa.schema(
        [
            ("id", pa.binary(16)),
            *((name, pa.string()) for name in TEXTS),
            *((f"bbox_{side}", pa.int32()) for side in "xywh"),
            ("um_per_px", pa.float64()),
            ("acquired", pa.date32()),
            ("digest", pa.string()),
            ("path", pa.string()),
            ("notes", pa.string()),
            ("thumbnail", pa.binary()),
            ("vector", pa.list_(pa.float32(), card.dim)),
        ],
        metadata={b"hemaseek.card": card.to_json().encode(), b"hemaseek.format": b"1"},
    )


def _columns(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """All but the vectors, by name of the column."""
    items = [entry.item for entry in entries]
    boxes = [item.bbox for item in items]
    return {
        "id": [UUID(item.id).bytes for item in items],
        **{
            name: [getattr(item, name) for item in items]
            for name in (*TEXTS, "um_per_px", "acquired")
        },
        **{
            f"bbox_{side}": [None if box is None else getattr(box, side) for box in boxes]
            for side in "xywh"
        },
        "digest": [payload_digest(item) for item in items],
        "path": [entry.path for entry in entries],
        "notes": [
            json.dumps(dict(entry.notes), sort_keys=True) if entry.notes else None
            for entry in entries
        ],
        "thumbnail": [entry.thumbnail for entry in entries],
    }


def make_table(entries: Sequence[Entry], card: EncoderCard) -> pa.Table:
    """Entries as an Arrow table.

    Raises:
        BadVector: a vector that is not finite, is zero, or has another length.
    """
    if not entries:
        raise ShardError("a shard needs at least one entry, got none")
    vectors = checked_vectors(np.stack([entry.vector for entry in entries]), card.dim)
    values = _columns(entries)
    layout = schema(card)
    columns = [
        pa.array(values[name], layout.field(name).type) for name in layout.names if name != "vector"
    ]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), card.dim))
    return pa.Table.from_arrays(columns, schema=layout)


def make_shard_bytes(entries: Sequence[Entry], card: EncoderCard) -> bytes:
    """Entries as the bytes of a shard; equal entries give equal bytes."""
    table = make_table(entries, card)
    out = BytesIO()
    plain = {"thumbnail", "vector", "id"}  # JPEGs and floats do not compress
    pq.write_table(
        table,
        out,
        row_group_size=ROW_GROUP,
        compression={name: "none" if name in plain else "zstd" for name in table.column_names},
        use_dictionary=[*TEXTS, "path"],
        write_statistics=[*TEXTS, "um_per_px", "acquired"],
    )
    return out.getvalue()


def make_tombstone_bytes(ids: Sequence[str], card: EncoderCard) -> bytes:
    """A shard that names which items of the shards before it are gone."""
    if not ids:
        raise ShardError("a tombstone needs at least one id, got none")
    metadata = dict(schema(card).metadata) | {TOMBSTONE: b"1"}
    rows = [UUID(id).bytes for id in sorted(set(ids))]
    out = BytesIO()
    layout = pa.schema([("id", pa.binary(16))], metadata=metadata)
    pq.write_table(pa.table([pa.array(rows, pa.binary(16))], schema=layout), out)
    return out.getvalue()


class Shard:
    """One shard, opened for reading. Safe to use from several threads, which take turns.

    Raises:
        ShardError: not a shard, damaged, or of an unknown format.
        WrongEncoder: of another encoder than `card`.
    """

    def __init__(
        self,
        source: Path | bytes,
        card: EncoderCard | None = None,
        adaptation: Adaptation | None = None,
    ) -> None:
        """Open a shard.

        Args:
            source: A file, or its bytes.
            card: Of the encoder whose vectors it must hold; `None` for any.
            adaptation: What its vectors go through as `vectors` gives them; what is stored, and
                what `entries` gives, are those of the encoder.
        """
        self._adaptation = adaptation
        self.name = source.name if isinstance(source, Path) else "the uploaded shard"
        self._turn = Lock()  # two reads of one open file at once kill the process
        try:
            self._file = pq.ParquetFile(source if isinstance(source, Path) else BytesIO(source))
        except (pa.ArrowException, OSError) as error:
            raise ShardError(f"{self.name} is not a Parquet file or is damaged: {error}") from error
        metadata = self._file.schema_arrow.metadata or {}
        if metadata.get(b"hemaseek.format") != b"1":
            raise ShardError(f"{self.name} is a Parquet file, but not a shard of embeddings")
        self.card = EncoderCard.from_json(metadata[b"hemaseek.card"].decode(), self.name)
        if card is not None:
            need_same_encoder(self.name, self.card, card)

        self.tombstone = TOMBSTONE in metadata

    @property
    def columns(self) -> pa.Schema:
        """The columns of the file."""
        return self._file.schema_arrow

    @property
    def rows(self) -> int:
        """How many items it holds, or removes."""
        return int(self._file.metadata.num_rows)

    def removed(self) -> list[bytes]:
        """The ids (16 bytes) that a tombstone removes; none for a shard of items."""
        return list(self._read(["id"])["id"].to_pylist()) if self.tombstone else []

    def digests(self) -> list[tuple[bytes, str]]:
        """Id (16 bytes) and payload digest of each row, in order."""
        table = self._read(["id", "digest"])
        return list(zip(table["id"].to_pylist(), table["digest"].to_pylist(), strict=True))

    def items(self) -> list[Item]:
        """Every item, in order."""
        names = ["id", *TEXTS, *(f"bbox_{side}" for side in "xywh"), "um_per_px", "acquired"]
        return [item_of(row) for row in self._read(names).to_pylist()]

    def vectors(self) -> NDArray[np.float32]:
        """Every vector, n x dim, in order, adapted where the shard has an adaptation."""
        adaptation = self._adaptation
        if adaptation is None:
            return self.stored_vectors()
        sites = self._read([adaptation.field])[adaptation.field].to_pylist()
        words = np.array([site or "" for site in sites], np.str_)
        return checked_vectors(adaptation.apply(self.stored_vectors(), words), adaptation.dim)

    def stored_vectors(self) -> NDArray[np.float32]:
        """Every vector as the encoder made it, n x dim, in order."""
        return vectors_of(self._read(["vector"])["vector"], self.card.dim)

    def notes(self) -> list[dict[str, str]]:
        """The remarks on every item, in order."""
        return [
            json.loads(one) if one else {} for one in self._read(["notes"])["notes"].to_pylist()
        ]

    def thumbnails(self) -> list[bytes]:
        """Every thumbnail, in order."""
        found: list[bytes] = self._read(["thumbnail"])["thumbnail"].to_pylist()
        return found

    def entries(self, rows: Sequence[int] | None = None) -> Iterator[Entry]:
        """Rows whole, in the given order; every one if none is named."""
        table = self._read(_whole(self.card))
        if rows is not None:
            table = table.take(pa.array(rows, pa.int64()))
        vectors = vectors_of(table["vector"], self.card.dim)
        for row, vector in zip(table.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
            yield _entry(row | {"vector": vector})

    def entry(self, row: int) -> Entry:
        """One row whole, reading only its row group."""
        return _entry(self._row(row, _whole(self.card)))

    def thumbnail(self, row: int) -> bytes:
        """One thumbnail, reading only those of its row group."""
        content: bytes = self._row(row, ["thumbnail"])["thumbnail"]
        return content

    def _row(self, row: int, columns: list[str]) -> dict[str, Any]:
        at = row
        for group in range(self._file.num_row_groups):
            size = self._file.metadata.row_group(group).num_rows
            if at < size:
                with self._turn:
                    table = self._file.read_row_group(group, columns=columns)
                found: dict[str, Any] = table.slice(at, 1).to_pylist()[0]
                return found
            at -= size
        raise ShardError(f"{self.name} has {self.rows} rows, there is no row {row}")

    def _read(self, columns: list[str]) -> pa.Table:
        try:
            with self._turn:
                return self._file.read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise ShardError(f"{self.name} is damaged: {error}") from error


def _whole(card: EncoderCard) -> list[str]:
    """The columns that make an entry."""
    return [name for name in schema(card).names if name != "digest"]


def _entry(row: Mapping[str, Any]) -> Entry:
    notes = json.loads(row["notes"]) if row["notes"] else {}
    vector = np.asarray(row["vector"], np.float32)
    return Entry(item_of(row), vector, row["thumbnail"], row["path"], notes)


def vectors_of(column: pa.Array | pa.ChunkedArray, dim: int) -> NDArray[np.float32]:
    """A column of vectors as a matrix, n x dim."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, dim)


def item_of(row: Mapping[str, Any]) -> Item:
    """The item of a row.

    Raises:
        ValueError: the row is none.
    """
    box = None
    if row["bbox_x"] is not None:
        box = Box(x=row["bbox_x"], y=row["bbox_y"], w=row["bbox_w"], h=row["bbox_h"])
    acquired: date | None = row["acquired"]
    return Item(
        id=str(UUID(bytes=row["id"])),
        bbox=box,
        um_per_px=row["um_per_px"],
        acquired=acquired,
        **{name: row[name] for name in TEXTS},
    )

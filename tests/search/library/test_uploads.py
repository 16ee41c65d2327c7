"""An uploaded shard is checked by a process of its own: whatever it is, the caller gets words."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from encoder.card import EncoderCard
from search.library.shards import Entry, ShardError, make_shard_bytes
from search.library.uploads import check_shard
from search.schemas.items import Item, item_id

CARD = EncoderCard(id="four", architecture="four-v1", dim=4)


def jpeg(side: int = 8) -> bytes:
    out = BytesIO()
    Image.new("RGB", (side, side), (200, 180, 190)).save(out, "JPEG")
    return out.getvalue()


def shard(n: int = 3) -> bytes:
    made = []
    for at in range(n):
        source = f"{at:032x}"
        item = Item(id=item_id("d", source), dataset="d", source=source, label="LY")
        made.append(Entry(item, np.ones(4, np.float32), jpeg(), "/images/a.png", {"note": "x"}))
    return make_shard_bytes(made, CARD)


def changed(**columns: Any) -> bytes:
    """The shard with columns of other values."""
    table = pq.read_table(BytesIO(shard()))
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        array = pa.array(values, table.schema.field(name).type)
        table = table.set_column(at, table.schema.field(name), array)
    out = BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def test_a_shard_as_ingest_makes_it_passes() -> None:
    check_shard(shard(600), CARD.to_json())


def bomb() -> bytes:
    """A file of some kilobytes that unfolds to 450 MB: one long text, five hundred times."""
    part = pa.concat_tables([pq.read_table(BytesIO(shard(1)))] * 50)
    at = part.schema.get_field_index("path")
    part = part.set_column(at, part.schema.field(at), pa.array(["x" * 900_000] * 50))
    out = BytesIO()
    with pq.ParquetWriter(out, part.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(part)
    assert len(out.getvalue()) < 200_000
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 not a shard PAR1", "damaged|not a Parquet"),
        (shard()[:-200], "damaged|not a Parquet"),
        (changed(label=["x" * 5000] * 3), "row 0 .* is no item"),
        (changed(digest=["0" * 16] * 3), "digest that does not belong"),
        (changed(um_per_px=[float("inf")] * 3), "row 0 .* is no item"),
        (changed(vector=[[float("nan")] * 4] * 3), "NaN"),
        (changed(vector=[[0.0] * 4] * 3), "zero"),
        (changed(path=["/a\0b"] * 3), "path that is none"),
        (changed(path=["/" * 5000] * 3), "path that is none"),
        (changed(notes=["[" * 9000] * 3), "damaged|notes"),
        (changed(notes=[json.dumps({"a": 1})] * 3), "notes that are no short JSON object"),
        (changed(thumbnail=[b"-"] * 3), "damaged"),
        (changed(thumbnail=[jpeg(2000)] * 3), "thumbnail of"),
        (bomb(), "too large|unfolds|path that is none"),
    ],
)
def test_a_shard_that_is_none_is_refused_in_words(content: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        check_shard(content, CARD.to_json())

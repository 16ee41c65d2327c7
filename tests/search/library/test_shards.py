"""Shards keep everything, whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder.card import EncoderCard
from search.disk.atomic import write_durably
from search.errors import BadVector, WrongEncoder
from search.library.shards import (
    Entry,
    Shard,
    ShardError,
    make_shard_bytes,
    make_thumbnail,
    payload_digest,
)
from search.schemas.items import Box, Item, item_id

CARD = EncoderCard(id="tiny", architecture="tiny-v1", dim=4)
FULL = Item(
    id=item_id("set", "a" * 32, Box(x=-3, y=4, w=70, h=71)),
    dataset="set",
    source="a" * 32,
    bbox=Box(x=-3, y=4, w=70, h=71),
    um_per_px=0.19,
    um_per_px_origin="estimate",
    label="Übergangsform",
    case="case 1",
    patient="P-001",
    site="Bergen",
    stain="May-Grunwald-Giemsa",
    scanner="DM96",
    acquired=date(2024, 2, 29),
)
BARE = Item(id=item_id("set", "b" * 32), dataset="set", source="b" * 32)


def entry(item: Item, vector: tuple[float, ...] = (1, 0, 0, 0), path: str | None = None) -> Entry:
    return Entry(item, np.array(vector, np.float32), b"jpeg", path)


def test_what_goes_in_comes_out() -> None:
    entries = [
        Entry(FULL, np.array([3, 4, 0, 0], np.float32), b"one", "/x/a.jpg", {"padded": "0.04"}),
        entry(BARE),
    ]

    back = list(Shard(make_shard_bytes(entries, CARD)).entries())

    assert [e.item for e in back] == [FULL, BARE]
    assert np.allclose(back[0].vector, [0.6, 0.8, 0, 0])
    assert (back[0].thumbnail, back[0].path, back[0].notes) == (
        b"one",
        "/x/a.jpg",
        {"padded": "0.04"},
    )
    assert (back[1].path, back[1].notes) == (None, {})


def test_equal_entries_give_equal_bytes() -> None:
    assert make_shard_bytes([entry(FULL)], CARD) == make_shard_bytes([entry(FULL)], CARD)


def test_one_cell_is_read_from_any_row_group() -> None:
    items = [BARE.model_copy(update={"id": item_id("set", f"{at:032x}")}) for at in range(300)]
    entries = [replace(entry(item), thumbnail=str(at).encode()) for at, item in enumerate(items)]

    shard = Shard(make_shard_bytes(entries, CARD))

    assert [shard.thumbnail(row) for row in (0, 127, 128, 299)] == [
        b"0",
        b"127",
        b"128",
        b"299",
    ]
    with pytest.raises(ShardError, match="row 300"):
        shard.thumbnail(300)


def test_a_shard_of_another_encoder_is_refused_by_name() -> None:
    other = replace(CARD, id="other", architecture="other-v1")

    with pytest.raises(WrongEncoder, match=r"tiny .* not of other"):
        Shard(make_shard_bytes([entry(FULL)], CARD), other)


@pytest.mark.parametrize("bad", [(np.nan, 0, 0, 1), (np.inf, 0, 0, 1), (0, 0, 0, 0), (1, 2, 3)])
def test_a_vector_without_a_direction_is_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(BadVector):
        make_shard_bytes([entry(FULL, bad)], CARD)


def test_anything_else_is_not_a_shard(tmp_path: Path) -> None:
    whole = make_shard_bytes([entry(FULL)], CARD)
    cut = tmp_path / "00000001-x.parquet"
    cut.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ShardError, match=r"00000001-x\.parquet"):
        Shard(cut)
    with pytest.raises(ShardError, match="not a Parquet file"):
        Shard(b"PAR1 this is not one")
    with pytest.raises(ShardError, match="at least one"):
        make_shard_bytes([], CARD)


def test_the_digest_changes_with_any_fact() -> None:
    changed = FULL.model_copy(update={"label": "blast"})

    assert payload_digest(FULL) == payload_digest(FULL.model_copy())
    assert payload_digest(FULL) != payload_digest(changed)


def test_a_thumbnail_is_small_and_keeps_its_shape(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (300, 600, 3), np.uint8)

    with Image.open(BytesIO(make_thumbnail(image))) as small:
        assert (small.format, small.size) == ("JPEG", (160, 80))
        assert not small.getexif()


@pytest.mark.parametrize("shape", [(224, 224), (363, 360), (1000, 700), (1, 900)])
def test_a_thumbnail_shows_what_the_picture_shows(shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(6 * x / shape[1] + at) + np.cos(5 * y / shape[0] - at) for at in range(3)]
    image = np.asarray(128 + 60 * np.stack(waves, axis=-1), np.uint8)
    sharp = Image.fromarray(image)
    sharp.thumbnail((160, 160), Image.Resampling.LANCZOS)

    for turned in (image, image[::-1][::-1]):
        with Image.open(BytesIO(make_thumbnail(turned))) as small:
            assert small.size == sharp.size
            assert np.abs(np.asarray(small, int) - np.asarray(sharp, int)).mean() < 2


def test_many_threads_may_read_one_shard(tmp_path: Path) -> None:
    """As the pictures of a gallery are read; unlocked, it ends the process (SIGSEGV)."""
    entries = [
        Entry(
            Item(id=item_id("set", f"{at:032}"), dataset="set", source=f"{at:032}"),
            np.array((1, 0, 0, 0), np.float32),
            b"%d" % at * 2000,
            None,
        )
        for at in range(600)
    ]
    write_durably(tmp_path / "a.parquet", make_shard_bytes(entries, CARD))
    shard = Shard(tmp_path / "a.parquet")
    rows = [(at * 7919) % 600 for at in range(4000)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: shard.thumbnail(row), rows))

    assert all(one == entries[row].thumbnail for one, row in zip(found, rows, strict=True))

"""Near-duplicates: the same picture re-saved is known again, another picture is not."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_library import random_entries, random_service, thumbnail

from encoder.image import read_rgb
from encoder.registry import load
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.neighbours.duplicates import (
    SAME_BITS,
    PictureHash,
    perceptual_hash,
    same_pairs,
    same_picture,
)
from search.query.answer import answer as search
from search.schemas.items import Item, item_id, source_id
from search.schemas.questions import Question
from search.service import Service
from search.settings import Settings


def resaved(jpeg: bytes, size: tuple[int, int], quality: int) -> bytes:
    out = BytesIO()
    with Image.open(BytesIO(jpeg)) as image:
        image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_a_picture_is_known_again_after_resizing_and_saving(rng: np.random.Generator) -> None:
    for _ in range(20):
        first = thumbnail(rng)

        again = perceptual_hash(resaved(first, (61, 57), 60))

        assert same_picture(perceptual_hash(first), again)


def test_two_random_pictures_differ_in_about_half_of_their_bits(rng: np.random.Generator) -> None:
    hashes = [perceptual_hash(thumbnail(rng)) for _ in range(40)]
    apart = [
        (one.bits ^ other.bits).bit_count()
        for at, one in enumerate(hashes)
        for other in hashes[:at]
        if one and other
    ]

    assert min(apart) > SAME_BITS
    assert 110 < np.mean(apart) < 145


def test_the_same_outlines_in_another_colour_are_another_picture() -> None:
    assert same_picture(PictureHash(7, (90, 90, 90)), PictureHash(6, (100, 90, 85)))
    assert not same_picture(PictureHash(7, (90, 90, 90)), PictureHash(7, (120, 90, 90)))


def test_a_flat_picture_is_the_same_as_none() -> None:
    flat = perceptual_hash(make_thumbnail(np.full((40, 40, 3), 200, np.uint8)))

    assert flat is None
    assert not same_picture(flat, flat)


def test_near_duplicates_are_left_out_and_others_take_their_place(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    entries = random_entries(rng, 30)
    query = entries[0]
    copies = [
        Entry(
            Item(id=item_id("copies", f"{at:032x}"), dataset="copies", source=f"{at:032x}"),
            query.vector + np.float32(0.01 * at),
            resaved(query.thumbnail, (50 + at, 48), 80),
        )
        for at in range(12)
    ]
    service = random_service(tmp_path, entries + copies)
    try:
        kept = search(service.context(), Question(item=query.item.id, k=5))
        shown = search(
            service.context(),
            Question(item=query.item.id, k=5, exclude=("item", "source", "case", "patient")),
        )

        assert len(kept.hits) == len(shown.hits) == 5
        assert kept.duplicates >= 5
        assert {hit.item.dataset for hit in kept.hits} == {"random"}
        assert {hit.item.dataset for hit in shown.hits} == {"copies"}
        assert shown.duplicates == 0
    finally:
        service.close()


@pytest.mark.data
def test_an_original_is_not_answered_with_its_own_copy(data_dir: Path, tmp_path: Path) -> None:
    originals = sorted((data_dir / "pbc" / "originals").rglob("*.jpg"))[::10]
    encoder = load("colour")
    entries = []
    for path in originals:
        copy = data_dir / "pbc" / "cells" / path.parent.name / path.name
        pixels, source = read_rgb(copy), source_id(copy.read_bytes())
        item = Item(id=item_id("pbc", source), dataset="pbc", source=source, label=path.stem)
        entries.append(Entry(item, encoder.embed([pixels])[0], make_thumbnail(pixels)))
    settings = Settings(library=tmp_path)
    library = Library.open(tmp_path)
    with library.create("cells", encoder.card) as cells:
        cells.add(entries)
    service = Service(library, settings)
    try:
        for path in originals:
            answer = search(service.context(), Question(k=len(originals)), path.read_bytes())

            assert answer.duplicates == 1
            assert len(answer.hits) == len(originals) - 1
            assert path.stem not in {hit.item.label for hit in answer.hits}
    finally:
        service.close()


def test_all_pairs_of_one_picture_are_found_at_once(rng: np.random.Generator) -> None:
    hashes: list[PictureHash | None] = []
    for at in range(90):
        bits = int.from_bytes(rng.bytes(32), "big") >> 1
        colour = tuple(int(x) for x in rng.integers(0, 256, 3))
        hashes.append(PictureHash(bits, colour) if at % 9 else None)  # type: ignore[arg-type]
    for at, flips in ((1, 3), (20, SAME_BITS), (40, SAME_BITS + 1), (60, 0)):
        one = hashes[at]
        assert one is not None
        mask = sum(1 << int(bit) for bit in rng.choice(250, flips, replace=False))
        hashes.append(PictureHash(one.bits ^ mask, one.colour))
    one = hashes[60]
    assert one is not None
    hashes.append(PictureHash(one.bits, tuple((c + 128) % 256 for c in one.colour)))  # type: ignore[arg-type]

    found = same_pairs(hashes)

    n = len(hashes)
    want = [(a, b) for a in range(n) for b in range(a + 1, n) if same_picture(hashes[a], hashes[b])]
    assert sorted(found) == want == [(1, 90), (20, 91), (60, 93)]
    assert same_pairs([None, None]) == []

"""Uploaded pictures: kept for a while, in memory, so that a link can name them."""

from __future__ import annotations

import io

from PIL import Image

from search.schemas.items import Box, source_id
from ui.session.uploads import KEPT, KEPT_S, Uploads


def png(size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, "PNG")
    return out.getvalue()


def test_a_picture_is_known_again_by_its_bytes() -> None:
    uploads = Uploads()

    kept = uploads.keep(png(), "cell.png", now=0)

    assert kept.id == source_id(png())
    assert uploads.get(kept.id, now=1) == kept


def test_a_picture_is_forgotten_after_a_day() -> None:
    uploads = Uploads()
    kept = uploads.keep(png(), "cell.png", now=0)

    assert uploads.get(kept.id, now=KEPT_S + 1) is None


def test_the_oldest_gives_way_where_there_are_many() -> None:
    uploads = Uploads()
    ids = [uploads.keep(f"{at}".encode(), "x", now=0).id for at in range(KEPT + 1)]

    assert uploads.get(ids[0], now=0) is None
    assert uploads.get(ids[-1], now=0) is not None


def test_the_size_is_read_without_decoding_and_a_damaged_file_has_none() -> None:
    uploads = Uploads()

    assert uploads.keep(png((70, 20)), "a", now=0).size == (70, 20)
    assert uploads.keep(b"%PDF", "b", now=0).size is None


def test_a_part_is_cut_at_the_border() -> None:
    kept = Uploads().keep(png((40, 30)), "a", now=0)

    with Image.open(io.BytesIO(kept.part(Box(x=-10, y=10, w=30, h=50)))) as part:
        assert part.size == (20, 20)

"""Pixels are read again exactly as an ingest cut them, or refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from versioned import draw

from search.library.sources import PlainImages, SourceGone, crop, glass, read_again
from search.schemas.items import Box, Item, item_id, source_id


@given(st.integers(-40, 60), st.integers(-40, 60), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_a_cut_is_the_image_with_glass_around_it(x: int, y: int, w: int, h: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    wide = np.empty((37 + 200, 53 + 200, 3), np.uint8)
    wide[:] = glass(image)
    wide[100:137, 100:153] = image

    cut = crop(image, Box(x=x, y=y, w=w, h=h))

    assert np.array_equal(cut, wide[100 + y : 100 + y + h, 100 + x : 100 + x + w])


def test_what_hangs_over_the_border_gets_the_colour_of_the_glass() -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    image[:12] = 90  # more cell than glass

    cut = crop(image, Box(x=-5, y=10, w=10, h=10))

    assert cut.shape == (10, 10, 3)
    assert (cut[:, :5] == 200).all()
    assert (cut[:, 5:] == image[10:20, 0:5]).all()
    assert glass(image).tolist() == [200, 200, 200]


def test_a_whole_image_is_read_whole(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    path = tmp_path / "cell.png"
    Image.fromarray(pixels).save(path)
    source = source_id(path.read_bytes())
    item = Item(id=item_id("d", source), dataset="d", source=source)
    assert np.array_equal(PlainImages()(path, item), pixels)


def test_every_reason_is_a_sentence(tmp_path: Path) -> None:
    item, path = draw(tmp_path, 1)[0]
    read = PlainImages()
    tile = item.model_copy(update={"kind": "tile"})
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    other = item.model_copy(update={"source": source_id(b"not a picture")})

    assert read_again(read, None, item) == "no file is known"
    assert "No such file" in str(read_again(read, str(tmp_path / "gone.png"), item))
    assert "slide reader" in str(read_again(read, str(path), tile))
    assert "not an image" in str(read_again(read, str(broken), other))
    assert "changed since" in str(read_again(read, str(broken), item))
    assert isinstance(read_again(read, str(path), item), np.ndarray)


def test_a_file_that_changes_under_the_same_name_is_not_taken_from_memory(tmp_path: Path) -> None:
    item, path = draw(tmp_path, 1)[0]
    read = PlainImages()
    read(path, item)
    later, other = draw(tmp_path / "b", 1, seed=1)[0]
    path.write_bytes(other.read_bytes())

    assert np.array_equal(read(path, later), PlainImages()(other, later))
    with pytest.raises(SourceGone):
        read(path, item)

"""Plain images by the bundle, each with its own outcome."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ingest.sandbox import images as module
from ingest.sandbox.images import read_images
from ingest.sandbox.messages import SourceDied, SourceError, SourceRefused
from ingest.sandbox.pool import GIB, ReaderPool


@pytest.fixture(name="pool", scope="module")
def _pool():
    with ReaderPool(2, timeout_s=20, limit_bytes=2 * GIB) as pool:
        yield pool


def made(folder, sides):
    paths = []
    for number, side in enumerate(sides):
        path = folder / f"{number}.png"
        Image.new("RGB", (side, side + 1), (number, 0, 0)).save(path)
        paths.append(path)
    return paths


def outcomes(pool, paths, **how):
    found = {}
    for number, outcome in read_images(pool, paths, **how):
        assert number not in found
        found[number] = outcome if isinstance(outcome, SourceError) else np.array(outcome)
    return found


def test_every_file_comes_once_with_its_own_pixels(pool, tmp_path):
    found = outcomes(pool, made(tmp_path, [10, 20, 10, 10, 30, 10, 10]), bundle=3)

    assert sorted(found) == list(range(7))
    for number, image in found.items():
        assert (image[..., 0] == number).all()
    assert found[4].shape == (31, 30, 3)


def test_images_that_are_none_are_refused_and_the_rest_is_read(pool, tmp_path):
    paths = made(tmp_path, [10] * 6)
    paths[1].write_bytes(b"nothing")
    paths[2].write_bytes(paths[3].read_bytes()[:40])
    paths[4].unlink()
    found = outcomes(pool, paths, max_pixels=200)

    assert [isinstance(found[n], SourceRefused) for n in range(6)] == [0, 1, 1, 0, 1, 0]
    assert "no such file" in found[4].reason


def test_an_image_over_the_cap_is_refused(pool, tmp_path):
    found = outcomes(pool, made(tmp_path, [10, 100]), max_pixels=1000)

    assert isinstance(found[0], np.ndarray)
    assert "100 x 101 pixels" in found[1].reason


def test_a_death_is_put_down_to_the_file_that_was_open(tmp_path):
    """A picture that needs more than the child may have; the others of the bundle are read."""
    paths = made(tmp_path, [10] * 9)
    Image.new("L", (16_000, 16_000)).save(paths[4])
    with ReaderPool(1, limit_bytes=GIB) as pool:
        found = outcomes(pool, paths, max_pixels=10**9)

    assert isinstance(found.pop(4), SourceDied | SourceRefused)
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all(isinstance(image, np.ndarray) for image in found.values())


def test_many_pixels_travel_in_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 1000)
    paths = made(tmp_path, [10] * 5)
    pieces = list(module.read("", list(range(5)), [str(p) for p in paths], 10**6))

    assert [piece.facts["numbers"] for piece in pieces if not piece.note] == [
        [0, 1, 2],
        [3, 4],
    ]


def test_nothing_to_read_is_no_error(pool):
    assert outcomes(pool, []) == {}

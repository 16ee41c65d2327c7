"""The direct path gives OpenSlide's pixels, and leaves alone what it does not know."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest

from benchmarks.made import blob, halved, level_of, svs_description, write_tiff
from ingest.slides import jpeg_tiles as direct
from ingest.slides.slide import open_slide

SIZE = (700, 900)
KINDS = {
    "generic": ({"um_per_px": 0.5}, {}),
    "generic-abbreviated": ({"um_per_px": 0.5, "abbreviated": True}, {}),
    "svs-420": ({"abbreviated": True}, {}),
    "svs-422": ({"subsampling": (2, 1)}, {"subsampling": "422"}),
    "svs-444": ({"subsampling": (1, 1), "abbreviated": True}, {"subsampling": "444"}),
    "svs-rgb": ({"photometric": 2, "abbreviated": True}, {"keep_rgb": True}),
}


def made(path, kind, rng):
    how, levels = KINDS[kind]
    image = blob(*SIZE, rng)
    if kind.startswith("svs"):
        how = {**how, "description": svs_description(SIZE[1], SIZE[0])}
    return write_tiff(
        path, [level_of(image, **levels), level_of(halved(image, 2), **levels)], **how
    )


def by_openslide(path, level, x, y, w, h, down):
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region((x * down, y * down), level, (w, h)).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_equal_to_those_of_openslide_bit_for_bit(kind, tmp_path, rng):
    path = made(tmp_path / "s.svs", kind, rng)
    slide = open_slide(path)
    places = [(0, 0, 0, 256, 256), (0, 256, 256, 256, 256), (0, 100, 60, 300, 517)]
    places += [(0, 640, 440, 260, 260), (1, 0, 0, 200, 175), (1, 31, 7, 130, 99)]

    assert slide.facts.reader == "direct"
    for level, x, y, w, h in places:
        out = np.empty((h, w, 3), np.uint8)
        slide.read(level, x, y, w, h, out)
        assert (out == by_openslide(path, level, x, y, w, h, 4**level)).all()
    slide.close()


@pytest.mark.data
def test_a_real_svs_is_equal_bit_for_bit(data_dir):
    path = data_dir / "wsi" / "CMU-1-Small-Region.svs"
    slide = open_slide(path)

    assert slide.facts.reader == "direct"
    for x, y in [(0, 0), (720, 1200), (777, 1333), (1964, 2711)]:
        out = np.empty((256, 256, 3), np.uint8)
        slide.read(0, x, y, 256, 256, out)
        assert (out == by_openslide(path, 0, x, y, 256, 256, 1)).all()
    slide.close()


def test_the_two_ways_to_an_overview_agree(tmp_path, rng):
    path = made(tmp_path / "s.svs", "svs-420", rng)
    pictures = []
    for short_way in (True, False):
        slide = open_slide(path, short_way=short_way)
        *_, picture = slide.overview(112, 87)
        pictures.append(picture.astype(int))
        slide.close()

    assert np.abs(pictures[0] - pictures[1]).mean() < 8


def test_a_cut_off_tile_is_damage_and_its_neighbour_is_not(tmp_path, rng):
    path = made(tmp_path / "s.tif", "generic", rng)
    (level, *_) = direct.index(path)
    with path.open("r+b") as file:
        file.seek(int(level.offsets[0]) + 700)
        file.write(b"\xff\xd9" * 300)
    slide = open_slide(path)
    out = np.empty((256, 256, 3), np.uint8)

    with pytest.raises(direct.Damaged):
        slide.read(0, 0, 0, 256, 256, out)

    slide.read(0, 256, 0, 256, 256, out)
    slide.close()


def test_a_small_cache_gives_the_same_pixels_and_decodes_more(tmp_path, rng):
    path = made(tmp_path / "s.tif", "generic", rng)
    fd = os.open(path, os.O_RDONLY)
    index = direct.index(path)[0]
    large, small = direct.DirectLevel(fd, index), direct.DirectLevel(fd, index, cache_bytes=0)
    for y in range(0, 400, 50):
        for x in range(0, 600, 50):
            one, two = large.read(x, y, 120, 120), small.read(x, y, 120, 120)
            assert (one == two).all()
    os.close(fd)

    assert large.decoded == 6
    assert small.decoded > 6


@pytest.mark.parametrize("cache_bytes", [0, direct.CACHE_BYTES], ids=["small cache", "large cache"])
def test_decoding_ahead_changes_no_pixel(cache_bytes, tmp_path, rng):
    path = made(tmp_path / "s.tif", "generic", rng)
    fd = os.open(path, os.O_RDONLY)
    index = direct.index(path)[0]
    plain, ahead = (direct.DirectLevel(fd, index, cache_bytes) for _ in range(2))
    places = [(x, y, 120, 120) for y in range(0, 400, 50) for x in range(0, 600, 50)]
    with ThreadPoolExecutor(3) as threads:
        for at in range(0, len(places), 8):
            ahead.ahead(places[at : at + 8], threads)
            for place in places[at : at + 8]:
                assert (ahead.read(*place) == plain.read(*place)).all()
    os.close(fd)


def test_a_tile_whose_jpeg_is_of_another_size_is_not_read_directly(tmp_path, rng):
    image = blob(*SIZE, rng)
    level = level_of(image)
    liar = type(level)(level.width, level.height, 256, level_of(image, tile=512).encoded)
    path = write_tiff(tmp_path / "s.tif", [liar], um_per_px=0.5)
    slide = open_slide(path)

    assert slide.facts.reader == "openslide"
    slide.close()


def test_what_is_no_tiff_has_no_index(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\0" + b"\xff" * 60)

    assert direct.index(path) == []

"""Tiles for the viewer: the pixels of the source, from children, and nothing else of the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from versioned import fill

from benchmarks.made import blob, level_of, svs_description, write_tiff
from encoder.registry import load
from ingest.slides.deepzoom import (
    OVERLAP,
    TILE,
    DeepZoom,
    Pyramid,
    SourceUnreadable,
    cut_tile,
    pyramid_of,
)
from ingest.slides.slide import open_slide
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.schemas.items import Box, Item, item_id, source_id
from search.security.keys import Keys
from search.settings import Settings
from ui.cli.serving import application


@pytest.fixture(name="svs")
def _svs(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A slide of two levels whose metadata names people."""
    full = blob(900, 1200, rng)
    small = np.asarray(Image.fromarray(full).resize((300, 225), Image.Resampling.BOX))
    words = svs_description(1200, 900, 0.5, "|Patient = CANARY|Filename = CANARY")
    path = tmp_path / "CANARY.svs"
    write_tiff(path, [level_of(full), level_of(small)], description=words)
    return path


@pytest.fixture(name="zoom", scope="module")
def _zoom() -> Iterator[DeepZoom]:
    zoom = DeepZoom(workers=1)
    yield zoom
    zoom.close()


def test_the_tiles_of_the_last_level_are_the_pixels_of_the_source(svs: Path) -> None:
    slide = open_slide(svs)
    pyramid = pyramid_of(slide.facts)
    whole = np.empty((900, 1200, 3), np.uint8)
    slide.read(0, 0, 0, 1200, 900, whole)
    seen = np.zeros((900, 1200), bool)

    for row in range(4):
        for column in range(5):
            left, top, right, bottom = pyramid.region(pyramid.max_level, column, row)
            tile = cut_tile(slide, pyramid, pyramid.max_level, (left, top, right, bottom))
            assert (tile == whole[top:bottom, left:right]).all()
            seen[top:bottom, left:right] = True
    slide.close()

    assert seen.all()
    assert pyramid.region(pyramid.max_level, 1, 0)[0] == TILE - OVERLAP


def test_a_coarse_level_shows_the_whole_source_from_a_coarse_level_of_the_slide(svs: Path) -> None:
    slide = open_slide(svs)
    pyramid = pyramid_of(slide.facts)
    level = pyramid.max_level - 3
    asked: list[tuple[int, int, int]] = []
    plain = slide.read

    def read(at: int, x: int, y: int, w: int, h: int, out: np.ndarray) -> None:
        asked.append((at, w, h))
        plain(at, x, y, w, h, out)

    slide.read = read  # type: ignore[method-assign]
    tile = cut_tile(slide, pyramid, level, pyramid.region(level, 0, 0))
    whole = np.empty((900, 1200, 3), np.uint8)
    plain(0, 0, 0, 1200, 900, whole)
    slide.close()
    small = np.asarray(Image.fromarray(whole).resize((150, 113), Image.Resampling.BOX))

    assert pyramid.size(level) == (150, 113)
    assert asked == [(1, 300, 225)]
    assert np.abs(tile.astype(int) - small).mean() < 6


def test_all_of_a_file_is_shown_at_a_level_of_several_tiles(zoom: DeepZoom, svs: Path) -> None:
    content, pyramid = zoom.whole(svs, 10)
    seen = np.asarray(Image.open(BytesIO(content)), int)
    slide = open_slide(svs)
    plain = np.empty((900, 1200, 3), np.uint8)
    slide.read(0, 0, 0, 1200, 900, plain)
    slide.close()
    small = np.asarray(Image.fromarray(plain).resize((600, 450), Image.Resampling.BOX), int)

    assert (pyramid.width, pyramid.height) == (1200, 900)
    assert seen.shape[1::-1] == pyramid.size(10) == (600, 450)
    assert np.abs(seen - small).mean() < 6


def test_levels_that_would_need_too_much_reading_are_not_offered() -> None:
    from ingest.slides.base import SlideFacts
    from ingest.slides.grid import SlidePixels

    facts = SlideFacts(
        vendor="aperio",
        reader="openslide",
        width=SlidePixels(100_000),
        height=SlidePixels(100_000),
        levels=((100_000, 100_000),),
        um_per_px=None,
        objective=None,
    )
    pyramid = pyramid_of(facts)

    assert (pyramid.min_level, pyramid.max_level) == (13, 17)
    with pytest.raises(SourceUnreadable, match="no tile"):
        pyramid.region(12, 0, 0)


def test_a_changed_a_lost_and_a_damaged_file_are_refused_without_its_name(
    zoom: DeepZoom, svs: Path
) -> None:
    source = source_id(svs.read_bytes())
    assert zoom.describe(svs, source).slide
    before = zoom.tile(svs, source, 11, 0, 0)
    assert Image.open(BytesIO(before)).size == (TILE + OVERLAP, TILE + OVERLAP)

    svs.write_bytes(b"II*\0 damaged")
    os.utime(svs, ns=(1, 1))
    with pytest.raises(SourceUnreadable, match="was changed"):
        zoom.tile(svs, source, 11, 1, 0)
    with pytest.raises(SourceUnreadable, match="neither a slide") as caught:
        zoom.describe(svs, source_id(svs.read_bytes()))
    assert "CANARY" not in str(caught.value)
    svs.unlink()
    with pytest.raises(SourceUnreadable, match="not there any more"):
        zoom.describe(svs, source)


def test_a_reader_that_dies_takes_nothing_with_it(svs: Path, tmp_path: Path) -> None:
    zoom = DeepZoom(workers=1, timeout_s=20)
    source = source_id(svs.read_bytes())
    zoom.describe(svs, source)
    pool = zoom._pools.get()
    pool._idle[0].process.kill()
    zoom._pools.put(pool)
    with pytest.raises(SourceUnreadable, match="was killed"):
        zoom.tile(svs, source, 11, 0, 0)

    assert zoom.tile(svs, source, 11, 0, 0)
    zoom.close()


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill(tmp_path)


@pytest.fixture(name="client")
def _client(library: Library) -> Iterator[TestClient]:
    keys = Keys(library.folder / "keys.json")
    _, reader = keys.add("reader", {"cells": "read"})
    _, other = keys.add("other", {"other": "admin"})
    settings = Settings(library=library.folder, source_folders=str(library.folder.parent))
    with TestClient(application(settings), base_url="http://localhost") as client:
        client.headers["x-api-key"] = reader
        client.other = {"x-api-key": other}  # type: ignore[attr-defined]
        yield client


def a_source(client: TestClient) -> Item:
    found = client.post("/v1/collections/cells/items/page", json={"limit": 1}).json()
    return Item.model_validate(found["items"][0])


def test_a_stored_source_is_shown_to_whoever_may_read_its_items(client: TestClient) -> None:
    at = f"/v1/sources/{a_source(client).source}"

    facts = client.get(at, params={"collection": "cells"}).json()
    tile = client.get(f"{at}/dzi_files/{facts['max_level']}/1_0.jpeg")

    assert (facts["width"], facts["height"], facts["items"]) == (260, 200, 6)
    assert not facts["slide"]
    assert Image.open(BytesIO(tile.content)).size == (260 - TILE + OVERLAP, 200)
    assert "immutable" in tile.headers["cache-control"]
    assert 'Width="260" Height="200"' in client.get(f"{at}/dzi").text
    assert client.get(f"{at}/dzi_files/{facts['max_level']}/2_0.jpeg").status_code == 404
    for path in (at, f"{at}/dzi", f"{at}/dzi_files/9/0_0.jpeg"):
        refused = client.get(path, headers=client.other)  # type: ignore[attr-defined]
        assert refused.status_code == 403, path


def test_a_source_of_which_nothing_is_stored_any_more_is_not_shown(library: Library) -> None:
    app = application(Settings(library=library.folder))
    with TestClient(app, base_url="http://localhost") as it:
        source = a_source(it).source
        where = {"where": {"source": [source]}}
        ids = [
            one["id"]
            for one in it.post("/v1/collections/cells/items/page", json=where).json()["items"]
        ]
        it.post("/v1/collections/cells/items/remove", json={"ids": ids})

        answer = it.get(f"/v1/sources/{source}")

    assert answer.status_code == 404
    assert "no item of source" in answer.json()["detail"]


def test_the_label_and_the_metadata_of_a_slide_reach_no_answer(
    library: Library, svs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openslide

    source = source_id(svs.read_bytes())
    box = Box(x=0, y=0, w=256, h=256)
    item = Item(
        id=item_id("slides", source, box, "tile"),
        kind="tile",
        dataset="slides",
        source=source,
        bbox=box,
    )
    pixels = np.full((256, 256, 3), 180, np.uint8)
    vector = load("colour").embed([pixels])[0]
    with library.collection("cells") as cells:
        cells.add([Entry(item, vector, make_thumbnail(pixels), str(svs))])
    app = application(Settings(library=library.folder))
    with TestClient(app, base_url="http://localhost") as it:
        at = f"/v1/sources/{source}"
        said = [it.get(at), it.get(f"{at}/dzi"), it.get(f"{at}/dzi_files/11/0_0.jpeg")]
        said.append(it.get(f"{at}/dzi_files/99/0_0.jpeg"))

    def forbidden(*_: object) -> None:
        raise AssertionError("an associated image was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(forbidden))
    slide = open_slide(svs)
    pyramid: Pyramid = pyramid_of(slide.facts)
    assert cut_tile(slide, pyramid, 9, pyramid.region(9, 0, 0)).shape[2] == 3
    slide.close()
    assert [one.status_code for one in said] == [200, 200, 200, 422]
    assert said[0].json()["slide"]
    assert all(b"CANARY" not in one.content for one in said)

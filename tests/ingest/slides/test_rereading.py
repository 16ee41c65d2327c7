"""Tiles of slides are read again for a re-index, equal to a fresh ingest, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.made import blob, halved, level_of, svs_description, write_tiff
from encoder.registry import load
from ingest.slides.grid import MicronsPerPixel, TilePixels, TilePlan
from ingest.slides.rereading import Rereader
from ingest.slides.source import noted_plan, tile_note
from search.library.contents import Truth
from search.library.library import Library
from search.library.shards import Entry
from search.library.sources import SourceGone
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, SourcesMissing, reindex
from search.settings import Settings
from ui.cli.ingesting import Request, perform

PLAN = ReindexPlan(limits=Limits(most_mean_cosine=1, least_rank=0, most_duplicates=1))
"""The few tiles of a drawn slide resemble each other more than a real library's."""


@pytest.fixture(name="slide")
def _slide(tmp_path: Path, rng: np.random.Generator) -> Path:
    picture = blob(640, 800, rng, share=0.6)
    levels = [level_of(picture), level_of(halved(picture, 2))]
    return write_tiff(tmp_path / "a.svs", levels, description=svs_description(800, 640))


@pytest.fixture(name="reader")
def _reader() -> Iterator[Rereader]:
    with Rereader() as reader:
        yield reader


def entries(library: Path) -> dict[str, Entry]:
    held = Library.open(library).versions("cells")
    served = held.current()
    truth = Truth.read(held.path(served.id), served.card)
    return {entry.item.id: entry for entry in truth.entries(sorted(truth.rows))}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tile_um_per_px": 0.7, "overlap": 0.25},
        {"um_per_px": 0.31, "tile_px": 96},
        {"stain_norm": "macenko", "tile_um_per_px": 1.0},
    ],
    ids=["as it is", "resampled and overlapping", "scale from outside", "normalised"],
)
def test_a_collection_of_tiles_gets_the_vectors_of_a_fresh_ingest(
    slide: Path, tmp_path: Path, reader: Rereader, asked: dict[str, object]
) -> None:
    request = Request(**{"paths": [slide], "tile_px": 64} | asked)  # type: ignore[arg-type]
    old = Settings(library=tmp_path / "old", encoder="colour", _env_file=None)
    fresh = Settings(library=tmp_path / "fresh", encoder="measured", _env_file=None)
    assert perform(request, old).report.stored > 5

    done = reindex(
        Library.open(old.library), "cells", load("measured"), plan=PLAN, read_pixels=reader
    )
    perform(request, fresh)

    found, wanted = entries(old.library), entries(fresh.library)
    assert done.switched
    assert found.keys() == wanted.keys()
    for id, entry in wanted.items():
        assert found[id].vector.tobytes() == entry.vector.tobytes()
        assert (found[id].item, found[id].thumbnail) == (entry.item, entry.thumbnail)
        assert found[id].notes == entry.notes


def test_a_tile_that_cannot_be_had_again_says_why(
    slide: Path, tmp_path: Path, reader: Rereader
) -> None:
    settings = Settings(library=tmp_path / "library", encoder="colour", _env_file=None)
    perform(Request(paths=[slide], tile_px=64), settings)
    entry = next(iter(entries(settings.library).values()))
    assert reader(slide, entry.item, entry.notes).shape == (64, 64, 3)

    with pytest.raises(SourceGone, match="nothing says of which size"):
        reader(slide, entry.item)
    with pytest.raises(SourceGone, match=r"no tile of 100 px at 0\.5 um per pixel"):
        reader(slide, entry.item, {"tile": "100 px at 0.5 um/px"})
    content = slide.read_bytes()
    slide.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceGone, match="has changed since"):
        reader(slide, entry.item, entry.notes)
    library = Library.open(settings.library)
    with pytest.raises(SourcesMissing, match="has changed since"):
        reindex(library, "cells", load("measured"), plan=PLAN, read_pixels=reader)


def test_a_reader_whose_child_was_killed_reads_on(
    slide: Path, tmp_path: Path, reader: Rereader
) -> None:
    settings = Settings(library=tmp_path / "library", encoder="colour", _env_file=None)
    perform(Request(paths=[slide], tile_px=64), settings)
    entry = next(iter(entries(settings.library).values()))
    before = reader(slide, entry.item, entry.notes)
    assert reader._pool is not None
    reader._pool._idle[0].process.kill()
    reader._pool._idle[0].process.wait()

    assert np.array_equal(reader(slide, entry.item, entry.notes), before)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 1 / 3])
def test_the_plan_of_a_tile_can_be_read_from_its_note(overlap: float) -> None:
    scale = MicronsPerPixel(0.4990000001)
    plan = TilePlan(size=TilePixels(224), um_per_px=scale, overlap=overlap)

    assert noted_plan(tile_note(plan)) == plan
    assert noted_plan("a tile") is None

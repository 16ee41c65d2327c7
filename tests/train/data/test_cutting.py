"""Pieces of fields and slides are cut when they are drawn, and are those of the ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.made import blob, level_of, svs_description, write_tiff
from ingest.pieces.patches import cells_of_field
from ingest.samples.synthetic import draw_field
from ingest.smears.classical import Classical
from ingest.smears.finders import FINDERS
from train.__main__ import main
from train.config import Cuts, TrainConfig
from train.data.images import Feed, Images, Order, open_sources
from train.data.packs import pack
from train.data.source import DataError
from train.dino.loop import train
from train.dino.progress import read_log
from train.smoke import SETTINGS


@pytest.fixture(name="fields", scope="module")
def _fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two smears: one covered with cells, one of which the right half is empty glass."""
    folder = tmp_path_factory.mktemp("fields")
    (folder / "malaria").mkdir()
    full = draw_field(5, patient=2, width=300, height=210, um_per_px=0.2).image
    half = np.full((210, 300, 3), 235, np.uint8)
    half[:, :150] = draw_field(6, patient=3, width=150, height=210, um_per_px=0.2).image
    Image.fromarray(full).save(folder / "a.png")
    Image.fromarray(half).save(folder / "malaria" / "b.png")
    return folder


def cuts(kind: str, **given: object) -> Cuts:
    return Cuts.model_validate({"cut": (kind,), "cut_px": 100} | given)


def test_fields_are_cut_to_patches_without_empty_glass(fields: Path) -> None:
    (source,) = open_sources([fields], cuts("patches"))
    (all_of_them,) = open_sources([fields], cuts("patches", cut_covered=0))

    assert len(all_of_them) == 2 * 6
    assert 6 + 2 <= len(source) <= 6 + 4
    assert f"{12 - len(source)} patches left out" in source.note
    picture = np.asarray(Image.open(fields / "a.png"))
    assert np.array_equal(source.image(0), picture[5:105, 0:100])  # the grid is centred
    assert source.title(0).endswith("a.png at (0, 5, 100, 100)")
    assert {source.label(at) for at in range(len(source))} == {None, "malaria"}


@pytest.mark.parametrize("hold", ["memory", "disk"])
def test_batches_of_patches_are_equal_wherever_they_wait(fields: Path, hold: str) -> None:
    images = Images(open_sources([fields], cuts("patches")), 32, "bilinear")
    feed = Feed(images, Order([len(images)], seed=3), torch.device("cpu"), hold, workers=2)
    batch = feed.batch(0, 4)
    feed.close()
    wanted = [images.decode(int(at)) for at in feed.order.take(0, 4)]
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), np.stack(wanted))


def test_cells_are_found_and_cut_as_in_an_ingest(fields: Path) -> None:
    (source,) = open_sources([fields], cuts("cells"))
    picture = np.asarray(Image.open(fields / "a.png"))
    wanted = cells_of_field(picture, Classical().find(picture)).kept
    mine = [at for at in range(len(source)) if "a.png" in source.title(at)]
    assert len(mine) == len(wanted) > 0
    assert all(
        np.array_equal(source.image(at), w.image) for at, w in zip(mine, wanted, strict=True)
    )


def test_a_learned_finder_is_built_once_from_the_weights_that_are_named(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "cells.pt"
    built: list[Path | None] = []
    monkeypatch.setitem(FINDERS, "cellpose", lambda path: built.append(path) or Classical())
    open_sources([fields], cuts("cells", finder="cellpose", finder_weights=weights), workers=2)
    assert built == [weights]


def test_a_finder_without_its_weights_or_package_ends_in_one_sentence(
    fields: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="the finder 'instanseg' needs"):
        main(["run", "--data", str(fields), "--out", str(tmp_path / "run"), "--start", "random",
              "--cut", "cells", "--finder", "instanseg"])  # fmt: skip


def test_a_run_trains_on_patches_and_says_what_was_left_out(fields: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(
        SETTINGS | {
            "data": (fields,), "out": tmp_path, "cut": ("patches",), "cut_px": 64, "steps": 1,
            "batch": 4, "embed_dim": 16, "tensorboard": False, "force": True, "watch_every": 1,
        }
    )  # fmt: skip
    assert train(config).exported
    (line,) = read_log(tmp_path, "run")
    assert line["images"] > 8
    assert "2 fields" in line["cut"][0]


def test_a_field_that_cannot_be_read_is_named_when_it_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    images = Images(open_sources([tmp_path], cuts("patches")), 32, "bilinear", 1.0)
    assert images.decode(0) is None
    assert "bad.png" in next(iter(images.corrupt.titles))


def test_nothing_to_cut_is_refused_in_words(tmp_path: Path) -> None:
    Image.fromarray(np.full((50, 50, 3), 200, np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="gives no patches"):
        open_sources([tmp_path], cuts("patches"))
    with pytest.raises(DataError, match="holds no slides"):
        open_sources([tmp_path], cuts("tiles"))


def test_slides_are_tiled_at_several_magnifications_without_a_copy(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    picture = blob(320, 400, rng, share=0.6)
    slide = write_tiff(
        tmp_path / "a.svs", [level_of(picture)], description=svs_description(400, 320)
    )
    scale = 0.499
    (source,) = open_sources(
        [slide], cuts("tiles", cut_px=64, cut_um_per_px=(scale, 2 * scale), cut_covered=0.2)
    )
    try:
        places = source.places
        fine = [at for at, place in enumerate(places) if place.um_per_px == scale]
        assert 0 < len(fine) < len(places)
        assert len(fine) < (400 // 64) * (320 // 64)  # tiles of the glass are left out
        assert {source.image(at).shape for at in (fine[0], len(places) - 1)} == {(64, 64, 3)}
        x, y, w, h = places[fine[0]].box
        assert np.abs(source.image(fine[0]).astype(int) - picture[y : y + h, x : x + w]).mean() < 3
        assert places[-1].box[2] == pytest.approx(2 * w, abs=1)
        assert "at 0.998 um per pixel" in source.note
        report = pack([source], tmp_path / "packed")
        assert report.images == len(source)
    finally:
        source.close()


def test_one_word_or_one_for_each_source() -> None:
    with pytest.raises(ValueError, match="one for each of 1 sources; got 2"):
        TrainConfig.model_validate(
            {"data": ("x",), "out": "y", "cut": ("whole", "patches"), "preset": "scratch"}
        )

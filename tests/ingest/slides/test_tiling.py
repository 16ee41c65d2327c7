"""From a slide to tiles and a report, through a child."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.made import (
    Level,
    blob,
    glass,
    halved,
    jpeg,
    level_of,
    svs_description,
    tissue,
    write_tiff,
)
from encoder.stains.normalisers import Macenko, NotForBlood
from ingest.sandbox.messages import Refusal, SourceRefused
from ingest.sandbox.pool import GIB, ReaderPool
from ingest.slides.grid import TilePlan
from ingest.slides.quality import SCORES
from ingest.slides.tiling import SlideResult, TileBatch, as_tiles, tile_task

CANARIES = ("CANARYNAME", "CANARYDATE", "CANARYUSER", "CANARYPATIENT", "CANARYFILE")
SMALL = TilePlan(size=64)


@pytest.fixture(name="pool", scope="module")
def _pool():
    with ReaderPool(1) as pool:
        yield pool


def read(pool, path, plan=SMALL, **how):
    images, boxes, scores, flags, result, last = [], [], [], [], None, None
    for batch in pool.read(tile_task(path, plan, **how)):
        match as_tiles(batch):
            case TileBatch() as tiles:
                images += [np.array(image) for image in tiles.images]
                boxes += tiles.boxes.tolist()
                scores += tiles.scores.tolist()
                flags += tiles.unstained.tolist()
                last = tiles
            case SlideResult() as result:
                result.overview.copy()
    return images, boxes, scores, flags, result.report, last


@pytest.fixture(name="image")
def _image(rng):
    return blob(512, 640, rng, share=0.3)


@pytest.fixture(name="slide")
def _slide(tmp_path, image):
    words = svs_description(640, 512)
    return write_tiff(
        tmp_path / "a.svs", [level_of(image), level_of(halved(image, 2))], description=words
    )


def test_tiles_with_tissue_come_with_their_place_scores_and_scale(pool, slide, image):
    images, boxes, scores, _, report, last = read(pool, slide, batch=7)

    assert report.kept == len(images) == len(boxes) == len(scores) > 20
    assert sum(report.counts.values()) == 80
    assert (last.um_per_px, last.um_per_px_origin) == (0.5, "file")
    for tile, (x, y, w, h), row in zip(images, boxes, scores, strict=True):
        assert tile.shape == (64, 64, 3)
        assert (w, h) == (64, 64)
        assert np.abs(tile.astype(int) - image[y : y + h, x : x + w]).mean() < 12
        assert dict(zip(SCORES, row, strict=True))["tissue"] >= 0.1


def test_a_finer_slide_is_resampled_to_the_asked_scale(pool, tmp_path, image):
    words = svs_description(640, 512, 0.2)
    path = write_tiff(tmp_path / "a.svs", [level_of(image)], description=words)
    images, boxes, _, _, report, _ = read(pool, path)
    smaller = np.asarray(
        Image.fromarray(image).resize((256, 205), Image.Resampling.BICUBIC)
    ).astype(int)

    assert report.resampled
    assert {tuple(box[2:]) for box in boxes} == {(160, 160)}
    for tile, (x, y, _, _) in zip(images, boxes, strict=True):
        left, top = round(x * 0.4), round(y * 0.4)
        assert np.abs(tile - smaller[top : top + 64, left : left + 64]).mean() < 8


def test_the_same_tiles_come_by_openslide_alone(pool, slide):
    task = tile_task(slide, SMALL)
    slow = type(task)(
        reader=task.reader, source=task.source, args={**task.args, "short_way": False}
    )
    ways = [
        [np.array(batch.images) for batch in pool.read(each) if "report" not in batch.facts]
        for each in (task, slow)
    ]

    assert all((a == b).all() for a, b in zip(*ways, strict=True))


@pytest.mark.parametrize(
    "plan",
    [
        TilePlan(size=256, min_tissue=0.01),
        TilePlan(size=64, overlap=0.3),
        TilePlan(size=50, um_per_px=0.71),
    ],
    ids=["whole JPEG tiles", "cut out of them", "resampled"],
)
def test_many_threads_give_the_same_tiles_as_one(pool, slide, plan):
    one = tile_task(slide, plan, batch=16)
    ways = [
        [
            (batch.facts, np.array(batch.images))
            for batch in pool.read(replace(one, threads=threads))
            if "report" not in batch.facts
        ]
        for threads in (1, 3)
    ]

    assert ways[0]
    for (facts, images), (their_facts, theirs) in zip(*ways, strict=True):
        assert facts == their_facts
        assert np.array_equal(images, theirs)


def test_many_threads_count_damage_once(pool, tmp_path, rng):
    path = damaged(tmp_path, rng)
    counts = []
    for threads in (1, 3):
        task = replace(tile_task(path, TilePlan(size=256, min_tissue=0)), threads=threads)
        (report,) = [b.facts["report"] for b in pool.read(task) if "report" in b.facts]
        counts.append(report["counts"])

    assert counts[0] == counts[1]
    assert counts[0]["damaged"] == 1


def test_a_slide_without_a_scale_is_refused_until_the_manifest_has_one(pool, tmp_path, image):
    words = svs_description(640, 512, None)
    path = write_tiff(tmp_path / "a.svs", [level_of(image)], description=words)

    with pytest.raises(SourceRefused, match="write um_per_px for it into the manifest"):
        read(pool, path)

    *_, report, last = read(pool, path, um_per_px=0.5)
    assert last.um_per_px_origin == report.um_per_px_origin == "manifest"


def test_a_manifest_that_contradicts_the_file_is_followed_and_told(pool, slide):
    *_, report, _ = read(pool, slide, um_per_px=0.25)

    assert report.um_per_px == (0.25, 0.25)
    assert "the file says 0.5" in report.warnings[0]


def test_regions_keep_tiles_whose_centre_is_inside(pool, slide):
    ring = [[256, 192], [384, 192], [384, 320], [256, 320], [256, 192]]
    text = json.dumps({"type": "Polygon", "coordinates": [ring]})
    _, boxes, _, _, report, _ = read(pool, slide, regions=text)

    assert sorted(map(tuple, boxes)) == [(x, y, 64, 64) for x in (256, 320) for y in (192, 256)]
    assert report.counts == {"kept": 4, "outside the region": 76}


def test_regions_elsewhere_give_a_failure_with_a_hint(pool, slide):
    ring = [[9000, 9000], [9900, 9000], [9900, 9900]]
    text = json.dumps({"type": "Polygon", "coordinates": [ring]})
    *_, report, _ = read(pool, slide, regions=text)

    assert "pixels of level 0" in report.failure


def test_overlap_gives_more_tiles(pool, slide):
    *_, plain, _ = read(pool, slide)
    *_, dense, _ = read(pool, slide, plan=TilePlan(size=64, overlap=0.5))

    assert 3 < dense.kept / plain.kept < 5


def test_parts_of_a_slide_make_up_the_whole(pool, slide):
    _, whole, *_ = read(pool, slide)
    parts = [read(pool, slide, part=(number, 3)) for number in range(3)]

    assert [box for part in parts for box in part[1]] == whole
    assert all(part[4].kept for part in parts)
    assert sum(count for part in parts for count in part[4].counts.values()) == 80


def test_an_empty_slide_is_a_failure_that_the_report_names(pool, tmp_path, rng):
    words = svs_description(640, 512)
    path = write_tiff(tmp_path / "a.svs", [level_of(glass(512, 640, rng))], description=words)
    images, *_, report, _ = read(pool, path)

    assert images == []
    assert "almost no tissue" in report.failure


def test_a_slide_smaller_than_a_tile_is_a_failure_that_the_report_names(pool, slide):
    *_, report, _ = read(pool, slide, plan=TilePlan(size=1024))

    assert "smaller than one tile" in report.failure


def test_tiles_out_of_focus_are_dropped_and_told(pool, tmp_path, rng):
    from PIL import ImageFilter

    soft = Image.fromarray(tissue(512, rng)).filter(ImageFilter.GaussianBlur(4))
    words = svs_description(512, 512)
    path = write_tiff(tmp_path / "a.svs", [level_of(np.asarray(soft))], description=words)
    *_, report, _ = read(pool, path)

    assert report.counts["out of focus"] == 64
    assert "64 out of focus" in report.failure


def test_stain_normalisation_is_off_unless_asked_and_is_named(pool, slide):
    plain, *_, without, _ = read(pool, slide)
    changed, _, _, flags, report, _ = read(pool, slide, stain=Macenko())

    assert without.stain is None
    assert report.stain == "macenko-1"
    assert report.unstained == sum(flags)
    for before, after, failed in zip(plain, changed, flags, strict=True):
        assert (before == after).all() == failed


def test_stain_normalisation_is_refused_for_blood(slide):
    with pytest.raises(NotForBlood):
        tile_task(slide, stain=Macenko(), slide_stain="Wright-Giemsa")


def test_a_tile_on_which_normalisation_fails_is_kept_as_it_is_and_flagged(pool, tmp_path, rng):
    specks = glass(256, 256, rng)
    for top in range(8, 256, 64):
        for left in range(8, 256, 64):  # less stain in a tile than can be measured
            specks[top : top + 18, left : left + 18] = tissue(18, rng)
    path = write_tiff(tmp_path / "a.svs", [level_of(specks)], description=svs_description(256, 256))
    plan = TilePlan(size=64, min_tissue=0.0)
    plain = read(pool, path, plan)[0]
    images, _, _, flags, report, _ = read(pool, path, plan, stain=Macenko())

    assert report.unstained == sum(flags) == len(images) > 0
    assert all((a == b).all() for a, b in zip(plain, images, strict=True))
    assert "could not be stain-normalised" in " ".join(report.warnings)


def damaged(folder, rng):
    """A slide of 16 JPEG tiles, one of them damaged."""
    picture = jpeg(tissue(256, rng))
    broken = picture[:900] + b"\xff\xd9" + picture[902:]
    level = Level(1024, 1024, 256, lambda r, c: broken if (r, c) == (1, 1) else picture)
    return write_tiff(folder / "a.tif", [level], um_per_px=0.5)


def test_damaged_tiles_are_left_out_and_counted(pool, tmp_path, rng):
    *_, report, _ = read(pool, damaged(tmp_path, rng), plan=TilePlan())

    assert report.counts == {"kept": 15, "damaged": 1}
    assert "1 tiles are damaged" in report.warnings[0]


def test_a_slide_that_is_damaged_all_over_is_refused(pool, tmp_path, rng):
    picture = jpeg(tissue(256, rng))
    broken = picture[:900] + b"\xff\xd9" + picture[902:]
    small = jpeg(np.asarray(Image.fromarray(tissue(256, rng))))
    levels = [
        Level(1024, 1024, 256, lambda r, c: picture if (r, c) == (0, 0) else broken),
        Level(256, 256, 256, lambda r, c: small),
    ]
    path = write_tiff(tmp_path / "a.tif", levels, um_per_px=0.5)

    with pytest.raises(SourceRefused, match="15 of 16 tiles with tissue are damaged"):
        read(pool, path, plan=TilePlan())


def test_no_name_date_or_id_of_the_metadata_reaches_any_output(pool, tmp_path, image, caplog):
    extra = "|Date = CANARYDATE|User = CANARYUSER|Patient = CANARYPATIENT|Filename = CANARYFILE"
    words = svs_description(640, 512, 0.5, extra).replace("v11.2.1", "v11.2.1 CANARYNAME")
    path = write_tiff(tmp_path / "a.svs", [level_of(image)], description=words)
    assert all(canary.encode() in path.read_bytes() for canary in CANARIES)

    said = []
    with caplog.at_level(logging.DEBUG):
        for batch in pool.read(tile_task(path, SMALL)):
            said.append(json.dumps(batch.facts))
            match as_tiles(batch):
                case SlideResult() as result:
                    files = result.report.write(tmp_path / "out", "0123", result.picture)
        broken = tmp_path / "b.svs"
        broken.write_bytes(path.read_bytes()[:-700])
        with pytest.raises(SourceRefused) as caught:
            list(pool.read(tile_task(broken, SMALL)))
    said += [str(caught.value), caught.value.note, caplog.text]
    blobs = [text.encode() for text in said] + [file.read_bytes() for file in files]

    for blob_ in blobs:
        assert not any(canary.encode() in blob_ for canary in CANARIES)
        assert b"CANARY" not in blob_


def test_a_huge_slide_is_read_within_its_memory(tmp_path, rng):
    """24,000 px a side and no pyramid; every tile points at the same bytes."""
    picture, empty = jpeg(tissue(512, rng)), jpeg(glass(512, 512, rng))
    level = Level(24_000, 24_000, 512, lambda r, c: picture if r == c else empty)
    path = write_tiff(tmp_path / "a.tif", [level], um_per_px=0.5, shared=True)
    with ReaderPool(1) as pool:
        *_, report, _ = read(pool, path, plan=TilePlan(size=512))

        assert report.kept == 46
        assert 50e6 < pool.peak_bytes < 0.6 * GIB


def test_a_plan_that_makes_no_sense_is_refused_before_any_child(slide):
    with pytest.raises(Refusal):
        tile_task(slide, TilePlan(size=3))


@pytest.mark.data
def test_the_real_slides_end_as_they_should(pool, data_dir):
    folder = data_dir / "wsi"
    images, *_, report, _ = read(pool, folder / "CMU-1-Small-Region.svs", plan=TilePlan())

    assert 35 <= len(images) <= 60
    assert report.tissue_mm2 == pytest.approx(0.6, abs=0.06)
    with pytest.raises(SourceRefused, match=r"28\.97 um per pixel, far too coarse"):
        read(pool, folder / "camelyon_jpeg.dcm", plan=TilePlan())
    with pytest.raises(SourceRefused, match="manifest"):
        read(pool, folder / "kidney-48-5.tif", plan=TilePlan())
    *_, empty, _ = read(pool, folder / "kidney-48-5.tif", plan=TilePlan(), um_per_px=0.5)
    assert "almost no tissue" in empty.failure
    *_, coarse, _ = read(pool, folder / "camelyon_jpeg.dcm", plan=TilePlan(size=64, um_per_px=29))
    assert coarse.kept > 50

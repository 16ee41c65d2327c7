"""Slides are opened in children, and say no more of themselves than they may."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks import mutants
from benchmarks.made import blob, jpeg, level_of, svs_description, write_tiff
from encoder.image import ImageError
from ingest.sandbox.messages import Refusal
from ingest.slides.base import on_white
from ingest.slides.slide import open_slide


def facts_of(path, **how):
    slide = open_slide(path, **how)
    slide.close()
    return slide.facts


def svs(path, rng, um_per_px=0.25, extra=""):
    words = svs_description(400, 300, um_per_px, extra)
    return write_tiff(path, [level_of(blob(300, 400, rng))], description=words)


def test_scale_size_and_levels_come_from_the_file(tmp_path, rng):
    facts = facts_of(svs(tmp_path / "a.svs", rng))

    assert (facts.vendor, facts.reader) == ("aperio", "direct")
    assert (facts.width, facts.height, facts.levels) == (400, 300, ((400, 300),))
    assert facts.um_per_px == (0.25, 0.25)
    assert facts.objective == 20


def test_no_scale_is_taken_from_the_power_of_the_objective(tmp_path, rng):
    facts = facts_of(svs(tmp_path / "a.svs", rng, um_per_px=None))

    assert facts.objective == 20
    assert facts.um_per_px is None


@pytest.mark.parametrize("scale", ["0", "-3", "nan", "1e30", "CANARY"])
def test_a_scale_that_cannot_be_is_no_scale(tmp_path, rng, scale):
    assert facts_of(svs(tmp_path / "a.svs", rng, um_per_px=scale)).um_per_px is None


def test_a_screen_resolution_is_no_scale(tmp_path, rng):
    path = tmp_path / "a.tif"
    Image.fromarray(blob(300, 400, rng)).save(path, dpi=(72, 72))

    assert facts_of(path).um_per_px is None


def test_a_plain_image_is_a_slide_of_one_level_without_a_scale(tmp_path, rng):
    path = tmp_path / "a.png"
    Image.fromarray(blob(30, 40, rng)).save(path)
    facts = facts_of(path)

    assert (facts.vendor, facts.width, facts.height, facts.um_per_px) == ("plain", 40, 30, None)


def test_a_plain_image_over_the_cap_is_refused(tmp_path, rng):
    path = tmp_path / "a.png"
    Image.fromarray(blob(300, 400, rng)).save(path)

    with pytest.raises(ImageError, match="400 x 300 pixels"):
        facts_of(path, max_pixels=1000)


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\0\x08\0\0\0", b"\xff\xd8\xff\xe0"])
def test_what_is_neither_slide_nor_image_is_refused_in_words(tmp_path, content):
    path = tmp_path / "secret-name.svs"
    path.write_bytes(content)

    with pytest.raises(Refusal, match="neither a slide") as caught:
        facts_of(path)

    assert "secret-name" not in str(caught.value)


def test_a_file_that_is_gone_is_said_to_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        facts_of(tmp_path / "gone.svs")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(Refusal, match="folder"):
        open_slide(tmp_path)


def test_unscanned_places_are_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    out = np.empty((1, 3, 3), np.uint8)
    on_white(rgba, out)

    assert out[0].tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]


def test_label_and_macro_images_are_never_opened(tmp_path, rng, monkeypatch):
    import openslide

    def forbidden(*_):
        raise AssertionError("an associated image was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(forbidden))
    monkeypatch.setattr(openslide.OpenSlide, "get_thumbnail", forbidden)
    slide = open_slide(svs(tmp_path / "a.svs", rng))
    *_, picture = slide.overview(100, 75)
    slide.close()

    assert picture.shape == (75, 100, 3)


def test_a_jpeg_with_another_ending_is_read_for_what_it_is(tmp_path, rng):
    path = tmp_path / "a.svs"
    path.write_bytes(jpeg(blob(64, 64, rng)))

    assert facts_of(path).vendor == "plain"


@pytest.mark.data
def test_the_real_slides_say_what_is_known_of_them(data_dir):
    svs, dcm, tif = (
        facts_of(data_dir / "wsi" / name)
        for name in ("CMU-1-Small-Region.svs", "camelyon_jpeg.dcm", "kidney-48-5.tif")
    )

    assert (svs.vendor, svs.um_per_px, svs.reader) == ("aperio", (0.499, 0.499), "direct")
    assert (dcm.vendor, dcm.width, dcm.height) == ("dicom", 1152, 700)
    assert dcm.um_per_px == pytest.approx((28.969, 28.968))
    assert (tif.vendor, tif.um_per_px) == ("plain", None)


def test_sixty_mutants_each_end_with_a_reason():
    outcome = mutants.run(60, workers=2)

    assert outcome.total == 60
    assert outcome.of("read") > 5
    assert outcome.of("refused") > 20
    assert outcome.peak_mib < 1536


def test_a_mutant_is_the_same_for_the_same_number(tmp_path):
    files = mutants.bases(tmp_path)

    assert len({mutants.mutant(number, files)[0] for number in range(6)}) == 6
    for number in (0, 1, 2, 3, 4, 5):
        assert mutants.mutant(number, files) == mutants.mutant(number, files)

"""Cells cut from fields."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder.field_of_view import USUAL
from ingest.sources.marked import CropError, CropRule, Mark, Marked, in_pixels, outside, square
from ingest.sources.source import Facts, Source
from search.schemas.items import Box


def field(folder: Path, wide: int = 100, high: int = 80) -> Source:
    pixels = np.full((high, wide, 3), 220, np.uint8)
    pixels[20:30, 40:50] = (120, 40, 140)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    path = folder / "field.png"
    path.write_bytes(out.getvalue())
    return Source(path, "smears")


@pytest.mark.parametrize(
    ("rule", "um_per_px", "longest", "side"),
    [
        (CropRule(), None, 100.0, 120),
        (CropRule(margin=0), None, 101.0, 101),
        (CropRule(px=70), None, 100.0, 70),
        (CropRule(um=25), 0.1, 100.0, 250),
        (CropRule(um=25, px=70), 0.1, 100.0, 250),
        (CropRule(um=25, px=70), None, 100.0, 70),
        (CropRule(point_px=70), None, None, 70),
        (CropRule(point_px=70), None, 100.0, 120),
        (CropRule(px=64, point_px=70), None, None, 64),
        (CropRule(fields=USUAL), None, 100.0, 120),
        (CropRule(fields=USUAL), 0.1, 100.0, 250),
        (CropRule(fields=USUAL), 0.1, 170.0, 250),
        (CropRule(fields=USUAL), 0.1, 75.0, 120),
        (CropRule(fields=USUAL), 0.1, 400.0, 400),
        (CropRule(fields=USUAL, px=70), 0.1, 100.0, 70),
        (CropRule(fields=USUAL, point_px=70), 0.1, None, 70),
    ],
)
def test_the_first_size_that_is_given_counts(
    rule: CropRule, um_per_px: float | None, longest: float | None, side: int
) -> None:
    assert rule.side(um_per_px, longest) == side


def test_micrometres_without_a_scale_are_refused_not_guessed() -> None:
    with pytest.raises(CropError, match="the scale is not known; give um_per_px"):
        CropRule(um=25).side(None, 100.0)


def test_a_point_without_a_size_is_refused() -> None:
    with pytest.raises(CropError, match="a point has no size"):
        CropRule().side(None, None)


def test_a_crop_of_a_whole_slide_is_a_wrong_unit() -> None:
    with pytest.raises(CropError, match="is the unit right"):
        CropRule(um=25).side(0.0001, None)


@pytest.mark.parametrize("wrong", [{"um": 0.0}, {"px": -1}, {"margin": -0.1}, {"um": math.inf}])
def test_a_rule_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(CropError):
        CropRule(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (Mark(10, 10, 0, 5), "zero size"),
        (Mark(10, 10, -4, 5), "inside out"),
        (Mark(math.nan, 10, 4, 5), "not a number"),
        (Mark(300, 10, 40, 40), "outside the image"),
        (Mark(-30, 10, 40, 40), "outside the image"),
        (Mark(100, 10), "outside the image"),
        (Mark(1.2, 0.5, 0.1, 0.1, "fraction"), "outside the image"),
    ],
)
def test_a_mark_that_cannot_be_cut_says_why(mark: Mark, words: str) -> None:
    with pytest.raises(CropError, match=words):
        in_pixels(mark, (100, 80))


def test_fractions_are_of_width_and_of_height() -> None:
    assert in_pixels(Mark(0.1, 0.5, 0.2, 0.25, "fraction"), (100, 80)) == (10, 40, 20, 20)


def test_the_square_has_the_centre_of_the_box() -> None:
    assert square((10, 20, 30, 10), 36) == Box(x=7, y=7, w=36, h=36)


def test_the_share_outside_is_by_area() -> None:
    assert outside(Box(x=-5, y=-5, w=10, h=10), (100, 100)) == 0.75
    assert outside(Box(x=0, y=0, w=10, h=10), (100, 100)) == 0


def test_every_mark_is_an_item_or_a_failure(tmp_path: Path) -> None:
    source = field(tmp_path)
    marks = [
        Mark(40, 20, 10, 10, facts=Facts(label="WBC"), where="object 1"),
        Mark(5, 5, 0, 0, where="object 2"),
        Mark(0, 0, 20, 20, where="object 3"),
    ]

    plan = Marked(marks).plan(source, Facts(label="cell", stain="MGG"))
    images = list(Marked(marks).cut(source, plan.planned))

    first, third = plan.planned
    assert (first.item.label, first.item.stain, first.item.bbox) == (
        "WBC",
        "MGG",
        Box(x=39, y=19, w=12, h=12),
    )
    assert "padded" not in first.notes
    assert third.item.label == "cell"
    assert third.notes == {"marked": "0,0,20,20", "padded": "0.160"}
    assert [failure.where for failure in plan.failures] == ["object 2"]
    assert images[0].shape == (12, 12, 3)
    assert (images[0][1:-1, 1:-1] == (120, 40, 140)).all()
    assert (images[1] == 220).all()


def test_an_annotation_for_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    marked = Marked([Mark(1, 1, 5, 5)], size=(640, 480))

    with pytest.raises(CropError, match="for an image of 640 x 480 px, this one has 100 x 80"):
        marked.plan(field(tmp_path), Facts())


def oriented(path: Path, orientation: int, size: tuple[int, int] = (60, 40)) -> Source:
    """A picture that is shown with a dark square at 44, 4, stored as its orientation has it."""
    shown = Image.new("RGB", size, (230, 230, 230))
    shown.paste((40, 20, 90), (44, 4, 54, 14))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes it
    stored = shown if orientation == 1 else shown.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(path, exif=exif)
    return Source(path, "d")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_on_an_oriented_picture_follow_the_size_that_they_were_made_for(
    tmp_path: Path, orientation: int
) -> None:
    source = oriented(tmp_path / "a.png", orientation)
    shown = Mark(44, 4, 10, 10)
    at = {5: (4, 44), 6: (4, 6), 7: (26, 6), 8: (26, 44)}[orientation]  # the same, as stored
    rule = CropRule(margin=0)
    for marks, size in (((shown,), (60, 40)), ((Mark(*at, 10, 10),), (40, 60))):
        reader = Marked(marks, rule, size)
        planned = reader.plan(source, Facts()).planned
        assert planned[0].item.bbox == Box(x=44, y=4, w=10, h=10)
        assert next(reader.cut(source, planned)).mean() < 60


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_boxes_are_refused_where_both_frames_have_one_size(
    tmp_path: Path, orientation: int
) -> None:
    source = oriented(tmp_path / "a.png", orientation)
    for size in (None, (60, 40)):
        with pytest.raises(CropError, match="as stored or as shown"):
            Marked((Mark(44, 4, 10, 10),), size=size).plan(source, Facts())


def test_a_box_that_fits_one_frame_alone_says_which_it_is(tmp_path: Path) -> None:
    source = oriented(tmp_path / "a.png", 6)
    rule = CropRule(margin=0)
    found = Marked((Mark(44, 4, 10, 10),), rule).plan(source, Facts()).planned
    assert found[0].item.bbox == Box(x=44, y=4, w=10, h=10)
    found = Marked((Mark(4, 45, 10, 10),), rule).plan(source, Facts()).planned
    assert found[0].item.bbox == Box(x=5, y=4, w=10, h=10)
    with pytest.raises(CropError, match="as stored or as shown"):
        Marked((Mark(0.5, 0.5, 0.1, 0.1, "fraction"),)).plan(source, Facts())


def test_a_whole_oriented_picture_is_upright(tmp_path: Path) -> None:
    source = oriented(tmp_path / "a.png", 8)
    assert source.size == (60, 40)
    assert source.image[9, 49].mean() < 60

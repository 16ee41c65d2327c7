"""The report of a slide, and its picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ingest.slides.quality import REASONS
from ingest.slides.report import COLOURS, SlideReport, draw

FACTS = {"width": 2000, "height": 1000, "um_per_px": (0.5, 0.5), "vendor": "aperio"}


def report(reasons=("kept",), **changes):
    facts = {
        "facts": FACTS,
        "plan": {"size": 256, "um_per_px": 0.5},
        "limits": {},
        "um_per_px": (0.5, 0.5),
        "um_per_px_origin": "file",
        "level": 0,
        "resampled": False,
        "tissue_share": 0.25,
        "pen_share": 0.0,
        "reasons": list(reasons),
        "restricted": False,
        "stain": None,
        "unstained": 0,
        "part": (0, 1),
    }
    return SlideReport.of(**{**facts, **changes})


def test_counts_follow_the_reasons_and_area_is_in_square_millimetres():
    made = report(["kept", "kept", "pen", "blank"])

    assert made.counts == {"kept": 2, "pen": 1, "blank": 1}
    assert made.kept == 2
    assert made.tissue_mm2 == pytest.approx(0.125)
    assert made.failure is None


def test_a_report_survives_a_journey_as_json():
    made = report(["kept", "damaged"], pen_share=0.1)

    assert SlideReport.from_json(json.loads(made.to_json())).to_json() == made.to_json()


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="fields"):
        SlideReport.from_json({**report().to_dict(), "patient": "x"})


@pytest.mark.parametrize(
    ("reasons", "changes", "words"),
    [
        ([], {}, "smaller than one tile of 128 um"),
        (["little tissue"] * 9, {"tissue_share": 0.0001}, "empty glass"),
        (["outside the region"] * 9, {"restricted": True}, "level 0"),
        (["pen", "blank"], {}, "1 pen, 1 blank; look at the picture"),
    ],
)
def test_zero_tiles_are_a_failure_with_a_reason(reasons, changes, words):
    assert words in report(reasons, **changes).failure


def test_what_should_be_looked_at_is_a_warning():
    made = report(
        ["kept", "out of focus", "damaged"],
        pen_share=0.02,
        stain="macenko-1",
        unstained=3,
        um_per_px=(0.25, 0.25),
        um_per_px_origin="manifest",
    )

    for words in ("manifest", "damaged", "out of focus", "pen marks", "stain-normalised"):
        assert any(words in warning for warning in made.warnings)


def test_the_picture_colours_tiles_by_what_became_of_them():
    overview = np.full((400, 800, 3), 255, np.uint8)
    boxes = np.array([[0, 0, 500, 500], [500, 0, 500, 500]])
    picture = draw(overview, boxes, ["kept", "pen"], (2000, 1000))

    assert tuple(picture[0, 40]) == COLOURS["kept"]
    assert tuple(picture[0, 240]) == COLOURS["pen"]
    assert (picture[360, 760] == 255).all()
    assert picture.shape[0] == 400 + 2 * 18 + 6


def test_every_reason_has_a_colour_of_its_own():
    assert set(COLOURS) == set(REASONS)
    assert len(set(COLOURS.values())) == len(REASONS)


def test_files_are_written_whole_and_without_metadata(tmp_path):
    picture = np.zeros((10, 20, 3), np.uint8)
    text, image = report().write(tmp_path / "new", "abc", picture)

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["abc.json", "abc.png"]
    assert json.loads(text.read_text())["counts"] == {"kept": 1}
    with Image.open(image) as opened:
        assert opened.info == {}

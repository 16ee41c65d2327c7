"""Cells cut from smear fields at a fixed field of view."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder.field_of_view import USUAL
from ingest.samples.synthetic import Field, draw_field
from ingest.smears.cells import CellKind, Found, FoundCell, Scale
from ingest.smears.classical import Classical
from ingest.smears.crops import FieldOfView, Smear, crops_of
from ingest.smears.source import FieldReader, Measured, cells
from ingest.sources.marked import CropRule, Mark, Marked
from ingest.sources.source import NOTHING, Facts, Source, Whole


def cell(kind: CellKind, x: int, y: int, w: int, h: int) -> FoundCell:
    return FoundCell(kind=kind, bbox=(x, y, w, h), score=0.5, touches_border=False)


def found(
    *cells: FoundCell, um_per_px: float | None = None, red_diameter_px: float | None = None
) -> Found:
    scale = None if um_per_px is None else Scale(um_per_px=um_per_px, origin="manifest")
    return Found(
        cells=cells,
        size=(300, 200),
        scale=scale,
        estimate=None,
        red_diameter_px=red_diameter_px,
        finder="classical",
    )


@pytest.fixture(name="image")
def _image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 200, (200, 300, 3), dtype=np.uint8)


def test_white_cells_get_25_and_red_cells_12_micrometres(image: np.ndarray) -> None:
    both = found(cell("white", 130, 80, 40, 30), cell("red", 100, 90, 20, 20), um_per_px=0.25)
    white, red = crops_of(image, both)
    assert white.image.shape == (100, 100, 3)
    assert red.image.shape == (48, 48, 3)
    assert white.basis == red.basis == "um"
    assert (white.um_per_px, white.um_per_px_origin) == (0.25, "manifest")


def test_the_cell_is_in_the_middle_and_the_pixels_are_the_fields_own(image: np.ndarray) -> None:
    (crop,) = crops_of(image, found(cell("red", 140, 90, 20, 20), um_per_px=0.25))
    assert (crop.box.x, crop.box.y) == (126, 76)
    assert np.array_equal(crop.image, image[76:124, 126:174])
    assert crop.padded == 0


def test_at_the_border_the_outside_is_filled_and_its_share_is_told(image: np.ndarray) -> None:
    (crop,) = crops_of(
        image, found(cell("red", 0, 90, 20, 20), um_per_px=0.25), FieldOfView(fill=(1, 2, 3))
    )
    assert crop.box.x == -14
    assert crop.padded == pytest.approx(14 / 48)
    assert (crop.image[:, :14] == (1, 2, 3)).all()
    assert np.array_equal(crop.image[:, 14:], image[76:124, 0:34])


def test_without_a_scale_pixels_are_relative_to_the_red_cells_and_it_is_said(
    image: np.ndarray,
) -> None:
    (crop,) = crops_of(image, found(cell("white", 130, 80, 40, 30), red_diameter_px=30.0))
    assert crop.image.shape == (100, 100, 3)  # 25 / 7.5 diameters
    assert crop.basis == "red cells"
    assert crop.um_per_px is None
    assert crop.um_per_px_origin is None


def test_without_scale_and_red_cells_the_cell_itself_is_the_measure(image: np.ndarray) -> None:
    (crop,) = crops_of(image, found(cell("white", 130, 80, 56, 50)))
    assert crop.image.shape == (100, 100, 3)  # 25 / 14 of the longer side
    assert crop.basis == "cell"


def test_platelets_are_cut_only_where_asked_for(image: np.ndarray) -> None:
    one = found(cell("platelet", 130, 80, 10, 10), um_per_px=0.25)
    assert list(crops_of(image, one)) == []
    assert [crop.kind for crop in crops_of(image, one, FieldOfView(kinds=("platelet",)))] == [
        "platelet"
    ]


def test_cells_of_another_picture_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="find them in the same picture"):
        next(crops_of(image[:100], found(cell("red", 0, 0, 9, 9), um_per_px=0.25)))


@pytest.fixture(name="drawn", scope="module")
def _drawn() -> Field:
    return draw_field(5, patient=2, width=400, height=300, um_per_px=0.15)


def source(tmp_path: Path, image: np.ndarray) -> Source:
    path = tmp_path / "field.png"
    held = BytesIO()
    Image.fromarray(image).save(held, "PNG")
    path.write_bytes(held.getvalue())
    return Source(path, "drawn")


def test_a_field_becomes_items_with_an_estimated_scale_that_is_called_one(
    tmp_path: Path, drawn: Field
) -> None:
    reader = Smear(finder=Classical())
    plan = reader.plan(source(tmp_path, drawn.image), NOTHING)
    assert not plan.failures
    assert {one.notes["cell"] for one in plan.planned} == {"white", "red"}
    for one in plan.planned:
        assert one.item.um_per_px_origin == "estimate"
        assert one.item.um_per_px == pytest.approx(0.15, rel=0.15)
        assert one.item.label is None
        assert int(one.notes["um_per_px cells"]) >= 8
    assert len({one.item.id for one in plan.planned}) == len(plan.planned)


def test_planned_items_are_cut_to_the_size_of_their_boxes(tmp_path: Path, drawn: Field) -> None:
    reader, one = Smear(finder=Classical()), source(tmp_path, drawn.image)
    plan = reader.plan(one, Facts(um_per_px=0.15, um_per_px_origin="file"))
    assert {item.item.um_per_px_origin for item in plan.planned} == {"file"}
    sides = {"white": round(25 / 0.15), "red": 80}
    for planned, picture in zip(plan.planned, reader.cut(one, plan.planned), strict=True):
        assert picture.shape == (sides[planned.notes["cell"]],) * 2 + (3,)


def test_a_field_in_which_nothing_is_found_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    empty = np.full((60, 80, 3), 220, np.uint8)
    plan = Smear(finder=Classical()).plan(source(tmp_path, empty), NOTHING)
    assert not plan.planned
    assert "found no white or red cell" in plan.failures[0].reason


def test_a_scale_that_nobody_recorded_is_estimated_where_that_is_asked_for(tmp_path: Path) -> None:
    drawn = draw_field(3, patient=1, width=640, height=480, um_per_px=0.1)
    Image.fromarray(drawn.image).save(tmp_path / "field.png")
    source = Source(tmp_path / "field.png", "d")
    white = next(cell for cell in drawn.cells if cell.kind == "white")
    boxed = Marked((Mark(*white.bbox),), CropRule(fields=USUAL))

    (whole,) = Measured(Whole()).plan(source, NOTHING).planned
    (cut,) = Measured(boxed).plan(source, NOTHING).planned
    (known,) = Measured(Whole()).plan(source, Facts(um_per_px=0.2)).planned

    assert whole.item.um_per_px == cut.item.um_per_px == pytest.approx(0.1, rel=0.1)
    assert whole.item.um_per_px_origin == "estimate"
    assert float(whole.notes["um_per_px spread"]) < 0.025
    assert cut.item.bbox is not None
    assert cut.item.bbox.w * cut.item.um_per_px == pytest.approx(25, abs=0.1)
    assert (known.item.um_per_px, known.item.um_per_px_origin, known.notes) == (0.2, None, {})
    Image.new("RGB", (300, 300), (230, 230, 235)).save(tmp_path / "glass.png")
    (none,) = Measured(Whole()).plan(Source(tmp_path / "glass.png", "d"), NOTHING).planned
    assert none.item.um_per_px is None


def test_white_cells_alone_are_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "field.png"
    Image.fromarray(draw_field(3).image).save(path)

    def kinds(white: bool) -> list[str]:
        args = FieldReader(white=white).job(path, NOTHING).args
        pieces = cells(str(path), **args)
        return [notes["cell"] for one in pieces for _, notes in one.facts.get("cells", ())]

    every, white = kinds(False), kinds(True)
    assert set(every) == {"white", "red"}
    assert set(white) == {"white"}
    assert len(white) == every.count("white")
    assert FieldReader(white=True).recipe(NOTHING) != FieldReader().recipe(NOTHING)

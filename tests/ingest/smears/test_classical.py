"""The default finder on drawn fields whose truth is exact, and on the real ones."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from encoder.image import read_rgb
from ingest.samples.synthetic import Field, draw_field
from ingest.smears.cells import FinderError, Found
from ingest.smears.classical import Classical, _blocks

FINDER = Classical()
Box = tuple[float, float, float, float]


def iou(a: Box, b: Box) -> float:
    """Of two boxes given as x, y, width, height."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0.0, across) * max(0.0, down)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def matched(truth: list[Box], found: Found, kind: str) -> int:
    boxes = [cell.bbox for cell in found.cells if cell.kind == kind]
    return sum(any(iou(one, box) >= 0.5 for box in boxes) for one in truth)


def boxes_of(field: Field, kind: str) -> list[Box]:
    return [cell.bbox for cell in field.cells if cell.kind == kind]


@pytest.fixture(name="field", scope="module")
def _field() -> Field:
    return draw_field(3, patient=1, width=640, height=480, um_per_px=0.1)


@pytest.fixture(name="found", scope="module")
def _found(field: Field) -> Found:
    return FINDER.find(field.image)


@pytest.mark.parametrize(("patient", "um_per_px"), [(0, 0.1), (1, 0.1), (2, 0.2), (3, 0.07)])
def test_drawn_cells_are_found_at_every_scale_and_stain(patient: int, um_per_px: float) -> None:
    field = draw_field(5, patient=patient, um_per_px=um_per_px)
    found = FINDER.find(field.image)
    for kind, least in (("white", 1.0), ("red", 0.85)):
        truth = boxes_of(field, kind)
        assert matched(truth, found, kind) >= least * len(truth), kind
        assert len(found.of(kind)) <= 1.2 * len(truth) + 1, kind  # type: ignore[arg-type]


@pytest.mark.parametrize("degrees", [-54, 120, 180])
def test_the_same_cells_are_found_whatever_the_hue(degrees: int, field: Field) -> None:
    hsv = np.array(Image.fromarray(field.image).convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(degrees / 360 * 256)) % 256
    found = FINDER.find(np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")))
    for kind, least in (("white", 1.0), ("red", 0.85)):
        truth = boxes_of(field, kind)
        assert matched(truth, found, kind) >= least * len(truth), kind
        assert len(found.of(kind)) <= 1.2 * len(truth) + 1, kind  # type: ignore[arg-type]


def test_boxes_lie_inside_the_field_and_say_when_it_cuts_them(found: Found) -> None:
    assert found.size == (640, 480)
    for cell in found.cells:
        x, y, w, h = cell.bbox
        assert x >= 0
        assert y >= 0
        assert w >= 1
        assert h >= 1
        assert x + w <= 640
        assert y + h <= 480
        if 0 in (x, y) or x + w == 640 or y + h == 480:
            assert cell.touches_border
        if min(x, y, 640 - x - w, 480 - y - h) > 8:
            assert not cell.touches_border


def test_cells_come_by_kind_and_then_by_score(found: Found) -> None:
    order = [("white", "red", "platelet").index(cell.kind) for cell in found.cells]
    assert order == sorted(order)
    scores = [cell.score for cell in found.of("red")]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= cell.score <= 1 for cell in found.cells)


def test_the_same_picture_gives_the_same_cells(field: Field, found: Found) -> None:
    assert FINDER.find(field.image.copy()) == found


def test_finding_does_not_change_the_picture(field: Field) -> None:
    before = field.image.copy()
    FINDER.find(field.image)
    assert np.array_equal(field.image, before)


def test_the_scale_is_an_estimate_near_the_drawn_one(field: Field, found: Found) -> None:
    assert found.scale is found.estimate
    assert found.scale is not None
    assert found.scale.origin == "estimate"
    assert found.scale.um_per_px == pytest.approx(field.um_per_px, rel=0.15)


def test_a_given_scale_stands_and_the_estimate_beside_it(field: Field) -> None:
    found = FINDER.find(field.image, 0.1, "file")
    assert found.scale is not None
    assert (found.scale.um_per_px, found.scale.origin, found.scale.n) == (0.1, "file", None)
    assert found.estimate is not None
    assert found.estimate.um_per_px == pytest.approx(0.1, rel=0.15)


def test_a_scale_too_coarse_for_red_cells_is_refused_with_the_sizes(field: Field) -> None:
    with pytest.raises(FinderError, match=r"a red cell is 1\.5 pixels wide; at least 6 are needed"):
        FINDER.find(field.image, 5.0)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_field_has_no_cells_and_no_scale(level: int) -> None:
    found = FINDER.find(np.full((200, 300, 3), level, np.uint8))
    assert found.cells == ()
    assert found.scale is None
    assert found.red_diameter_px is None


def test_noise_on_empty_glass_is_not_taken_for_white_cells(rng: np.random.Generator) -> None:
    noisy = np.clip(rng.normal(225, 4, (240, 320, 3)), 0, 255).astype(np.uint8)
    assert FINDER.find(noisy).of("white") == ()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (3, 5, 3), (40, 900, 3)])
def test_pictures_of_odd_shape_are_taken(shape: tuple[int, int, int], field: Field) -> None:
    height, width = shape[:2]
    tall = np.tile(field.image, (1, 2, 1))[:height, :width]
    assert FINDER.find(np.ascontiguousarray(tall)).size == (width, height)


def test_a_vignette_changes_little(field: Field, found: Found) -> None:
    y, x = np.mgrid[-1:1:480j, -1:1:640j]
    dark = (field.image * (1 - 0.25 * (x**2 + y**2)[..., None])).astype(np.uint8)
    again = FINDER.find(dark)
    for kind in ("white", "red"):
        truth = [cell.bbox for cell in found.cells if cell.kind == kind]
        assert matched([*truth], again, kind) >= 0.8 * len(truth)


def test_touching_cells_are_told_apart() -> None:
    y, x = np.mgrid[:200, :300]
    image = np.full((200, 300, 3), (235, 232, 228), np.uint8)
    middles = [(60, 60), (108, 60), (84, 100), (200, 60), (240, 84), (180, 150)]
    for at_x, at_y in middles:  # discs 50 wide, drawn one over the other
        inside = (x - at_x) ** 2 + (y - at_y) ** 2 <= 25**2
        rim = inside & ((x - at_x) ** 2 + (y - at_y) ** 2 > 22**2)
        image[inside] = (214, 150, 150)
        image[rim] = (200, 130, 130)
    found = FINDER.find(image, 0.15)
    truth = [(at_x - 25.0, at_y - 25.0, 50.0, 50.0) for at_x, at_y in middles]
    assert matched([*truth], found, "red") == len(truth)
    assert len(found.of("red")) <= len(truth) + 1


def test_a_large_picture_is_worked_on_in_parts_that_lose_nothing(field: Field) -> None:
    small = draw_field(1, patient=0, width=320, height=240, um_per_px=0.3)
    wide = np.tile(small.image, (6, 2, 1))
    alone, many = FINDER.find(small.image, 0.3), FINDER.find(wide, 0.3)
    inner = [cell for cell in alone.of("red") if not cell.touches_border]
    assert len(inner) > 10
    hits = 0
    for row in range(6):
        for column in range(2):
            moved = [
                (cell.bbox[0] + 320 * column, cell.bbox[1] + 240 * row, *cell.bbox[2:])
                for cell in inner
            ]
            hits += matched([*moved], many, "red")
    assert hits >= 0.9 * 12 * len(inner)
    boxes = [cell.bbox for cell in many.of("red")]
    assert len(set(boxes)) == len(boxes)


def test_cores_cover_a_picture_once() -> None:
    seen = np.zeros((300, 500), int)
    for part, core in _blocks(500, 300, 8.0, 5.0):
        assert part[0] <= core[0]
        assert core[2] - 1 <= part[2]
        x0, y0, x1, y1 = (round(side) for side in core)
        seen[y0 : min(y1, 300), x0 : min(x1, 500)] += 1
    assert (seen >= 1).all()
    assert len(list(_blocks(500, 300, 8.0, 5.0))) > 4


@pytest.mark.data
def test_white_and_red_cells_of_real_fields_are_found(data_dir: Path) -> None:
    hits: dict[str, list[int]] = {"RBC": [0, 0], "WBC": [0, 0]}
    for path in sorted((data_dir / "bccd" / "JPEGImages").glob("*[13579].jpg"))[::40]:
        found = FINDER.find(read_rgb(path.read_bytes()))
        tree = ElementTree.parse(data_dir / "bccd" / "Annotations" / f"{path.stem}.xml")
        for mark in tree.iter("object"):
            label = mark.findtext("name", "")
            if label not in hits:
                continue
            x0, y0, x1, y1 = (
                float(mark.findtext(f"bndbox/{side}", ""))
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            kind = "red" if label == "RBC" else "white"
            hits[label][0] += matched([(x0, y0, x1 - x0, y1 - y0)], found, kind)
            hits[label][1] += 1
    assert hits["WBC"][0] == hits["WBC"][1]
    assert hits["RBC"][0] >= 0.85 * hits["RBC"][1]


@pytest.mark.data
def test_a_picture_with_transparency_from_another_lab_is_searched(data_dir: Path) -> None:
    with (data_dir / "aslan" / "annotations.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["image"] == "image-1.png"]
    found = FINDER.find(read_rgb((data_dir / "aslan" / "images" / "image-1.png").read_bytes()))
    truth = []
    for row in rows:
        x0, y0, x1, y1 = (float(row[side]) * 256 for side in ("xmin", "ymin", "xmax", "ymax"))
        if row["label"] == "rbc":
            truth.append((x0, y0, x1 - x0, y1 - y0))
    assert truth
    assert matched([*truth], found, "red") >= 0.8 * len(truth)

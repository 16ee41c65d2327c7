from __future__ import annotations

import csv
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from encoder.image import read_rgb
from ingest.samples.blood_cells import RED, WHITE, kind_of
from ingest.samples.patients import SITES, STAINS, patient
from ingest.samples.synthetic import (
    DATASET,
    FIELD_OF_VIEW,
    LABELS,
    draw_cell,
    draw_field,
    voc,
    write_library,
)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_equal_seeds_draw_equal_bytes_and_others_do_not() -> None:
    first, again = draw_field(3, patient=1), draw_field(3, patient=1)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.cells == again.cells
    assert draw_field(4, patient=1).image.tobytes() != first.image.tobytes()
    assert draw_field(3, patient=2).image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_drawn_in_the_middle_of_its_crop(label: str) -> None:
    image = draw_cell(label, 5, patient=0, size=96)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert image.tobytes() == draw_cell(label, 5, patient=0, size=96).tobytes()
    assert image.tobytes() != draw_cell(label, 6, patient=0, size=96).tobytes()
    light = image.astype(float).mean(axis=2)
    assert light[40:56, 40:56].mean() < np.quantile(light, 0.95) - 12  # darker than the glass


def test_a_crop_looks_the_same_size_at_every_scale() -> None:
    coarse = draw_cell("lymphocyte", 2, size=64)
    fine = draw_cell("lymphocyte", 2, size=192)
    shares = [(image[..., 0] < 140).mean() for image in (coarse, fine)]
    assert shares[0] == pytest.approx(shares[1], rel=0.15)


def test_an_unknown_label_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'giant platelet'.*segmented neutrophil"):
        draw_cell("giant platelet", 0)


def test_boxes_lie_inside_the_field_and_only_cut_cells_reach_its_border() -> None:
    for seed in range(4):
        field = draw_field(seed, patient=seed, width=400, height=300, um_per_px=0.15)
        assert field.image.shape == (300, 400, 3)
        assert len(field.cells) > 20
        for cell in field.cells:
            x, y, w, h = cell.bbox
            assert 0 <= x < x + w <= 400
            assert 0 <= y < y + h <= 300
            if cell.truncated:
                assert x == 0 or y == 0 or x + w == 400 or y + h == 300


def test_a_box_holds_a_cell_of_the_size_that_its_label_has() -> None:
    field = draw_field(1, patient=0, um_per_px=0.1)
    for cell in (cell for cell in field.cells if not cell.truncated):
        longest = max(cell.bbox[2:]) * field.um_per_px
        low, high = {"white": (8, 20), "red": (3, 13), "platelet": (1.5, 5)}[cell.kind]
        assert low < longest < high, cell


def test_pixels_inside_the_boxes_are_darker_than_those_outside_of_all() -> None:
    field = draw_field(2, patient=4)
    free = np.ones(field.image.shape[:2], bool)
    for x, y, w, h in (cell.bbox for cell in field.cells):
        free[max(y - 8, 0) : y + h + 8, max(x - 8, 0) : x + w + 8] = False
    glass = np.median(field.image[free], axis=0)
    assert field.image[free].std(axis=0).max() < 12  # nothing unannotated
    for x, y, w, h in (cell.bbox for cell in field.cells):
        part = field.image[y : y + h, x : x + w].reshape(-1, 3)
        assert (np.quantile(part, 0.2, axis=0).sum()) < glass.sum() - 40


def test_the_kind_of_a_cell_follows_from_its_label() -> None:
    for cell in draw_field(0, patient=5).cells:
        assert cell.kind == kind_of(cell.label)
    assert {kind_of(label) for label in WHITE} == {"white"}
    assert {kind_of(label) for label in RED} == {"red"}


def test_patients_differ_in_stain_site_and_mix_and_stay_the_same() -> None:
    people = [patient(number) for number in range(6)]
    assert {one.stain for one in people} == set(STAINS)
    assert {one.site for one in people} == set(SITES)
    assert len({one.id for one in people}) == 6
    assert len({one.build.diameter for one in people}) == 6
    field = draw_field(0, patient=3)
    assert (field.patient, field.site, field.stain) == (
        people[3].id,
        people[3].site,
        people[3].stain,
    )


def test_stains_differ_in_colour_more_than_two_cells_of_one_patient() -> None:
    def glass(number: int, seed: int) -> np.ndarray:
        return np.median(draw_cell("platelet", seed, patient=number).reshape(-1, 3), axis=0)

    within = np.abs(glass(0, 1) - glass(0, 2)).max()
    between = np.abs(glass(0, 1) - glass(2, 1)).max()
    assert between > 3 * max(within, 1)


def test_touching_red_cells_occur() -> None:
    boxes = [c.bbox for c in draw_field(0, patient=1).cells if c.kind == "red"]
    overlapping = sum(
        a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )
    assert overlapping > 0


def test_a_library_is_written_twice_with_equal_bytes(tmp_path: Path) -> None:
    sizes = {"patients": 1, "fields_per_patient": 1, "cells_per_label": 1, "size": 48}
    first = write_library(tmp_path / "a", **sizes)
    write_library(tmp_path / "b", **sizes)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert (first.cells, first.fields) == (len(LABELS), 1)
    assert digests(write_library(tmp_path / "c", **sizes, seed=1).folder) != digests(tmp_path / "a")


def test_the_manifest_names_every_picture_with_its_facts(tmp_path: Path) -> None:
    labels = ("basophil", "red cell")
    made = write_library(
        tmp_path, patients=2, fields_per_patient=0, cells_per_label=2, labels=labels, size=50
    )
    with made.manifest.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == made.cells == 8
    assert {row["path"] for row in rows} == {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")
    }
    for row in rows:
        assert row["dataset"] == DATASET == "synthetic-smear"
        assert Path(row["path"]).parent == Path("cells", row["label"])
        assert row["case"].startswith(row["patient"])
        assert float(row["um_per_px"]) == FIELD_OF_VIEW / 50
        assert read_rgb(tmp_path / row["path"]).shape == (50, 50, 3)
    assert "drawn by a program" in (tmp_path / "README.txt").read_text()


def test_a_field_annotation_gives_back_the_boxes_that_were_drawn(tmp_path: Path) -> None:
    write_library(tmp_path, patients=1, fields_per_patient=1, cells_per_label=0)
    (path,) = (tmp_path / "fields" / "JPEGImages").glob("*.png")
    root = ElementTree.parse(tmp_path / "fields" / "Annotations" / f"{path.stem}.xml").getroot()
    field = draw_field(0, patient=0)
    assert np.array_equal(read_rgb(path), field.image)
    assert root.findtext("filename") == path.name
    assert root.findtext("source/database") == DATASET
    read = []
    for one in root.iter("object"):
        ends = [
            int(one.findtext(f"bndbox/{name}", "")) for name in ("xmin", "ymin", "xmax", "ymax")
        ]
        read.append(
            (one.findtext("name"), (ends[0], ends[1], ends[2] - ends[0], ends[3] - ends[1]))
        )
    assert read == [(cell.label, cell.bbox) for cell in field.cells]
    assert len(voc(field, "x.png").findall("object")) == len(field.cells)

"""Layouts by name and by recognition, each on a small tree in that layout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.layouts.boxes import parse_voc
from ingest.layouts.known import LAYOUTS, recognise, scan
from ingest.layouts.scan import LayoutError, Options, Scan
from ingest.layouts.yolo import parse_names
from ingest.sources.marked import CropRule, Mark, Marked
from ingest.sources.source import Whole

Make = Callable[..., Path]


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Make:
    def make(files: dict[str, str | None], name: str = "set") -> Path:
        """A tree: text files with their text, images where it is `None`."""
        for place, text in files.items():
            path = tmp_path / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                Image.fromarray(np.full((80, 100, 3), 200, np.uint8)).save(path)
            else:
                path.write_text(text)
        return tmp_path / name

    return make


def marks(found: Scan, at: int = 0) -> list[Mark]:
    reader = found.tasks[at].reader
    assert isinstance(reader, Marked)
    return list(reader.marks)


def labels(found: Scan) -> dict[str, str | None]:
    assert all(isinstance(task.reader, Whole) for task in found.tasks)
    return {task.path.name: task.facts.label for task in found.tasks}


def reasons(found: Scan) -> list[tuple[str, str, str]]:
    return [(Path(f.path).name, f.where, f.reason) for f in found.report.failures]


VOC = """<annotation><path>/home/somebody/x.jpg</path>
<size><width>100</width><height>80</height></size>
<object><name>WBC</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>9</ymax></bndbox></object>
</annotation>"""


def test_sub_folders_are_labels(make: Make) -> None:
    root = make({"EO/1.png": None, "EO/2.png": None, "MO/1.png": None, "notes.txt": "x"})

    found = scan(root)

    assert Counter(task.facts.label for task in found.tasks) == {"EO": 2, "MO": 1}
    assert {task.dataset for task in found.tasks} == {"set"}
    assert found.report.ok
    assert found.report.warnings == [
        f"1 files in {root} are no images and stay out: .txt 1",
    ]


def test_the_order_of_tasks_is_the_order_of_paths(make: Make) -> None:
    root = make({"b/1.png": None, "a/2.png": None, "a/1.png": None})
    assert [task.path for task in scan(root).tasks] == sorted(root.rglob("*.png"))


def test_an_image_beside_the_label_folders_is_reported(make: Make) -> None:
    found = scan(make({"EO/1.png": None, "stray.png": None}))
    assert reasons(found)[0][0] == "stray.png"
    assert "has no label" in reasons(found)[0][2]


def test_deeper_folders_are_refused_because_the_label_is_not_plain(make: Make) -> None:
    with pytest.raises(LayoutError, match="what is a label is not plain"):
        scan(make({"train/EO/1.png": None}))


def test_images_without_folders_are_refused_unless_named_cells(make: Make) -> None:
    root = make({"1.png": None, "2.png": None})

    with pytest.raises(LayoutError, match="--layout cells"):
        scan(root)
    assert labels(scan(root, "cells")) == {"1.png": None, "2.png": None}
    assert labels(scan(root / "1.png", "cells")) == {"1.png": None}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/.keep": ""}, "the folder is empty"),
        ({"a/readme.txt": "x", "b/s.xyz": "x"}, r"no images, only \.txt, \.xyz; accepted are"),
    ],
)
def test_a_folder_without_images_says_so(make: Make, files: dict[str, str], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        scan(make(files))


def test_a_path_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="does not exist"):
        scan(tmp_path / "gone")


def test_an_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="Did you mean 'chula'"):
        scan(tmp_path, "chulla")


def test_what_looks_like_two_layouts_is_not_guessed(make: Make) -> None:
    root = make(
        {"Annotations/1.xml": VOC, "JPEGImages/1.png": None, "Dataset/1.png": None}
        | {"Label/1.txt": "1 1 0"}
    )
    with pytest.raises(LayoutError, match="looks like voc and chula"):
        scan(root)


def test_voc_boxes_carry_their_names_and_the_image_size(make: Make) -> None:
    found = scan(make({"JPEGImages/1.png": None, "Annotations/1.xml": VOC}))

    white, red = marks(found)
    assert (white.x, white.y, white.w, white.h) == (10, 20, 30, 40)
    assert (white.facts.label, white.where) == ("WBC", "object 1, WBC")
    assert (red.w, red.h) == (0, 4)
    assert isinstance(found.tasks[0].reader, Marked)
    assert found.tasks[0].reader.size == (100, 80)


def test_voc_reports_annotations_without_images_and_the_reverse(make: Make) -> None:
    found = scan(
        make(
            {"JPEGImages/1.png": None, "JPEGImages/2.png": None}
            | {"Annotations/1.xml": VOC, "Annotations/3.xml": VOC, "Annotations/2.xml": "<broken"}
        )
    )

    assert [name for name, _, _ in reasons(found)] == ["2.xml", "3.xml"]
    assert reasons(found)[0][2].startswith("it is not XML")
    assert reasons(found)[1][2] == "its image is missing: none has its name"
    assert [task.path.name for task in found.tasks] == ["1.png"]

    lonely = scan(make({"JPEGImages/9.png": None, "Annotations/1.xml": VOC}, "other"), "voc")
    assert [name for name, _, _ in reasons(lonely)] == ["1.xml", "9.png"]


def test_voc_with_entities_is_refused() -> None:
    with pytest.raises(LayoutError, match="defines entities"):
        parse_voc('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')


@pytest.mark.parametrize(
    ("image", "table"),
    [
        ("images/train/1.png", "labels/train/1.txt"),
        ("train/images/1.png", "train/labels/1.txt"),
        ("1.png", "1.txt"),
    ],
)
def test_yolo_finds_the_label_file_of_an_image(make: Make, image: str, table: str) -> None:
    root = make({image: None, table: "1 0.5 0.5 0.2 0.4\n", "data.yaml": "names: [rbc, wbc]\n"})

    (mark,) = marks(scan(root, "yolo"))

    assert mark.facts.label == "wbc"
    assert (mark.x, mark.y, mark.w, mark.h) == pytest.approx((0.4, 0.3, 0.2, 0.4))
    assert mark.unit == "fraction"


def test_yolo_reports_lines_classes_and_orphans_and_counts_images_without_cells(make: Make) -> None:
    root = make(
        {"images/1.png": None, "images/2.png": None, "classes.txt": "rbc\nwbc\n"}
        | {"labels/1.txt": "0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n0 .5\n", "labels/9.txt": "0 .5 .5 .1 .1"}
    )

    found = scan(root)

    assert recognise(root) == "yolo"
    assert reasons(found) == [
        ("1.txt", "line 2", "class 7 has no name; known: 0 rbc, 1 wbc"),
        ("1.txt", "line 3", "class cx cy w h were expected, got 2 values"),
        ("9.txt", "", "its image is missing: none has its name"),
    ]
    assert "1 images have no label file, so no cells" in found.report.warnings


def test_yolo_polygons_count_by_their_bounding_box(make: Make) -> None:
    root = make({"1.png": None, "1.txt": "0 .1 .2 .3 .2 .3 .5", "classes.txt": "rbc"})
    (mark,) = marks(scan(root, "yolo"))
    assert (mark.x, mark.y, mark.w, mark.h) == pytest.approx((0.1, 0.2, 0.2, 0.3))


@pytest.mark.parametrize(
    "text",
    [
        "path: x\nnames: ['red cell', wbc] # two\nnc: 2\n",
        'nc: 2\nnames:\n  - red cell\n  - "wbc"\n',
        "names:\n- red cell\n- wbc\nnc: 2\n",
        "names:\n  0: red cell\n  1: wbc\n\ntrain: x\n",
        "names: {0: 'red cell', 1: wbc}\n",
        "names: ['red cell',\n  'wbc']\ntrain: x\n",
    ],
)
def test_yolo_names_are_read_however_they_are_written(text: str) -> None:
    assert parse_names(text) == {0: "red cell", 1: "wbc"}


def test_yolo_without_names_is_refused(make: Make) -> None:
    with pytest.raises(LayoutError, match="no class names"):
        scan(make({"1.png": None, "1.txt": "0 .5 .5 .1 .1"}), "yolo")


def coco(**changes: object) -> str:
    body: dict[str, object] = {
        "images": [{"id": 7, "file_name": "1.png", "width": 100, "height": 80}],
        "categories": [{"id": 2, "name": "WBC"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [10, 20, 30, 40]}],
    }
    return json.dumps(body | changes)


@pytest.mark.parametrize(
    ("image", "table"),
    [
        ("train/1.png", "train/_annotations.coco.json"),
        ("train2017/1.png", "annotations/instances_train2017.json"),
        ("images/1.png", "annotations/instances_all.json"),
    ],
)
def test_coco_finds_its_images(make: Make, image: str, table: str) -> None:
    root = make({image: None, table: coco()})

    found = scan(root)

    (mark,) = marks(found)
    assert recognise(root) == "coco"
    assert found.tasks[0].path == root / image
    assert (mark.x, mark.y, mark.w, mark.h) == (10, 20, 30, 40)
    assert (mark.facts.label, mark.where) == ("WBC", "annotation 1")


def test_coco_reports_what_does_not_hold_together(make: Make) -> None:
    text = coco(
        images=[{"id": 7, "file_name": "1.png"}, {"id": 8, "file_name": "gone.png"}],
        annotations=[
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [10, 20, 30, 40]},
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [10, 20, 30, 40]},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [10, 20]},
            {"id": 4, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 5, "image_id": 99, "category_id": 2, "bbox": [1, 2, 3, 4]},
        ],
    )
    root = make({"1.png": None, "2.png": None, "boxes.json": text})

    found = scan(root / "boxes.json")

    assert len(marks(found)) == 1
    assert [(where, why) for _, where, why in reasons(found)] == [
        ("annotation 2", "category 9 is not among them"),
        ("annotation 3", "bbox [x, y, w, h] was expected, got [10, 20]"),
        ("image 8", "its image gone.png is missing"),
        ("", "1 annotations name image 99, which is not among them"),
    ]
    assert found.report.warnings == [
        "1 annotations of boxes.json are crowds, not one cell, and stay out",
        "1 images are in no COCO file and stay out",
    ]


def test_chula_points_become_crops_of_70_px_with_their_names(make: Make) -> None:
    root = make({"Dataset/1.png": None, "Label/1.txt": "10 20 0\n30 40 12\n\n"})

    found = scan(root)

    assert recognise(root) == "chula"
    normal, elliptocyte = marks(found)
    assert (normal.x, normal.y, normal.w) == (10, 20, None)
    assert (normal.facts.label, elliptocyte.facts.label) == ("normal", "elliptocyte")
    assert isinstance(found.tasks[0].reader, Marked)
    assert found.tasks[0].reader.rule.point_px == 70


def test_chula_takes_another_size(make: Make) -> None:
    root = make({"Dataset/1.png": None, "Label/1.txt": "10 20 0"})
    found = scan(root, options=Options(rule=CropRule(px=48)))
    assert isinstance(found.tasks[0].reader, Marked)
    assert found.tasks[0].reader.rule.side(None, None) == 48


def test_chula_reports_lines_images_and_labels_that_miss(make: Make) -> None:
    found = scan(
        make(
            {"Dataset/1.png": None, "Dataset/2.png": None}
            | {"Label/1.txt": "10 20\n10 20 13\n1 2 3\n", "Label/3.txt": "1 1 1"}
        )
    )

    assert [(name, where) for name, where, _ in reasons(found)] == [
        ("1.txt", "line 1"),
        ("1.txt", "line 2"),
        ("2.png", ""),
        ("3.txt", ""),
    ]
    assert len(marks(found)) == 1


def test_aslan_boxes_are_fractions_of_the_side(make: Make) -> None:
    head = "image_id,image,xmin,ymin,xmax,ymax,label\n"
    rows = "1,1.png,0.1,0.25,0.3,0.5,rbc\n1,1.png,a,0,0,0,rbc\n2,gone.png,0,0,1,1,wbc\n"
    root = make({"images/1.png": None, "images/2.png": None, "annotations.csv": head + rows})

    found = scan(root)

    assert recognise(root) == "aslan"
    (mark,) = marks(found)
    assert (mark.x, mark.y, mark.w, mark.h) == pytest.approx((0.1, 0.25, 0.2, 0.25))
    assert (mark.unit, mark.facts.label) == ("fraction", "rbc")
    assert [(name, where) for name, where, _ in reasons(found)] == [
        ("annotations.csv", "line 3"),
        ("2.png", ""),
        ("annotations.csv", "gone.png"),
    ]


def test_aml_takes_the_first_label_of_the_table(make: Make) -> None:
    root = make(
        {"BAS/BAS_0001.tiff": None, "BAS/BAS_0002.tiff": None, "EOS/EOS_0001.tiff": None}
        | {"annotations.dat": "BAS/BAS_0001.tiff BAS nan nan\nEOS/EOS_0001.tiff EOS EOS UNC\n"}
        | {"abbreviations.txt": "BAS Basophil\n"}
    )
    (root / "annotations.dat").write_text(
        (root / "annotations.dat").read_text() + "MON/MON_0001.tiff MON nan nan\none\n"
    )

    found = scan(root)

    assert recognise(root) == "aml"
    assert labels(found) == {"BAS_0001.tiff": "BAS", "EOS_0001.tiff": "EOS"}
    assert [(name, where) for name, where, _ in reasons(found)] == [
        ("annotations.dat", "line 4"),
        ("BAS_0002.tiff", ""),
        ("annotations.dat", "MON/MON_0001.tiff"),
    ]
    assert found.report.warnings == []


def test_bmc_labels_are_the_folders_above_the_ranges(make: Make) -> None:
    root = make(
        {"BM_cytomorphology_data/ABE/0001-1000/ABE_00001.png": None}
        | {"BM_cytomorphology_data/BLA/1001-2000/BLA_01001.png": None}
        | {"BM_cytomorphology_data/BLA/1001-2000/ABE_01001.png": None}
    )

    for found in (scan(root), scan(root / "BM_cytomorphology_data")):
        assert labels(found) == {"ABE_00001.png": "ABE", "BLA_01001.png": "BLA"}
        assert [name for name, _, _ in reasons(found)] == ["ABE_01001.png"]


def test_acevedo_labels_are_the_codes_of_the_file_names(make: Make) -> None:
    top = "PBC_dataset_normal_DIB"
    root = make(
        {f"{top}/neutrophil/BNE_1.png": None, f"{top}/neutrophil/NEUTROPHIL_2.png": None}
        | {f"{top}/ig/MMY_3.png": None, f"{top}/ig/x.png": None}
    )

    found = scan(root)

    assert labels(found) == {
        "BNE_1.png": "BNE",
        "NEUTROPHIL_2.png": "NEUTROPHIL",
        "MMY_3.png": "MMY",
    }
    assert [name for name, _, _ in reasons(found)] == ["x.png"]


def test_raabin_crops_and_fields(make: Make) -> None:
    cell = {"Label1": "Neutrophil", "Label2": "Neutrophil", "x1": 40, "x2": 10, "y1": 20, "y2": 60}
    body = {
        "Cell Numbers": "3",
        "Cell_0": cell,
        "Cell_1": cell | {"Label2": "Monocyte"},
        "Cell_2": {"Label1": "Neutrophil"},
    }
    root = make(
        {"Train/Basophil/1.png": None, "fields/images/9.png": None, "fields/images/8.png": None}
        | {"fields/jsons/9.json": json.dumps(body), "fields/jsons/7.json": "{}"}
    )

    found = scan(root, "raabin")

    agreed, split = marks(found)
    assert (agreed.x, agreed.y, agreed.w, agreed.h) == (10, 20, 30, 40)
    assert agreed.facts.label == "Neutrophil"
    assert (split.facts.label, split.notes) == (None, (("labels", "Neutrophil | Monocyte"),))
    assert found.tasks[1].facts.label == "Basophil"
    assert [(name, where) for name, where, _ in reasons(found)] == [
        ("9.json", "Cell_2"),
        ("7.json", ""),
        ("8.png", ""),
    ]
    assert "two labels that disagree" in found.report.warnings[0]


def test_elsafty_slides_are_persons(make: Make) -> None:
    root = make(
        {"Cropped images/Ovalocytes/Slide 12 (1,93,472,116,497).png": None}
        | {"Cropped images/Ovalocytes/x.png": None}
    )

    found = scan(root, "elsafty")

    (task,) = found.tasks
    assert (task.facts.label, task.facts.case, task.facts.patient) == (
        "Ovalocytes",
        "slide-12",
        "slide-12",
    )
    assert [name for name, _, _ in reasons(found)] == ["x.png"]


def test_qupath_objects_count_by_bounding_box_or_point(make: Make) -> None:
    def feature(kind: str, at: object, name: str | None) -> dict[str, object]:
        told = {"objectType": "annotation"} | ({"classification": {"name": name}} if name else {})
        return {
            "type": "Feature",
            "geometry": {"type": kind, "coordinates": at},
            "properties": told,
        }

    ring = [[[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]]
    body = {
        "type": "FeatureCollection",
        "features": [
            feature("Polygon", ring, "Blast"),
            feature("MultiPolygon", [ring], None),
            feature("Point", [5, 6], "Platelet"),
            feature("LineString", [[1, 2], [3, 4]], None),
            {"type": "Feature", "geometry": None},
        ],
    }
    root = make(
        {"1.png": None, "1.geojson": json.dumps(body), "2.png": None}
        | {"2.png.geojson": "[]", "3.png": None, "4.geojson": "[]"}
    )

    found = scan(root)

    assert recognise(root) == "qupath"
    polygon, multi, point = marks(found)
    assert (polygon.x, polygon.y, polygon.w, polygon.h) == (10, 20, 30, 40)
    assert (polygon.facts.label, multi.facts.label, point.facts.label) == (
        "Blast",
        None,
        "Platelet",
    )
    assert (point.x, point.y, point.w) == (5, 6, None)
    assert [(name, where) for name, where, _ in reasons(found)] == [
        ("1.geojson", "feature 4"),
        ("1.geojson", "feature 5"),
        ("4.geojson", ""),
        ("3.png", ""),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", coco(categories=[{"id": [2], "name": "WBC"}])),
        ("a.json", coco(images=[{"id": {}, "file_name": "1.png"}])),
        (
            "a.json",
            coco(annotations=[{"id": 1, "image_id": 7, "bbox": [10**400, 1, 2, 3]}]),
        ),
        ("1.geojson", '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [5]}}'),
        ("data.yaml", f"names: [WBC]\ntrain: {'x' * 5000}\n"),
    ],
)
def test_whatever_a_damaged_table_holds_is_answered_in_words(
    make: Make, name: str, text: str
) -> None:
    layout = {"a.json": "coco", "1.geojson": "qupath", "data.yaml": "yolo"}[name]
    root = make({"1.png": None, "images/1.png": None, name: text})
    told: list[str] = []
    try:
        told += [reason for _, _, reason in reasons(scan(root, layout))]
    except LayoutError as error:
        told.append(str(error))

    assert told


def test_every_layout_says_what_it_is() -> None:
    assert all(layout.describes and name == layout.name for name, layout in LAYOUTS.items())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "layout", "fields", "cells"),
    [("bccd", "voc", 364, 4888), ("chula", "chula", 300, 10361), ("aslan", "aslan", 100, 2339)],
)
def test_the_real_sets_are_recognised_and_whole(
    data_dir: Path, name: str, layout: str, fields: int, cells: int
) -> None:
    found = scan(data_dir / name)

    assert recognise(data_dir / name) == layout
    assert found.report.ok
    assert len(found.tasks) == fields
    assert sum(len(marks(found, at)) for at in range(fields)) == cells

"""Trees of annotated fields are recognised by what lies in them, or refused; never labelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.layouts.coco import bounds, decode_rle
from ingest.layouts.folders import is_role
from ingest.layouts.known import recognise, scan, scan_all
from ingest.layouts.mixed import MixedReader
from ingest.layouts.qupath import class_name
from ingest.layouts.scan import LayoutError, Options, Scan
from ingest.slides.grid import TilePixels, TilePlan
from ingest.slides.source import SlideReader
from ingest.smears.source import FieldReader
from ingest.sources.marked import CropRule, Marked
from ingest.sources.source import Whole

SIZE = (100, 80)


def make(root: Path, files: dict[str, str | None]) -> Path:
    """A tree: text files with their text, images of 100 x 80 where it is `None`."""
    for place, text in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("RGB", SIZE, (220, 210, 215)).save(path)
        else:
            path.write_text(text, encoding="utf-8")
    return root


def boxes(found: Scan) -> list[tuple[str | None, tuple[float, ...]]]:
    """Label and box in pixels of every mark."""
    got = []
    for task in found.tasks:
        assert isinstance(task.reader, Marked)
        for mark in task.reader.marks:
            scale = SIZE if mark.unit == "fraction" else (1, 1)
            sides = (mark.x * scale[0], mark.y * scale[1])
            if mark.w is not None and mark.h is not None:
                sides = (*sides, mark.w * scale[0], mark.h * scale[1])
            got.append((mark.facts.label, tuple(round(side, 3) for side in sides)))
    return got


VOC = (
    "<annotation><size><width>100</width><height>80</height></size><object><name>WBC</name>"
    "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"
    "</annotation>"
)
YOLO = "0 0.25 0.5 0.3 0.5\n"
CSV = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,100,80,WBC,10,20,40,60\n"
CVAT = (
    "<annotations><version>1.1</version><image id='0' name='dir/a.png' width='100' height='80'>"
    "{}</image></annotations>"
)
BOX = "<box label='WBC' xtl='10' ytl='20' xbr='40' ybr='60'/>"
LABELME: dict[str, Any] = {
    "imageWidth": 100,
    "imageHeight": 80,
    "shapes": [{"label": "WBC", "shape_type": "rectangle", "points": [[40, 60], [10, 20]]}],
}


def studio(*results: dict[str, Any]) -> str:
    sides = {"original_width": 100, "original_height": 80}
    task = {
        "id": 3,
        "data": {"image": "/data/upload/1/3f2a91bc-a.png"},
        "annotations": [{"result": [sides | result for result in results]}],
    }
    return json.dumps([task])


RECTANGLE = {
    "type": "rectanglelabels",
    "value": {"x": 10, "y": 25, "width": 30, "height": 50, "rectanglelabels": ["WBC"]},
}


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("voc", {"a.png": None, "a.xml": VOC}),
        ("voc", {"train/a.png": None, "train/a.xml": VOC}),
        ("yolo", {"images/a.png": None, "labels/a.txt": YOLO, "labels/classes.txt": "WBC\n"}),
        ("yolo", {"train/a.png": None, "train/a.txt": YOLO, "train/_darknet.labels": "WBC\n"}),
        ("yolo", {"obj_train_data/a.png": None, "obj_train_data/a.txt": YOLO, "obj.names": "WBC"}),
        ("csv", {"valid/a.png": None, "valid/_annotations.csv": CSV}),
        ("csv", {"a.png": None, "boxes.csv": CSV}),
        ("labelstudio", {"images/a.png": None, "project-1.json": studio(RECTANGLE)}),
        ("cvat", {"images/a.png": None, "annotations.xml": CVAT.format(BOX)}),
        ("labelme", {"a.png": None, "a.json": json.dumps(LABELME)}),
    ],
)  # fmt: skip
def test_annotations_are_recognised_wherever_their_tool_puts_them(
    tmp_path: Path, layout: str, files: dict[str, str | None]
) -> None:
    root = make(tmp_path / "set", files)

    assert recognise(root) == layout
    found = scan(root)
    assert boxes(found) == [("WBC", (10, 20, 30, 40))]
    assert found.report.ok


@pytest.mark.parametrize(
    "folders",
    [("images", "masks"), ("train", "test"), ("Images", "Ground_Truth"), ("train_images", "val-1")],
)
def test_folders_that_are_no_labels_are_refused_with_what_to_name(
    tmp_path: Path, folders: tuple[str, str]
) -> None:
    root = make(tmp_path / "set", {f"{folder}/a.png": None for folder in folders})
    with pytest.raises(LayoutError, match=r"do not look like labels.*--layout"):
        scan(root)
    assert len(scan(root, "labels").tasks) == 2


@pytest.mark.parametrize("name", ["EO", "band", "seg", "target cell", "blast 2", "test cell"])
def test_names_of_cells_are_labels(name: str) -> None:
    assert not is_role(name)


@pytest.mark.parametrize("name", ["nan", "None", "NA"])
def test_a_folder_that_may_say_that_there_is_no_label_is_refused(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "set", {f"{name}/a.png": None, "EO/b.png": None})
    with pytest.raises(LayoutError, match="may be a label or say that there is none"):
        scan(root)


def test_unknown_annotations_beside_the_images_are_not_passed_over(tmp_path: Path) -> None:
    root = make(tmp_path / "set", {"day1/a.png": None, "day1/a.json": '{"regions": []}'})
    with pytest.raises(LayoutError, match="may hold annotations"):
        scan(root)


def test_one_class_to_an_image_is_read_from_a_table_of_classes(tmp_path: Path) -> None:
    table = "filename, EO, MO\na.png, 0, 1\nb.png, 1, 1\nc.png,0,0\n"
    files = {"train/a.png": None, "train/b.png": None, "train/c.png": None}
    found = scan(make(tmp_path / "set", files | {"train/_classes.csv": table.replace(" ", "")}))
    labels = [(task.path.name, task.facts.label) for task in found.tasks]
    assert labels == [("a.png", "MO"), ("c.png", None)]
    assert "2 classes" in found.report.failures[0].reason


# ---------------------------------------------------------------- half-read annotations


@pytest.mark.parametrize(
    ("result", "box"),
    [
        (RECTANGLE, (10, 20, 30, 40)),
        (
            {"type": "ellipselabels", "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}},
            (40, 24, 20, 32),
        ),
        (
            {"type": "polygonlabels", "value": {"points": [[10, 25], [40, 25], [20, 75]]}},
            (10, 20, 30, 40),
        ),
        (RECTANGLE | {"type": "keypointlabels"}, (10, 20)),
        (
            {
                "type": "rectanglelabels",
                "value": {"x": 50, "y": 25, "width": 30, "height": 50, "rotation": 90},
            },
            (10, 20, 40, 30),
        ),
    ],
    ids=["box", "ellipse", "polygon", "point", "turned box"],
)
def test_shapes_of_label_studio(
    tmp_path: Path, result: dict[str, Any], box: tuple[float, ...]
) -> None:
    files = {"a.png": None, "p.json": studio(result)}
    assert [got for _, got in boxes(scan(make(tmp_path / "set", files)))] == [box]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ("<ellipse label='WBC' cx='50' cy='40' rx='10' ry='20'/>", (40, 20, 20, 40)),
        ("<polygon label='WBC' points='10,20;40,20;30,60'/>", (10, 20, 30, 40)),
        ("<points label='WBC' points='10,20'/>", (10, 20)),
        ("<mask label='WBC' rle='3' left='10' top='20' width='30' height='40'/>", (10, 20, 30, 40)),
        ("<box label='WBC' xtl='10' ytl='20' xbr='40' ybr='60' rotation='90'/>", (5, 25, 40, 30)),
    ],
)  # fmt: skip
def test_shapes_of_cvat(tmp_path: Path, shape: str, box: tuple[float, ...]) -> None:
    root = make(tmp_path / "set", {"dir/a.png": None, "annotations.xml": CVAT.format(shape)})
    assert boxes(scan(root)) == [("WBC", box)]


def crowd(counts: object, size: tuple[int, int] = (80, 100)) -> dict[str, Any]:
    outline = {"size": list(size), "counts": counts}
    return {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": outline}


def coco(*annotations: dict[str, Any]) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
            "categories": [{"id": 1, "name": "WBC"}],
            "annotations": list(annotations),
        }
    )


def runs(mask: np.ndarray[Any, Any]) -> list[int]:
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


def compressed(counts: list[int]) -> str:
    """As pycocotools writes them (maskApi.c, rleToString)."""
    text = ""
    for at, count in enumerate(counts):
        value = count - counts[at - 2] if at > 2 else count
        more = True
        while more:
            part, value = value & 0x1F, value >> 5
            more = value != -1 if part & 0x10 else value != 0
            text += chr((part | 0x20 if more else part) + 48)
    return text


def blob(*places: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    mask = np.zeros((80, 100), bool)
    for x, y, w, h in places:
        mask[y : y + h, x : x + w] = True
    return mask


@pytest.mark.parametrize("written", [list, compressed])
def test_a_brush_mask_that_is_one_piece_is_one_cell(tmp_path: Path, written: Any) -> None:
    mask = blob((10, 20, 30, 40))
    mask[30, 20] = False
    root = make(tmp_path / "set", {"a.png": None, "c.json": coco(crowd(written(runs(mask))))})

    found = scan(root)

    assert boxes(found) == [("WBC", (10, 20, 30, 40))]
    assert "marked as crowds and are one piece" in found.report.warnings[0]


def test_a_real_crowd_stays_out_and_is_counted(tmp_path: Path) -> None:
    many = crowd(runs(blob((0, 0, 10, 10), (30, 30, 10, 10), (60, 60, 10, 10))))
    files = {"a.png": None, "c.json": coco(many), "sub/a.png": None}
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}
    found = scan(make(tmp_path / "set", files | {"sub/c.json": coco(one)}))
    assert boxes(found) == [("WBC", (10, 20, 30, 40))]
    assert any("are crowds" in warning for warning in found.report.warnings)
    assert [len(task.reader.marks) for task in found.tasks] == [0, 1]  # type: ignore[attr-defined]


def test_runs_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    broken = crowd([10, 20])
    found = scan(make(tmp_path / "set", {"a.png": None, "c.json": coco(broken)}))
    assert "do not add up to 100 x 80" in found.report.failures[0].reason


def test_masks_survive_the_compression_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((17, 13)) > rng.random()
        mask[3, 4] = True
        counts = runs(mask)
        for written in (counts, compressed(counts)):
            found = decode_rle({"size": [17, 13], "counts": written})
            assert (found == mask).all()
    assert bounds(blob((5, 6, 7, 8))) == (5, 6, 7, 8)


def feature(kind: str, box: tuple[int, int, int, int], **said: Any) -> dict[str, Any]:
    x, y, w, h = box
    ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
    properties = {"objectType": kind} | ({"classification": said} if said else {})
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


CELL = (10, 20, 10, 10)


@pytest.mark.parametrize(
    "features",
    [
        [feature("annotation", (0, 0, 90, 70)), feature("cell", CELL, name="L")],
        [feature("annotation", (0, 0, 90, 70), name="Tumor"), feature("detection", CELL, name="L")],
        [feature("annotation", (50, 0, 40, 70)), feature("cell", CELL, name="L")],
        [feature("annotation", (0, 0, 60, 70)), feature("annotation", CELL, name="L")],
        [feature("cell", CELL, name="L"), feature("detection", (12, 22, 2, 2), name="spot")],
        [feature("tile", (0, 0, 50, 50)), feature("cell", CELL, name="L")],
        [feature("cell", CELL, name="L"), feature("cell", (40, 20, 10, 10), name="Ignore*")],
        [feature("annotation", (0, 0, 80, 70), name="Region*"), feature("cell", CELL, name="L")],
    ],
    ids=[
        "region around a cell",
        "named region around a detection",
        "empty region",
        "drawn region around a drawn cell",
        "spot within a cell",
        "tile",
        "ignored cell",
        "ignored region",
    ],
)
def test_of_qupath_only_cells_are_cells(tmp_path: Path, features: list[dict[str, Any]]) -> None:
    root = make(tmp_path / "set", {"a.png": None, "a.geojson": json.dumps(features)})
    found = scan(root)
    assert boxes(found) == [("L", CELL)]
    assert found.report.ok


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ({"name": "Monocyte", "color": [200, 0, 0]}, "Monocyte"),
        ({"names": ["Lymphocyte", "Positive"]}, "Lymphocyte: Positive"),
        ({"name": "Lymphocyte: Positive", "colorRGB": -1}, "Lymphocyte: Positive"),
        ("Blast", "Blast"),
        (None, ""),
        ({}, ""),
    ],
)
def test_classes_of_every_version_of_qupath(kind: Any, name: str) -> None:
    assert class_name(kind) == name


def test_a_slide_beside_its_own_geojson_is_read_within_its_regions(tmp_path: Path) -> None:
    regions = json.dumps([feature("annotation", (0, 0, 900, 700))])
    root = make(tmp_path / "set", {"a.svs": "", "a.geojson": regions, "b.ndpi": ""})

    found = scan(root)

    first, second = (task.reader for task in found.tasks)
    assert isinstance(first, SlideReader)
    assert isinstance(second, SlideReader)
    assert first.regions is not None
    assert second.regions is None
    assert found.report.ok


NAMES = {
    "nc: 2\nnames: ['neutrophil, band', 'type #2']\n": ["neutrophil, band", "type #2"],
    "names:\n- \"a, b\"\n- 'Auer''s rod #1'\n": ["a, b", "Auer's rod #1"],
    "names: {0: no, 1: 'yes'}\nnc: 2\n": ["no", "yes"],
    "names:\n  0: seg\n# renamed\n  1: band\n": ["seg", "band"],
    "names: [1.0, 007]\n": ["1.0", "007"],
}


@pytest.mark.parametrize("text", NAMES)
def test_yolo_names_are_what_yaml_says(tmp_path: Path, text: str) -> None:
    files = {"images/a.png": None, "labels/a.txt": YOLO + "1 .5 .5 .1 .1\n", "data.yaml": text}
    found = scan(make(tmp_path / "set", files))
    assert [label for label, _ in boxes(found)] == NAMES[text]


@pytest.mark.parametrize(
    "text", ["nc: 3\nnames: [a, b]\n", "nc: 1\nnames: {0: a, 1: b}\n", "names: {a: 0}\n"]
)
def test_names_that_contradict_their_number_are_refused(tmp_path: Path, text: str) -> None:
    files = {"images/a.png": None, "labels/a.txt": YOLO, "data.yaml": text}
    with pytest.raises(LayoutError, match=r"nc: \d and names|no list of words"):
        scan(make(tmp_path / "set", files))


def test_key_points_are_no_polygon_where_they_are_declared(tmp_path: Path) -> None:
    line = "0 0.25 0.5 0.3 0.5 .1 .1 .9 .9 .5 .5 .2 .2\n"
    files = {"images/a.png": None, "labels/a.txt": line}
    yaml = "names: [WBC]\nkpt_shape: [4, 2]\n"
    assert boxes(scan(make(tmp_path / "set", files | {"data.yaml": yaml}))) == [
        ("WBC", (10, 20, 30, 40))
    ]


@pytest.mark.parametrize(
    ("yaml", "place"),
    [
        ("path: sub\ntrain: images/train\n", "sub/images/train"),
        ("train: ../train/images\nval: ../valid/images\n", "train/images"),
        ("path: ../elsewhere\ntrain: images\n", "../elsewhere/images"),
    ],
)
def test_images_lie_where_data_yaml_says(tmp_path: Path, yaml: str, place: str) -> None:
    table = place.replace("images", "labels")
    files = {f"{place}/a.png": None, f"{table}/a.txt": YOLO, "old/images/b.png": None}
    root = make(tmp_path / "set", files | {"data.yaml": yaml + "names: [WBC]\n"})
    found = scan(root, "yolo")
    assert boxes(found) == [("WBC", (10, 20, 30, 40))]
    assert found.report.left_out == {"data.yaml names no split that it lies in": 1}
    assert found.report.ok


# ---------------------------------------------------------------- options that cannot apply


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ({"EO/a.png": None}, Options(rule=CropRule(um=20))),
        ({"EO/a.png": None}, Options(slides=SlideReader(tiles=TilePlan(size=TilePixels(512))))),
        ({"a.png": None, "a.xml": VOC}, Options(find=True)),
        ({"a.png": None, "a.xml": VOC}, Options(slides=SlideReader(regions="{}"))),
    ],
    ids=["crop of whole cells", "tiles of cells", "find in boxes", "regions of fields"],
)
def test_an_option_that_can_apply_to_nothing_is_refused(
    tmp_path: Path, files: dict[str, str | None], options: Options
) -> None:
    with pytest.raises(LayoutError, match="leave it out"):
        scan_all([make(tmp_path / "set", files)], None, options)


@pytest.mark.parametrize(
    ("find", "label", "size", "reader"),
    [
        (None, "", (640, 480), FieldReader),
        (None, "", (640, 386), FieldReader),
        (None, "", (400, 400), FieldReader),
        (None, "", (360, 363), Whole),
        (True, "", (360, 363), FieldReader),
        (False, "", (640, 480), Whole),
        (None, "EO", (640, 480), Whole),
    ],
)
def test_fields_of_a_table_without_kinds_are_searched_for_cells(
    tmp_path: Path, find: bool | None, label: str, size: tuple[int, int], reader: type
) -> None:
    Image.new("RGB", size, (220, 210, 215)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "t.csv").write_text(f"path,patient,label\na.png,P1,{label}\nb.png,P2,\n")

    (found,) = scan_all([tmp_path / "t.csv"], None, Options(find=find))

    assert type(found.tasks[0].reader) is reader
    assert found.tasks[0].facts.patient == "P1"
    assert isinstance(found.tasks[1].reader, FieldReader if find else Whole)
    told = any("cells are found" in warning for warning in found.report.warnings)
    assert told == (find is None and reader is FieldReader)


@pytest.mark.parametrize("words", [("nan", "None", "NA"), ("NULL", "n/a", "-")])
def test_words_for_nothing_known_are_no_patients_and_are_told(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    rows = "".join(f"a.png,{word}\n" for word in words)
    (tmp_path / "t.csv").write_text(f"path,patient\n{rows}a.png,8.0\n")

    found = scan(tmp_path / "t.csv")

    assert [task.facts.patient for task in found.tasks] == [None] * 3 + ["8.0"]
    assert sum("nothing is known" in warning for warning in found.report.warnings) == 3
    assert any("'8.0'" in warning for warning in found.report.warnings)


def test_a_point_keeps_its_place(tmp_path: Path) -> None:
    shapes = [{"label": "PLT", "shape_type": "point", "points": [[7, 9]]}]
    body = json.dumps(LABELME | {"shapes": shapes})
    found = scan(make(tmp_path / "set", {"a.png": None, "a.json": body}))
    assert boxes(found) == [("PLT", (7, 9))]


def test_a_set_within_a_tree_of_other_things_is_read_as_itself(tmp_path: Path) -> None:
    files = {"b/JPEGImages/a.png": None, "b/Annotations/a.xml": VOC, "photo.png": None, "s.svs": ""}
    root = make(tmp_path / "lab", files)

    found = scan(root)

    assert recognise(root) == "mixed"
    assert [(task.path.name, type(task.reader)) for task in found.tasks] == [
        ("a.png", Marked),
        ("photo.png", MixedReader),
        ("s.svs", MixedReader),
    ]
    assert found.report.ok


@pytest.mark.parametrize(
    ("files", "broken"),
    [
        ({"a.png": None, "a.xml": VOC, "b.png": None}, "b.xml"),
        ({"images/a.png": None, "labels/a.txt": YOLO, "classes.txt": "WBC"}, "labels/b.txt"),
        ({"a.png": None, "_annotations.csv": CSV}, "other.csv"),
        ({"a.png": None, "a.json": json.dumps(LABELME), "b.png": None}, "b.json"),
    ],
)
def test_a_file_of_annotations_that_is_no_text_takes_no_other_with_it(
    tmp_path: Path, files: dict[str, str | None], broken: str
) -> None:
    root = make(tmp_path / "set", files)
    (root / broken).write_bytes(b"\xff\x81\x8d\x00\x01")
    assert boxes(scan(root)) == [("WBC", (10, 20, 30, 40))]

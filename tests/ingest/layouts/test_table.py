"""A CSV manifest."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.layouts.known import scan
from ingest.layouts.scan import LayoutError, Options, Scan
from ingest.slides.source import SlideReader
from ingest.smears.source import FieldReader
from ingest.sources.marked import Marked
from ingest.sources.source import Facts, Whole


def table(folder: Path, text: str, images: tuple[str, ...] = ("a.png", "b.png")) -> Scan:
    for name in images:
        Image.fromarray(np.full((40, 40, 3), 180, np.uint8)).save(folder / name)
    path = folder / "cells.csv"
    path.write_bytes(text.encode())
    return scan(path, options=Options(facts=Facts(site="Basel", stain="MGG")))


def test_every_column_reaches_the_task(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "\ufeffpath,label,case,patient,site,stain,scanner,acquired,um_per_px,kind,dataset\r\n"
        "a.png,EO,c1,p1,Bern,,DM96,2024-03-01,0.1,field,ours\r\n",
    )

    (task,) = found.tasks
    assert task.path == tmp_path / "a.png"
    assert task.dataset == "ours"
    assert task.reader == Whole("field")
    assert task.facts == Facts(
        label="EO",
        case="c1",
        patient="p1",
        site="Bern",
        stain="MGG",
        scanner="DM96",
        acquired=date(2024, 3, 1),
        um_per_px=0.1,
        um_per_px_origin="manifest",
    )
    assert found.report.ok


def test_the_dataset_is_the_folder_where_nothing_is_said(tmp_path: Path) -> None:
    (task,) = table(tmp_path, "path\na.png\n").tasks
    assert task.dataset == tmp_path.name


@pytest.mark.parametrize(
    ("header", "row"),
    [("x,y,w,h", "5,6,10,20"), ("xmin,ymin,xmax,ymax", "5,6,15,26")],
)
def test_boxes_come_in_two_ways(tmp_path: Path, header: str, row: str) -> None:
    found = table(tmp_path, f"path,label,{header}\na.png,WBC,{row}\na.png,RBC,{row}\n")

    (task,) = found.tasks
    assert isinstance(task.reader, Marked)
    first, second = task.reader.marks
    assert (first.x, first.y, first.w, first.h) == (5, 6, 10, 20)
    assert (first.facts.label, second.facts.label) == ("WBC", "RBC")
    assert (first.where, second.where) == ("line 2", "line 3")


def test_x_and_y_alone_are_a_point_and_empty_values_the_whole_image(tmp_path: Path) -> None:
    found = table(tmp_path, "path,x,y\na.png,5,6\nb.png,,\n")

    point, whole = found.tasks
    assert isinstance(point.reader, Marked)
    assert point.reader.marks[0].w is None
    assert whole.reader == Whole("cell")


def test_unknown_columns_are_refused_by_name_with_those_accepted(tmp_path: Path) -> None:
    with pytest.raises(LayoutError) as refused:
        table(tmp_path, "path,lable,magnification\na.png,EO,40\n")

    words = str(refused.value)
    assert "'lable', 'magnification'" in words
    assert "accepted are: path, label, case, patient" in words
    assert "Did you mean 'label' for 'lable'?" in words


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("label", "no column 'path'"),
        ("path,label,label", "label twice"),
        ("path,x,y,w,h,xmin,ymin,xmax,ymax", "both as x, y, w, h and as xmin"),
        ("path,x,y,w", "go together"),
        ("path,xmin,ymin,xmax", "but not ymax"),
        ("path;label", "semicolons or tabs"),
        ("", "is empty"),
    ],
)
def test_a_header_that_does_not_hold_together_is_refused(
    tmp_path: Path, header: str, words: str
) -> None:
    with pytest.raises(LayoutError, match=words):
        table(tmp_path, f"{header}\n" if header else "")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("gone.png,EO,,,", "the image gone.png does not exist"),
        (",EO,,,", "the path is empty"),
        ("a.png,EO,1 March,,", "acquired '1 March' is not a day"),
        ("a.png,EO,,wide,", "um_per_px 'wide' is not a number"),
        ("a.png,EO,,-1,", "um_per_px must be above 0"),
        ("a.png,EO,,nan,", "um_per_px 'nan' is not a number"),
        ("a.png,EO,,,organ", "kind 'organ' is not known"),
        ("a.png,EO", "5 values were expected, got 2"),
    ],
)
def test_a_row_that_cannot_be_used_is_reported_with_its_line(
    tmp_path: Path, row: str, words: str
) -> None:
    found = table(tmp_path, f"path,label,acquired,um_per_px,kind\nb.png,MO,,,\n{row}\n")

    (failure,) = found.report.failures
    assert words in failure.reason
    assert failure.where == "line 3"
    assert [task.path.name for task in found.tasks] == ["b.png"]


def test_a_box_with_a_missing_side_is_reported(tmp_path: Path) -> None:
    found = table(tmp_path, "path,xmin,ymin,xmax,ymax\na.png,1,2,,4\n")
    assert "a part of the box is empty" in found.report.failures[0].reason


def test_slides_and_smears_are_read_as_what_they_are_at_the_scale_of_their_row(
    tmp_path: Path,
) -> None:
    for name in ("a.svs", "b.tif", "c.png", "d.png", "e.ndpi"):
        (tmp_path / name).touch()
    table = tmp_path / "items.csv"
    table.write_text(
        "path,kind,um_per_px,patient,x,y\n"
        "a.svs,,,p1,,\nb.tif,slide,0.25,p2,,\nc.png,smear,0.1,p3,,\nd.png,,,p4,,\n"
        "e.ndpi,,,p5,3,4\n"
    )
    found = scan(table)

    readers = [type(task.reader) for task in found.tasks]
    assert readers == [SlideReader, SlideReader, FieldReader, Whole]
    job = found.tasks[1].reader.job(tmp_path / "b.tif", found.tasks[1].facts)  # type: ignore[attr-defined]
    assert job.args["um_per_px"] == 0.25
    assert [task.facts.patient for task in found.tasks] == ["p1", "p2", "p3", "p4"]
    (failure,) = found.report.failures
    assert "a slide has no box" in failure.reason


def test_a_manifest_in_a_folder_that_was_named_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "items.csv").write_text("path,um_per_px\na.svs,0.5\n")
    (tmp_path / "other.csv").write_text("name,path_length\n")

    warnings = scan(tmp_path).report.warnings

    assert any("items.csv looks like a manifest" in warning for warning in warnings)
    assert not any("other.csv looks" in warning for warning in warnings)


def test_what_a_table_says_of_cases_is_kept_apart_from_its_images(tmp_path: Path) -> None:
    found = table(tmp_path, "path,case,patient,diagnosis,case:blasts\na.png,C1,P1,AML,34\n")

    (change,) = found.cases
    assert (change.case, change.patient, change.diagnosis) == ("C1", "P1", "AML")
    assert change.more == {"blasts": "34"}
    with pytest.raises(LayoutError, match=r"line 2 .* names no case"):
        table(tmp_path, "path,diagnosis\na.png,AML\n")

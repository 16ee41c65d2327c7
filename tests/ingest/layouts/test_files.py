"""No file vanishes: each is read, or left out and counted with a reason."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ingest.layouts.known import recognise, scan
from ingest.layouts.scan import Files, LayoutError, Options, Scan
from ingest.sources.source import Whole


def draw(path: Path, shade: int = 0, side: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), shade % 256, np.uint8)).save(path, "PNG")
    return path


@pytest.fixture(name="cells")
def _cells(tmp_path: Path) -> Path:
    for at in range(3):
        draw(tmp_path / "set" / "EO" / f"{at}.png", at)
        draw(tmp_path / "store" / "mono-2024" / f"{at}.png", 10 + at)
    return tmp_path / "set"


def labels(found: Scan) -> list[tuple[str, str | None]]:
    return [(task.path.name, task.facts.label) for task in found.tasks]


def test_a_linked_folder_and_a_linked_file_are_read(cells: Path) -> None:
    (cells / "MO").symlink_to(cells.parent / "store" / "mono-2024")
    (cells / "EO" / "link.png").symlink_to(cells / "EO" / "0.png")

    assert [label for _, label in labels(scan(cells))] == ["EO"] * 4 + ["MO"] * 3


def test_a_link_to_a_folder_above_is_reported_and_not_followed(cells: Path) -> None:
    (cells / "EO" / "again").symlink_to(cells)
    (cells / "EO" / "self").symlink_to(cells / "EO")

    found = scan(cells)

    assert len(found.tasks) == 3
    assert ["link to a folder above" in one.reason for one in found.report.failures] == [True] * 2


def test_a_broken_link_and_a_pipe_are_reported(cells: Path) -> None:
    (cells / "EO" / "gone.png").symlink_to(cells / "nowhere.png")
    os.mkfifo(cells / "EO" / "pipe.png")

    reasons = {Path(one.path).name: one.reason for one in scan(cells).report.failures}

    assert reasons == {
        "gone.png": "No such file or directory",
        "pipe.png": "it is no regular file",
    }


@pytest.mark.parametrize("place", ["EO", "M\udcfcller", "."])
def test_a_name_that_is_no_text_is_reported_and_the_rest_is_read(cells: Path, place: str) -> None:
    path = cells / place / os.fsdecode(b"M\xfcller.png")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((cells / "EO" / "0.png").read_bytes())

    found = scan(cells)

    assert len(found.tasks) == 3
    (failure,) = found.report.failures
    assert failure.path.endswith(r"M\xfcller.png")
    assert "no UTF-8" in failure.reason
    found.report.write(cells.parent / "report.json")


@pytest.mark.parametrize("stray", ["scan.svs", ".Trash/scan.svs", "EO/scan.ndpi", "extra/scan.czi"])
def test_a_stray_slide_takes_no_label_away(cells: Path, stray: str) -> None:
    (cells / stray).parent.mkdir(exist_ok=True)
    (cells / stray).write_bytes(b"II*\0" + b"\0" * 100)

    found = scan(cells)

    assert recognise(cells) == "labels"
    assert {label for _, label in labels(found)} == {"EO"}
    hidden = stray.startswith(".")
    assert found.report.left_out == (
        {} if hidden else {"it is a slide in a set of images; ingest it by itself": 1}
    )


def test_a_tree_of_slides_with_their_pictures_is_no_labelled_tree(tmp_path: Path) -> None:
    for case in ("a", "b"):
        draw(tmp_path / "slides" / case / "macro.png", side=600)
        draw(tmp_path / "slides" / case / "label.png", side=600)
        (tmp_path / "slides" / case / "scan.svs").touch()
    assert recognise(tmp_path / "slides") == "mixed"


def test_files_that_are_left_out_are_counted_by_reason(cells: Path) -> None:
    (cells / "notes.txt").write_text("x")
    (cells / "EO" / "table.xlsx").touch()
    draw(cells / "EO" / "0_mask.png")

    assert scan(cells).report.left_out == {
        "it is no image": 2,
        "it is a mask of the picture beside it": 1,
    }


# ---------------------------------------------------------------- any tree


NAMES = st.sampled_from(
    [b"a", b"b", b"MO", b"EO", b"M\xfcller", "Ü".encode(), b"x y", b".hidden", b"images", b"nan"]
)
ENDINGS = st.sampled_from([b".png", b".PNG", b".txt", b".svs", b".json", b"", b".xml", b".csv"])
File = tuple[list[bytes], bytes, bytes]
FILES = st.lists(st.tuples(st.lists(NAMES, max_size=3), NAMES, ENDINGS), max_size=12)
LINKS = st.lists(st.tuples(NAMES, st.sampled_from([b".", b"EO", b"a/b", b"nowhere"])), max_size=3)


def plant(root: Path, files: list[File], links: list[tuple[bytes, bytes]]) -> None:
    picture = draw(root / ".picture").read_bytes()
    for at, (folders, name, ending) in enumerate(files):
        path = root.joinpath(*map(os.fsdecode, (*folders, name + ending)))
        with suppress(OSError):  # a file lies where a folder would
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture + bytes([at]) if ending.lower() == b".png" else b"notes")
    for name, target in links:
        with suppress(OSError):
            (root / os.fsdecode(b"link-" + name)).symlink_to(root / os.fsdecode(target))


def visible(root: Path) -> set[Path]:
    """Every entry that a person sees, counted on its own; the real folder of each path above it."""
    found: set[Path] = set()

    def look(folder: Path, above: list[str]) -> None:
        for entry in os.scandir(folder):
            path, real = Path(entry.path), os.path.realpath(entry.path)
            if entry.name.startswith("."):
                continue
            if path.is_dir() and real not in above:
                look(path, [*above, real])
            else:
                found.add(path)

    look(root, [os.path.realpath(root)])
    return found


@settings(max_examples=120, deadline=None)
@given(files=FILES, links=LINKS, layout=st.sampled_from([None, "labels", "cells", "mixed"]))
def test_whatever_lies_there_is_read_or_left_out_with_a_reason(
    files: list[File], links: list[tuple[bytes, bytes]], layout: str | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        root.mkdir()
        plant(root, files, links)
        try:
            found = scan(root, layout, Options())
        except LayoutError:
            return  # refused as a whole, in words
        report = found.report
        failed = {one.path for one in report.failures}

        assert len(found.tasks) + len(failed) + report.tables + sum(
            report.left_out.values()
        ) == len(visible(root))
        assert all(isinstance(task.reader, Whole) or layout != "cells" for task in found.tasks)
        assert len({task.path for task in found.tasks}) == len(found.tasks)
        report.to_json().encode()


def test_files_are_listed_in_the_order_of_their_paths(cells: Path) -> None:
    files = Files(cells)
    assert files.images == sorted(files.images)

"""A tree of anything becomes a library: slides, photographs, single images, broken files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from benchmarks.made import blob, level_of, svs_description, write_tiff
from encoder.contract import Encoder
from encoder.registry import load
from ingest.layouts.known import recognise, scan
from ingest.layouts.mixed import series
from ingest.layouts.scan import Options
from ingest.pipeline.ledger import Ledger
from ingest.pipeline.run import ingest
from ingest.pipeline.sink import LibrarySink
from ingest.pipeline.work import How
from ingest.samples.synthetic import draw_field
from ingest.sandbox import messages
from ingest.slides.grid import TilePixels, TilePlan
from ingest.slides.source import SlideReader
from ingest.sources.report import Report
from ingest.sources.source import ChildReader, Facts, Source, Taken, Task
from search.index.contract import scroll_all
from search.library.library import Library
from search.schemas.items import Item

SMALL = Options(slides=SlideReader(tiles=TilePlan(size=TilePixels(64))))


@pytest.fixture(name="encoder", scope="module")
def _encoder() -> Encoder:
    return load("colour")


@pytest.fixture(name="tree")
def _tree(tmp_path: Path, rng: np.random.Generator) -> Path:
    root = tmp_path / "lab"
    root.mkdir()
    picture = blob(256, 320, rng, share=0.3)
    words = svs_description(320, 256) + "|User = CANARYUSER"
    write_tiff(root / "a.svs", [level_of(picture)], description=words)
    (root / "broken.svs").write_bytes((root / "a.svs").read_bytes()[:900])
    Image.fromarray(rng.integers(0, 255, (90, 90, 3), np.uint8)).save(root / "cell.png")
    (root / "notes.txt").write_text("x")
    return root


@pytest.fixture(name="sink")
def _sink(tmp_path: Path, encoder: Encoder) -> Iterator[LibrarySink]:
    with LibrarySink.open(Library.open(tmp_path / "library"), "cells", encoder.card) as sink:
        yield sink


def run(root: Path, encoder: Encoder, sink: LibrarySink, tmp_path: Path) -> Report:
    found = scan(root, None, SMALL)
    with Ledger(tmp_path / "l.sqlite", "cells", encoder.card.fingerprint) as ledger:
        return ingest(
            found.tasks,
            encoder,
            sink,
            report=found.report,
            ledger=ledger,
            how=How(reports=tmp_path / "reports", workers=2),
        )


def items(sink: LibrarySink) -> list[Item]:
    return [one.item for one in scroll_all(sink._collection.store)]


def test_a_mixed_tree_gives_tiles_and_cells_and_explains_the_rest(
    tree: Path, encoder: Encoder, sink: LibrarySink, tmp_path: Path
) -> None:
    assert recognise(tree) == "mixed"
    report = run(tree, encoder, sink, tmp_path)

    tiles = [item for item in items(sink) if item.kind == "tile"]
    assert len(tiles) == report.stored - 1 > 3
    assert {(tile.um_per_px, tile.um_per_px_origin) for tile in tiles} == {(0.5, "file")}
    assert all(tile.bbox is not None and tile.bbox.w == 64 for tile in tiles)
    assert [Path(one.path).name for one in report.failures] == ["broken.svs"]
    assert report.quarantined == 1
    assert len(report.slides) == 1
    assert sorted(path.suffix for path in (tmp_path / "reports").iterdir()) == [".json", ".png"]
    assert "CANARY" not in report.to_json() + "".join(item.model_dump_json() for item in tiles)


def test_again_nothing_is_opened_or_changed(
    tree: Path, encoder: Encoder, sink: LibrarySink, tmp_path: Path
) -> None:
    first = run(tree, encoder, sink, tmp_path)
    second = run(tree, encoder, sink, tmp_path)

    assert (second.stored, second.updated) == (0, 0)
    assert second.unchanged == first.stored
    assert second.skipped == 2
    assert "quarantined after 1 attempt" in second.failures[0].reason


def test_a_source_that_the_library_lost_is_read_again_whatever_the_ledger_says(
    tree: Path, encoder: Encoder, sink: LibrarySink, tmp_path: Path
) -> None:
    first = run(tree, encoder, sink, tmp_path)
    with LibrarySink.open(Library.open(tmp_path / "new"), "cells", encoder.card) as other:
        assert run(tree, encoder, other, tmp_path).stored == first.stored


class Deadly(ChildReader):
    """Reads nothing, and dies."""

    def recipe(self, facts: Facts) -> str:
        return "deadly"

    def job(self, path: Path, facts: Facts) -> messages.Task:
        return messages.Task(
            reader="ingest.sandbox.child:drill", source=str(path), args={"what": "abort", "n": 0}
        )

    def take(self, source: Source, facts: Facts, batch: messages.Batch) -> Taken:
        return Taken()


def test_a_child_that_dies_quarantines_its_file_after_a_second_try_and_the_run_goes_on(
    tree: Path, encoder: Encoder, sink: LibrarySink, tmp_path: Path
) -> None:
    found = scan(tree, None, SMALL)
    found.tasks.insert(0, Task(path=tree / "notes.txt", dataset="lab", reader=Deadly()))
    with Ledger(tmp_path / "l.sqlite", "cells", encoder.card.fingerprint) as ledger:
        report = ingest(
            found.tasks, encoder, sink, report=found.report, ledger=ledger, how=How(workers=2)
        )
        rows = {Path(row.path).name: row for row in ledger.rows()}

    assert report.stored > 3
    assert (rows["notes.txt"].state, rows["notes.txt"].attempts) == ("quarantined", 2)
    assert "SIGABRT" in rows["notes.txt"].reason
    assert rows["a.svs"].state == "done"


def test_an_unlabelled_photograph_is_searched_for_cells(
    tmp_path: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    root = tmp_path / "photographs"
    root.mkdir()
    field = draw_field(3)
    Image.fromarray(field.image).save(root / "f.png")
    found = scan(root, "mixed", SMALL)
    report = ingest(found.tasks, encoder, sink, report=found.report, how=How(workers=1))

    assert report.ok, report.failures
    assert report.stored > 5
    assert {item.kind for item in items(sink)} == {"cell"}
    assert all(item.bbox is not None for item in items(sink))
    assert {item.um_per_px_origin for item in items(sink)} <= {"estimate", None}


def test_a_damaged_dicom_file_is_of_no_series(tmp_path: Path) -> None:
    dicom = pydicom.Dataset()
    dicom.SeriesInstanceUID = "1.2.3"
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.save_as(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content.replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00U\t"))

    assert series(tmp_path / "a.dcm") is None


def test_dicom_files_of_one_series_are_one_slide(tmp_path: Path) -> None:
    for name, uid in (("a", "1.2.3"), ("b", "1.2.3"), ("c", "1.2.45")):
        dicom = pydicom.Dataset()
        dicom.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
        dicom.SOPInstanceUID = f"1.2.9.{ord(name)}"
        dicom.StudyDescription = "a text that names the tag \x20\x00\x0e\x00UI"
        dicom.SeriesInstanceUID = uid
        syntax = ImplicitVRLittleEndian if name == "b" else ExplicitVRLittleEndian
        dicom.file_meta = pydicom.dataset.FileMetaDataset()
        dicom.file_meta.TransferSyntaxUID = syntax
        dicom.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)

    assert series(tmp_path / "a.dcm") == series(tmp_path / "b.dcm") == "1.2.3"
    assert sorted(task.path.name for task in scan(tmp_path).tasks) == ["a.dcm", "c.dcm"]


@pytest.mark.data
def test_the_real_slides_end_done_or_explained(
    data_dir: Path, tmp_path: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    found = scan(data_dir / "wsi")
    report = ingest(found.tasks, encoder, sink, report=found.report, how=How(workers=2))
    reasons = {Path(one.path).name: one.reason for one in report.failures}

    assert report.stored == 51
    assert "far too coarse" in reasons["camelyon_jpeg.dcm"]
    assert "no white or red cell" in reasons["kidney-48-5.tif"]

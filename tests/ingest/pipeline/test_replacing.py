"""A source that is corrected and ingested again leaves nothing behind, and can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder.contract import Encoder
from encoder.registry import load
from ingest.layouts.known import scan
from ingest.pipeline.ledger import Ledger
from ingest.pipeline.run import ingest
from ingest.pipeline.sink import LibrarySink
from ingest.sources.marked import Mark, Marked
from ingest.sources.report import Report
from ingest.sources.source import Facts, Task
from search.index.contract import scroll_all
from search.library.library import Library
from search.library.reviews import Reviews

Again = Callable[[], Report]


@pytest.fixture(name="encoder", scope="module")
def _encoder() -> Encoder:
    return load("colour")


@pytest.fixture(name="sink")
def _sink(tmp_path: Path, encoder: Encoder) -> Iterator[LibrarySink]:
    with LibrarySink.open(Library.open(tmp_path / "library"), "cells", encoder.card) as sink:
        yield sink


@pytest.fixture(name="again")
def _again(tmp_path: Path, encoder: Encoder, sink: LibrarySink) -> Again:
    """Ingest the folder `set` once more, with the same ledger."""

    def run() -> Report:
        found = scan(tmp_path / "set")
        with Ledger(tmp_path / "l.sqlite", "cells", encoder.card.fingerprint) as ledger:
            ledger.begin({})
            return ingest(found.tasks, encoder, sink, report=found.report, ledger=ledger)

    return run


def draw(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def annotate(folder: Path, *cells: tuple[str, int], name: str = "f") -> None:
    """A field with boxes of 60 px, each with its label and left edge."""
    if not (folder / "JPEGImages" / f"{name}.png").exists():
        draw(folder / "JPEGImages" / f"{name}.png", len(name))
    things = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x}</xmin><ymin>60</ymin><xmax>{x + 60}</xmax>"
        "<ymax>120</ymax></bndbox></object>"
        for label, x in cells
    )
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{things}</annotation>")


def stored(sink: LibrarySink) -> list[str | None]:
    return sorted((one.item.label for one in scroll_all(sink._collection.store)), key=str)


def test_a_moved_box_with_another_label_replaces_the_first(
    tmp_path: Path, again: Again, sink: LibrarySink
) -> None:
    annotate(tmp_path / "set", ("Monocyte", 104))
    again()
    annotate(tmp_path / "set", ("Lymphocyte", 100))
    report = again()

    assert stored(sink) == ["Lymphocyte"]
    assert (report.stored, report.removed) == (1, 1)
    assert any("were removed (Monocyte)" in warning for warning in report.warnings)


def test_a_deleted_box_and_the_last_box_of_a_field_go(
    tmp_path: Path, again: Again, sink: LibrarySink
) -> None:
    annotate(tmp_path / "set", ("EO", 10), ("MO", 100))
    annotate(tmp_path / "set", ("LY", 50), name="other")
    again()
    annotate(tmp_path / "set", ("EO", 10))
    again()
    assert stored(sink) == ["EO", "LY"]
    annotate(tmp_path / "set", name="other")
    report = again()
    assert stored(sink) == ["EO"]
    assert report.left_out == {"no cell is marked in it": 1}


def test_a_picture_that_was_replaced_under_its_name_leaves_no_item_of_before(
    tmp_path: Path, again: Again, sink: LibrarySink
) -> None:
    for label, seed in (("EO", 1), ("MO", 2)):
        draw(tmp_path / "set" / label / "a.png", seed)
    again()
    draw(tmp_path / "set" / "EO" / "a.png", 3)
    report = again()

    assert stored(sink) == ["EO", "MO"]
    assert (report.stored, report.removed, report.unchanged) == (1, 1, 1)


def test_a_picture_moved_to_another_label_changes_its_label_alone(
    tmp_path: Path, again: Again, sink: LibrarySink
) -> None:
    draw(tmp_path / "set" / "EO" / "a.png", 1)
    draw(tmp_path / "set" / "MO" / "b.png", 2)
    again()
    (tmp_path / "set" / "EO" / "a.png").rename(tmp_path / "set" / "MO" / "a.png")
    report = again()

    assert stored(sink) == ["MO", "MO"]
    assert (report.updated, report.removed) == (1, 0)


def test_a_source_of_which_a_part_failed_keeps_its_items(
    tmp_path: Path, again: Again, sink: LibrarySink
) -> None:
    annotate(tmp_path / "set", ("EO", 10), ("MO", 100))
    again()
    annotate(tmp_path / "set", ("EO", 10), ("MO", 900))  # outside of the picture
    report = again()

    assert report.failed == 1
    assert stored(sink) == ["EO", "MO"]


def test_two_tables_of_one_run_add_up(tmp_path: Path, encoder: Encoder, sink: LibrarySink) -> None:
    draw(tmp_path / "a.png")
    tasks = [
        Task(path=tmp_path / "a.png", dataset="d", reader=Marked((Mark(x, 50, 40, 40),)))
        for x in (10, 100)
    ]
    ingest(tasks, encoder, sink)
    assert ingest(tasks, encoder, sink).removed == 0
    assert len(stored(sink)) == 2


def test_other_datasets_are_left_alone(tmp_path: Path, encoder: Encoder, sink: LibrarySink) -> None:
    draw(tmp_path / "a.png")
    for dataset, x in (("one", 10), ("two", 100)):
        reader = Marked((Mark(x, 50, 40, 40),))
        task = Task(
            path=tmp_path / "a.png", dataset=dataset, reader=reader, facts=Facts(label="EO")
        )
        ingest([task], encoder, sink)
    assert stored(sink) == ["EO", "EO"]


def test_what_was_removed_comes_back_as_it_was_with_its_reviews(
    tmp_path: Path, again: Again, sink: LibrarySink
) -> None:
    annotate(tmp_path / "set", ("Monocyte", 104))
    again()
    (first,) = scroll_all(sink._collection.store)
    reviews = Reviews(sink._collection.versions)
    reviews.add([(first.item, "Blast", None)], caller="c")
    annotate(tmp_path / "set", ("Lymphocyte", 100))
    again()
    with Ledger(tmp_path / "l.sqlite", "cells") as ledger:
        run, ids = ledger.replaced()

    assert (run, ids) == (2, [first.item.id])
    assert sink._collection.bring_back(ids) == 1
    assert sink._collection.bring_back(ids) == 0
    assert stored(sink) == ["Lymphocyte", "Monocyte"]
    (back,) = (one for one in scroll_all(sink._collection.store) if one.item == first.item)
    assert (back.vector == first.vector).all()
    assert reviews.of([first.item.id])[first.item.id].label == "Blast"

"""A source, what is known of it, and the items that it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder.image import NotAnImage
from ingest.pipeline.reading import Job, cut_job, plan_source
from ingest.sources.report import Failure
from ingest.sources.source import BadFacts, Facts, Source, Task, Whole, make_item
from search.schemas.items import item_id, source_id


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "cell.png")
    return tmp_path / "cell.png"


def test_facts_of_a_cell_go_over_those_of_its_source() -> None:
    cell = Facts(label="EO", um_per_px=0.2, um_per_px_origin="manifest")
    source = Facts(label="cell", site="Basel", um_per_px=0.1, um_per_px_origin="estimate")

    assert cell.over(source) == Facts(
        label="EO", site="Basel", um_per_px=0.2, um_per_px_origin="manifest"
    )
    assert Facts(label="EO").over(source).um_per_px_origin == "estimate"
    assert Facts().over(source) == source


def test_a_source_is_known_by_its_bytes_however_they_are_read(path: Path) -> None:
    streamed, loaded = Source(path, "d"), Source(path, "d")
    assert loaded.content

    assert streamed.id == loaded.id == source_id(path.read_bytes())
    assert "content" not in streamed.__dict__


def test_the_size_needs_no_decoding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.source.decode", None)
    assert Source(path, "d").size == (30, 20)


def test_an_empty_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(NotAnImage, match=r"empty\.png is empty"):
        _ = Source(tmp_path / "empty.png", "d").size


def test_the_item_of_a_whole_image_has_the_id_of_its_bytes(path: Path) -> None:
    (planned,) = Whole().plan(source := Source(path, "d"), Facts(label="EO")).planned

    assert planned.item.id == item_id("d", source.id)
    assert planned.item.bbox is None
    assert planned.item.label == "EO"


def test_a_fact_that_does_not_fit_is_named(path: Path) -> None:
    with pytest.raises(BadFacts, match="um_per_px: Input should be greater than 0"):
        make_item(Source(path, "d"), Facts(um_per_px=-1), None, "cell")


def test_a_decoded_image_is_dropped_when_its_last_part_is_cut(path: Path) -> None:
    read = plan_source(Task(path=path, dataset="d", reader=Whole()))
    assert not isinstance(read, Failure)
    job = Job(read.task, read.source, read.plan.planned, 1, ends=True, last=True)

    (picture,) = cut_job(job) or [None]
    image = read.source.image

    assert image is not picture.image
    assert (image == picture.image).all()
    assert (picture.ends, picture.last) == (True, True)

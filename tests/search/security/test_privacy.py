"""Names of patients in file names, folders and metadata of images reach nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from pydicom.uid import ExplicitVRLittleEndian
from routes import ask, operations
from typer.testing import CliRunner

from benchmarks.fuzz_api import Stored, png
from benchmarks.made import blob, level_of, svs_description, write_tiff
from search.api.middleware import Parts
from search.api.observe import make_log
from search.index.contract import scroll_all
from search.library.library import Library
from search.schemas.filters import Filter
from search.security.keys import Keys
from search.settings import Settings
from ui.cli.main import app as command
from ui.cli.serving import application

NAMES = ("Roe", "Jane", "19600203")
"""What nobody may read: a patient's name and date of birth."""


class Kept(logging.Handler):
    """Lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def draw(folder: Path, at: int) -> None:
    """A picture whose folder, name and metadata say who the patient is."""
    rng = np.random.default_rng(at)
    image = Image.fromarray(rng.integers(90, 250, (48, 48, 3), dtype=np.uint8))
    facts = ImageFileDirectory_v2()
    facts[270], facts[315] = "Roe^Jane", "Jane Roe"  # description, artist
    image.save(folder / f"Roe_Jane_19600203_{at}.tif", tiffinfo=facts)


def draw_slide(folder: Path) -> None:
    """A slide and a DICOM file whose names and tags say who the patient is."""
    folder.mkdir(parents=True)
    image = blob(256, 256, np.random.default_rng(1), share=0.5)
    words = svs_description(256, 256) + "|Patient = Roe^Jane|User = Jane Roe|BirthDate = 19600203"
    level = level_of(image, tile=64)
    write_tiff(folder / "Roe_Jane_19600203.svs", [level], description=words, abbreviated=True)
    dicom = pydicom.Dataset()
    dicom.SOPClassUID = dicom.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    dicom.PatientName, dicom.PatientBirthDate = "Roe^Jane", "19600203"
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.save_as(folder / "Roe_Jane_19600203.dcm", enforce_file_format=True)


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("privacy")
    for label in ("LY", "MO"):
        folder = root / "Roe^Jane" / label
        folder.mkdir(parents=True)
        for at in range(3):
            draw(folder, at + 10 * len(label) + ord(label[0]))
    (root / "Roe^Jane" / "LY" / "Roe_Jane_19600203_broken.png").write_bytes(b"no picture")
    words = ["ingest", str(root / "Roe^Jane"), "--dataset", "clinic", "--encoder", "colour"]
    ran = CliRunner().invoke(command, words, env={"HEMASEEK_LIBRARY": str(root / "library")})
    assert ran.exit_code == 1, ran.output  # the broken file is set aside
    draw_slide(root / "Jane Roe")
    words = ["ingest", str(root / "Jane Roe"), "--dataset", "slides", "--encoder", "colour"]
    ran = CliRunner().invoke(
        command, [*words, "--tile-px", "64"], env={"HEMASEEK_LIBRARY": str(root / "library")}
    )
    assert '"quarantined": 1' in ran.output, ran.output  # the DICOM file has no pixels
    assert '"stored": 0' not in ran.output
    return root / "library"


@pytest.fixture(name="stored")
def _stored(library: Path) -> Stored:
    with Library.open(library).collection("cells") as collection:
        found = list(scroll_all(collection.store, Filter()))
        card = collection.card
    shard = next((library / "collections" / "cells").rglob("*.parquet")).read_bytes()
    ids = [one.item.id for one in found]
    return Stored(ids, [0.0] * card.dim, card.fingerprint, png((9, 9, 9), 1), shard, card.to_json())


@pytest.fixture(name="client")
def _client(library: Path, stored: Stored) -> Iterator[TestClient]:
    with TestClient(application(Settings(library=library)), base_url="http://localhost") as client:
        yield client


def test_no_route_answers_with_the_name_of_a_file_or_what_is_written_in_it(
    client: TestClient, library: Path, stored: Stored
) -> None:
    kept = Kept()
    parts: Parts = client.app.state.parts  # type: ignore[attr-defined]
    parts.log = make_log("info", kept)
    text = Keys(library / "keys.json").add("reader", {"cells": "read"})[1]
    told, answered = [], 0
    for method, path, _ in operations():
        response = ask(client, method, path, stored, text)
        answered += response.is_success
        written = response.text + str(response.headers)
        told += [f"{method} {path}: {name}" for name in NAMES if name in written]
    key = {"X-API-Key": text}
    page = client.post("/v1/collections/cells/items/page", json={}, headers=key).json()["items"]
    for source in {one["source"] for one in page}:
        written = client.get(f"/v1/sources/{source}", headers=key).text
        told += [f"source {source}: {name}" for name in NAMES if name in written]
    audited = "".join(path.read_text() for path in (library / "audit").glob("*.jsonl"))

    assert told == []
    assert answered >= 12
    assert not [name for name in NAMES if name in audited]
    assert kept.lines
    assert not [name for name in NAMES if name in "".join(kept.lines)]

"""Names of patients in file names, folders and metadata of images reach nobody."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient
from pdf_text import words
from PIL import Image
from PIL.PngImagePlugin import PngInfo
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
from search.schemas.answers import VoteAnswer
from search.schemas.exports import ExportFormat
from search.schemas.filters import Filter
from search.security.keys import Keys, Role
from search.settings import Settings
from ui.cli.main import app as command
from ui.cli.serving import application
from ui.exports.pdf import search_report

NAMES = ("Roe", "Jane", "19600203")
"""What nobody may read: a patient's name and date of birth."""
SAID = ("Zebrawood", "Quagga", "Okapi", "Numbat")
"""What somebody wrote on purpose into the collection `ward`, as label, case, diagnosis and further
column of cases: for its readers alone."""


class Kept(logging.Handler):
    """Lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def draw(folder: Path, at: int) -> Path:
    """A picture whose folder, name and metadata say who the patient is."""
    rng = np.random.default_rng(at)
    image = Image.fromarray(rng.integers(90, 250, (48, 48, 3), dtype=np.uint8))
    path = folder / f"Roe_Jane_19600203_{at}{('.tif', '.jpg', '.png')[at % 3]}"
    if path.suffix == ".tif":
        facts = ImageFileDirectory_v2()
        facts[270], facts[315] = "Roe^Jane", "Jane Roe"  # description, artist
        image.save(path, tiffinfo=facts)
    elif path.suffix == ".jpg":
        exif = Image.Exif()
        exif[270], exif[315] = "Roe^Jane", "Jane Roe"
        exif[0x9C9D] = "Jane Roe".encode("utf-16-le")  # as Windows writes the author
        image.save(path, exif=exif, comment=b"Roe^Jane 19600203")
    else:
        text = PngInfo()
        text.add_text("Author", "Jane Roe")
        text.add_itxt("Description", "Roe^Jane 19600203")
        image.save(path, pnginfo=text)
    return path


def draw_outlined(folder: Path) -> None:
    """A picture in a COCO file that has fields of its own with the name of the patient."""
    folder.mkdir()
    path = draw(folder, 77)
    held = {
        "info": {"contributor": "Jane Roe", "patient": "Roe^Jane"},
        "images": [
            {"id": 1, "file_name": path.name, "width": 48, "height": 48, "patient_name": "Roe^Jane"}
        ],
        "categories": [{"id": 1, "name": "LY", "supercategory": "Jane Roe"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 30],
             "attributes": {"born": "19600203", "who": "Jane Roe"}}
        ],
    }  # fmt: skip
    (folder / "Roe_Jane.json").write_text(json.dumps(held))


def write_manifest(folder: Path, **more: str) -> Path:
    """Four pictures with a manifest that says what `SAID` has, and further columns."""
    folder.mkdir()
    rows = [
        {"path": draw(folder, 50 + at).name, "label": "Zebrawood", "case": f"Quagga-{at // 2}",
         "diagnosis": "Okapi", "case:ward": "Numbat", **more}
        for at in range(4)
    ]  # fmt: skip
    path = folder / "Roe_Jane_manifest.csv"
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def draw_slide(folder: Path) -> None:
    """A slide and a DICOM file whose names and tags say who the patient is."""
    folder.mkdir(parents=True)
    image = blob(256, 256, np.random.default_rng(1), share=0.5)
    facts = svs_description(256, 256) + "|Patient = Roe^Jane|User = Jane Roe|BirthDate = 19600203"
    level = level_of(image, tile=64)
    write_tiff(folder / "Roe_Jane_19600203.svs", [level], description=facts, abbreviated=True)
    dicom = pydicom.Dataset()
    dicom.SOPClassUID = dicom.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    dicom.PatientName, dicom.PatientBirthDate = "Roe^Jane", "19600203"
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.save_as(folder / "Roe_Jane_19600203.dcm", enforce_file_format=True)


def ingest(library: Path, what: Path, *more: str) -> Any:
    """What the command answered."""
    line = ["ingest", str(what), "--encoder", "colour", *more]
    return CliRunner().invoke(command, line, env={"HEMASEEK_LIBRARY": str(library)})


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("privacy")
    library = root / "library"
    for label in ("LY", "MO"):
        folder = root / "Roe^Jane" / label
        folder.mkdir(parents=True)
        for at in range(3):
            draw(folder, at + 10 * len(label) + ord(label[0]))
    (root / "Roe^Jane" / "LY" / "Roe_Jane_19600203_broken.png").write_bytes(b"no picture")
    ran = ingest(library, root / "Roe^Jane", "--dataset", "clinic")
    assert ran.exit_code == 1, ran.output  # the broken file is set aside
    draw_slide(root / "Jane Roe")
    ran = ingest(library, root / "Jane Roe", "--dataset", "slides", "--tile-px", "64")
    assert '"quarantined": 1' in ran.output, ran.output  # the DICOM file has no pixels
    assert '"stored": 0' not in ran.output
    draw_outlined(root / "Roe outlined")
    ran = ingest(library, root / "Roe outlined", "--dataset", "outlined")
    assert '"stored": 1' in ran.output, ran.output
    ward = write_manifest(root / "Jane ward")
    ran = ingest(library, ward, "--dataset", "wards", "--collection", "ward")
    assert '"stored": 4' in ran.output, ran.output
    undeclared = write_manifest(root / "Jane undeclared", **{"Roe^Jane": "19600203"})
    assert ingest(library, undeclared, "--dataset", "more").exit_code != 0
    return library


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


def names_in(content: bytes, names: tuple[str, ...]) -> list[str]:
    """Which names a file or a text holds; of a ZIP, each file is looked at."""
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = b"".join([info.filename.encode() for info in archive.infolist()]
                               + [archive.read(one) for one in archive.namelist()])  # fmt: skip
    forms = {name: (name.encode(), name.encode("utf-16-le")) for name in names}
    return [name for name, some in forms.items() if any(one in content for one in some)]


def told(response: Any, names: tuple[str, ...]) -> list[str]:
    """Which names an answer holds, in its body or its headers."""
    return names_in(response.content, names) + names_in(str(response.headers).encode(), names)


def listen(client: TestClient) -> Kept:
    """Everything that the service logs from now on."""
    kept = Kept()
    parts: Parts = client.app.state.parts  # type: ignore[attr-defined]
    parts.log = make_log("info", kept)
    return kept


def kept_apart(library: Path, kept: Kept, metrics: str) -> dict[str, bytes]:
    """What the operator has: log, audit and metrics."""
    audit = b"".join(path.read_bytes() for path in (library / "audit").glob("*.jsonl"))
    return {"log": "\n".join(kept.lines).encode(), "audit": audit, "metrics": metrics.encode()}


def test_what_is_written_in_a_collection_reaches_its_readers_alone(
    client: TestClient, library: Path, stored: Stored
) -> None:
    keys, kept = Keys(library / "keys.json"), listen(client)
    other = keys.add("other", {"cells": "read"})[1]
    reader = {"X-API-Key": keys.add("ward", {"ward": "read"})[1]}
    found = []
    for method, path, _ in operations():
        response = ask(client, method, path.replace("{name}", "ward"), stored, other)
        found += [f"{method} {path}: {name}" for name in told(response, SAID)]
    for path in ("/v1/cases/Quagga-0?collection=ward", "/v1/collections/ward/facets/label"):
        assert client.get(path, headers=reader).status_code == 200
        assert client.get(path, headers={"X-API-Key": other}).status_code in {403, 404}
    page = client.post("/v1/collections/ward/items/page", json={}, headers=reader)
    records = client.post("/v1/collections/ward/cases/records/page", json={}, headers=reader)
    where = {"label": ["Zebrawood"], "case": ["Quagga-1"]}
    question = {"item": page.json()["items"][0]["id"], "where": where, "collection": "ward"}
    answers = [client.post("/v1/search", json=question, headers=reader)]
    answers += [client.post("/v1/search", json=question | {"k": "Okapi"}, headers=reader)]
    metrics = client.get("/metrics", headers={"X-API-Key": other}).text

    assert found == []
    assert [answer.status_code for answer in answers] == [200, 422]
    assert set(told(page, SAID) + told(records, SAID)) == set(SAID)  # for whoever may read them
    for where_kept, content in kept_apart(library, kept, metrics).items():
        assert names_in(content, SAID) == [], where_kept
        assert content


def test_no_export_holds_the_name_of_a_file_or_what_is_written_in_it(
    client: TestClient, library: Path
) -> None:
    key = {"X-API-Key": Keys(library / "keys.json").add("exporter", {"cells": "read"})[1]}
    page = client.post("/v1/collections/cells/items/page", json={}, headers=key).json()["items"]
    found, made = [], 0
    for kind in get_args(ExportFormat):
        wanted = {"format": kind, "items": [one["id"] for one in page]}
        response = client.post("/v1/collections/cells/export", json=wanted, headers=key)
        made += response.is_success
        found += [f"{kind}: {name}" for name in told(response, NAMES)]
    question = {"item": page[0]["id"], "k": 3, "collection": "cells"}
    voted = VoteAnswer.model_validate(client.post("/v1/vote", json=question, headers=key).json())
    pictures = [
        client.get(f"/v1/items/{hit.item.id}/image?size=full", headers=key).content
        for hit in voted.answer.hits
    ]
    report = search_report(voted, pictures, pictures[0], "a stored item", datetime.now(UTC))

    assert found == []
    assert made == len(get_args(ExportFormat))
    assert len(pictures) == 3
    assert [name for one in pictures for name in names_in(one, NAMES)] == []
    assert [name for name in NAMES if name in words(report)] == []
    assert names_in(report, NAMES) == []


@pytest.mark.parametrize("role", ["read", "admin"])
def test_no_route_answers_with_the_name_of_a_file_or_what_is_written_in_it(
    client: TestClient, library: Path, stored: Stored, role: Role
) -> None:
    kept = listen(client)
    text = Keys(library / "keys.json").add(role, {"cells": role})[1]
    found, answered = [], 0
    for method, path, _ in sorted(operations(), key=lambda one: one[0] == "DELETE"):
        response = ask(client, method, path, stored, text)
        answered += response.is_success
        found += [f"{method} {path}: {name}" for name in told(response, NAMES)]
    key = {"X-API-Key": text}
    page = client.post("/v1/collections/cells/items/page", json={}, headers=key).json()["items"]
    for source in {one["source"] for one in page}:
        response = client.get(f"/v1/sources/{source}", headers=key)
        found += [f"source {source}: {name}" for name in told(response, NAMES)]
    metrics = client.get("/metrics", headers=key).text

    assert found == []
    assert answered >= 12
    for where_kept, content in kept_apart(library, kept, metrics).items():
        assert names_in(content, NAMES) == [], where_kept
        assert content


def test_a_job_that_failed_names_no_file(client: TestClient, library: Path) -> None:
    key = {"X-API-Key": Keys(library / "keys.json").add("admin", {"cells": "admin"})[1]}
    for path in (library.parent / "Roe^Jane").rglob("*.*"):
        path.unlink(missing_ok=True)
    wanted = {"encoder": "measured"}
    job = client.post("/v1/collections/cells/reindex", json=wanted, headers=key).json()
    while job["state"] in {"queued", "running"}:
        time.sleep(0.05)
        job = client.get(f"/v1/jobs/{job['id']}", headers=key).json()
    listed = client.get("/v1/jobs", headers=key)

    assert job["state"] == "failed"
    assert "cannot be read again" in job["error"]
    assert names_in(json.dumps(job).encode(), NAMES) + told(listed, NAMES) == []

"""Imports that the page begins."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ingest.samples.synthetic import DATASET, write_library
from search.client.client import Client
from search.settings import Settings
from ui.cli.demo import free_port
from ui.session import imports


def png(shade: int = 200) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((40, 40), shade).convert("RGB").save(out, "PNG")
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture(name="settings")
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Of a service over an empty library."""
    import uvicorn

    from ui.cli.serving import application

    monkeypatch.setenv("HEMASEEK_ENCODER", "colour")
    settings = Settings(library=tmp_path / "library", port=free_port(), preload=False)
    config = uvicorn.Config(application(settings), port=settings.port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield settings
    server.should_exit = True
    thread.join(30)


def test_a_folder_is_imported_through_the_service_and_a_wrong_one_ends_in_a_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    drawn = write_library(tmp_path / "drawn", patients=1, fields_per_patient=0, cells_per_label=1)
    assert imports.here(settings)

    running = imports.begin(drawn.manifest, settings, {"dataset": "d", "site": "Bergen"})
    running.process.wait(60)

    words, tone = running.result()
    with Client(settings.url) as client:
        (made,) = client.collections()
        assert client.facets("cells", "dataset") == {DATASET: made.items}
    assert tone == "good"
    assert words.startswith(f"{made.items:,} items stored")
    with pytest.raises(imports.CannotImport, match="there is nothing at"):
        imports.begin(tmp_path / "not-there", settings, {})


def test_an_upload_becomes_folders_of_labels_and_leaves_none_of_its_own(tmp_path: Path) -> None:
    settings = Settings(library=tmp_path / "library")
    archive = zipped({"eos/1.png": png(), "../../out/2.png": png(), "notes.txt": b"x"})

    folder = imports.kept([("a.zip", archive), ("../b.png", png())], settings, "../d", "lymph")

    files = sorted(str(one.relative_to(settings.library)) for one in folder.rglob("*.png"))
    assert folder.parent == settings.library / "imported"
    assert len(files) == 3
    assert any(name.endswith("eos/1.png") for name in files)
    assert any(name.endswith("lymph/b.png") for name in files)
    assert not (tmp_path / "out").exists()
    assert not imports.here(settings)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.zip", b"PK no archive", "cannot be unpacked"),
        ("a.zip", zipped({"notes.txt": b"x"}), "no picture"),
        ("a.pdf", b"%PDF", "no picture"),
    ],
)
def test_an_upload_without_pictures_is_refused_in_words(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(imports.CannotImport, match=words):
        imports.kept([(name, content)], Settings(library=tmp_path), "d", "")

"""A path of an uploaded shard opens nothing that the operator did not name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from versioned import draw

from encoder.registry import load
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.library.source_folders import SourceFolders
from search.library.sources import PlainImages, SourceGone
from search.settings import Settings
from ui.cli.serving import application

KEY = {"X-API-Key": "secret"}


def test_without_keys_any_regular_file_is_opened_and_nothing_else(tmp_path: Path) -> None:
    folders = SourceFolders(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")

    assert folders.allow(tmp_path / "a.png")
    for none in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "gone", Path("a\0b")):
        assert not folders.allow(none)


def test_with_keys_only_named_and_ingested_folders_are_opened(tmp_path: Path) -> None:
    for name in ("named", "ingested/deep", "other", "named-too"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").write_bytes(b"x")
    (tmp_path / "named" / "link.png").symlink_to(tmp_path / "other" / "a.png")
    library = tmp_path / "library"
    library.mkdir()
    folders = SourceFolders(library, [tmp_path / "named"], strict=lambda: True)

    folders.record([tmp_path / "ingested", tmp_path / "ingested" / "deep" / "a.png"])

    assert folders.allow(tmp_path / "named" / "a.png")
    assert folders.allow(tmp_path / "ingested" / "deep" / "a.png")
    assert not folders.allow(tmp_path / "other" / "a.png")
    assert not folders.allow(tmp_path / "named-too" / "a.png")
    assert not folders.allow(tmp_path / "named" / ".." / "other" / "a.png")
    assert not folders.allow(tmp_path / "named" / "link.png")
    again = SourceFolders(library, strict=lambda: True)
    assert again.allow(tmp_path / "ingested" / "deep" / "a.png")


def test_a_file_outside_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    item, path = draw(tmp_path, 1)[0]
    inside = SourceFolders(named=[path.parent], strict=lambda: True)

    assert PlainImages(inside)(path, item).ndim == 3
    with pytest.raises(SourceGone, match="may not be opened"):
        PlainImages(SourceFolders(strict=lambda: True))(path, item)


@pytest.mark.parametrize("named", [True, False])
def test_an_uploaded_path_is_read_over_http_only_where_it_is_allowed(
    tmp_path: Path, named: bool
) -> None:
    drawn, path = draw(tmp_path / "pictures", 1)[0]
    card = load("colour").card
    settings = Settings(
        library=tmp_path / "library",
        api_key=SecretStr("secret"),
        source_folders=str(tmp_path / "pictures") if named else "",
        preload=False,
    )
    vector, thumbnail = np.ones(card.dim, np.float32), make_thumbnail(np.zeros((9, 9, 3), np.uint8))
    entry = Entry(drawn, vector, thumbnail, str(path))
    with Library.open(settings.library).create("cells", card):
        pass
    with TestClient(application(settings), headers=KEY) as client:
        sent = client.put("/v1/collections/cells/shards", content=make_shard_bytes([entry], card))
        assert sent.status_code == 200
        source = client.get(f"/v1/sources/{drawn.source}")
        image = client.get(f"/v1/items/{drawn.id}/image", params={"size": "full"})

    assert source.status_code == (200 if named else 404)
    assert image.status_code == 200
    if not named:
        assert "HEMASEEK_SOURCE_FOLDERS" in source.json()["detail"]
        assert str(path) not in source.text
        assert image.content == thumbnail


@pytest.mark.parametrize("path", ["/dev/zero", "/etc/hostname", "/no/such/file", "pipe"])
def test_missing_special_and_forbidden_files_get_one_answer(tmp_path: Path, path: str) -> None:
    drawn, _ = draw(tmp_path / "pictures", 1)[0]
    os.mkfifo(tmp_path / "pipe")
    card = load("colour").card
    settings = Settings(library=tmp_path / "library", api_key=SecretStr("secret"), preload=False)
    where = str(tmp_path / path) if path == "pipe" else path
    entry = Entry(
        drawn,
        np.ones(card.dim, np.float32),
        make_thumbnail(np.zeros((9, 9, 3), np.uint8)),
        where,
    )
    with Library.open(settings.library).create("cells", card) as cells:
        cells.add([entry])
    with TestClient(application(settings), headers=KEY) as client:
        source = client.get(f"/v1/sources/{drawn.source}")

    assert source.status_code == 404
    assert source.json()["detail"] == (
        "the file of this source is not to be had: it is gone, was stored without a path, or "
        "lies in no folder that HEMASEEK_SOURCE_FOLDERS names"
    )

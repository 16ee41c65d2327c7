"""The demo, on a machine with no images and no network."""

from __future__ import annotations

from pathlib import Path

from command import hemaseek
from PIL import Image

OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}


def test_without_images_and_network_it_draws_cells_and_says_so(tmp_path: Path) -> None:
    done = hemaseek(
        "demo", "--encoder", "colour", cwd=tmp_path, HOME=str(tmp_path / "home"), **OFFLINE
    )

    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout
    assert "vote: " in done.stdout
    assert "the demo ends here" in done.stdout
    with Image.open(tmp_path / "demo" / "neighbours.png") as sheet:
        assert sheet.width > 1000


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = hemaseek("demo", "--data", "nowhere", cwd=tmp_path)

    assert done.returncode == 1
    assert "there is no folder nowhere" in done.stderr
    assert "Traceback" not in done.stderr

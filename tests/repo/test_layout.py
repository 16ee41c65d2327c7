"""Rules of the repository that no linter knows."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise

import pytest
from live import REPOSITORY

from search.settings import Settings

PARTS = ("encoder", "search", "ingest", "train", "ui")


def test_tests_are_flat_so_that_no_folder_shadows_a_part() -> None:
    assert not list((REPOSITORY / "tests").glob("**/__init__.py"))


def test_no_module_is_named_after_a_part() -> None:
    modules = [path.stem for part in PARTS for path in (REPOSITORY / part).glob("*.py")]

    allowed = {"encoder"}  # encoder/encoder.py is only ever imported as encoder.encoder
    assert not (set(modules) & set(PARTS)) - allowed


def test_no_module_is_a_drawer_for_anything() -> None:
    modules = {path.stem for part in PARTS for path in (REPOSITORY / part).rglob("*.py")}

    assert not modules & {"utils", "util", "common", "core", "helpers", "misc"}


def test_every_test_file_is_named_after_a_module() -> None:
    known = {
        f"{part}_{path.stem}".replace("___", "__")
        for part in PARTS
        for path in (REPOSITORY / part).glob("*.py")
    }
    known |= {"repo_layout", "repo_docs", "repo_docker", "train_smoke"}
    known |= {"ui_browser", "ui_browser_pages", "ui_pages", "ui_parts"}  # of many modules at once

    strays = [
        path.name
        for path in (REPOSITORY / "tests").glob("test_*.py")
        if path.stem.removeprefix("test_") not in known
    ]
    assert strays == []


def test_every_setting_has_a_heading_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "settings.md").read_text()
    headings = set(re.findall(r"^### `HEMASEEK_(\w+)`", text, re.MULTILINE))

    assert headings == {name.upper() for name in Settings.model_fields}


def test_the_page_installs_without_torch() -> None:
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    needs = {
        package["name"]: [d["name"] for d in package.get("dependencies", [])]
        for package in lock["package"]
    }
    (own,) = (package for package in lock["package"] if package["name"] == "hemaseek")
    reached: set[str] = set()
    left = [d["name"] for d in own["dependencies"] + own["optional-dependencies"]["ui"]]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += needs.get(name, [])

    assert "streamlit" in reached
    assert not reached & {"torch", "timm", "qdrant-client", "qdrant-edge-py", "openslide-python"}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_the_papers_of_the_repository_are_written(name: str) -> None:
    text = (REPOSITORY / name).read_text()

    assert len(text) > 800


def test_no_output_is_called_a_diagnosis() -> None:
    said = []
    for path in [p for part in PARTS for p in (REPOSITORY / part).rglob("*.py")]:
        said += [
            f"{path.name}: {line}"
            for line in path.read_text().splitlines()
            if "diagnos" in line.lower()
        ]

    assert said == []


def test_changelog_versions_fall() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    versions = [
        tuple(int(n) for n in found) for found in re.findall(r"^## (\d+)\.(\d+)\.(\d+)", text, re.M)
    ]

    assert versions
    assert all(newer > older for newer, older in pairwise(versions))

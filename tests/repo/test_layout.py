"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import time
import tomllib
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest
from live import REPOSITORY

from search.settings import Settings

PARTS = ("encoder", "search", "ingest", "train", "ui")


ROOMS = [
    folder
    for part in PARTS
    for folder in (REPOSITORY / part, *(REPOSITORY / part).rglob("*"))
    if (folder / "__init__.py").is_file()
]
TOGETHER = {"browser", "repo", "support"}
"""Folders of tests/ that belong to no one room: many modules at once."""
SEVERAL = {
    "test_decoders.py",
    "test_files.py",
    "test_hostile_weights.py",
    "test_privacy.py",
    "test_recognition.py",
    "test_served.py",
}
"""Tests of several modules of their room at once."""


def modules(room: Path) -> list[str]:
    return [path.stem for path in room.glob("*.py") if path.stem != "__init__"]


def test_no_folder_of_tests_is_a_package_that_could_shadow_a_part() -> None:
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))


def test_every_folder_with_modules_is_a_room() -> None:
    folders = {path.parent for part in PARTS for path in (REPOSITORY / part).rglob("*.py")}

    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(REPOSITORY)))
def test_a_room_can_be_taken_in_at_a_glance(room: Path) -> None:
    assert len(modules(room)) <= 15


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_room_has_its_line_in_the_papers(name: str) -> None:
    text = (REPOSITORY / name).read_text()

    assert not [str(room) for room in ROOMS if f"{room.name}/" not in text]


def test_no_room_has_a_name_that_streamlit_or_the_standard_library_takes() -> None:
    # Streamlit reads a folder `pages`; the folder of the page is on the path, and imports `html`.
    assert not {room.name for room in ROOMS} & {"pages", "html"}


def test_no_module_or_room_is_a_drawer_for_anything() -> None:
    names = {room.name for room in ROOMS} | {name for room in ROOMS for name in modules(room)}

    assert not names & {"utils", "util", "common", "core", "helpers", "misc"}


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports anywhere: in functions and for types alone too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path
        for part in PARTS
        for path in (REPOSITORY / part).rglob("*.py")
    }

    order = TopologicalSorter({name: imports(path, set(files)) for name, path in files.items()})

    order.prepare()  # raises CycleError, which names the circle


def test_every_test_file_lies_in_the_room_of_its_module() -> None:
    strays = []
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        room = path.parent.relative_to(REPOSITORY / "tests")
        if TOGETHER & set(room.parts) or path.name in SEVERAL:
            continue
        tested = path.stem.removeprefix("test_")
        known = ["init", *modules(REPOSITORY / room)]
        if not any(tested == name or tested.startswith(f"{name}_") for name in known):
            strays.append(str(room / path.name))

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


def test_only_what_was_recorded_of_a_case_is_called_a_diagnosis() -> None:
    said = []
    for path in [p for part in PARTS for p in (REPOSITORY / part).rglob("*.py")]:
        if "case" in str(path.relative_to(REPOSITORY)):  # what a hospital's table says of a case
            continue
        said += [
            f"{path.name}: {line}"
            for line in path.read_text().splitlines()
            if "diagnos" in re.sub(r"[\"`]diagnosis[\"`]", "", line.lower())  # the column's name
        ]

    assert said == []


def test_changelog_versions_fall() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    versions = [
        tuple(int(n) for n in found) for found in re.findall(r"^## (\d+)\.(\d+)\.(\d+)", text, re.M)
    ]

    assert versions
    assert all(newer > older for newer, older in pairwise(versions))


def patterns() -> list[re.Pattern[str]]:
    """Every pattern in what callers reach; one that is put together is so of our own constants."""
    found = []
    for path in (
        one for part in ("search", "ingest", "ui") for one in (REPOSITORY / part).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.append(re.compile(first.value))
            elif isinstance(first, ast.JoinedStr):
                parts = [one.value for one in first.values if isinstance(one, ast.FormattedValue)]
                assert all(ast.unparse(one).isupper() for one in parts), f"{path}:{node.lineno}"
            else:
                words = ast.unparse(first)
                assert words.isupper() or words.startswith("re.escape("), f"{path}:{node.lineno}"
    return found


CALLS = {
    f"re.{name}"
    for name in ["compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer"]
}


def test_no_regular_expression_comes_from_a_caller_or_takes_long_over_what_one_sends() -> None:
    long = ["a" * 3000, " " * 3000, "1" * 3000, "/" * 3000, "a-" * 1500, "1." * 1500, "Aa" * 1500]
    slow = []
    for pattern in patterns():
        for text in long:
            began = time.process_time()
            pattern.search(text + "!\n")
            if (took := time.process_time() - began) > 1:
                slow.append((pattern.pattern, text[:5], took))

    assert slow == []


def test_what_the_page_caches_is_told_apart_by_everything_that_is_not_a_connection() -> None:
    """Streamlit leaves parameters that begin with an underscore out of the key of a cache."""
    may = {"_client", "_place", "_content"}
    unkeyed = [
        f"{path.relative_to(REPOSITORY)}: {node.name}({one.arg})"
        for path in sorted((REPOSITORY / "ui").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and any("cache_data" in ast.unparse(mark) for mark in node.decorator_list)
        for one in node.args.args
        if one.arg.startswith("_") and one.arg not in may
    ]
    assert not unkeyed

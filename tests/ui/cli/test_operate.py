"""The operator's verbs, over a library of drawn cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import hemaseek
from live import drawn_library

from search.schemas.versions import GateFacts
from ui.cli.operate import in_figures


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_library(tmp_path_factory.mktemp("operate")).library


@pytest.fixture(name="library")
def _library(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "library"))


def test_a_check_that_failed_is_named_with_its_figure_and_its_limit() -> None:
    check = GateFacts(
        name="recall", passed=False, figures={"recall_at_10": 0.91}, limits={"least": 0.95}, note=""
    )

    assert in_figures(check) == "recall: measured recall at 10 0.91; limit least 0.95"


def printed(library: Path, *words: str, status: int = 0) -> list[Any]:
    done = hemaseek(*words, "--library", str(library))
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_versions_say_which_one_is_active(library: Path) -> None:
    (version,) = printed(library, "versions")

    assert version["served"] is True
    assert version["encoder"] == "colour"
    assert version["items"] > 0


def test_a_library_reconciles_with_its_shards(library: Path) -> None:
    (found,) = printed(library, "reconcile")

    assert found["shards"] == found["index"]
    assert (found["missing"], found["phantom"]) == (0, 0)


def test_a_snapshot_restores_to_the_same_points(library: Path, tmp_path: Path) -> None:
    (saved,) = printed(library, "snapshot", str(tmp_path / "backup.tar"))

    (back,) = printed(tmp_path / "other", "restore", str(tmp_path / "backup.tar"))

    assert back["points"] == saved["points"]
    assert back["point_hash"] == saved["point_hash"]


def test_a_damaged_snapshot_is_refused(library: Path, tmp_path: Path) -> None:
    printed(library, "snapshot", str(tmp_path / "backup"))
    shard = next((tmp_path / "backup").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-10])

    done = hemaseek("restore", str(tmp_path / "backup"), "--library", str(tmp_path / "other"))

    assert done.returncode == 1
    assert shard.name in done.stderr
    assert "Traceback" not in done.stderr


def test_going_back_without_a_version_before_is_refused_in_words(library: Path) -> None:
    done = hemaseek("rollback", "--library", str(library))

    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_key_that_the_command_makes_is_not_kept_in_the_library(library: Path) -> None:
    made = hemaseek("keys", "add", "lab", "--role", "cells:read", "--library", str(library))

    (listed,) = printed(library, "keys", "list")
    kept = "".join(path.read_text() for path in library.glob("*.json"))

    assert listed["roles"] == {"cells": "read"}
    assert made.stdout.strip().rsplit("_", 1)[1] not in kept


def test_capacity_is_a_table() -> None:
    done = hemaseek("capacity", "--cells", "100e6", "--dim", "384")

    assert "154 GB" in done.stdout  # 1e8 x 384 x 4 bytes
    assert "Qdrant: " in done.stdout


def test_cases_alike_are_found_and_never_the_own_patient(library: Path) -> None:
    (found,) = printed(library, "cases", "synthetic-patient-00-case-1", "-k", "3")

    assert len(found["cases"]) == 3
    for match in found["cases"]:
        assert "synthetic-patient-00" not in match["patients"]


def test_a_collection_is_adapted_without_embedding_anything(library: Path) -> None:
    (done,) = printed(library, "adapt", "--kind", "metric", "--force")

    assert done["switched"]
    assert (done["embedded"], done["copied"]) == (0, done["items"])

"""What several tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import REPOSITORY, Live, drawn_library, served

os.environ["HEMASEEK_HOSTS"] = "testserver"  # how the test client calls a service
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what a test starts may keep what it compiled
MEMORY = Path("/dev/shm")
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and os.access(MEMORY, os.W_OK):
    free = shutil.disk_usage(MEMORY).free
    if free > 4 << 30:  # an fsync on a disk takes a hundred times as long, and stores do many
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def data_folder() -> Path:
    """Where the real images are, whether or not they are there."""
    named = os.environ.get("HEMASEEK_DATA")
    return Path(named or REPOSITORY / ".." / "shared" / "data").resolve()


@pytest.fixture(name="data_dir", scope="session")
def _data_dir() -> Path:
    folder = data_folder()
    if not (folder / "pbc" / "cells").is_dir():
        pytest.skip(f"no real images at {folder}; set HEMASEEK_DATA to their folder")
    return folder


@pytest.fixture(name="rng")
def _rng() -> np.random.Generator:
    return np.random.default_rng(20_26)


@pytest.fixture(name="live", scope="session")
def _live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The service over drawn cells, in a thread of this process."""
    folder = tmp_path_factory.mktemp("live")
    settings = drawn_library(folder)
    with served(settings):
        yield Live(settings.url, folder / "drawn", settings)


@pytest.fixture(name="chromium", scope="session")
def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium; `make test-browser` installs it")
    return found

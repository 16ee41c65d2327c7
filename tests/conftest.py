"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent


def data_folder() -> Path:
    """Where the real images are, whether or not they are there."""
    return Path(os.environ.get("HEMASEEK_DATA", REPOSITORY / ".." / "shared" / "data")).resolve()


@pytest.fixture(name="data_dir", scope="session")
def _data_dir() -> Path:
    folder = data_folder()
    if not (folder / "README.md").exists():
        pytest.skip(f"no real images at {folder}; set HEMASEEK_DATA to their folder")
    return folder


@pytest.fixture(name="rng")
def _rng() -> np.random.Generator:
    return np.random.default_rng(20_26)

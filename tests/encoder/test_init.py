"""What importing any of the packages does first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_THREAD_TIMEOUT"))
sys.meta_path.insert(0, Watch())
import {module}
"""


@pytest.mark.parametrize("named", [None, "22"])
@pytest.mark.parametrize(
    "module",
    [
        "encoder.image",
        "search.neighbours.exact",
        "ingest.slides.quality",
        "train.dino.schedule",
        "ui.look.palette",
    ],
)
def test_threads_of_blas_sleep_while_they_wait(module: str, named: str | None) -> None:
    """NumPy's read the variable when they load; what the operator set is left as it is."""
    plain = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    environment = plain | ({"OPENBLAS_THREAD_TIMEOUT": named} if named else {})

    done = subprocess.run(
        [sys.executable, "-c", WATCH.format(module=module) + "import numpy"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[0] == (named or "10")

"""The command `hemaseek`, run as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def hemaseek(
    *words: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HEMASEEK_")}
    return subprocess.run(
        [sys.executable, "-m", "ui", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=plain | environment,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )

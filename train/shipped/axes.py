"""Fit the axes of the `measured` encoder: python -m train.shipped.axes.

Reads three quarters of PBC (`train.shipped.data.held_out`), no label, and writes
`encoder/measured.npz`. The held-out quarter is never read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from encoder.features.measured import AXES, CARD, write_axes
from train.shipped.data import axes_for, pbc_files

POWER = 0.8
"""Of the spread that each axis is divided by (`encoder.features.descriptors.evened`)."""


def make(root: Path, out: Path = AXES) -> int:
    """Fit and write; returns how many cells decided.

    Args:
        root: Folder that holds pbc.
        out: The file to write.
    """
    files = pbc_files(root / "pbc")
    write_axes(out, axes_for(files, CARD.dim, POWER))
    return len(files)


if __name__ == "__main__":
    folder = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    sys.stdout.write(f"{make(folder)} cells decided {AXES}\n")

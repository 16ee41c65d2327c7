"""Fit the axes of the `measured` encoder: python -m train.measured.

Reads three quarters of PBC (`train.default_data.held_out`), no label, and writes
`encoder/measured.npz`. The held-out quarter is never read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from encoder.descriptors import fit
from encoder.image import read_rgb
from encoder.measured import AXES, CARD, write_axes
from train.default_data import measure_all, pbc_files, widths


def make(root: Path, out: Path = AXES) -> int:
    """Fit and write; returns how many cells decided.

    Args:
        root: Folder that holds pbc.
        out: The file to write.
    """
    files = pbc_files(root / "pbc")
    rows = measure_all(read_rgb(path) for path in files.paths)
    write_axes(out, fit(rows, widths(), CARD.dim))
    return len(rows)


if __name__ == "__main__":
    folder = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    sys.stdout.write(f"{make(folder)} cells decided {AXES}\n")

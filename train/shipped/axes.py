"""Fit the axes of the `measured` encoder: python -m train.shipped.axes.

Reads three quarters of PBC (`train.shipped.data.held_out`), no label, and writes
`encoder/features/measured.npz`. The held-out quarter is never read.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
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


def _main() -> None:
    parser = ArgumentParser(description="Fit the axes of the `measured` encoder, without labels.")
    data = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    parser.add_argument("--root", type=Path, default=data, help="folder that holds pbc")
    parser.add_argument("--out", type=Path, default=AXES, help="the file to write")
    given = parser.parse_args()
    sys.stdout.write(f"{make(given.root, given.out)} cells decided {given.out}\n")


if __name__ == "__main__":
    _main()

"""Near-duplicates on real cells: how many copies are known again, and how many others are not.

    python benchmarks/near_duplicates.py DATA

DATA holds `pbc/cells/*/*.jpg` (224 pixels) and `pbc/originals/*/*.jpg` (the same cells before they
were resized and saved again). Everything is read as the product reads it: through the thumbnail.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from encoder.image import read_rgb
from search.library.shards import make_thumbnail
from search.neighbours.duplicates import PictureHash, perceptual_hash, same_picture

PAIRS = 2000
"""Random pairs of different cells."""


def hash_of(path: Path) -> PictureHash:
    found = perceptual_hash(make_thumbnail(read_rgb(path)))
    if found is None:
        raise SystemExit(f"{path} is flat")
    return found


def bits(hashes: list[PictureHash]) -> np.ndarray:
    raw = b"".join(one.bits.to_bytes(32, "big") for one in hashes)
    return np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, 32), axis=1).astype(np.float32)


def main(data: Path) -> None:
    cells = sorted((data / "pbc" / "cells").rglob("*.jpg"))
    held = {path: hash_of(path) for path in cells}
    originals = sorted((data / "pbc" / "originals").rglob("*.jpg"))
    copies = [
        (hash_of(p), held[data / "pbc" / "cells" / p.parent.name / p.name]) for p in originals
    ]
    known = sum(same_picture(*pair) for pair in copies)
    worst = max((one.bits ^ other.bits).bit_count() for one, other in copies)
    rng = random.Random(5)
    drawn = [rng.sample(cells, 2) for _ in range(PAIRS)]
    false = sum(same_picture(held[one], held[other]) for one, other in drawn)
    least = min((held[one].bits ^ held[other].bits).bit_count() for one, other in drawn)
    near = nearest_pairs(cells, held)
    print("| pairs | number | called near-duplicates | bits apart |")
    print("|---|---|---|---|")
    print(f"| original and its re-saved copy | {len(copies)} | {known} | at most {worst} |")
    print(f"| random different cells | {PAIRS} | {false} | at least {least} |")
    same = [pair for pair in near if same_picture(held[pair[1]], held[pair[2]])]
    every = len(cells) * (len(cells) - 1) // 2
    others = [apart for apart, one, other in near if not same_picture(held[one], held[other])]
    print(f"| all different cells | {every} | {len(same)} | others at least {min(others)} |")
    for apart, one, other in same:
        print(f"\n{one.stem} and {other.stem}: {apart} bits apart")


def nearest_pairs(
    cells: list[Path], held: dict[Path, PictureHash], within: int = 80
) -> list[tuple[int, Path, Path]]:
    """Every pair of different cells at most `within` bits apart."""
    rows = 2 * bits([held[path] for path in cells]) - 1
    found = []
    for start in range(0, len(rows), 1000):
        apart = (rows.shape[1] - rows[start : start + 1000] @ rows.T) / 2
        for one, other in zip(*np.nonzero(apart <= within), strict=True):
            if start + one < other:
                found.append((int(apart[one, other]), cells[start + one], cells[other]))
    return sorted(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Pictures made small by products have the levels that Pillow gives."""

from __future__ import annotations

import numpy as np
from PIL import Image

from search.neighbours.shrinking import LARGEST, shrunk


def test_every_level_is_pillows_whatever_the_size(rng: np.random.Generator) -> None:
    sizes = [(80, 80), (80, 80), (64, 75), (80, 40), (LARGEST + 1, LARGEST + 1)]
    sizes += [(side, side) for side in range(1, LARGEST)]
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    pictures[1] = (pictures[1] > 127) * np.uint8(255)  # over- and undershoots are cut off

    found = shrunk(pictures, 32)

    for picture, planes in zip(pictures, found, strict=True):
        small = Image.fromarray(picture).resize((32, 32), Image.Resampling.LANCZOS)
        assert np.array_equal(planes.transpose(1, 2, 0), np.asarray(small))

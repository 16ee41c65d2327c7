"""How far two views of one tile stay apart after stain normalisation.

    HEMASEEK_DATA=../shared/data python benchmarks/stain_pairs.py [tiles]

Tiles of LC25000, each beside a copy under another lamp or stain, towards one target image. The
figure is the mean difference of all pixels in levels of 255, so 0 is perfect. torchstain takes
part where it is installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from encoder.contract import RGB
from encoder.image import read_rgb, resize
from encoder.stains.normalisers import NORMALISERS, REFERENCE_STAINS
from encoder.stains.stained import seen

View = Callable[[RGB], RGB]


def light(factors: tuple[float, float, float], offset: tuple[int, int, int] = (0, 0, 0)) -> View:
    """Another lamp or camera."""
    return lambda tile: np.clip(tile * np.array(factors) + offset, 0, 255).astype(np.uint8)


def density(*factors: float) -> View:
    """Another stain or scanner: the optical density of each channel by a factor."""
    return lambda tile: (255 * (np.maximum(tile, 1) / 255) ** np.array(factors)).astype(np.uint8)


def stains(haematoxylin: float, eosin: float) -> View:
    """Other amounts of the two dyes."""
    unit = REFERENCE_STAINS / np.linalg.norm(REFERENCE_STAINS, axis=0)
    change = np.eye(3) + unit @ np.diag([haematoxylin - 1, eosin - 1]) @ np.linalg.pinv(unit)

    def view(tile: RGB) -> RGB:
        absorbed = -np.log(np.maximum(tile, 1) / 255) @ change.T
        return np.clip(255 * np.exp(-absorbed), 0, 255).astype(np.uint8)

    return view


VIEWS = {
    "light, mild": light((0.97, 0.93, 0.98)),
    "light, strong": light((0.9, 0.8, 1.0), (10, 0, 0)),
    "density of each channel, mild": density(1.1, 0.95, 1.0),
    "density of each channel, strong": density(1.4, 1.1, 0.8),
    "all densities x 0.6": density(0.6, 0.6, 0.6),
    "haematoxylin x 1.3, eosin x 0.8": stains(1.3, 0.8),
    "haematoxylin x 0.6, eosin x 1.5": stains(0.6, 1.5),
}


def methods(target: RGB) -> dict[str, View]:
    """Every normalisation towards a target image."""
    found: dict[str, View] = {"untouched": lambda tile: tile}
    for kind in NORMALISERS:
        made = kind.fit(target)
        found[f"{kind.method}-{kind.version}"] = lambda tile, made=made: seen(made, tile)[0]  # type: ignore[misc]
    try:
        import torchstain
    except ImportError:
        return found
    other = torchstain.normalizers.ReinhardNormalizer(backend="numpy")
    other.fit(target)
    return {**found, "torchstain's Reinhard": other.normalize}


def main() -> None:
    """Print one table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    folder = Path(os.environ.get("HEMASEEK_DATA", "../shared/data")) / "lc25000"
    files = sorted(folder.glob("*/*.jpeg"))
    chosen = [files[at] for at in np.linspace(0, len(files) - 1, count + 1).astype(int)]
    target, *tiles = (resize(read_rgb(path), 256, "bicubic") for path in chosen)
    ways = methods(target)
    print(f"| change | {' | '.join(ways)} |")
    print("|---" * (len(ways) + 1) + "|")
    for name, view in VIEWS.items():
        apart = [
            np.mean([np.abs(way(t).astype(float) - way(view(t))).mean() for t in tiles])
            for way in ways.values()
        ]
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in apart)} |", flush=True)


if __name__ == "__main__":
    main()

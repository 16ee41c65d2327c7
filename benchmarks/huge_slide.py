"""What a slide of 100,000 x 100,000 px costs in memory: the reader alone, and a whole ingest.

    python benchmarks/huge_slide.py [--side 100000] [--tile-px 512]

The slide is made of 160 tiles of stained texture that share their bytes, once with a pyramid and
once without, so that a slide of 30 GB of pixels per channel is a small file; every tile is still
decoded, measured and handed over one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.tiles import made_slide
from ingest.sandbox.pool import ReaderPool
from ingest.slides.grid import TilePixels, TilePlan
from ingest.slides.tiling import SlideResult, as_tiles, tile_task


def read(path: Path, tile_px: int, short_way: bool, threads: int = 1) -> tuple[int, float, float]:
    """Tiles kept, seconds, and the largest resident size of the child in MiB."""
    kept, start = 0, time.perf_counter()
    task = tile_task(path, TilePlan(size=TilePixels(tile_px)))
    task = replace(task, args=task.args | {"short_way": short_way}, threads=threads)
    with ReaderPool(1) as pool:
        for batch in pool.read(task):
            answer = as_tiles(batch)
            if isinstance(answer, SlideResult):
                kept = answer.report.kept
        return kept, time.perf_counter() - start, pool.peak_bytes / 2**20


def ingest(path: Path, tile_px: int) -> tuple[int, float, float]:
    """Items stored, seconds, and the largest resident size of any process of it in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ui", "ingest", str(path), "--encoder", "colour"),
                *("--library", folder, "--tile-px", str(tile_px)),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.perf_counter() - start
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return json.loads(done.stdout)["stored"], seconds, largest


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", type=int, default=100_000)
    options.add_argument("--tile-px", type=int, default=512)
    chosen = options.parse_args()
    pyramid = made_slide(chosen.side, "tiff", shared=True)
    flat = made_slide(chosen.side, "tiff", shared=True, levels=(0,))
    print(f"{chosen.side:,} x {chosen.side:,} px, tiles of {chosen.tile_px} px; ", end="")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| what | tiles kept | s | largest process, MiB |\n|---|---|---|---|")
    ways = {
        "a whole ingest with `colour`": lambda: ingest(pyramid, chosen.tile_px),
        "reader, with a pyramid": lambda: read(pyramid, chosen.tile_px, True),
        "reader, without a pyramid": lambda: read(flat, chosen.tile_px, True),
        "reader, with a pyramid, 2 threads": lambda: read(pyramid, chosen.tile_px, True, 2),
        "reader, through OpenSlide": lambda: read(pyramid, chosen.tile_px, False),
    }
    for name, way in ways.items():
        tiles, seconds, largest = way()
        print(f"| {name} | {tiles:,} | {seconds:.0f} | {largest:,.0f} |", flush=True)


if __name__ == "__main__":
    main()

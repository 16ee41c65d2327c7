"""Tiles per second from slide to normalised batch: plain OpenSlide, the direct path, the limit.

    python benchmarks/tiles.py [--side 20000] [--kind svs|tiff] [--repeat 3]

Makes a slide of stained texture on glass (JPEG Q80, 256-px tiles, levels 1, 4 and 16) under
`reports/`, and reads all of its tissue tiles with every way in turn, in one run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[name] = "1"

torch.set_num_threads(1)
from benchmarks.made import (  # noqa: E402
    Level,
    glass,
    halved,
    jpeg,
    svs_description,
    tissue,
    write_tiff,
)
from ingest.sandbox.messages import Batch, Failed  # noqa: E402
from ingest.sandbox.pool import ReaderPool  # noqa: E402
from ingest.slides import jpeg_tiles as direct  # noqa: E402
from ingest.slides import quality, tiling  # noqa: E402
from ingest.slides.grid import TilePlan, boxes, choose_level, grid  # noqa: E402
from ingest.slides.slide import open_slide  # noqa: E402
from ingest.slides.tissue import find_tissue, shares  # noqa: E402

TILE = 256
KINDS = 160
Seconds = tuple[float, float]
"""By the clock, and of processor time."""
REPORTS = Path(__file__).parent.parent / "reports"
SCALE = torch.tensor([1 / 0.229, 1 / 0.224, 1 / 0.225]).repeat(TILE) / 255
SHIFT = -torch.tensor([0.485, 0.456, 0.406]).repeat(TILE) * 255 * SCALE

FLOATS = torch.empty(TILE, TILE * 3)
FLOAT_BATCH = 8
"""Tiles of a float32 batch, as PyTorch's CPU engine takes them: they stay in the cache."""
if torch.cuda.is_available():
    STAGING = torch.empty((64, TILE, TILE, 3), dtype=torch.uint8, pin_memory=True)
    SHIFT_THERE, SCALE_THERE = SHIFT.cuda(), SCALE.cuda()


def made_slide(
    side: int, kind: str, *, levels: Sequence[int] = (0, 2, 4), shared: bool = False
) -> Path:
    """A slide with tissue within a wavy blob that covers about 30 % of it.

    Args:
        side: Pixels across and down.
        kind: `svs` or `tiff`.
        levels: Powers of two by which each level is coarser than the slide.
        shared: Store equal tiles once, so that a slide of any size is a small file.
    """
    name = f"made-{side}" + ("-shared" if shared else "") + ("-flat" if len(levels) == 1 else "")
    path = REPORTS / f"{name}.{'svs' if kind == 'svs' else 'tif'}"
    if path.exists():
        return path
    REPORTS.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    pictures = [tissue(TILE, rng) for _ in range(KINDS)] + [glass(TILE, TILE, rng)]
    across = -(-side // TILE)
    y, x = np.mgrid[:across, :across] / across - 0.5
    inside = np.hypot(x, y) < 0.309 + 0.03 * np.sin(7 * np.arctan2(y, x))
    which = np.where(inside, rng.integers(0, KINDS, (across, across)), KINDS)

    def level(times: int) -> Level:
        small = [halved(picture, times) for picture in pictures]
        span, edge = 2**times, TILE >> times

        def encoded(row: int, column: int) -> bytes:
            part = which[row * span : (row + 1) * span, column * span : (column + 1) * span]
            full = np.full((TILE, TILE, 3), 243, np.uint8)
            for (r, c), number in np.ndenumerate(part):
                full[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge] = small[number]
            return jpeg(full)

        if times == 0:
            streams = [jpeg(picture) for picture in pictures]
            return Level(side, side, TILE, lambda row, column: streams[which[row, column]])
        return Level(side >> times, side >> times, TILE, encoded)

    half = path.with_suffix(".part")
    write_tiff(
        half,
        [level(times) for times in levels],
        description=svs_description(side, side) if kind == "svs" else "",
        um_per_px=0.5,
        abbreviated=kind == "svs",
        shared=shared,
    )
    half.replace(path)
    return path


def normalise(tile: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """ImageNet mean and deviation, in float32; the fastest of eleven ways on one thread."""
    FLOATS.copy_(torch.from_numpy(tile).view(TILE, -1))
    torch.addcmul(SHIFT, FLOATS, SCALE, out=torch.from_numpy(out).view(TILE, -1))


def on_device(tiles: NDArray[np.uint8]) -> torch.Tensor:
    """The same on the GPU, where the encoder does it: bytes travel, floats do not."""
    STAGING[: len(tiles)].copy_(torch.from_numpy(tiles))
    pixels = STAGING[: len(tiles)].to("cuda", non_blocking=True).view(len(tiles), TILE, -1)
    batch = torch.addcmul(SHIFT_THERE, pixels, SCALE_THERE)
    torch.cuda.current_stream().synchronize()  # the staging memory is used again
    return batch


def listed(path: Path, *, short_way: bool = True) -> NDArray[np.int64]:
    """Left and top of the tiles with tissue: overview, mask, grid."""
    slide = open_slide(path, short_way=short_way)
    plan = TilePlan()
    facts = slide.facts
    assert facts.um_per_px is not None
    downs = [slide.downsample(i) for i in range(len(facts.levels))]
    cut = choose_level(plan, facts.um_per_px, [d[0] for d in downs])
    starts = grid(plan, cut, facts.levels[cut.level])
    shrink = tiling.OVERVIEW_UM / facts.um_per_px[0]
    size = round(facts.width / shrink), round(facts.height / shrink)
    *_, overview = slide.overview(*size)
    found = find_tissue(overview, tiling.OVERVIEW_UM).mask  # type: ignore[arg-type]
    places = boxes(starts, cut, downs[cut.level])
    enough = shares(found, places, (facts.width, facts.height)) >= plan.min_tissue
    slide.close()
    return places[enough, :2]


def openslide_loop(path: Path, places: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """What every peer does: one read_region per tile."""
    import openslide

    slide = openslide.OpenSlide(str(path))
    for number, (x, y) in enumerate(places.tolist()):
        region = slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB")
        normalise(np.array(region), out[number % len(out)])
    slide.close()


def direct_loop(path: Path, places: NDArray[np.int64], out: NDArray[np.float32], way: str) -> None:
    """The same tiles by the direct path; `uint8` stops short of normalising."""
    level = direct.index(path)[0]
    fd = os.open(path, os.O_RDONLY)
    reader = direct.DirectLevel(fd, level)
    tiles = np.empty((64, TILE, TILE, 3), np.uint8)
    for start in range(0, len(places), 64):
        for number, (x, y) in enumerate(places[start : start + 64].tolist()):
            reader.read(x, y, TILE, TILE, tiles[number])
            if way not in {"uint8", "device"}:
                normalise(tiles[number], out[number % len(out)])
        if way == "quality":
            quality.measure(tiles)
        if way == "device":
            on_device(tiles)
    os.close(fd)


def streams_of(path: Path, places: NDArray[np.int64]) -> list[bytes]:
    """The JPEG streams of the tiles, in memory."""
    level = direct.index(path)[0]
    fd = os.open(path, os.O_RDONLY)
    reader = direct.DirectLevel(fd, level)
    streams = [reader.stream(y // TILE, x // TILE) for x, y in places.tolist()]
    os.close(fd)
    return streams


def work(path: Path, way: str, number: int, of: int) -> None:
    """One process: mask, list and its share of the tiles; prints the processor time it took."""
    out = np.zeros((FLOAT_BATCH, TILE, TILE, 3), np.float32)
    go = openslide_loop if way == "openslide" else partial(direct_loop, way=way)
    go(path, listed(path)[:64], out)  # warm: libraries are loaded, memory is there
    print(flush=True)
    while sys.stdin.readline():  # the clock starts
        start = time.process_time()
        places = listed(path, short_way=way != "openslide")
        mine = places[len(places) * number // of : len(places) * (number + 1) // of]
        go(path, mine, out)
        print(time.process_time() - start, flush=True)


class Crew:
    """Processes that read the whole slide together, as often as asked, without their start."""

    def __init__(self, path: Path, way: str, of: int) -> None:
        words = [sys.executable, __file__, "--work", way, str(path), str(of)]
        self.children = [
            subprocess.Popen(
                [*words, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for number in range(of)
        ]

    def ready(self) -> None:
        for child in self.children:
            self._heard(child)

    def __call__(self) -> Seconds:
        start = time.perf_counter()
        for child in self.children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        used = sum(float(self._heard(child)) for child in self.children)
        return time.perf_counter() - start, used

    def close(self) -> None:
        for child in self.children:
            child.communicate()

    @staticmethod
    def _heard(child: subprocess.Popen[str]) -> str:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended with status {child.wait()}")
        return line


def pooled(path: Path, pool: ReaderPool, workers: int, threads: int, where: str) -> Seconds:
    """As the product runs it: children, shared memory, quality, report; normalised here."""
    out = np.empty((FLOAT_BATCH, TILE, TILE, 3), np.float32)
    tasks = [
        replace(tiling.tile_task(path, part=(n, workers)), threads=threads) for n in range(workers)
    ]
    start = time.perf_counter()
    used = time.process_time() + spent(pool)
    for event in pool.read_all(tasks):
        if isinstance(event, Failed):
            raise event.error
        if not isinstance(event, Batch) or "report" in event.facts:
            continue
        if where == "device":
            on_device(np.asarray(event.images))
        elif where == "here":
            for number, image in enumerate(np.asarray(event.images)):
                normalise(image, out[number % len(out)])
    return time.perf_counter() - start, time.process_time() + spent(pool) - used


def spent(pool: ReaderPool) -> float:
    """Processor time of a pool's children so far, from the system's accounts."""
    total = 0
    for child in pool._idle:
        words = Path(f"/proc/{child.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


def timed(what: Callable[[], object]) -> Seconds:
    start, used = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # only read
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", type=int, default=20_000)
    options.add_argument("--kind", choices=["svs", "tiff"], default="svs")
    options.add_argument("--repeat", type=int, default=3)
    chosen = options.parse_args()
    path = made_slide(chosen.side, chosen.kind)
    places = listed(path)
    streams = streams_of(path, places)
    import simplejpeg

    def limit() -> None:
        for stream in streams:
            simplejpeg.decode_jpeg(stream)

    with ReaderPool(1) as one, ReaderPool(2) as two:
        ways: dict[str, Callable[[], Seconds]] = {
            "decode only, one thread (the limit)": lambda: timed(limit),
            "OpenSlide loop, 1 process": Crew(path, "openslide", 1),
            "OpenSlide loop, 2 processes": Crew(path, "openslide", 2),
            "direct to float32 batches, 1 process": Crew(path, "direct", 1),
            "direct to float32 batches, 2 processes": Crew(path, "direct", 2),
            "direct to uint8 batches, 1 process": Crew(path, "uint8", 1),
            "direct to uint8 batches, 2 processes": Crew(path, "uint8", 2),
            "direct to float32 with scores, 1 process": Crew(path, "quality", 1),
            "reader pool, 1 child: uint8": lambda: pooled(path, one, 1, 1, "nowhere"),
            "reader pool, 1 child: float32": lambda: pooled(path, one, 1, 1, "here"),
            "reader pool, 1 child of 2 threads: uint8": lambda: pooled(path, one, 1, 2, "nowhere"),
            "reader pool, 2 children: uint8": lambda: pooled(path, two, 2, 1, "nowhere"),
            "reader pool, 2 children: float32": lambda: pooled(path, two, 2, 1, "here"),
        }
        if torch.cuda.is_available():
            ways |= {
                "direct, normalised on the GPU, 1 process": Crew(path, "device", 1),
                "direct, normalised on the GPU, 2 processes": Crew(path, "device", 2),
                "reader pool, 1 child: on the GPU": lambda: pooled(path, one, 1, 1, "device"),
                "reader pool, 1 child of 4 threads: on the GPU": lambda: pooled(
                    path, one, 1, 4, "device"
                ),
                "reader pool, 2 children: on the GPU": lambda: pooled(path, two, 2, 1, "device"),
            }
        # Children are up, files are cached, memory is there.
        crews = [way for way in ways.values() if isinstance(way, Crew)]
        for crew in crews:
            crew.ready()
        pooled(path, one, 1, 2, "here"), pooled(path, two, 2, 1, "here")
        rounds: list[dict[str, Seconds]] = [
            {name: way() for name, way in ways.items()} for _ in range(chosen.repeat)
        ]
        for crew in crews:
            crew.close()
    seconds = {name: [one_round[name] for one_round in rounds] for name in ways}
    best = {name: tuple(map(min, zip(*times, strict=True))) for name, times in seconds.items()}
    limit_s, loop_s = list(best.values())[:2]
    print(f"{chosen.side} x {chosen.side} px, {chosen.kind}, {len(places):,} tissue tiles, ")
    print(f"{path.stat().st_size / 1e6:.0f} MB; mask and list are in every way but the limit.")
    print(f"Best of {chosen.repeat}; load when it ended {os.getloadavg()[0]:.1f}.\n")
    print("| way | s | tiles/s | of the limit | x loop | CPU s | of the limit | x loop |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (wall, cpu) in best.items():
        print(
            f"| {name} | {wall:.2f} | {len(places) / wall:,.0f} | {limit_s[0] / wall:.2f} "
            f"| {loop_s[0] / wall:.1f} | {cpu:.2f} | {limit_s[1] / cpu:.2f} "
            f"| {loop_s[1] / cpu:.1f} |"
        )


if __name__ == "__main__":
    if "--work" in sys.argv:
        import tifffile  # noqa: F401

        at = sys.argv.index("--work")
        way, slide, of, number = sys.argv[at + 1 : at + 5]
        work(Path(slide), way, int(number), int(of))
    else:
        main()

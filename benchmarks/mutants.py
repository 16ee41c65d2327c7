"""Damaged slides and images by the thousand: how each ends, and what it costs.

    python benchmarks/mutants.py [--count 3000] [--first 0] [--workers 2]

Small slides and images are made, cut short, bit-flipped, given lying headers or blown up, always
the same for the same number, and read as the product reads them. Every one must end: read, or
refused with a reason, or with the death of its own child.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.made import Level, blob, halved, level_of, svs_description, write_tiff
from ingest.sandbox.messages import Batch, Failed, Finished, SourceDied, Task
from ingest.sandbox.pool import ReaderPool
from ingest.slides.grid import TilePlan
from ingest.slides.tiling import SlideResult, as_tiles, tile_task

EXTREMES = [0, 1, 3, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**33, 2**63, 2**64 - 1]
KINDS = ("cut short", "bits flipped", "bytes replaced", "lying header", "spliced", "bomb")


@dataclass
class Outcome:
    """How a run over mutants went."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of mutation and end."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Reasons of refusals and deaths, numbers blanked."""
    tiles: int = 0
    peak_mib: float = 0.0
    """Largest resident size of any child."""
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Mutants that ended."""
        return sum(self.ended.values())

    def of(self, end: str) -> int:
        """Mutants with one end."""
        return sum(count for (_, how), count in self.ended.items() if how == end)


def bases(folder: Path) -> dict[str, bytes]:
    """Small healthy files of each layout."""
    image = blob(200, 300, np.random.default_rng(3), share=0.5)
    pyramid = [level_of(image, tile=64), level_of(halved(image, 2), tile=64)]
    words = svs_description(300, 200)
    made = {
        ".svs": write_tiff(folder / "0", pyramid, description=words, abbreviated=True),
        ".tif": write_tiff(folder / "1", pyramid, um_per_px=0.5),
        ".rgb.svs": write_tiff(
            folder / "2",
            [level_of(image, tile=64, keep_rgb=True)],
            description=words,
            photometric=2,
        ),
    }
    files = {suffix: path.read_bytes() for suffix, path in made.items()}
    for suffix, how in {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}.items():
        out = io.BytesIO()
        Image.fromarray(image).save(out, how)
        files[suffix] = out.getvalue()
    for suffix, how in {".plain.tif": "raw", ".lzw.tif": "tiff_lzw"}.items():
        out = io.BytesIO()
        Image.fromarray(image).save(out, "TIFF", compression=how, dpi=(50_800, 50_800))
        files[suffix] = out.getvalue()
    return files


def mutant(number: int, files: dict[str, bytes]) -> tuple[str, str, bytes]:
    """Kind, ending and bytes of one mutant; the same for the same number."""
    rng = np.random.default_rng([7, number])
    kind = KINDS[number % len(KINDS)]
    suffix = list(files)[(number // len(KINDS)) % len(files)]
    data = bytearray(files[suffix])
    if kind == "cut short":
        del data[int(rng.integers(0, len(data))) :]
    elif kind == "bits flipped":
        for at in rng.integers(0, len(data), int(rng.integers(1, 40))):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == "bytes replaced":
        at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 400))
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif kind == "spliced":
        a, b, c = (int(x) for x in rng.integers(0, len(data), 3))
        data[a:a] = data[min(b, c) : max(b, c)][:5000]
    elif kind == "bomb":
        return kind, *bomb(number, rng)
    else:
        lie(data, rng)
    return kind, suffix, bytes(data)


def lie(data: bytearray, rng: np.random.Generator) -> None:
    """Replace a number of the header, of a directory of a TIFF if it is one."""
    extreme = int(EXTREMES[int(rng.integers(len(EXTREMES)))])
    if data[:4] == b"II\x2b\0":
        (where,) = struct.unpack_from("<Q", data, 8)
        (count,) = struct.unpack_from("<Q", data, where)
        entry = where + 8 + 20 * int(rng.integers(count))
        data[entry + 12 : entry + 20] = struct.pack("<Q", extreme)
        if rng.random() < 0.3:
            data[entry + 4 : entry + 12] = struct.pack("<Q", int(EXTREMES[rng.integers(12)]))
        return
    if data[:4] == b"II\x2a\0":
        (where,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, where)
        entry = where + 2 + 12 * int(rng.integers(count))
        data[entry + 8 : entry + 12] = struct.pack("<I", extreme & 0xFFFFFFFF)
        return
    at = int(rng.integers(0, min(64, len(data) - 4)))
    data[at : at + 4] = struct.pack(">I", extreme & 0xFFFFFFFF)


def bomb(number: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """A small file that unpacks to something large, or says so."""
    side = int(rng.choice([12_000, 20_000, 40_000]))
    which = number // len(KINDS) % 3
    if which == 0:
        return ".png", png_bomb(side)
    if which == 2:
        return ".tif", tiff_bomb(side)
    tile = int(rng.choice([256, 2048]))
    return ".tif", slide_bomb(min(side * 4, tile * 400), tile)


@lru_cache
def zeros(side: int, row: int) -> bytes:
    """`side` rows of zeros, packed a thousandfold."""
    packer = zlib.compressobj(6)
    rows = b"".join(packer.compress(bytes(row * 64)) for _ in range(side // 64))
    return rows + packer.compress(bytes(row * (side % 64))) + packer.flush()


@lru_cache
def slide_bomb(side: int, tile: int) -> bytes:
    """A slide whose tiles all lie at the same few bytes, which hold a much smaller JPEG."""
    stream = level_of(np.full((64, 64, 3), 200, np.uint8), tile=64).encoded(0, 0)
    level = Level(side, side, tile, lambda row, column: stream)
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiff(Path(folder) / "bomb", [level], um_per_px=0.5, shared=True)
        return path.read_bytes()


@lru_cache
def tiff_bomb(side: int) -> bytes:
    """A deflated black and white TIFF of one strip."""
    body = zeros(side, -(-side // 8))
    tags = [(256, side), (257, side), (258, 1), (259, 8), (262, 1), (273, 8), (277, 1)]
    tags += [(278, side), (279, len(body))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(body))
        + body
        + struct.pack("<H", len(tags))
        + directory
        + struct.pack("<I", 0)
    )


@lru_cache
def png_bomb(side: int) -> bytes:
    """A black and white PNG."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packed = zeros(side, -(-side // 8) + 1)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def run(count: int, workers: int = 2, timeout_s: float = 60.0, first: int = 0) -> Outcome:
    """Read `count` mutants and tell how they ended."""
    outcome, started = Outcome(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = bases(folder)
        kinds: dict[str, str] = {}

        def tasks() -> Iterator[Task]:
            for number in range(first, first + count):
                kind, suffix, data = mutant(number, files)
                path = folder / f"{number}{suffix}"
                path.write_bytes(data)
                kinds[str(path)] = kind
                yield tile_task(path, TilePlan(size=64), um_per_px=0.5)

        with ReaderPool(workers, timeout_s=timeout_s) as pool:
            for event in pool.read_all(tasks()):
                _note(event, outcome, kinds)
            outcome.peak_mib = pool.peak_bytes / 2**20
    outcome.seconds = time.perf_counter() - started
    return outcome


def _note(event: Batch | Finished | Failed, outcome: Outcome, kinds: dict[str, str]) -> None:
    if isinstance(event, Batch):
        answer = as_tiles(event)
        if isinstance(answer, SlideResult):
            outcome.tiles += answer.report.kept
        return
    kind = kinds.pop(event.task.source)
    Path(event.task.source).unlink()
    end = "read"
    if isinstance(event, Failed):
        end = "its child died" if isinstance(event.error, SourceDied) else "refused"
        if not event.error.reason:
            raise AssertionError(f"{event.task.source} failed without a reason")
        outcome.reasons[re.sub(r"[\d,.]+\d", "N", event.error.reason)] += 1
    outcome.ended[kind, end] += 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=3000)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    outcome = run(chosen.count, chosen.workers, first=chosen.first)
    print(f"{outcome.total:,} mutants, {outcome.tiles:,} tiles, {outcome.seconds:.0f} s; the run")
    print(f"never died; largest child {outcome.peak_mib:,.0f} MiB resident.\n")
    ends = ("read", "refused", "its child died")
    print("| mutation | " + " | ".join(ends) + " |\n|---|---|---|---|")
    for kind in KINDS:
        print(f"| {kind} | " + " | ".join(str(outcome.ended[kind, end]) for end in ends) + " |")
    print("| all | " + " | ".join(str(outcome.of(end)) for end in ends) + " |\n")
    for reason, times in outcome.reasons.most_common():
        print(f"- {times}: {reason}")


if __name__ == "__main__":
    main()

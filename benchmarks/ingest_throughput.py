"""Ingest against its encoder alone, on the same images: what reading and storing cost.

The encoder alone gets decoded images in the pipeline's batches; the pipeline starts from files
and ends with durable shards and an indexed collection. Both take turns within one run, and the
medians are compared: the ratio counts, not the absolute figures. On a machine that others use
at the same time, the CPU time per image is the steadier figure, so it is shown too.

The transformers have random weights, which cost as much as trained ones. `colour` shows the other
end: a histogram of a small image is cheaper than reading the file, so there the pipeline is the
cost. Images: real cells where HEMASEEK_DATA has them, else drawn noise.

    python benchmarks/ingest_throughput.py [--images 256] [--rounds 3] [--encoders vit-ti vit-s]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder
from encoder.image import read_rgb
from encoder.registry import load
from ingest.pipeline.run import ingest
from ingest.pipeline.sink import LibrarySink
from ingest.pipeline.work import How
from ingest.sources.source import Task, Whole
from search.library.library import Library

BATCH = 64
VITS = {
    "vit-ti": EncoderCard(id="vit-ti", architecture="vit_tiny_patch16_224", dim=192, patch_px=16),
    "vit-s": EncoderCard(id="vit-s", architecture="vit_small_patch14_dinov2", dim=384, patch_px=14),
}


def transformer(card: EncoderCard) -> Encoder:
    import timm
    import torch

    from encoder.networks.vit import network

    torch.manual_seed(0)
    model = timm.create_model(card.architecture, num_classes=0, img_size=card.input_px)
    return Encoder(card, network(card, model, "cls", "auto"))


def files(folder: Path, count: int) -> list[Path]:
    root = Path(__file__).parent.parent
    data = Path(os.environ.get("HEMASEEK_DATA", root / ".." / "shared" / "data"))
    real = sorted((data / "pbc" / "cells").glob("*/*.jpg"))
    if len(real) >= count:
        return real[:: len(real) // count][:count]
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        small = rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)
        made.append(folder / f"{number}.jpg")
        Image.fromarray(small).resize((224, 224)).save(made[-1], quality=85)
    return made


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock and of all cores together."""

    wall: float
    cpu: float


@contextmanager
def timed() -> Iterator[list[Spent]]:
    out: list[Spent] = []
    wall, cpu = time.perf_counter(), time.process_time()
    yield out
    out.append(Spent(time.perf_counter() - wall, time.process_time() - cpu))


def alone(encoder: Encoder, images: Sequence[RGB]) -> Spent:
    with timed() as spent:
        for at in range(0, len(images), BATCH):
            encoder.embed(images[at : at + BATCH])
    return spent[0]


def whole(encoder: Encoder, paths: Sequence[Path]) -> Spent:
    tasks = [Task(path=path, dataset="benchmark", reader=Whole()) for path in paths]
    with TemporaryDirectory() as folder:
        library = Library.open(Path(folder))
        with LibrarySink.open(library, "cells", encoder.card) as sink, timed() as spent:
            report = ingest(tasks, encoder, sink, how=How(batch_size=BATCH))
    assert report.ok
    assert report.stored == len(paths)
    return spent[0]


def measure(name: str, paths: Sequence[Path], rounds: int) -> str:
    encoder = transformer(VITS[name]) if name in VITS else load(name, device="auto")
    images = [read_rgb(path) for path in paths]
    encoder.embed(images[:BATCH])  # compile, warm
    pairs = [(alone(encoder, images), whole(encoder, paths)) for _ in range(rounds)]
    bare, piped = median(one.wall for one, _ in pairs), median(all.wall for _, all in pairs)
    ratios = [one.wall / all.wall for one, all in pairs]
    cpu = median(one.cpu / all.cpu for one, all in pairs)
    extra = median(all.cpu - one.cpu for one, all in pairs) / len(paths) * 1000
    return (
        f"| {name} | {len(paths) / bare:.1f} | {len(paths) / piped:.1f} "
        f"| **{median(ratios):.2f}** | {min(ratios):.2f} to {max(ratios):.2f} "
        f"| {cpu:.2f} | {extra:.1f} ms |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoders", nargs="+", default=["vit-ti", "vit-s", "colour"])
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        paths = files(Path(folder), asked.images)
        print(f"{len(paths)} images, batches of {BATCH}, {os.cpu_count()} cores\n")
        print(
            "| encoder | alone, images/s | ingest, images/s | ratio | rounds | CPU ratio | extra |"
        )
        print("|---|---|---|---|---|---|---|")
        for name in asked.encoders:
            print(measure(name, paths, asked.rounds), flush=True)


if __name__ == "__main__":
    main()

"""Size and input resolution against the time to embed one cell, beside ViT-S/14 at 224 px.

    python benchmarks/encoder_sizes.py [--threads 1] [--rounds 5] [--trained FOLDER ...]

Shapes have random weights: time depends on shapes alone. They take turns within one run, the
medians are compared, and the ratio to ViT-S/14 at 224 px is what counts. Each folder of an
exported encoder adds a row with its own time and, where HEMASEEK_DATA has PBC, what its 20-NN
vote reaches on the held-out quarter.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch

from encoder import registry
from encoder.card import EncoderCard
from encoder.contract import Encoder
from encoder.networks import vit
from encoder.networks.engines import probes
from train.data import datasets
from train.evaluation.vectors import vectors_of
from train.shipped.report import of_method, quarter, scored

SHAPES = (  # name, width, depth, heads, patch, side
    ("ViT-S/14", 384, 12, 6, 14, 224),
    ("ViT-S/14", 384, 12, 6, 14, 112),
    ("ViT-Ti/14", 192, 12, 3, 14, 224),
    ("ViT-Ti/14", 192, 12, 3, 14, 112),
    ("ViT 192x6/14", 192, 6, 3, 14, 84),
    ("ViT 192x4/14", 192, 4, 3, 14, 70),
    ("ViT 128x3/7", 128, 3, 2, 7, 49),
)
IMAGES = 32


def shaped(width: int, depth: int, heads: int, patch: int, side: int) -> Encoder:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=side,
        embed_dim=width, depth=depth, num_heads=heads, patch_size=patch, init_values=1.0,
    )  # fmt: skip
    card = EncoderCard(
        id="shape", architecture="vit", dim=width, input_px=side, patch_px=patch, resample="lanczos"
    )
    return Encoder(card, vit.network(card, model, "cls", "cpu"))


def seconds(encoder: Encoder, images: list[np.ndarray]) -> float:
    begun = time.perf_counter()
    encoder.embed(images)
    return (time.perf_counter() - begun) / len(images)


def quality(encoder: Encoder) -> str:
    root = Path(__file__).parent.parent
    data = Path(os.environ.get("HEMASEEK_DATA", root / ".." / "shared" / "data"))
    if not (data / "pbc" / "cells").is_dir():
        return "no data"
    pbc = datasets.pbc(data / "pbc")
    vectors = vectors_of(encoder, pbc, root / "runs" / "default" / "vectors")
    row = of_method(scored(vectors, pbc, quarter(pbc), probe=False), "20-NN")
    return f"{100 * row['weighted_f1']:.1f} / {100 * row['balanced_accuracy']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trained", nargs="*", default=["colour"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # of those that measure, too
    contenders = {
        f"{name} at {side} px": (shaped(width, depth, heads, patch, side), "–")
        for name, width, depth, heads, patch, side in SHAPES
    }
    for name in given.trained:
        encoder = registry.load(name, device="cpu")
        contenders[f"{encoder.card.id} at {encoder.card.input_px} px"] = encoder, quality(encoder)
    images = list(probes(224, IMAGES))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(given.rounds + 1):
        for name, (encoder, _) in contenders.items():
            spent = seconds(encoder, images)
            if turn:  # the first warms up
                times[name].append(spent)
    base = median(next(iter(times.values())))
    print(f"{given.threads} thread(s), batches of {IMAGES} from 224 px, {given.rounds} rounds\n")
    print("| encoder | engine | ms per cell | times faster | 20-NN wF1 / bAcc |")
    print("|---|---|---|---|---|")
    for name, (encoder, reached) in contenders.items():
        spent = median(times[name])
        line = f"{1e3 * spent:.2f} | {base / spent:.1f} | {reached}"
        print(f"| {name} | {encoder.engine} | {line} |")


if __name__ == "__main__":
    main()

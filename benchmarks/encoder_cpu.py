"""Embedding on the CPU: engines and precisions side by side, ViT-S/14 at 224 px.

Random weights of realistic scale: linear layers keep the variance, layer scales between 0.05 and
0.55, so that every block counts. Random networks place all images close together, which flatters
the cosine: so the cosine around the mean vector, and the neighbours themselves, are shown beside
it. The engines take turns within one run and the medians are compared; ratios count, not the
absolute figures. Images: real cells where HEMASEEK_DATA has them, else drawn ones. int8 appears
where nncf is installed.

    python benchmarks/encoder_cpu.py [--threads 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from encoder.card import EncoderCard
from encoder.image import read_rgb
from encoder.networks.engines import OpenVino, Torch, converted, probes, stack
from encoder.networks.forward import Forward

CPU = torch.device("cpu")
CARD = EncoderCard(id="vit-s", architecture="vit_small_patch14_dinov2", dim=384, patch_px=14)
BATCHES = (1, 8, 32)
IMAGES = 64
Run = Callable[[np.ndarray], np.ndarray]


def random_vit() -> Forward:
    torch.manual_seed(0)
    model = timm.create_model(CARD.architecture, num_classes=0, img_size=224, init_values=1.0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("gamma"):
                tensor.uniform_(0.05, 0.55)
            elif name == "pos_embed":
                tensor.normal_(0, 0.3)
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5)
    return Forward(model, CARD, "cls").eval().requires_grad_(False)


def pictures() -> np.ndarray:
    root = Path(__file__).parent.parent
    data = Path(os.environ.get("HEMASEEK_DATA", root / ".." / "shared" / "data"))
    paths = sorted((data / "pbc" / "cells").glob("*/*.jpg"))
    if len(paths) < IMAGES:
        return probes(224, IMAGES)
    step = len(paths) // IMAGES
    return stack([read_rgb(path) for path in paths[::step][:IMAGES]], CARD)


def contenders(forward: Forward, images: np.ndarray) -> dict[str, Run]:
    """Name to a function from pixels to vectors; the first is the reference."""
    model = converted(forward, images)
    engines: dict[str, Any] = {
        "torch fp32 eager": Torch(forward, CPU),
        "torch bf16 autocast": Torch(forward, CPU, "bf16"),
        "openvino fp32": OpenVino(model, "fp32"),
        "openvino bf16": OpenVino(model, "bf16"),
    }
    if importlib.util.find_spec("nncf"):
        quantised = int8(model, images)
        engines["openvino int8 (nncf)"] = OpenVino(quantised, "fp32")
    return {name: lambda x, run=run: run(x, False)[0] for name, run in engines.items()} | {
        "torch bf16 weights": halved(forward)
    }


def halved(forward: nn.Module) -> Run:
    import copy

    low = copy.deepcopy(forward).to(torch.bfloat16)

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return low(torch.from_numpy(pixels))[0].float().numpy()

    return run


def int8(model: Any, images: np.ndarray) -> Any:
    """Post-training quantisation, calibrated on half of the images."""
    import nncf

    shown = nncf.Dataset([images[at : at + 1] for at in range(0, len(images), 2)])
    return nncf.quantize(
        model, shown, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images) // 2
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def agreement(run: Run, images: np.ndarray, expected: np.ndarray) -> tuple[float, ...]:
    """Worst cosine, worst cosine around the mean, same first neighbour, shared of ten."""
    got = unit(np.concatenate([run(images[at : at + 8]) for at in range(0, len(images), 8)]))
    mean = expected.mean(axis=0)
    near = [got @ expected.T, expected @ expected.T]
    for scores in near:
        np.fill_diagonal(scores, -2)
    ten = [np.argsort(-scores, axis=1)[:, :10] for scores in near]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*ten, strict=True)])
    return (
        float((got * expected).sum(axis=1).min()),
        float((unit(got - mean) * unit(expected - mean)).sum(axis=1).min()),
        float(np.mean(ten[0][:, 0] == ten[1][:, 0])),
        float(shared),
    )


def seconds(runs: dict[str, Run], pixels: np.ndarray, rounds: int) -> dict[str, float]:
    """Median seconds of one batch, the engines taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(pixels)
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(pixels)
            taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    images = pictures()
    runs = contenders(random_vit(), images)
    reference = next(iter(runs))
    expected = unit(
        np.concatenate([runs[reference](images[at : at + 8]) for at in range(0, 64, 8)])
    )
    times = {size: seconds(runs, images[:size], options.rounds) for size in BATCHES}
    print(f"\nViT-S/14, 224 px, {options.threads} thread(s); speed relative to {reference}\n")
    print(
        "| engine | batch 1 | batch 8 | batch 32 | images/s at 8 | worst cosine "
        "| around the mean | same first | shared of 10 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        ratios = " | ".join(f"{times[n][reference] / times[n][name]:.2f}" for n in BATCHES)
        cosine, centred, first, ten = agreement(run, images, expected)
        print(
            f"| {name} | {ratios} | {8 / times[8][name]:.1f} | {cosine:.5f} | {centred:.3f} "
            f"| {first:.2f} | {ten:.3f} |"
        )


if __name__ == "__main__":
    main()

"""Does training teach anything? A few minutes on drawn cells, against random weights in kNN.

Four kinds of cells differ only in the lobes of their nuclei (1, 2, 3, 5); every picture has its
own stain, so that colour tells nothing.

python benchmarks/train_toy.py --minutes 3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from train.config import TrainConfig
from train.dino.loop import train
from train.dino.progress import read_log
from train.smoke import Colour, paint

LOBES = (1, 2, 3, 5)
SETTINGS = {
    "preset": "scratch",
    "patch_px": 8,
    "image_px": 48,
    "global_px": 40,
    "local_px": 24,
    "embed_dim": 96,
    "depth": 4,
    "heads": 3,
    "batch": 64,
    "prototypes": 256,
    "head_hidden": 256,
    "head_bottleneck": 64,
    # The stain is to be forgotten: strong colour jitter, and lobes need most of the picture.
    "jitter": 1.0,
    "brightness": 0.5,
    "hue": 0.5,
    "saturation": 0.8,
    "grayscale": 0.4,
    "global_scale": (0.6, 1.0),
    "local_scale": (0.2, 0.6),
    "lr": 4e-3,
    "warmup_steps": 40,
    "teacher_warmup_steps": 100,
    "freeze_last_layer_steps": 20,
    "watch_every": 100,
    "checkpoint_every": 1000,
    "probe_k": 5,
    "tensorboard": False,
    "precision": "bf16",
    "device": "cpu",
    "force": True,
}


def stained(rng: np.random.Generator, low: int, high: int) -> Colour:
    r, g, b = (int(v) for v in rng.integers(low, high, 3))
    return r, g, b


def draw(folder: Path, each: int, px: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for lobes in LOBES:
        (folder / str(lobes)).mkdir(parents=True)
        for at in range(each):
            image = paint(stained(rng, 30, 140), lobes, stained(rng, 150, 240), px, rng)
            Image.fromarray(image).save(folder / str(lobes) / f"{at:04d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root / "train", 400, 48, seed=1)
        draw(root / "probe", 60, 48, seed=2)
        config = TrainConfig.model_validate(
            SETTINGS
            | {
                "data": (root / "train",), "probe": root / "probe", "out": root / "run",
                "steps": args.steps, "threads": args.threads, "max_minutes": args.minutes,
            }
        )  # fmt: skip
        train(config)
        print("| step | kNN (balanced accuracy) | effective rank | mean cosine |")
        print("|---|---|---|---|")
        for row in read_log(config.out, "watch"):
            name = "random weights" if row["step"] == 0 else row["step"]
            print(f"| {name} | {row['knn']:.3f} | {row['rank']:.1f} | {row['cosine']:.3f} |")


if __name__ == "__main__":
    main()

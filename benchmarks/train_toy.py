"""Does training teach anything? A few minutes on drawn cells, against random weights in kNN.

python benchmarks/train_toy.py --minutes 3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from train.config import TrainConfig
from train.loop import train
from train.progress import read_log
from train.smoke import draw_cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_cells(root / "train", 200, 48, seed=1)
        draw_cells(root / "probe", 50, 48, seed=2)
        config = TrainConfig.model_validate(
            {
                "preset": "scratch", "data": (root / "train",), "probe": root / "probe",
                "out": root / "run", "patch_px": 8, "global_px": 40, "local_px": 24,
                "embed_dim": 96, "depth": 4, "heads": 3, "batch": 64, "steps": args.steps,
                "prototypes": 256, "head_hidden": 256, "head_bottleneck": 64, "warmup_steps": 40,
                "teacher_warmup_steps": 100, "freeze_last_layer_steps": 20, "watch_every": 50,
                "checkpoint_every": 1000, "image_px": 48, "tensorboard": False, "device": "cpu",
                "threads": args.threads, "max_minutes": args.minutes, "precision": "bf16",
                "probe_k": 5, "force": True,
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

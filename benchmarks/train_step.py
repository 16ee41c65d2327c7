"""A whole training step, data included: images per second, time in data, use of the arithmetic.

On a CPU the step is compared, in the same run, with a plain one: the published DINOv2 formulas
written down directly, images augmented one by one, as the published loaders do.

    python benchmarks/train_step.py                                  # CPU: ViT-Ti and ViT-S, small
    python benchmarks/train_step.py --device cuda --sizes s b l g    # GPU: all rows of both papers

The second is made for one card of 80 GB and under ten minutes. Every batch is the published one,
whatever the card: it is cut into micro-batches, and ViT-g computes its blocks again for the
gradients.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.config import TrainConfig
from train.data.images import Feed, open_source
from train.data.packs import pack
from train.dino.model import SIZES, Head
from train.dino.run import Run, prepare
from train.dino.step import one_step
from train.presets import PRESETS
from train.smoke import draw_cells

CLOCKS = {"wall": perf_counter, "cpu": process_time}
now = perf_counter
"""The clock; on a busy machine the CPU's own time with one thread is the honest one."""
GPU_BATCH = {
    # (batch, micro-batch): the papers' batches (DinoBloom Table 1, RedDino section 3.1), and what
    # is meant to fit one card of 80 GB
    "dinobloom": {"s": (1216, 152), "b": (960, 120), "l": (448, 64), "g": (208, 52)},
    "reddino": {"s": (512, 128), "b": (384, 96), "l": (256, 64)},
}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measured FLOP/s of a large product."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        sync(device)
        begun = now()
        for _ in range(4):
            a @ b
        sync(device)
        best = max(best, 4 * 2 * n**3 / (now() - begun))
    return best


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def step_flops(run: Run) -> float:
    """FLOPs per image of one step, counting only what is computed (dropped branches are not)."""
    config = run.config
    vit = run.student.backbone.vit
    dim, depth, patch = vit.embed_dim, len(vit.blocks), run.student.backbone.patch
    heads = sum(p.numel() for p in run.student.dino_head.parameters())
    part = config.plan()[0]

    def forward(px: int, keep: float) -> float:
        tokens = (px // patch) ** 2 + 1
        blocks = depth * (24 * tokens * dim**2 + 4 * tokens**2 * dim)
        return blocks * keep + 2 * 3 * patch**2 * dim * tokens

    keep = 1 - config.drop_path
    student = 2 * forward(part.global_px, keep)
    student += config.local_crops * forward(part.local_px, keep)
    teacher = 2 * forward(part.global_px, 1.0)
    hidden = (part.global_px // patch) ** 2 * config.mask_probability * sum(config.mask_ratio) / 2
    through = 2 * 2 * heads * (1 + hidden)
    return 3 * student + teacher + 4 * through + 3 * 2 * heads * config.local_crops


def measure(run: Run, steps: int, warm: int) -> tuple[float, float]:
    """Images per second and share of time waiting for data."""
    for _ in range(warm):
        one_step(run)
        run.step += 1
    sync(run.device)
    begun, waited = now(), run.feed.waited
    for _ in range(steps):
        one_step(run)
        run.step += 1
    sync(run.device)
    spent = now() - begun
    return steps * run.config.batch / spent, (run.feed.waited - waited) / spent


class PlainHead(nn.Module):
    """DINO's head with torch's own weight normalisation."""

    def __init__(self, like: Head) -> None:
        super().__init__()
        self.mlp = like.mlp
        self.last = nn.utils.parametrizations.weight_norm(
            nn.Linear(like.prototypes.shape[1], like.prototypes.shape[0], bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.normalize(self.mlp(x), dim=-1))


def plain_step(run: Run) -> float:
    """Images per second of the published formulas, one image, one view and one crop at a time."""
    from io import BytesIO

    import timm
    from PIL import Image
    from torchvision import transforms as t

    config, part = run.config, run.config.plan()[0]
    kwargs = {**run.start.kwargs, "drop_path_rate": config.drop_path, "dynamic_img_size": True}
    student, teacher = (
        timm.create_model(
            run.start.timm_name, num_classes=0, img_size=run.start.img_size, **kwargs
        ).train(train)
        for train in (True, False)
    )
    heads = nn.ModuleList([PlainHead(run.student.dino_head), PlainHead(run.student.dino_head)])
    optimizer = torch.optim.AdamW([*student.parameters(), *heads[0].parameters()], foreach=False)

    def view(px: int, scale: tuple[float, float]) -> t.Compose:
        jitter = t.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        return t.Compose([
            t.RandomResizedCrop(px, scale=scale, interpolation=t.InterpolationMode.BICUBIC),
            t.RandomHorizontalFlip(), t.RandomVerticalFlip(), t.RandomRotation(180),
            t.RandomApply([jitter], p=config.jitter), t.RandomGrayscale(p=config.grayscale),
            t.RandomApply([t.GaussianBlur(9, (0.1, 2.0))], p=0.3), t.ToTensor(),
            t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ])  # fmt: skip

    whole = view(part.global_px, config.global_scale)
    local = view(part.local_px, config.local_scale)
    source = run.feed.images.sources[0]
    n, tau, heat = config.batch, 0.1, 0.05

    def once() -> None:
        images = [Image.open(BytesIO(source.content(at % len(source)))) for at in range(n)]
        images = [image.convert("RGB").resize((config.decoded_px,) * 2) for image in images]
        crops = [torch.stack([whole(i) for i in images]) for _ in range(2)]
        small = [torch.stack([local(i) for i in images]) for _ in range(config.local_crops)]
        with torch.no_grad():
            out = [teacher.forward_features(c) for c in crops]
            targets = [sinkhorn(heads[1](o[:, 0]), heat) for o in out]
            patches = [torch.softmax(heads[1](o[:, 1:]) / heat, dim=-1) for o in out]
        value = torch.zeros(())
        tokens = [student.forward_features(c) for c in crops]
        for i, one in enumerate(tokens):
            scores = torch.log_softmax(heads[0](one[:, 0]) / tau, dim=-1)
            value = value - (targets[1 - i] * scores).sum(dim=-1).mean()
            hidden = torch.rand(one.shape[:2])[:, 1:] < 0.15
            all_scores = torch.log_softmax(heads[0](one[:, 1:]) / tau, dim=-1)
            value = value - ((patches[i] * all_scores).sum(dim=-1) * hidden).sum() / hidden.sum()
            rows = functional.normalize(one[:, 0], dim=-1)
            nearest = (rows @ rows.T - 2 * torch.eye(n)).argmax(dim=1)
            value = value - 0.1 * torch.log((rows - rows[nearest]).norm(dim=1) + 1e-8).mean()
        for crop in small:
            scores = torch.log_softmax(heads[0](student.forward_features(crop)[:, 0]) / tau, -1)
            for target in targets:
                value = value - (target * scores).sum(dim=-1).mean()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        with torch.no_grad():
            for a, b in zip(teacher.parameters(), student.parameters(), strict=True):
                a.mul_(0.99).add_(b, alpha=0.01)

    once()
    begun = now()
    for _ in range(2):
        once()
    return 2 * n / (now() - begun)


def sinkhorn(scores: Tensor, temperature: float) -> Tensor:
    """Sinkhorn-Knopp as published."""
    q = torch.exp(scores / temperature).T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True) * q.shape[0]
        q /= q.sum(dim=0, keepdim=True) * q.shape[1]
    return (q * q.shape[1]).T


def settings(data: Path, out: Path, **changes: object) -> TrainConfig:
    base = {"data": (data,), "out": out, "tensorboard": False, "steps": 1000, "start": "random"}
    return TrainConfig.model_validate(base | {"stages": ()} | changes)


def cpu_rows(data: Path, out: Path, sizes: list[str], batch: int) -> None:
    print("| ViT, 98 px, 2 local views | step | images/s | against plain | in data | FLOP use |")
    print("|---|---|---|---|---|---|")
    for size in sizes:
        plain = None
        for precision in ("fp32", "bf16"):
            config = settings(
                data, out / f"{size}-{precision}", preset="scratch", size=size, batch=batch,
                precision=precision, device="cpu", image_px=112, hold="disk", workers=2,
            )  # fmt: skip
            run = prepare(config)
            if plain is None:
                plain = plain_step(run)
                print(f"| {size} | plain, fp32 | {plain:.1f} | 1.00 | - | - |")
            rate, waiting = measure(run, steps=2, warm=1)
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            use = rate * step_flops(run) / matmul_rate(run.device, dtype)
            print(
                f"| {size} | ours, {precision} | {rate:.1f} | {rate / plain:.2f} "
                f"| {waiting:.0%} | {use:.0%} |",
                flush=True,
            )
            run.feed.close()


def gpu_rows(
    data: Path, out: Path, presets: list[str], sizes: list[str], holds: list[str], compiled: bool
) -> None:
    device = torch.device("cuda")
    peak = matmul_rate(device, torch.bfloat16)
    print(f"{torch.cuda.get_device_name()}: bf16 products at {peak / 1e12:.0f} TFLOP/s\n")
    print(
        "| preset | ViT | batch (micro) | images | images/s | in data | FLOP use | memory "
        "| the published steps |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for preset in presets:
        for size in sizes:
            if size not in GPU_BATCH[preset]:
                continue  # RedDino has no giant
            batch, micro = GPU_BATCH[preset][size]
            config = settings(
                data, out / f"{preset}-{size}", preset=preset, size=size, batch=batch,
                micro_batch=micro, hold=holds[0], device="cuda", compile=compiled, workers=16,
                layer_scale=1e-5, cut=("whole",),
            )  # fmt: skip
            begun = perf_counter()
            try:
                gpu_row(config, holds, peak)
            except torch.cuda.OutOfMemoryError as error:
                print(f"| {preset} | {size} | {batch} ({micro}) | out of memory: {error} |")
            print(f"{preset} {size}: {perf_counter() - begun:.0f} s in all", file=sys.stderr)
            torch.compiler.reset()  # or the next size meets the limit of recompilations
            gc.collect()
            torch.cuda.empty_cache()


def gpu_row(config: TrainConfig, holds: list[str], peak: float) -> None:
    """A line for each way to hold images, on one set of networks compiled once.

    Raises:
        torch.cuda.OutOfMemoryError: the micro-batch does not fit the card.
    """
    run = prepare(config)
    for at, hold in enumerate(holds):
        if at:
            run.feed.close()
            run.feed = Feed(run.feed.images, run.feed.order, run.device, hold, config.workers)
        torch.cuda.reset_peak_memory_stats()
        rate, waiting = measure(run, steps=3, warm=1 if at else 2)
        use = rate * step_flops(run) / peak
        memory = torch.cuda.max_memory_allocated() / 2**30
        steps = PRESETS[config.preset].values["steps"]
        print(
            f"| {config.preset} | {config.size} | {config.batch} ({config.micro_batch}) | {hold} "
            f"| {rate:.0f} | {waiting:.0%} | {use:.0%} | {memory:.0f} GiB "
            f"| {steps} in {steps * config.batch / rate / 3600:.1f} h |",
            flush=True,
        )
    run.feed.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--presets", nargs="+", default=["dinobloom", "reddino"])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=None)
    parser.add_argument("--batch", type=int, default=32, help="on a CPU")
    parser.add_argument("--images", type=int, default=0, help="drawn images; 0 for what suits")
    parser.add_argument("--threads", type=int, default=2, help="on a CPU")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--holds", nargs="+", default=["device", "disk"], help="on a GPU")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    global now
    now = CLOCKS[args.clock]
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        side = 224 if args.device == "cuda" else 112
        count = args.images or (2048 if args.device == "cuda" else 64)
        draw_cells(root / "cells", count // 4, side, seed=0)
        pack([open_source(root / "cells")], root / "packed")
        if args.device == "cpu":
            cpu_rows(root / "packed", root, args.sizes or ["ti", "s"], args.batch)
        else:
            sizes = args.sizes or ["s", "b", "l", "g"]
            gpu_rows(root / "packed", root, args.presets, sizes, args.holds, not args.no_compile)


if __name__ == "__main__":
    main()

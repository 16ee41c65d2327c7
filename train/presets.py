"""Presets as data: the values of the published recipes, and every deviation with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Values for `TrainConfig`, and in what they differ from the code they follow."""

    source: str
    """Paper and code."""
    values: MappingProxyType[str, Any]
    """Fields of `TrainConfig`."""
    deviations: tuple[str, ...]
    """One line each: what differs from the published code, and why."""


EVERYWHERE = (
    "Rotation and crop are one resampling with mirrored borders; the published code rotates "
    "after cropping and fills corners black: an edge that marks the view would be learned.",
    "Random numbers follow from (seed, step, process), not from worker processes: a run that "
    "was killed and resumed equals one that was not.",
    "The four parts of colour jitter come in one random order per batch, not per image: so that "
    "each is one operation on the whole batch.",
    "bf16 autocast with fp32 weights, not fp16 with a gradient scaler: no scaler state, and no "
    "step lost to overflow.",
    "A copy of the network in each process; with --shard a part of every weight (FSDP2), as the "
    "published code always has: one card of 80 GB is enough up to ViT-L, and for ViT-g with "
    "--recompute.",
    "An unreadable image is left out, counted and named; the published code takes the next one.",
)

DINOV2 = {
    # Oquab et al. 2023, and ssl_default_config.yaml of facebookresearch/dinov2
    "steps": 125_000,
    "batch": 2048,
    "global_px": 224,
    "local_px": 98,
    "local_crops": 8,
    "global_scale": (0.32, 1.0),
    "local_scale": (0.05, 0.32),
    "flip": 0.5,
    "jitter": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "grayscale": 0.2,
    "blur": (1.0, 0.1, 0.5),
    "blur_sigma": (0.1, 2.0),
    "solarise": (0.0, 0.2, 0.0),
    "dino_weight": 1.0,
    "ibot_weight": 1.0,
    "koleo_weight": 0.1,
    "centering": "moving_average",
    "separate_ibot_head": False,
    "prototypes": 65536,
    "head_hidden": 2048,
    "head_bottleneck": 256,
    "head_layers": 3,
    "mask_probability": 0.5,
    "mask_ratio": (0.1, 0.5),
    "lr": 4e-3,
    "min_lr": 1e-6,
    "warmup_steps": 12_500,
    "weight_decay": (0.04, 0.4),
    "momentum": (0.992, 1.0),
    "teacher_temperature": (0.04, 0.07),
    "teacher_warmup_steps": 37_500,
    "layer_decay": 0.9,
    "patch_embed_lr": 0.2,
    "drop_path": 0.3,
    "clip": 3.0,
    "betas": (0.9, 0.999),
    "freeze_last_layer_steps": 1_250,
}

DINOBLOOM = {
    # Koch et al. 2024, section 3 and Table 1, and custom.yaml of marrlab/DinoBloom
    **DINOV2,
    "start": "dinov2-s",
    "steps": 4_000,
    "batch": 1216,
    "micro_batch": 152,
    "local_crops": 0,
    "dino_global_scale": 0.5,
    "rotate": 0.3,
    "brightness": 0.3,
    "contrast": 0.2,
    "saturation": 0.3,
    "hue": 0.15,
    "grayscale": 0.1,
    "blur": (0.9, 0.7, 0.5),
    "solarise": (0.0, 0.0, 0.0),
    "centering": "sinkhorn_knopp",
    "separate_ibot_head": True,
    "head_bottleneck": 384,
    "ibot_bottleneck": 256,
    "lr": 2e-4,
    "warmup_steps": 400,
    "weight_decay": (0.04, 0.2),
    "momentum": (0.994, 1.0),
    "teacher_warmup_steps": 1_200,
    "layer_decay": 1.0,
    "head_warmup_steps": 0,
    "freeze_last_layer_steps": 500,
}

REDDINO = {
    # Zedda et al. 2025, section 3.1, and deployment/2_gpu/s.yaml of Snarci/RedDino
    **DINOV2,
    "start": "dinov2-s",
    "cut": ("patches",),
    "cut_px": 224,
    "cut_covered": 0.0,
    "steps": 2_000,
    "batch": 512,
    "micro_batch": 256,
    "local_crops": 0,
    "dino_global_scale": 0.5,
    "flip": 0.85,
    "rotate90": 0.85,
    "jitter": 0.0,
    "grayscale": 0.0,
    "blur": (0.0, 0.0, 0.0),
    "solarise": (0.0, 0.0, 0.0),
    "pixel_ops": 4,
    "pixel_p": 0.85,
    "interpolation": "bilinear",
    "resample": "bilinear",
    "koleo_weight": 0.0,
    "centering": "sinkhorn_knopp",
    "prototypes": 131_072,
    "lr": 2e-4,
    "warmup_steps": 195,
    "weight_decay": (0.04, 0.2),
    "momentum": (0.994, 1.0),
    "teacher_warmup_steps": 600,
    "layer_decay": 1.0,
    "freeze_last_layer_steps": 0,
}

SCRATCH = {
    # Our own: tens of thousands of images, random weights, one card or a CPU
    **DINOV2,
    "start": "random",
    "size": "ti",
    "layer_scale": 0.1,
    "steps": 10_000,
    "batch": 128,
    "global_px": 98,
    "local_px": 42,
    "local_crops": 2,
    "global_scale": (0.4, 1.0),
    "local_scale": (0.1, 0.4),
    "rotate": 1.0,
    "brightness": 0.3,
    "contrast": 0.2,
    "saturation": 0.3,
    "hue": 0.08,
    "grayscale": 0.1,
    "blur": (0.5, 0.1, 0.3),
    "solarise": (0.0, 0.0, 0.0),
    "interpolation": "bilinear",
    "centering": "sinkhorn_knopp",
    "prototypes": 4096,
    "head_hidden": 1024,
    "lr": 2e-3,
    "warmup_steps": 500,
    "weight_decay": (0.04, 0.2),
    "momentum": (0.99, 1.0),
    "teacher_warmup_steps": 1_000,
    "layer_decay": 1.0,
    "patch_embed_lr": 1.0,
    "drop_path": 0.1,
    "freeze_last_layer_steps": 200,
}

SCHEDULE_OVER_THE_RUN = (
    "Warm-ups are laid over this run (a tenth for the learning rate, three tenths for the "
    "teacher's temperature); the published schedules span more epochs than were trained."
)
NO_FREE_LOCAL_CROP = (
    "No local crop is cut at all; the published code sets 1 to mean none, forwards it and throws "
    "it away. Its effect on the loss, a factor of 0.5, is kept as dino_global_scale."
)

PRESETS: dict[str, Preset] = {
    "dinov2": Preset(
        "Oquab et al. 2023 (arXiv 2304.07193); facebookresearch/dinov2, ssl_default_config.yaml",
        MappingProxyType(DINOV2),
        (
            *EVERYWHERE,
            "Flips in both directions, not only left to right: a cell has no upside.",
            "Local views of 98 pixels in place of 96: a multiple of the 14-pixel patch.",
            "Images are squashed to one size when decoded; the published code crops originals.",
        ),
    ),
    "dinobloom": Preset(
        "Koch et al. 2024 (arXiv 2404.05022); marrlab/DinoBloom, custom.yaml",
        MappingProxyType(DINOBLOOM),
        (
            *EVERYWHERE,
            NO_FREE_LOCAL_CROP,
            SCHEDULE_OVER_THE_RUN,
            "Blur probabilities are written as they act (0.9 and 0.7): the published GaussianBlur "
            "applies with 1 - p, so its 0.1 and 0.3 mean the opposite of what they say.",
            "Sinkhorn-Knopp sees a micro-batch of 152 on one card; the published run pooled eight "
            "such parts. With eight processes and no micro-batches the two are the same.",
            "drop_path is 0.3, which the published code uses (student.drop_path_rate); the 0.4 in "
            "its train section is not read.",
        ),
    ),
    "reddino": Preset(
        "Zedda et al. 2025 (arXiv 2508.08180); Snarci/RedDino, deployment/2_gpu/s.yaml",
        MappingProxyType(REDDINO),
        (
            *EVERYWHERE,
            NO_FREE_LOCAL_CROP,
            SCHEDULE_OVER_THE_RUN,
            "RGB; the published code reads BGR (cv2.imread without conversion) and evaluates RGB.",
            "33 pixel operations, as in the code; the paper says 32.",
            "2,000 steps at a batch of 512, as in the paper; the code says 10 epochs and 280.",
            "Patches are cut when they are drawn; with --cut cells it is single cells, found by "
            "our own finder in place of a Cellpose that was fine-tuned on them.",
            "Prototypes are not frozen at the start (freeze_last_layer_epochs: 0), as published.",
        ),
    ),
    "scratch": Preset(
        "Hemaseek: small data, random weights, one card or a CPU",
        MappingProxyType(SCRATCH),
        (
            *EVERYWHERE,
            "ViT-Ti, 98-pixel views, two 42-pixel local views: a step costs a fiftieth of ViT-S's "
            "at 224, and small views still tell cells apart.",
            "4,096 prototypes: 65,536 are more than there are images.",
            "LayerScale starts at 0.1, not 1e-5: from random weights a short run would spend its "
            "steps on waking the blocks up.",
            "Every view is turned by any angle: a smear has no direction.",
            "No solarisation and little hue: the colour of granules tells cell types apart.",
        ),
    ),
}

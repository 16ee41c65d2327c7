"""How the shipped encoder may be trained: one recipe for a CPU, four for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

MILD = {
    # Colour is evidence in Romanowsky stains: granules are told apart by it
    "jitter": 0.8,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.04,
    "grayscale": 0.0,
    "blur": (0.3, 0.1, 0.1),
    "solarise": (0.0, 0.0, 0.0),
}
STRONG = {
    "jitter": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.3,
    "hue": 0.1,
    "grayscale": 0.1,
    "blur": (0.5, 0.3, 0.3),
    "solarise": (0.0, 0.0, 0.0),
}
VIEWS = {"flip": 0.5, "rotate": 1.0, "interpolation": "bilinear", "global_scale": (0.4, 1.0)}


@dataclass(frozen=True)
class Recipe:
    """Settings of a run, by what they need."""

    id: str
    """Of the encoder that comes out."""
    about: str
    values: Mapping[str, Any]
    """Fields of `TrainConfig`."""
    px: int
    """Side that images are packed at."""
    shares: Mapping[str, float]
    """How often each set is drawn; a set that is not named here is left out."""
    tested: bool
    """Whether a whole run of it was made, not only a toy one."""
    pooling: Literal["cls", "mean"] = "cls"
    """Which output is the vector."""
    quality: int = 95
    """Of the packed images."""
    form: Literal["jpeg", "webp"] = "jpeg"
    """Of the packed images."""
    input_px: int | None = None
    """Side at which the encoder is used; `None`: that of the last stage. Views are crops and so
    show cells larger than whole images do; a larger input makes up for it (Touvron et al. 2019)."""
    even: tuple[int, float] | None = None
    """Components and power of the linear layer that evens the vectors out, fitted without labels
    (`encoder.features.descriptors.evened`)."""
    guided: int = 0
    """How many measured numbers are predicted (`encoder.features.descriptors`); 0 for none."""
    beside: float | None = None
    """Weight of the measured numbers beside the network's vector (`encoder.features.joint`), that
    of the network being 1; `None` for a network alone."""


SHARES = MappingProxyType({"pbc": 0.7, "chula": 0.15, "bccd": 0.1, "aslan": 0.05})


def _gpu(size: str, mild: bool) -> Recipe:
    """300 epochs of the 24,874 images at 112 px, then a finish at 224."""
    values: dict[str, Any] = {
        **VIEWS,
        **(MILD if mild else STRONG),
        "preset": "scratch",
        "size": size,
        "patch_px": 14,
        "layer_scale": 0.1,
        "steps": 14_000,
        "batch": 512,
        "global_px": 112,
        "local_px": 56,
        "local_crops": 4,
        "local_scale": (0.12, 0.4),
        "stages": ({"steps": 1_500, "global_px": 224, "local_px": 98, "batch": 256},),
        "image_px": 224,
        "prototypes": 8192,
        "head_hidden": 2048,
        "head_bottleneck": 256,
        "lr": 2e-3 if size == "ti" else 1.5e-3,
        "warmup_steps": 1_000,
        "weight_decay": (0.04, 0.2),
        "momentum": (0.992, 1.0),
        "teacher_warmup_steps": 3_000,
        "freeze_last_layer_steps": 200,
        "drop_path": 0.1,
        "precision": "auto",
        "hold": "device",
        "compile": False,  # not tried on a GPU with these changing shapes
        "watch_every": 500,
        "checkpoint_every": 500,
    }
    strength = "mild" if mild else "strong"
    return Recipe(
        id=f"hemaseek-{size}",
        about=f"ViT-{size.capitalize()}/14 on a GPU, {strength} augmentation",
        values=MappingProxyType(values),
        px=224,
        shares=SHARES,
        tested=False,
    )


CPU = {
    # What an hour of two cores can do: convolutions down to patches of 16, four blocks, and a
    # guide. Without one, 2,000 steps of DINO left a network behind colours (docs/encoder.md).
    **VIEWS,
    **MILD,
    "preset": "scratch",
    "embed_dim": 192,
    "depth": 4,
    "heads": 3,
    "stem": "conv",
    "patch_px": 16,
    "layer_scale": 1.0,
    "drop_path": 0.0,
    "steps": 1_800,
    "batch": 128,
    "global_px": 112,
    "local_crops": 0,
    "image_px": 144,
    "global_scale": (0.5, 1.0),
    "global_centre": 0.5,
    "brightness": 0.25,
    "contrast": 0.25,
    "saturation": 0.25,
    "hue": 0.06,
    "blur": (0.2, 0.2, 0.0),
    "dino_weight": 0.0,
    "ibot_weight": 0.0,
    "koleo_weight": 0.0,
    "contrast_weight": 0.5,
    "contrast_temperature": 0.2,
    "guide_weight": 4.0,
    "prototypes": 8,  # unused: nothing is distilled
    "head_hidden": 512,
    "head_bottleneck": 128,
    "lr": 3e-3,
    "warmup_steps": 100,
    "weight_decay": (0.05, 0.05),
    "momentum": (0.95, 0.995),
    "freeze_last_layer_steps": 0,
    "precision": "bf16",
    "hold": "memory",
    "watch_every": 250,
    "checkpoint_every": 100,
    "log_every": 50,
    "workers": 2,
}

RECIPES: dict[str, Recipe] = {
    "cpu": Recipe(
        id="hemaseek-xs",
        about="A small ViT/16 with a stem of convolutions at 112 px, on a CPU",
        values=MappingProxyType(CPU),
        px=160,
        shares=MappingProxyType({"pbc": 0.8, "chula": 0.1, "bccd": 0.07, "aslan": 0.03}),
        tested=True,
        pooling="mean",
        quality=80,
        form="webp",
        guided=128,
        input_px=144,
        even=(96, 0.8),
        beside=2.0,
    ),
    "gpu-ti-mild": _gpu("ti", True),
    "gpu-ti-strong": _gpu("ti", False),
    "gpu-s-mild": _gpu("s", True),
    "gpu-s-strong": _gpu("s", False),
}

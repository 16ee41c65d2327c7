"""What changes from step to step: learning rate, weight decay, momentum and temperature."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Any

from torch import nn

from train.config import TrainConfig


@dataclass(frozen=True)
class Now:
    """The scheduled values of one step."""

    lr: float
    weight_decay: float
    momentum: float
    teacher_temperature: float
    backbone_frozen: bool
    """Fresh heads warm up alone."""
    last_layer_frozen: bool
    """Prototypes do not move."""


def cosine(start: float, end: float, share: float) -> float:
    """From `start` at share 0 to `end` at share 1 along half a cosine."""
    return end + (start - end) * (1 + cos(pi * min(max(share, 0.0), 1.0))) / 2


def peak_lr(config: TrainConfig, batch: int) -> float:
    """The learning rate at a batch size: the square-root rule against 1024 images."""
    return config.lr * sqrt(batch / 1024)


def at(config: TrainConfig, step: int) -> Now:
    """The values of a step, counted from 0 over all stages."""
    total = config.total_steps
    share = step / max(total - 1, 1)
    peak = peak_lr(config, part_at(config, step)[0].batch)
    if step < config.warmup_steps:
        lr = peak * step / config.warmup_steps
    else:
        rest = max(total - 1 - config.warmup_steps, 1)
        lr = cosine(peak, config.min_lr, (step - config.warmup_steps) / rest)
    cold, warm = config.teacher_temperature
    heat = min(step / config.teacher_warmup_steps, 1.0) if config.teacher_warmup_steps else 1.0
    return Now(
        lr=lr,
        weight_decay=cosine(*config.weight_decay, share),
        momentum=cosine(*config.momentum, share),
        teacher_temperature=cold + (warm - cold) * heat,
        backbone_frozen=step < config.head_warmup_steps,
        last_layer_frozen=step < config.freeze_last_layer_steps,
    )


def part_at(config: TrainConfig, step: int) -> tuple[Any, int]:
    """The stage that a step belongs to, and how many images came before the step."""
    images = 0
    plan = config.plan()
    for part in plan:
        if step < part.steps:
            return part, images + step * part.batch
        step -= part.steps
        images += part.steps * part.batch
    return plan[-1], images


def param_groups(student: nn.Module, config: TrainConfig, depth: int) -> list[dict[str, Any]]:
    """Parameters with equal treatment together: factors for `set_groups`.

    Blocks are counted from the last; embeddings count as one block before the first. Biases,
    norms, LayerScale, tokens and positions have no weight decay.
    """
    groups: dict[tuple[float, bool, bool, bool], dict[str, Any]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        in_backbone = name.startswith("backbone.")
        factor = config.layer_decay ** (depth + 1 - _layer(name, depth)) if in_backbone else 1.0
        if "patch_embed" in name:
            factor *= config.patch_embed_lr
        bare = parameter.ndim < 2 or any(w in name for w in ("token", "pos_embed", "gain"))
        last = "prototypes" in name or "gain" in name
        key = (factor, not bare, in_backbone, last)
        group = groups.setdefault(
            key,
            {"params": [], "factor": factor, "decays": not bare, "of_backbone": in_backbone},
        )
        group["last_layer"] = last
        group["params"].append(parameter)
    return list(groups.values())


def set_groups(groups: list[dict[str, Any]], now: Now) -> None:
    """Write a step's learning rate and weight decay into an optimiser's groups."""
    for group in groups:
        still = (group["of_backbone"] and now.backbone_frozen) or (
            group["last_layer"] and now.last_layer_frozen
        )
        group["lr"] = 0.0 if still else now.lr * group["factor"]
        group["weight_decay"] = now.weight_decay if group["decays"] else 0.0


def _layer(name: str, depth: int) -> int:
    if ".blocks." in name:
        return int(name.split(".blocks.")[1].split(".")[0]) + 1
    early = ("pos_embed", "patch_embed", "mask_token", "cls_token", "reg_token")
    return 0 if any(word in name for word in early) else depth + 1

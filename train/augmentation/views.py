"""Random views of a batch of images, made on the device: decoding is all the CPU has to do.

Every random number is drawn on the CPU from one generator, so that a seed gives the same views
on every device, and so that no operation waits for the device to learn whom it concerns.
Operations take and give n x 3 x height x width in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor
from torch.nn import functional

from train.augmentation.colour import (
    Draw,
    brightness,
    contrast,
    gaussian_blur,
    grayscale,
    hed_jitter,
    saturation,
    shift_hue,
)
from train.config import Range, TrainConfig


@dataclass(frozen=True)
class Views:
    """The views of one batch, normalised."""

    globals_: Tensor
    """2n x 3 x side x side: the first views of all images, then the second."""
    locals_: Tensor | None
    """(crops x n) x 3 x side x side, first views first; `None` without local crops."""


def make_views(
    images: Tensor,
    config: TrainConfig,
    global_px: int,
    local_px: int,
    generator: torch.Generator,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Views:
    """All views of a batch.

    Args:
        images: n x 3 x side x side, uint8, on the device.
        config: Which views, and how.
        global_px: Side of the global views.
        local_px: Side of the local ones.
        generator: Of the CPU; nothing else decides what comes out.
        mean: The encoder's normalisation.
        std: The encoder's normalisation.
    """
    draw = Draw(generator, images.device)
    bright = images.float() / 255
    globals_ = torch.cat(
        [_view(bright, config, global_px, config.global_scale, kind, draw) for kind in (0, 1)]
    )
    scale, shift = (images.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (std, mean))
    locals_ = None
    if config.local_crops:
        locals_ = torch.cat(
            [
                _view(bright, config, local_px, config.local_scale, 2, draw)
                for _ in range(config.local_crops)
            ]
        )
        locals_ = (locals_ - shift) / scale
    return Views((globals_ - shift) / scale, locals_)


def _view(
    images: Tensor, config: TrainConfig, px: int, area: Range, kind: int, draw: Draw
) -> Tensor:
    """One view per image. `kind` is 0 or 1 for the global views, 2 for a local one."""
    centre = config.local_centre if kind == 2 else config.global_centre
    x = crop(images, config, px, area, draw, centre)
    n = len(x)
    apply_to(x, draw.chosen(n, config.hed), lambda y: hed_jitter(y, config.hed_factor, draw))
    apply_to(x, draw.chosen(n, config.jitter), lambda y: colour_jitter(y, config, draw))
    apply_to(x, draw.chosen(n, config.grayscale), grayscale)
    apply_to(
        x,
        draw.chosen(n, config.blur[kind]),
        lambda y: gaussian_blur(y, draw.uniform(len(y), *config.blur_sigma)),
    )
    apply_to(x, draw.chosen(n, config.solarise[kind]), lambda y: torch.where(y < 0.5, y, 1 - y))
    if config.pixel_ops:
        from train.augmentation.pixels import some_of

        x = some_of(x, config.pixel_ops, config.pixel_p, config.pixel_skip, draw)
    return x


def apply_to(x: Tensor, rows: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Change some images in place and keep them between 0 and 1."""
    if len(rows) == len(x):
        x.copy_(change(x).clamp_(0, 1))
    elif len(rows):
        x[rows] = change(x[rows]).clamp_(0, 1)


def crop(
    images: Tensor, config: TrainConfig, px: int, area: Range, draw: Draw, centre: float = 0.0
) -> Tensor:
    """Random resized crop, turn and flips in one resampling; beyond the border it mirrors.

    The crop's share of the area is uniform in `area` and its aspect ratio log-uniform from 3/4
    to 4/3. It is turned about its own middle, which keeps to the image's by `centre`. Where an
    image has at least twice the pixels needed, it is averaged down first, so that nothing aliases.
    """
    n = len(images)
    side = images.shape[-1]
    theta = _affine(n, config, area, draw, centre)
    shrink = int(side * area[0] ** 0.5) // px
    if shrink > 1:
        images = functional.avg_pool2d(images, shrink)
    grid = functional.affine_grid(theta, [n, 3, px, px], align_corners=False)
    x = functional.grid_sample(
        images,
        grid,
        mode=config.interpolation,
        padding_mode="reflection",
        align_corners=False,
    )
    return x.clamp_(0, 1)


def _affine(n: int, config: TrainConfig, area: Range, draw: Draw, centre: float) -> Tensor:
    """n x 2 x 3: from the view's coordinates (-1 to 1) to the image's."""
    here = Draw(draw.generator, torch.device("cpu"))  # small: built on the CPU, moved once
    share = here.uniform(n, *area)
    ratio = torch.exp(here.uniform(n, log(3 / 4), log(4 / 3)))
    wide = (share * ratio).sqrt().clamp(max=1.0)
    high = (share / ratio).sqrt().clamp(max=1.0)
    x = here.uniform(n, -1, 1) * (1 - wide) * (1 - centre)
    y = here.uniform(n, -1, 1) * (1 - high) * (1 - centre)
    angle = torch.zeros(n)
    angle[here.chosen(n, config.rotate)] = 1.0
    angle = angle * here.uniform(n, 0, 2 * pi)
    turned = torch.zeros(n)
    turned[here.chosen(n, config.rotate90)] = 1.0
    quarter = torch.randint(4, (n,), generator=draw.generator)
    angle = angle + turned * quarter * (pi / 2)
    flip_x, flip_y = torch.ones(n), torch.ones(n)
    flip_x[here.chosen(n, config.flip)] = -1.0
    flip_y[here.chosen(n, config.flip)] = -1.0
    c, s = angle.cos(), angle.sin()
    rows = [flip_x * wide * c, -flip_y * high * s, x, flip_x * wide * s, flip_y * high * c, y]
    return draw.to(torch.stack(rows, dim=1).view(n, 2, 3))


def colour_jitter(x: Tensor, config: TrainConfig, draw: Draw) -> Tensor:
    """Brightness, contrast, saturation and hue in one random order for the batch."""
    n = len(x)
    order = torch.randperm(4, generator=draw.generator).tolist()
    b, c, s = (
        draw.uniform(n, max(0.0, 1 - f), 1 + f)
        for f in (config.brightness, config.contrast, config.saturation)
    )
    h = draw.uniform(n, -config.hue, config.hue)
    steps = (
        (brightness, b, config.brightness),
        (contrast, c, config.contrast),
        (saturation, s, config.saturation),
        (shift_hue, h, config.hue),
    )
    for at in order:
        change, factors, strength = steps[at]
        if strength:
            x = change(x, factors)
    return x

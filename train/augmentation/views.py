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

from train.config import Range, TrainConfig

HED_FROM_RGB = (
    # Inverse of the stain matrix of Ruifrok and Johnston 2001 (rows: haematoxylin, eosin, DAB)
    (1.87798274, -1.00767869, -0.55611582),
    (-0.06590806, 1.13473037, -0.1355218),
    (-0.60190736, -0.48041419, 1.57358807),
)
RGB_FROM_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class Draw:
    """Random numbers from the CPU's generator, as tensors on the device."""

    generator: torch.Generator
    device: torch.device

    def uniform(self, n: int, low: float, high: float) -> Tensor:
        """n numbers from low to high."""
        return self.to(low + (high - low) * torch.rand(n, generator=self.generator))

    def chosen(self, n: int, probability: float) -> Tensor:
        """Which of n: their positions, on the CPU's count and so without waiting."""
        hit = torch.rand(n, generator=self.generator) < probability
        return self.to(hit.nonzero().flatten())

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, drawn on the device: their many would be slow to move."""
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        own = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=own, device=self.device)

    def to(self, tensor: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        return tensor.to(self.device, non_blocking=True)


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


def grey(x: Tensor) -> Tensor:
    """Brightness, n x 1 x height x width."""
    return GREY[0] * x[:, 0:1] + GREY[1] * x[:, 1:2] + GREY[2] * x[:, 2:3]


def grayscale(x: Tensor) -> Tensor:
    """Brightness in all three channels."""
    return grey(x).expand_as(x).clone()


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Each image times its factor."""
    return (x * _per(factor)).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Each image away from its own mean brightness, by its factor."""
    mean = grey(x).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(x), x, _per(factor)).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Each pixel away from its own brightness, by the image's factor."""
    return torch.lerp(grey(x).expand_as(x), x, _per(factor)).clamp_(0, 1)


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each image's hue by so many full turns; saturation and value of HSV stay."""
    hue, chroma, value = to_hsv(x)
    return from_hsv(hue + _per(turns), chroma, value)


def to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in turns, chroma (value times saturation) and value; each n x 1 x height x width."""
    red, green, blue = x.unbind(dim=1)
    value, low = x.amax(dim=1), x.amin(dim=1)
    chroma = value - low
    per = chroma.clamp_min(1e-8)
    hue = torch.where(
        value == red,
        (green - blue) / per,
        torch.where(value == green, (blue - red) / per + 2, (red - green) / per + 4),
    )
    return (hue / 6 % 1.0)[:, None], chroma[:, None], value[:, None]


def from_hsv(hue: Tensor, chroma: Tensor, value: Tensor) -> Tensor:
    """The inverse of `to_hsv`; hue may be any number of turns."""
    offset = torch.tensor([5.0, 3.0, 1.0], device=hue.device).view(1, 3, 1, 1)
    k = (offset + hue * 6) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


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


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int = 4) -> Tensor:
    """Each image with its own standard deviation; a window of 2 radius + 1 (DINOv2: 9)."""
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    return convolve_lines(x, kernel)


def convolve_lines(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve rows and columns with each image's own kernel (n x odd), mirrored borders."""
    radius = kernel.shape[1] // 2
    weights = kernel[:, :, None, None, None]
    padded = functional.pad(x, (radius, radius, 0, 0), mode="reflect")
    wide = sum(weights[:, k] * padded[..., k : k + x.shape[-1]] for k in range(2 * radius + 1))
    padded = functional.pad(torch.as_tensor(wide), (0, 0, radius, radius), mode="reflect")
    high = sum(weights[:, k] * padded[..., k : k + x.shape[-2], :] for k in range(2 * radius + 1))
    return torch.as_tensor(high)


def hed_jitter(x: Tensor, factor: float, draw: Draw) -> Tensor:
    """Stretch and shift the amounts of haematoxylin, eosin and DAB (Tellez et al. 2018)."""
    n = len(x)
    inverse = torch.tensor(HED_FROM_RGB, device=x.device)
    stains = torch.tensor(RGB_FROM_HED, device=x.device)
    density = -torch.log(x.clamp_min(1 / 255))
    amounts = torch.einsum("nchw,cs->nshw", density, inverse)
    stretch = draw.uniform(3 * n, 1 - factor, 1 + factor).view(n, 3, 1, 1)
    move = draw.uniform(3 * n, -factor, factor).view(n, 3, 1, 1)
    return torch.exp(-torch.einsum("nshw,sc->nchw", amounts * stretch + move, stains))


def _per(values: Tensor) -> Tensor:
    return values[:, None, None, None]

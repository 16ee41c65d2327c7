"""Colour operations on batches of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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


def grey(x: Tensor) -> Tensor:
    """Brightness, n x 1 x height x width."""
    return GREY[0] * x[:, 0:1] + GREY[1] * x[:, 1:2] + GREY[2] * x[:, 2:3]


def grayscale(x: Tensor) -> Tensor:
    """Brightness in all three channels."""
    return grey(x).repeat(1, 3, 1, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Each image times its factor."""
    return (x * each(factor)).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Each image away from its own mean brightness, by its factor."""
    mean = grey(x).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(x), x, each(factor)).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Each pixel away from its own brightness, by the image's factor."""
    return torch.lerp(grey(x).expand_as(x), x, each(factor)).clamp_(0, 1)


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each image's hue by so many full turns; saturation and value of HSV stay."""
    hue, chroma, value = to_hsv(x)
    return from_hsv(hue + each(turns), chroma, value)


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


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int = 4) -> Tensor:
    """Each image with its own standard deviation; a window of 2 radius + 1 (DINOv2: 9)."""
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    return convolve_lines(x, kernel)


def convolve_lines(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve rows and columns with each image's own kernel (n x odd), mirrored borders."""
    n, c, h, w = x.shape
    radius = kernel.shape[1] // 2
    weight = kernel.repeat_interleave(c, dim=0)[:, None]
    padded = functional.pad(x, (radius,) * 4, mode="reflect").reshape(1, n * c, h + 2 * radius, -1)
    wide = functional.conv2d(padded, weight[:, :, None], groups=n * c)
    return functional.conv2d(wide, weight[..., None], groups=n * c).view(n, c, h, w)


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


def each(values: Tensor) -> Tensor:
    """One value for each image, to be spread over its planes."""
    return values[:, None, None, None]

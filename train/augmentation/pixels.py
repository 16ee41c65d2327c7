"""RedDino's pixel operations (Zedda et al. 2025, 3.1), on whole batches.

The paper counts 32 operations of Albumentations, the released configuration enables 33; all 33
are here under their names, with that library's default ranges. They are written anew from what
they are documented to do: a picture differs in detail from Albumentations', not in kind. Every
operation takes n x 3 x height x width in 0 to 1 and a `Draw`, and gives the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from train.augmentation.colour import (
    Draw,
    brightness,
    contrast,
    convolve_lines,
    each,
    from_hsv,
    gaussian_blur,
    grey,
    saturation,
    shift_hue,
    to_hsv,
)

Op = Callable[[Tensor, Draw], Tensor]


def some_of(x: Tensor, count: int, probability: float, skip: tuple[str, ...], draw: Draw) -> Tensor:
    """Apply `count` different operations to every image, each with `probability`.

    Images that drew the same operation share one call of it.

    Raises:
        ValueError: a name in `skip` that is no operation, or fewer than `count` are left.
    """
    unknown = set(skip) - set(OPS)
    if unknown:
        raise ValueError(f"pixel_skip: unknown {sorted(unknown)}; known are {', '.join(OPS)}")
    ops = [op for name, op in OPS.items() if name not in skip]
    if count > len(ops):
        raise ValueError(f"pixel_ops {count} is more than the {len(ops)} operations left")
    n = len(x)
    order = torch.rand(n, len(ops), generator=draw.generator).argsort(dim=1)[:, :count]
    skipped = torch.rand(n, count, generator=draw.generator) >= probability
    order = order.masked_fill(skipped, -1)
    for turn in range(count):
        for number, op in enumerate(ops):
            mine = (order[:, turn] == number).nonzero().flatten()
            if len(mine):
                rows = draw.to(mine)
                x[rows] = op(x[rows], draw).clamp(0, 1)
    return x


def _whole(n: int, low: int, high: int, draw: Draw) -> list[int]:
    """n whole numbers from low to high, on the CPU."""
    return torch.randint(low, high + 1, (n,), generator=draw.generator).tolist()


def _filter(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image with its own kernel, n x k x k."""
    n, c, h, w = x.shape
    k = kernels.shape[-1]
    padded = functional.pad(x, (k // 2,) * 4, mode="reflect").reshape(
        1, n * c, h + k - 1, w + k - 1
    )
    weight = kernels[:, None].repeat_interleave(c, dim=0)
    return functional.conv2d(padded, weight, groups=n * c).view(n, c, h, w)


def _places(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns as shares of the image, each 1 x 1 x height x width."""
    y = (torch.arange(h, device=device) + 0.5) / h
    x = (torch.arange(w, device=device) + 0.5) / w
    grid = torch.meshgrid(y, x, indexing="ij")
    return grid[0][None, None], grid[1][None, None]


def _box(n: int, draw: Draw, longest: int = 7) -> Tensor:
    """n box kernels of width 3, 5, ... `longest`."""
    kernel = torch.zeros(n, longest)
    for row, half in enumerate(_whole(n, 1, longest // 2, draw)):
        kernel[row, longest // 2 - half : longest // 2 + half + 1] = 1 / (2 * half + 1)
    return draw.to(kernel)


def blur(x: Tensor, draw: Draw) -> Tensor:
    """Box blur of 3 to 7 pixels."""
    return convolve_lines(x, _box(len(x), draw))


def clahe(x: Tensor, draw: Draw) -> Tensor:
    """Contrast-limited equalisation of the brightness in 8 x 8 tiles, limit 1 to 4."""
    n, _, h, w = x.shape
    tiles, bins = 8, 64
    light = grey(x)
    th, tw = -(-h // tiles), -(-w // tiles)
    padded = functional.pad(light, (0, tw * tiles - w, 0, th * tiles - h), mode="replicate")
    cut = padded.reshape(n, tiles, th, tiles, tw).permute(0, 1, 3, 2, 4).reshape(n * tiles**2, -1)
    level = (cut * (bins - 1)).round().long()
    counts = torch.zeros(len(cut), bins, device=x.device)
    counts.scatter_add_(1, level, torch.ones_like(cut))
    limit = draw.uniform(n, 1, 4).repeat_interleave(tiles**2)[:, None] * cut.shape[1] / bins
    over = (counts - limit).clamp_min(0).sum(dim=1, keepdim=True)
    curve = (torch.minimum(counts, limit) + over / bins).cumsum(dim=1) / cut.shape[1]
    curves = curve.view(n, tiles, tiles, bins).permute(0, 3, 1, 2)[:, None]
    y, z = _places(h, w, x.device)
    place = torch.stack(
        [
            (z * tiles - 0.5).expand(n, 1, h, w) / (tiles - 1) * 2 - 1,
            (y * tiles - 0.5).expand(n, 1, h, w) / (tiles - 1) * 2 - 1,
            light * 2 - 1,
        ],
        dim=-1,
    )
    new = functional.grid_sample(curves, place, padding_mode="border", align_corners=True)[:, 0]
    return x * (new / light.clamp_min(1 / 255))


def channel_shuffle(x: Tensor, draw: Draw) -> Tensor:
    """The three channels in another order."""
    orders = torch.tensor([[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    picked = orders[torch.randint(5, (len(x),), generator=draw.generator)]
    return torch.gather(x, 1, draw.to(picked)[:, :, None, None].expand_as(x))


def channel_dropout(x: Tensor, draw: Draw) -> Tensor:
    """One channel black."""
    kept = torch.ones(len(x), 3)
    kept[torch.arange(len(x)), torch.randint(3, (len(x),), generator=draw.generator)] = 0
    return x * draw.to(kept)[:, :, None, None]


def color_jitter(x: Tensor, draw: Draw) -> Tensor:
    """Brightness, contrast, saturation by 0.8 to 1.2, hue by up to a fifth of a turn."""
    n = len(x)
    x = brightness(x, draw.uniform(n, 0.8, 1.2))
    x = contrast(x, draw.uniform(n, 0.8, 1.2))
    x = saturation(x, draw.uniform(n, 0.8, 1.2))
    return shift_hue(x, draw.uniform(n, -0.2, 0.2))


def defocus(x: Tensor, draw: Draw) -> Tensor:
    """Out of focus: a disc of radius 3 to 10 (and no more than an eighth of the side)."""
    most = max(min(10, x.shape[-1] // 8), 3)
    radius = draw.uniform(len(x), 3, most)[:, None, None]
    line = torch.arange(-most, most + 1, device=x.device)
    away = (line[:, None] ** 2 + line[None] ** 2).sqrt()
    disc = (radius - away[None] + 0.5).clamp(0, 1)
    return _filter(x, disc / disc.sum(dim=(1, 2), keepdim=True))


def downscale(x: Tensor, draw: Draw) -> Tensor:
    """A quarter of the resolution, nearest pixel both ways."""
    small = functional.interpolate(x, scale_factor=0.25, mode="nearest")
    return functional.interpolate(small, size=x.shape[-2:], mode="nearest")


def emboss(x: Tensor, draw: Draw) -> Tensor:
    """Relief of strength 0.2 to 0.7, mixed in by 0.2 to 0.5."""
    n = len(x)
    alpha, s = draw.uniform(n, 0.2, 0.5), draw.uniform(n, 0.2, 0.7)
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    rows = [-1 - s, -s, zero, -s, one, s, zero, s, 1 + s]
    kernel = torch.stack(rows, dim=1).view(n, 3, 3)
    return torch.lerp(x, _filter(x, kernel), each(alpha))


def equalize(x: Tensor, draw: Draw) -> Tensor:
    """Histogram equalisation of every channel."""
    n, c, h, w = x.shape
    level = (x * 255).round().long().reshape(n * c, h * w)
    counts = torch.zeros(n * c, 256, device=x.device)
    counts.scatter_add_(1, level, torch.ones(n * c, h * w, device=x.device))
    curve = counts.cumsum(dim=1)
    first = torch.gather(curve, 1, level.amin(dim=1, keepdim=True))
    curve = (curve - first) / (h * w - first).clamp_min(1)
    new = torch.gather(curve, 1, level).reshape(n, c, h, w)
    flat = (first == h * w).view(n, c, 1, 1)
    return torch.where(flat, x, new)


def fancy_pca(x: Tensor, draw: Draw) -> Tensor:
    """Shift along the principal colours of the image (Krizhevsky et al. 2012), strength 0.1."""
    n = len(x)
    pixels = x.flatten(2)
    centred = pixels - pixels.mean(dim=2, keepdim=True)
    values: Tensor
    vectors: Tensor
    values, vectors = torch.linalg.eigh(centred @ centred.mT / pixels.shape[2])
    strength = draw.normal((n, 3)) * 0.1 * values.clamp_min(0).sqrt()
    shift: Tensor = (vectors * strength[:, None]).sum(dim=2)
    return x + shift[:, :, None, None]


def gauss_noise(x: Tensor, draw: Draw) -> Tensor:
    """Noise of variance 10 to 50 on the scale of 255."""
    deviation = draw.uniform(len(x), 10, 50).sqrt() / 255
    return x + draw.normal(tuple(x.shape)) * each(deviation)


def gaussian(x: Tensor, draw: Draw) -> Tensor:
    """Gaussian blur in a window of 3 to 7 pixels, its deviation following from the window."""
    window = draw.to(torch.tensor(_whole(len(x), 1, 3, draw), dtype=torch.float32))
    return gaussian_blur(x, 0.3 * (window - 1) + 0.8, radius=3)


def glass_blur(x: Tensor, draw: Draw) -> Tensor:
    """Every pixel from a place up to 4 away, between two blurs of deviation 0.7."""
    n, _, h, w = x.shape
    x = gaussian_blur(x, torch.full((n,), 0.7, device=x.device), radius=2)
    away = (draw.normal((n, 2, h, w)) * 2).round().clamp(-4, 4).long()
    rows = (torch.arange(h, device=x.device)[:, None] + away[:, 0]).clamp(0, h - 1)
    columns = (torch.arange(w, device=x.device) + away[:, 1]).clamp(0, w - 1)
    at = (rows * w + columns).view(n, 1, -1).expand(-1, 3, -1)
    x = torch.gather(x.flatten(2), 2, at).reshape(n, 3, h, w)
    return gaussian_blur(x, torch.full((n,), 0.7, device=x.device), radius=2)


def hue_saturation_value(x: Tensor, draw: Draw) -> Tensor:
    """Hue by up to 40 degrees, saturation by up to 30 and value by up to 20 of 255."""
    n = len(x)
    hue, chroma, value = to_hsv(x)
    amount = chroma / value.clamp_min(1e-8) + each(draw.uniform(n, -30, 30)) / 255
    value = (value + each(draw.uniform(n, -20, 20)) / 255).clamp(0, 1)
    return from_hsv(hue + each(draw.uniform(n, -1 / 9, 1 / 9)), amount.clamp(0, 1) * value, value)


def iso_noise(x: Tensor, draw: Draw) -> Tensor:
    """A camera's noise: of hue (0.01 to 0.05) and of brightness (0.1 to 0.5 of its spread)."""
    n, _, h, w = x.shape
    hue, chroma, value = to_hsv(x)
    spread = each(draw.uniform(n, 0.1, 0.5)) * value.std(dim=(1, 2, 3), keepdim=True)
    tint = each(draw.uniform(n, 0.01, 0.05)) * draw.normal((n, 1, h, w))
    new = (value + spread * draw.normal((n, 1, h, w))).clamp(0, 1)
    return from_hsv(hue + tint, chroma * new / value.clamp_min(1e-8), new)


JPEG_LIGHT = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation of brightness at quality 50 (ITU-T T.81, table K.1)."""


def image_compression(x: Tensor, draw: Draw) -> Tensor:
    """JPEG of quality 99 or 100: 8 x 8 cosine blocks, rounded to the standard's steps."""
    n, _, h, w = x.shape
    quality = draw.to(torch.tensor(_whole(n, 99, 100, draw), dtype=torch.float32))
    table = torch.tensor(JPEG_LIGHT, device=x.device, dtype=torch.float32)
    step = (table * (2 - quality / 50)[:, None]).round().clamp_min(1).view(n, 1, 1, 1, 8, 8)
    k = torch.arange(8, device=x.device, dtype=torch.float32)
    cosines = torch.cos((2 * k[None] + 1) * k[:, None] * pi / 16) / 2
    cosines[0] /= 2**0.5
    padded = functional.pad(x, (0, -w % 8, 0, -h % 8), mode="replicate") * 255 - 128
    hh, ww = padded.shape[-2:]
    blocks = padded.reshape(n, 3, hh // 8, 8, ww // 8, 8).transpose(3, 4)
    waves = cosines @ blocks @ cosines.T
    back = cosines.T @ ((waves / step).round() * step) @ cosines
    whole = back.transpose(3, 4).reshape(n, 3, hh, ww)[..., :h, :w]
    return (whole + 128).round() / 255


def invert_img(x: Tensor, draw: Draw) -> Tensor:
    """The negative."""
    return 1 - x


def median_blur(x: Tensor, draw: Draw) -> Tensor:
    """Median of 3 x 3 or 5 x 5 pixels; one window for all images that drew it."""
    half = _whole(1, 1, 2, draw)[0]
    k = 2 * half + 1
    padded = functional.pad(x, (half,) * 4, mode="reflect")
    shifted = [
        padded[..., i : i + x.shape[-2], j : j + x.shape[-1]] for i in range(k) for j in range(k)
    ]
    return torch.stack(shifted, dim=-1).median(dim=-1).values


def motion_blur(x: Tensor, draw: Draw) -> Tensor:
    """A line of 3 to 7 pixels in any direction."""
    n = len(x)
    half = draw.uniform(n, 1, 3.5)[:, None, None]
    angle = draw.uniform(n, 0, pi)[:, None, None]
    line = torch.arange(-3, 4, device=x.device, dtype=x.dtype)
    along = line[None, None] * angle.cos() + line[None, :, None] * angle.sin()
    across = line[None, None] * angle.sin() - line[None, :, None] * angle.cos()
    kernel = (1 - across.abs()).clamp_min(0) * (half + 0.5 - along.abs()).clamp(0, 1)
    return _filter(x, kernel / kernel.sum(dim=(1, 2), keepdim=True))


def multiplicative_noise(x: Tensor, draw: Draw) -> Tensor:
    """The whole image times 0.9 to 1.1."""
    return x * each(draw.uniform(len(x), 0.9, 1.1))


def posterize(x: Tensor, draw: Draw) -> Tensor:
    """Four bits a channel."""
    return (x * 255 / 16).floor() * 16 / 255


def random_brightness_contrast(x: Tensor, draw: Draw) -> Tensor:
    """Contrast by 0.8 to 1.2, then brightness moved by up to 0.2."""
    n = len(x)
    return x * each(draw.uniform(n, 0.8, 1.2)) + each(draw.uniform(n, -0.2, 0.2))


def rgb_shift(x: Tensor, draw: Draw) -> Tensor:
    """Every channel moved by up to 20 of 255."""
    return x + draw.uniform(3 * len(x), -20 / 255, 20 / 255).view(-1, 3, 1, 1)


def random_gamma(x: Tensor, draw: Draw) -> Tensor:
    """To the power of 0.8 to 1.2."""
    return x.clamp_min(1e-6) ** each(draw.uniform(len(x), 0.8, 1.2))


def random_rain(x: Tensor, draw: Draw) -> Tensor:
    """Slanted streaks, blurred, over a picture darkened to 0.7."""
    n, _, h, w = x.shape
    y, z = _places(h, w, x.device)
    slant = each(draw.uniform(n, -0.2, 0.2))
    column = ((z + slant * y) * w).floor().long() % (2 * w)
    noise = torch.rand(n, 2 * w, generator=draw.generator)
    start = torch.rand(n, 2 * w, generator=draw.generator)
    noise, start = (draw.to(t)[:, None, None].expand(-1, 1, h, -1) for t in (noise, start))
    wet = torch.gather(noise, 3, column.expand(n, 1, h, w)) < 0.06
    top = torch.gather(start, 3, column.expand(n, 1, h, w))
    streak = (wet & (y >= top) & (y < top + 0.3)).to(x.dtype)
    rained = torch.where(streak > 0, torch.full_like(x, 200 / 255), x)
    return convolve_lines(rained, _box(n, draw)) * 0.7


def random_shadow(x: Tensor, draw: Draw) -> Tensor:
    """A half-plane's wedge in the lower half at half the brightness."""
    n, _, h, w = x.shape
    y, z = _places(h, w, x.device)
    left, right = each(draw.uniform(n, 0, 0.5)), each(draw.uniform(n, 0.5, 1))
    lean, top = each(draw.uniform(n, -0.3, 0.3)), each(draw.uniform(n, 0.5, 0.7))
    inside = (y > top) & (z > left + lean * (y - 0.5)) & (z < right + lean * (y - 0.5))
    return torch.where(inside, x * 0.5, x)


def random_snow(x: Tensor, draw: Draw) -> Tensor:
    """Dark pixels, up to a threshold, bleached by 2.5."""
    threshold = each(draw.uniform(len(x), 0.1, 0.3)) * 0.5 + 1 / 3
    light = (x.amax(dim=1, keepdim=True) + x.amin(dim=1, keepdim=True)) / 2
    return torch.where(light < threshold, x * 2.5, x)


def random_sun_flare(x: Tensor, draw: Draw) -> Tensor:
    """A bright disc in the upper half that fades outwards, and a faint ring beside it."""
    n, _, h, w = x.shape
    y, z = _places(h, w, x.device)
    cy, cz = each(draw.uniform(n, 0, 0.5)), each(draw.uniform(n, 0, 1))
    size = each(draw.uniform(n, 0.2, 0.6))
    away = ((y - cy) ** 2 + (z - cz) ** 2).sqrt()
    glow = (1 - away / size).clamp(0, 1) ** 2
    ring = ((((y - 1 + cy) ** 2 + (z - 1 + cz) ** 2).sqrt() - 0.12).abs() < 0.02) * 0.2
    return torch.lerp(x, torch.ones_like(x), torch.maximum(glow, ring.to(x.dtype)))


def random_tone_curve(x: Tensor, draw: Draw) -> Tensor:
    """A Bezier curve from black to white with its handles moved by deviation 0.1."""
    handles = draw.normal((2, len(x))) * 0.1
    low = each((0.25 + handles[0]).clamp(0, 1))
    high = each((0.75 + handles[1]).clamp(0, 1))
    return 3 * (1 - x) ** 2 * x * low + 3 * (1 - x) * x**2 * high + x**3


def random_fog(x: Tensor, draw: Draw) -> Tensor:
    """Pale patches, thicker towards the middle, mixed in by 0.3 to 1 of their thickness."""
    n, _, h, w = x.shape
    y, z = _places(h, w, x.device)
    coarse = draw.to(torch.rand(n, 1, 6, 6, generator=draw.generator))
    patches = functional.interpolate(
        coarse, size=(h, w), mode="bicubic", align_corners=False
    ).clamp(0, 1)
    middle = (1 - ((y - 0.5) ** 2 + (z - 0.5) ** 2).sqrt()).clamp(0, 1)
    thick = patches * middle * each(draw.uniform(n, 0.3, 1.0)) * 0.6
    return torch.lerp(x, torch.ones_like(x), thick)


def ringing_overshoot(x: Tensor, draw: Draw) -> Tensor:
    """A sharp low pass: ripples beside edges. Window 15, cut-off from pi/4 to pi/2."""
    cutoff = draw.uniform(len(x), pi / 4, pi / 2)[:, None]
    line = torch.arange(-7, 8, device=x.device, dtype=x.dtype)[None]
    kernel = torch.sinc(cutoff * line / pi)
    return convolve_lines(x, kernel / kernel.sum(dim=1, keepdim=True))


def sharpen(x: Tensor, draw: Draw) -> Tensor:
    """Sharpened by a 3 x 3 kernel of lightness 0.5 to 1, mixed in by 0.2 to 0.5."""
    n = len(x)
    alpha, light = draw.uniform(n, 0.2, 0.5), draw.uniform(n, 0.5, 1.0)
    kernel = torch.full((n, 3, 3), -1.0, device=x.device)
    kernel[:, 1, 1] = 8 + light
    return torch.lerp(x, _filter(x, kernel), each(alpha))


def solarize(x: Tensor, draw: Draw) -> Tensor:
    """The negative of everything from half brightness up."""
    return torch.where(x < 128 / 255, x, 1 - x)


OPS: dict[str, Op] = {
    "Blur": blur,
    "CLAHE": clahe,
    "ChannelShuffle": channel_shuffle,
    "ChannelDropout": channel_dropout,
    "ColorJitter": color_jitter,
    "Defocus": defocus,
    "Downscale": downscale,
    "Emboss": emboss,
    "Equalize": equalize,
    "FancyPCA": fancy_pca,
    "GaussNoise": gauss_noise,
    "GaussianBlur": gaussian,
    "GlassBlur": glass_blur,
    "HueSaturationValue": hue_saturation_value,
    "ISONoise": iso_noise,
    "ImageCompression": image_compression,
    "InvertImg": invert_img,
    "MedianBlur": median_blur,
    "MotionBlur": motion_blur,
    "MultiplicativeNoise": multiplicative_noise,
    "Posterize": posterize,
    "RandomBrightnessContrast": random_brightness_contrast,
    "RGBShift": rgb_shift,
    "RandomGamma": random_gamma,
    "RandomRain": random_rain,
    "RandomShadow": random_shadow,
    "RandomSnow": random_snow,
    "RandomSunFlare": random_sun_flare,
    "RandomToneCurve": random_tone_curve,
    "RandomFog": random_fog,
    "RingingOvershoot": ringing_overshoot,
    "Sharpen": sharpen,
    "Solarize": solarize,
}
"""Albumentations' name to the operation: the 33 that RedDino's configuration enables."""

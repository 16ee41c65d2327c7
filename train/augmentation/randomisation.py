"""Domain randomisation: batches of cells as other laboratories would show them, on the device.

A view is sampled from its source in one step (zoom, rotation, mirror, stretch, shift, and blur by
a coarser level of the picture), then recoloured by one affine map in optical density and one in
RGB, then seen through other optics, sensors and codecs. Each part can be left out by its name, so
that its worth can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from train.augmentation.codec import jpeg

PARTS = (
    "zoom", "rotation", "stretch", "blur", "washed", "pasted", "stain", "matrix", "gamma",
    "white balance", "light", "gradient", "hue", "saturation", "contrast", "sharpen", "chromatic",
    "noise", "jpeg",
)  # fmt: skip
"""What may be left out."""
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of hematoxylin, eosin and a residual stain in red, green and blue
(Ruifrok and Johnston 2001)."""
LUMINANCE = (0.299, 0.587, 0.114)
HUE = 0.12
"""Of the colour circle, the most that hues turn by."""
COLOURED = 0.88
"""Share of the views whose colours change at all."""


@dataclass(frozen=True)
class Field:
    """How much of a picture views of it show, in micrometres."""

    lowest: float
    highest: float
    middle: float
    """Median of the side of a view."""
    spread: float
    """Standard deviation of its natural logarithm."""
    radius: float
    """Of the cell in the middle, beyond which the surroundings may be replaced."""

    def row(self) -> Tensor:
        """The five numbers in this order."""
        return torch.tensor(astuple(self))


WHITE = Field(12.5, 46.0, 23.0, 0.36, 8.5)
"""Nucleated cells: from a tight box to a wide field."""
RED = Field(9.0, 20.0, 13.3, 0.17, 5.5)
"""Red cells, whose size says something: zoomed less."""


class Randomisation:
    """Makes views of a batch of pictures."""

    def __init__(self, px: int, left_out: Collection[str] = ()) -> None:
        """Of a size.

        Args:
            px: Side of a view.
            left_out: Names in `PARTS`.

        Raises:
            ValueError: an unknown part.
        """
        unknown = set(left_out) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown parts {sorted(unknown)}; known are {', '.join(PARTS)}")
        self.px = px
        self.left_out = frozenset(left_out)

    @torch.no_grad()
    def __call__(self, pictures: Tensor, um: Tensor, fields: Tensor) -> Tensor:
        """One view of each picture.

        Args:
            pictures: n x 3 x side x side, 0 to 1.
            um: Side of each picture in micrometres.
            fields: n x 5, how much of each is shown: a `Field.row` for each.

        Returns:
            n x 3 x px x px, 0 to 1.
        """
        y = torch.linspace(-1 + 1 / self.px, 1 - 1 / self.px, self.px, device=pictures.device)
        self._y, self._x = torch.meshgrid(y, y, indexing="ij")
        views, shown = self._sampled(pictures, um, fields)
        views = self._surroundings(views, shown, fields)
        return self._coded(self._seen(self._recoloured(views)))

    def _chosen(self, part: str, like: Tensor, share: float) -> Tensor:
        """Which images a part happens to, as 0 or 1."""
        if part in self.left_out:
            return torch.zeros(len(like), device=like.device)
        return (torch.rand(len(like), device=like.device) < share).float()

    def _sampled(self, pictures: Tensor, um: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Views, and the micrometres that each shows."""
        grid, share = self._grid(pictures, um, fields)
        level = (share * pictures.shape[-1] / self.px).clamp(min=1).log2().round()
        level += self._chosen("blur", um, 0.22) + self._chosen("blur", um, 0.06)
        border = "reflection" if torch.rand(()) < 0.7 else "border"
        views = pictures.new_empty(len(pictures), 3, self.px, self.px)
        for at in range(4):
            if at:
                pictures = functional.avg_pool2d(pictures, 2)
            rows = (level.clamp(0, 3) == at).nonzero()[:, 0]
            if len(rows):
                views[rows] = functional.grid_sample(
                    pictures[rows], grid[rows], "bilinear", border, align_corners=False
                )
        return views, share * um

    def _grid(self, pictures: Tensor, um: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Where in its picture each pixel of a view lies, and the share of the side shown."""
        n = len(um)
        low, high, middle, spread, _ = fields.T
        shown = (middle.log() + spread * torch.randn_like(um)).exp()
        shown = torch.minimum(torch.maximum(shown, low), high)
        if "zoom" in self.left_out:
            shown = torch.minimum(um, middle)
        share = shown / um
        turn = _uniform(um, 0, 2 * math.pi) * ("rotation" not in self.left_out)
        mirror = torch.where(torch.rand_like(um) < 0.5, -1.0, 1.0)
        stretch = (_uniform(um, -0.16, 0.16) * ("stretch" not in self.left_out)).exp()
        cos, sin = share * turn.cos(), share * turn.sin()
        shift = (0.06 * torch.randn(2, n, device=um.device) * share).clamp(-0.2, 0.2)
        rows = (
            torch.stack([cos * mirror * stretch, -sin / stretch, shift[0]], 1),
            torch.stack([sin * mirror * stretch, cos / stretch, shift[1]], 1),
        )
        size = [n, 3, self.px, self.px]
        return functional.affine_grid(torch.stack(rows, 1), size, align_corners=False), share

    def _surroundings(self, views: Tensor, shown: Tensor, fields: Tensor) -> Tensor:
        """Some cells on washed-out glass, some among the neighbours of another picture."""
        radius = fields[:, 4] * _uniform(shown, 0.75, 1.1) / shown
        distance = (self._x**2 + self._y**2).sqrt()
        soft = _wide(_uniform(shown, 10, 40))
        outside = torch.sigmoid((distance - _wide(radius)) * soft)
        glass = _wide(torch.quantile(views[:, :, ::4, ::4].flatten(2), 0.92, dim=2))
        washed = self._chosen("washed", shown, 0.14)
        pasted = self._chosen("pasted", shown, 0.22) * (1 - washed)
        other = views.roll(int(torch.randint(1, max(len(views), 2), ())), 0)
        views = views + (glass - views) * outside * _wide(washed * _uniform(shown, 0.5, 1))
        return views + (other - views) * outside * _wide(pasted)

    def _recoloured(self, views: Tensor) -> Tensor:
        """Another stain, lamp and camera."""
        n, live = len(views), (torch.rand(len(views), device=views.device) < COLOURED).float()
        hed = views.new_tensor(HED)
        stain = live * self._chosen("stain", views, 1)
        gains = torch.stack([_uniform(live, low, 0.5) for low in (-0.7, -0.5, -0.7)], 1)
        gains = (gains * stain[:, None]).exp()
        matrix = hed.T @ torch.diag_embed(gains) @ torch.linalg.inv(hed).T
        matrix = self._jitter(views, live, 0.06, 0.8) @ matrix
        gamma = (0.25 * _normal(live) * live * self._chosen("gamma", views, 0.8)).exp()
        offset = live[:, None] * (
            0.05 * torch.randn_like(gains) * self._chosen("stain", views, 1)[:, None]
            + 0.12 * torch.randn_like(gains) * self._chosen("white balance", views, 0.8)[:, None]
            + 0.12 * torch.randn(n, 1, device=views.device)
            * self._chosen("light", views, 0.8)[:, None]
        )  # fmt: skip
        density = -views.clamp(1 / 255, 1).log().flatten(2)
        density = ((matrix * gamma[:, None, None]) @ density).view_as(views) + _wide(offset)
        return self._mixed((-(density + self._gradient(views)).clamp(min=0)).exp(), live)

    def _gradient(self, views: Tensor) -> Tensor:
        """Uneven illumination, as optical density."""
        on = self._chosen("gradient", views, 0.5)
        tilt = [_wide(size * torch.randn_like(on) * on) for size in (0.12, 0.12, 0.1)]
        bowl = self._x**2 + self._y**2 - 0.6
        return tilt[0] * self._x + tilt[1] * self._y + tilt[2] * bowl

    def _mixed(self, views: Tensor, live: Tensor) -> Tensor:
        """Hue, saturation, contrast and a colour matrix in RGB."""
        saturation = _uniform(live, math.log(0.3), math.log(1.6)) * live
        turn = _uniform(live, -2 * math.pi * HUE, 2 * math.pi * HUE) * live
        turn = _turned(turn * self._chosen("hue", views, 0.5))
        saturation = (saturation * self._chosen("saturation", views, 0.6)).exp()
        contrast = (0.22 * _normal(live) * live * self._chosen("contrast", views, 0.7)).exp()
        grey = views.new_tensor(LUMINANCE).expand(3, 3)
        eye = torch.eye(3, device=views.device)
        matrix = _wide(saturation)[..., 0] * eye + _wide(1 - saturation)[..., 0] * grey
        matrix = _wide(contrast)[..., 0] * (matrix @ turn)
        matrix = matrix + self._jitter(views, live, 0.05, 0.5) - eye
        pivot = _wide(views.mean((1, 2, 3)))
        mixed = (matrix @ (views - pivot).flatten(2)).view_as(views)
        return (mixed + pivot).clamp(0, 1)

    def _jitter(self, views: Tensor, live: Tensor, size: float, share: float) -> Tensor:
        """n x 3 x 3: the identity, or near it."""
        on = live * self._chosen("matrix", views, share)
        noise = size * torch.randn(len(views), 3, 3, device=views.device)
        return torch.eye(3, device=views.device) + noise * on[:, None, None]

    def _seen(self, views: Tensor) -> Tensor:
        """Focus, sharpening, colour fringes and noise of a sensor."""
        views = self._focused(views)
        rows = self._chosen("chromatic", views, 0.2).nonzero()[:, 0]
        axis, step = int(torch.randint(1, 3, ())), 1 - 2 * int(torch.randint(0, 2, ()))
        for channel, way in ((0, step), (2, -step)):
            views[rows, channel] = views[rows, channel].roll(way, axis)
        rows = self._chosen("noise", views, 0.5).nonzero()[:, 0]
        grain = torch.randn_like(views[rows])
        coarse = len(rows) // 2
        if coarse:
            pooled = 2 * functional.avg_pool2d(grain[:coarse], 2)
            grain[:coarse] = functional.interpolate(
                pooled, size=views.shape[2:], mode="bilinear", align_corners=False
            )
        views[rows] += _wide(_uniform(rows.float(), 0, 0.22) ** 2) * grain
        return views.clamp(0, 1)

    def _focused(self, views: Tensor) -> Tensor:
        """Each view blurred or sharpened by its own 3 x 3 kernel."""
        n = len(views)
        blurred = self._chosen("blur", views, 0.35)
        sharp = self._chosen("sharpen", views, 0.3) * (1 - blurred)
        amount = blurred * _uniform(blurred, 0, 1) - sharp * _uniform(sharp, 0, 1.5)
        flat = views.new_tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        still = torch.zeros_like(flat)
        still[1, 1] = 1
        kernels = still + amount[:, None, None] * (flat - still)
        padded = functional.pad(views, (1, 1, 1, 1), mode="replicate")
        out = functional.conv2d(
            padded.reshape(1, 3 * n, *padded.shape[2:]),
            kernels.repeat_interleave(3, 0)[:, None],
            groups=3 * n,
        )
        return out.view_as(views)

    def _coded(self, views: Tensor) -> Tensor:
        """Half of the views through JPEG of quality 30 to 94."""
        rows = self._chosen("jpeg", views, 0.5).nonzero()[:, 0]
        if len(rows):
            pad = -self.px % 16
            padded = functional.pad(views[rows], (0, pad, 0, pad), mode="replicate")
            coded = jpeg(padded, _uniform(rows.float(), 30, 95).floor())
            views[rows] = coded[..., : self.px, : self.px]
        return views


def _turned(angle: Tensor) -> Tensor:
    """n x 3 x 3: colours turned about the grey axis by so many radians."""
    eye = torch.eye(3, device=angle.device)
    cross = (eye.roll(1, 0) - eye.roll(1, 1)) / math.sqrt(3)
    cos, sin = _wide(angle.cos())[..., 0], _wide(angle.sin())[..., 0]
    return cos * eye + (1 - cos) / 3 + sin * cross


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    return torch.rand_like(like) * (high - low) + low


def _normal(like: Tensor) -> Tensor:
    """Normal, cut at two standard deviations."""
    return torch.randn_like(like).clamp(-2, 2)


def _wide(values: Tensor) -> Tensor:
    """n or n x 3 numbers that meet images n x 3 x side x side."""
    return values[:, None, None, None] if values.ndim == 1 else values[..., None, None]

"""A convolutional network as an encoder: vectors on the fastest engine, feature maps as patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoder.card import EncoderCard
from encoder.contract import RGB, NoPatchTokens
from encoder.networks.engines import choose, stack
from encoder.networks.forward import Normalised
from encoder.networks.lite import STRIDE, Lite
from encoder.networks.vit import Vit, pick_device

AT_ONCE = 4
"""Images that one run on a CPU takes: their feature maps stay in the cache of a core, which makes
it a seventh faster than sixteen."""


class Looks(Normalised):
    """Normalisation, network and pooling as one module; an image may be looked at more than once.

    The vector is the mean of those of the whole image and of its middle, each of length 1.
    """

    def __init__(self, model: Lite, card: EncoderCard) -> None:
        super().__init__(model, card)
        self.model: Lite = model
        self.side = card.input_px
        self.cuts = tuple(round((1 - share) * self.side / 2) for share in model.looks)
        self.grid = card.input_px * STRIDE // (card.patch_px or STRIDE)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Pixels n x side x side x 3 uint8 to the vectors, n x dim."""
        x = self.normalised(pixels)
        rows = self._vectors(torch.cat([self._middle(x, cut) for cut in self.cuts]))
        return (rows.reshape(len(self.cuts), -1, rows.shape[-1]).mean(0),)

    def patches(self, pixels: Tensor) -> Tensor:
        """The last feature map of the image enlarged to so many pixels that the grid is fine.

        Returns:
            n x cells x dim, in reading order, each through the projection.
        """
        x = resized(self.normalised(pixels), self.grid)
        cells: Tensor = self.model.project(self.model.forward_features(x))
        return cells

    def _vectors(self, x: Tensor) -> Tensor:
        cells = self.model.forward_features(x)
        return functional.normalize(self.model.project(cells.mean(1)))

    def _middle(self, x: Tensor, cut: int) -> Tensor:
        """Less `cut` pixels at every border, at the size that it had."""
        if cut == 0:
            return x
        return resized(x[..., cut : self.side - cut, cut : self.side - cut], self.side)


def resized(x: Tensor, side: int) -> Tensor:
    """Images at another side, bilinear."""
    return functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


class Whole(nn.Module):
    """Vectors and patches at once, as a graph gives them."""

    at_once = AT_ONCE

    def __init__(self, looks: Looks) -> None:
        super().__init__()
        self.looks = looks

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels n x side x side x 3 uint8 to n x dim and n x cells x dim."""
        return *self.looks(pixels), self.looks.patches(pixels)


class Convolutional(Vit):
    """A convolutional network on one engine, safe to call from several threads."""

    def __init__(self, card: EncoderCard, looks: Looks, device: torch.device) -> None:
        super().__init__(card, choose(looks, device, card.input_px))
        self._looks = looks
        if device.type == "cpu":
            self.batch_size = AT_ONCE

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The vectors, and the feature map in PyTorch: n x rows x columns x dim."""
        if self.card.patch_px is None:
            raise NoPatchTokens(self.card.id)
        pooled = self.vectors(images)
        pixels = torch.from_numpy(stack(images, self.card)).to(self._looks.scale.device)
        with self._turn, torch.inference_mode():
            cells = self._looks.patches(pixels).float().cpu().numpy()
        side = self.card.input_px // self.card.patch_px
        return pooled, cells.reshape(len(images), side, side, -1)


def network(card: EncoderCard, model: Lite, device: str) -> Convolutional:
    """The loaded model on the best engine of the device."""
    looks = Looks(model, card).eval().requires_grad_(False)
    return Convolutional(card, looks, pick_device(device))  # type: ignore[arg-type]

"""How a network turns a batch of images into vectors and patch tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from encoder.card import EncoderCard

Pool = Literal["cls", "mean", "head"]
"""The class token, the mean of the patch tokens, or whatever the model's own head pools."""


class Normalised(nn.Module):
    """A network behind its normalisation, so that every engine runs both.

    The pixels stay bytes until they are on the device: a quarter of the traffic.
    """

    def __init__(self, model: nn.Module, card: EncoderCard) -> None:
        super().__init__()
        self.model = model
        mean, std = torch.tensor(card.mean), torch.tensor(card.std)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1), persistent=False)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels n x side x side x 3 uint8 to n x 3 x side x side, as the network takes them."""
        return pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift


class Forward(Normalised):
    """Normalisation, transformer and pooling as one module."""

    def __init__(self, model: nn.Module, card: EncoderCard, pool: Pool) -> None:
        super().__init__(model, card)
        self.pool = pool
        self.patches = card.patch_px is not None
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels n x side x side x 3 uint8 to the pooled rows and, where there are any, patches."""
        features = self.model.forward_features(self.normalised(pixels))  # type: ignore[operator]
        if self.pool == "head":
            pooled = self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        elif self.pool == "cls":
            pooled = features[:, 0]
        else:
            pooled = features[:, self.prefix :].mean(dim=1)
        if not self.patches:
            return (self._projected(pooled),)
        return self._projected(pooled), self._projected(features[:, self.prefix :])

    def _projected(self, rows: Tensor) -> Tensor:
        """Rows through the model's own linear projection, if it has one.

        Patch tokens take the same way: the mean of projected patches is the projected mean.
        """
        projection: nn.Module | None = getattr(self.model, "project", None)
        return rows if projection is None else projection(rows)

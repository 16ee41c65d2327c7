"""A patch embedding of small convolutions, for transformers trained on few images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from timm.layers import PatchEmbed
from torch import nn


class ConvStem(PatchEmbed):  # type: ignore[misc]
    """3 x 3 convolutions of stride 2 in place of one large patch projection.

    A linear patch embedding has to learn every turn and shift of an edge anew; with few images
    that takes most of a run (Xiao et al. 2021, Early Convolutions Help Transformers See Better).
    There is no normalisation over the batch, so student and teacher see one function.
    """

    def __init__(self, patch_size: int = 8, in_chans: int = 3, embed_dim: int = 384, **rest: Any):
        """A stem with the interface of timm's `PatchEmbed`.

        Args:
            patch_size: Pixels per token and axis: a power of two from 4.
            in_chans: Colours of the input.
            embed_dim: Width of a token.
            rest: What else timm gives its patch embeddings.

        Raises:
            ValueError: a patch that halving cannot reach.
        """
        halvings = patch_size.bit_length() - 1
        if patch_size < 4 or patch_size != 1 << halvings:
            raise ValueError(
                f"a stem of convolutions needs patches of 4, 8 or 16, got {patch_size}"
            )
        super().__init__(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, **rest)
        first = max(embed_dim >> halvings, 24)
        widths = [in_chans, *(min(first << at, embed_dim) for at in range(halvings))]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU()]
        layers.append(nn.Conv2d(widths[-1], embed_dim, 1))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.proj = nn.Sequential(*layers)

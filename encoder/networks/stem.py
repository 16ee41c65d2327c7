"""Patch embeddings of small convolutions: ours, for few images, and that of CTransPath."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from timm.layers import PatchEmbed
from torch import Tensor, nn


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


class HalvingStem(nn.Module):
    """CTransPath's patch embedding: two halving convolutions with batch normalisation, then 1 x 1.

    As in its published code (ctran.py), with the interface that timm's Swin transformer wants.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        embed_dim: int = 96,
        norm_layer: Any = None,
        **rest: Any,
    ) -> None:
        """A stem for patches of four pixels.

        Args:
            img_size: Side of the input, or height and width.
            embed_dim: Width of a token, a multiple of 8.
            norm_layer: Of the tokens; `None` for none.
            rest: What else timm gives its patch embeddings.
        """
        super().__init__()
        high, wide = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (high, wide)
        self.patch_size = (4, 4)
        self.grid_size = (high // 4, wide // 4)
        self.num_patches = (high // 4) * (wide // 4)
        layers: list[nn.Module] = []
        before, width = int(rest.get("in_chans", 3)), embed_dim // 8
        for _ in range(2):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            before, width = width, 2 * width
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """n x 3 x side x side to n x side / 4 x side / 4 x width."""
        tokens: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return tokens

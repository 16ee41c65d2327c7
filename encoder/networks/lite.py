"""EfficientNet-Lite0 with its batch norms folded into its convolutions, and a linear projection.

Tan and Le 2019 ("EfficientNet", arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, as
published in 2020 as Lite0. Depthwise convolutions cost little, so two CPU cores can train it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "efficientnet-lite0"
STRIDE = 32
"""Pixels of the input to one cell of the last feature map."""
WIDTH = 1280
"""Channels of the last feature map."""
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of each stage: blocks, kernel, stride of its first block, expansion, channels."""


class Conv(nn.Module):
    """A convolution with "same" padding as TensorFlow does it, then perhaps ReLU6.

    In training each output channel has a gain, which a batch norm with frozen statistics is; `fold`
    multiplies it into the weights.
    """

    def __init__(
        self, ins: int, outs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.act = stride, groups, act
        self.weight = nn.Parameter(torch.empty(outs, ins // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outs))
        self.gain: nn.Parameter | None = None
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """n x ins x side x side to n x outs x side / stride x side / stride."""
        kernel = self.weight.shape[-1]
        weight = self.weight if self.gain is None else self.weight * self.gain[:, None, None, None]
        pad = kernel // 2
        if self.stride == 2:  # an even side needs one pixel less at the left and the top
            x, pad = functional.pad(x, (pad - 1, pad, pad - 1, pad)), 0
        x = functional.conv2d(x, weight, self.bias, self.stride, pad, 1, self.groups)
        return functional.relu6(x, inplace=True) if self.act else x

    def fold(self) -> None:
        """Multiply the gain into the weights."""
        if self.gain is not None:
            self.weight.data *= self.gain.data[:, None, None, None]
            self.gain = None


class Block(nn.Module):
    """An inverted residual (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = ins * expansion
        layers = [] if expansion == 1 else [Conv(ins, wide, 1)]
        self.layers = nn.Sequential(
            *layers, Conv(wide, wide, kernel, stride, wide), Conv(wide, outs, 1, act=False)
        )
        self.skip = stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        """n x ins x side x side to n x outs x side / stride x side / stride."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class Lite(nn.Module):
    """The network; a side of the input has to be a multiple of 32."""

    def __init__(self, dim: int, looks: Sequence[float] = (1.0,)) -> None:
        """A network of fresh weights.

        Args:
            dim: Length of its vectors.
            looks: Of the image's side, which middle squares a vector is the mean of; 1 is the
                whole image.
        """
        super().__init__()
        self.looks = tuple(looks)
        self.stem = Conv(3, 32, 3, 2)
        stages, ins = [], 32
        for blocks, kernel, stride, expansion, outs in STAGES:
            stage = []
            for at in range(blocks):
                stage.append(Block(ins, outs, kernel, stride if at == 0 else 1, expansion))
                ins = outs
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.head = Conv(ins, WIDTH, 1)
        self.project = nn.Linear(WIDTH, dim)
        self.num_features = WIDTH

    def forward_features(self, x: Tensor, frozen: int = 0) -> Tensor:
        """Normalised pixels n x 3 x side x side to cells n x (side / 32)^2 x 1280, reading order.

        Args:
            x: The pixels.
            frozen: Of the first parts (the stem, then stage by stage), through how many no
                gradient goes.
        """
        learns = torch.is_grad_enabled()
        for at, part in enumerate([self.stem, *self.stages, self.head]):
            with torch.set_grad_enabled(learns and at >= frozen):
                x = part(x)
        return x.flatten(2).transpose(1, 2)

    def fold(self) -> None:
        """Multiply every gain into its convolution: how the network is exported."""
        for part in self.modules():
            if isinstance(part, Conv):
                part.fold()

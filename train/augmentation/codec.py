"""JPEG as a codec does it to pixels, in batches on the device, each image at its own quality."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Quantisation of brightness at quality 50 (ITU-T T.81, table K.1), row by row."""
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *([99] * 32),
)  # fmt: skip
"""Quantisation of colour at quality 50 (table K.2)."""
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Images as they come back from JPEG with colours at half resolution (4:2:0).

    Args:
        images: n x 3 x height x width, 0 to 1; sides are multiples of 16.
        quality: n numbers from 1 to 100, as libjpeg scales its tables.

    Returns:
        Images of the same shape.
    """
    matrix = images.new_tensor(YCBCR)
    planes = torch.einsum("ck,nkhw->nchw", matrix, 255 * images)
    factor = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    bright = _quantised(planes[:, :1] - 128, LUMA, factor) + 128
    colour = _quantised(functional.avg_pool2d(planes[:, 1:], 2), CHROMA, factor)
    colour = functional.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    back = torch.einsum("ck,nkhw->nchw", matrix.inverse(), torch.cat([bright, colour], 1))
    return back.round().clamp(0, 255) / 255


def _quantised(planes: Tensor, table: tuple[int, ...], factor: Tensor) -> Tensor:
    """n x c x height x width, each block of 8 x 8 rounded in the cosine transform's terms."""
    height, width = planes.shape[2:]
    down, across = _transform(height, planes), _transform(width, planes)
    steps = planes.new_tensor(table).reshape(1, BLOCK, BLOCK) * factor[:, None, None]
    steps = steps.round().clamp(1, 255).repeat(1, height // BLOCK, width // BLOCK)[:, None]
    terms = ((down @ planes @ across.T) / steps).round() * steps
    return down.T @ terms @ across


def _transform(side: int, like: Tensor) -> Tensor:
    """side x side: the orthonormal cosine transform of each run of eight."""
    at = torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi * at[:, None] * (2 * at + 1) / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return torch.kron(torch.eye(side // BLOCK, dtype=torch.float64), rows).to(like)

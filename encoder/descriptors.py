"""What can be measured on a cell: colours of nucleus and cytoplasm, shape, and texture.

They make an encoder of their own (`encoder.measured`), and a guide for a network that is trained
on few images: one that tells these numbers from a turned, cropped and recoloured view has to find
the nucleus and cannot get by with the background. Predicting measured features of the unspoilt
image is masked feature prediction without the mask (Wei et al. 2022, MaskFeat).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.encoder import RGB
from encoder.image import resize

SIDE = 112
"""Images are measured at this side, whatever they come in."""
LEVELS = 8
"""Of each colour channel in a joint histogram."""
WEIGHTS: Mapping[str, float] = {
    # Share of each group in the whole; chosen by the vote among training cells (docs/encoder.md)
    "middle": 1.0,
    "nucleus": 1.0,
    "shape": 0.8,
    "moments": 0.3,
    "rings": 0.6,
    "gradients": 0.5,
    "nucleus colour": 0.5,
    "cytoplasm colour": 0.5,
}
Groups = dict[str, NDArray[np.float32]]
Mask = NDArray[np.bool_]


def measure(image: RGB) -> Groups:
    """Everything that is measured on one cell in the middle of its image.

    Args:
        image: height x width x 3, uint8, red first.

    Returns:
        Group and numbers; the keys are those of `WEIGHTS`. Turning or mirroring the image
        changes them only by resampling.
    """
    from scipy import ndimage
    from skimage.color import rgb2lab

    pixels = resize(image, SIDE, "lanczos")
    x = pixels.astype(np.float32) / 255
    lab = rgb2lab(x).astype(np.float32)
    green = ndimage.gaussian_filter(x[..., 1], 1)
    from_middle = _from(SIDE / 2, SIDE / 2)
    nucleus = find_nucleus(green)
    shape, moments, (row, column) = _shape(nucleus)
    if not nucleus.any():
        nucleus = from_middle < 0.15 * SIDE
    away = ndimage.distance_transform_edt(~nucleus)
    cytoplasm = (away > 1) & (away < 9)
    steps = pixels // (256 // LEVELS)
    joint = (steps[..., 0].astype(int) * LEVELS + steps[..., 1]) * LEVELS + steps[..., 2]
    slope = np.minimum(ndimage.gaussian_gradient_magnitude(x[..., 1], 1) * 60, 15).astype(int)
    inside = from_middle < 0.35 * SIDE
    from_nucleus = _from(row, column)
    rings = [_mean_and_spread(lab[(from_nucleus // 4) == ring]) for ring in range(10)]
    return {
        "middle": _histogram(joint[from_middle < 0.3 * SIDE], LEVELS**3),
        "nucleus": _histogram(joint[nucleus], LEVELS**3),
        "shape": shape,
        "moments": moments,
        "rings": np.concatenate(rings),
        "gradients": np.concatenate(
            [_histogram(slope[where], 16) for where in (nucleus, cytoplasm, inside)]
        ),
        "nucleus colour": _mean_and_spread(lab[nucleus]),
        "cytoplasm colour": _mean_and_spread(lab[cytoplasm]),
    }


def find_nucleus(green: NDArray[np.float32]) -> Mask:
    """The dark parts near the middle of a smoothed green channel; empty where there are none.

    Green is darkest in chromatin. Of three classes of brightness (Otsu) the darkest is taken,
    and of its parts those of over 25 pixels whose own middle is within 0.28 of the image's side.
    """
    from scipy import ndimage
    from skimage.filters import threshold_multiotsu

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dark = green < threshold_multiotsu(green[_from(SIDE / 2, SIDE / 2) < 0.45 * SIDE], 3)[0]
    except ValueError:  # fewer than three grey values
        return np.zeros(green.shape, bool)
    parts, count = ndimage.label(dark)
    numbers = range(1, count + 1)
    sizes = ndimage.sum(dark, parts, numbers)
    middles = np.reshape(ndimage.center_of_mass(dark, parts, numbers), (-1, 2)) / SIDE - 0.5
    kept = [n for n, size, at in zip(numbers, sizes, middles, strict=True)
            if size > 25 and np.hypot(*at) < 0.28]  # fmt: skip
    return np.isin(parts, kept)


def _shape(nucleus: Mask) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[float, float]]:
    """Nine numbers of size and shape, seven moments (Hu), and the nucleus's middle."""
    from skimage.measure import label, regionprops

    if nucleus.sum() <= 30:
        return np.zeros(9, np.float32), np.zeros(7, np.float32), (SIDE / 2, SIDE / 2)
    whole = regionprops(nucleus.astype(np.uint8))[0]
    lobes = regionprops(label(nucleus))
    largest = max(lobes, key=lambda lobe: lobe.area)
    numbers = [
        10 * whole.area / SIDE**2,
        2 * whole.solidity,
        whole.eccentricity,
        np.log1p(len(lobes)),
        whole.perimeter**2 / (4 * np.pi * whole.area) / 5,
        2 * largest.solidity,
        largest.eccentricity,
        whole.extent,
        largest.area / whole.area,
    ]
    hu = np.asarray(whole.moments_hu)
    moments = np.sign(hu) * np.log10(np.abs(hu) + 1e-7) / 7
    row, column = whole.centroid
    return np.array(numbers, np.float32), moments.astype(np.float32), (row, column)


@lru_cache(maxsize=1)
def _grid() -> NDArray[np.float32]:
    return np.mgrid[:SIDE, :SIDE].astype(np.float32)


def _from(row: float, column: float) -> NDArray[np.float32]:
    rows, columns = _grid()
    return np.asarray(np.hypot(rows + 0.5 - row, columns + 0.5 - column), np.float32)


def _histogram(values: NDArray[np.integer[Any]], bins: int) -> NDArray[np.float32]:
    """Square roots of shares: Euclidean distance is then Hellinger's."""
    counts = np.bincount(values.ravel(), minlength=bins).astype(np.float32)
    return np.asarray(np.sqrt(counts / max(float(counts.sum()), 1.0)), np.float32)


def _mean_and_spread(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    if not len(colours):
        return np.zeros(6, np.float32)
    return np.concatenate([colours.mean(axis=0) / 20, colours.std(axis=0) / 10]).astype(np.float32)


def in_a_row(groups: Groups) -> NDArray[np.float32]:
    """All numbers of one image behind each other, in the order of `WEIGHTS`."""
    return np.concatenate([np.nan_to_num(groups[name]) for name in WEIGHTS]).astype(np.float32)


@dataclass(frozen=True)
class Axes:
    """A linear map from measured numbers to vectors whose cosine compares cells."""

    mean: NDArray[np.float32]
    """Numbers of the average cell, taken off first."""
    axes: NDArray[np.float32]
    """numbers x dim."""

    def vectors(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """n x numbers (`in_a_row`) to n x dim, rows of length 1."""
        turned = (rows - self.mean) @ self.axes
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        return np.asarray(turned / np.maximum(lengths, 1e-9), np.float32)


def fit(rows: NDArray[np.float32], widths: Mapping[str, int], dim: int = 128) -> Axes:
    """Axes that let every group count by its weight, and rare differences more than common ones.

    Each group is centred, given equal spread and its weight; of the whole, the first principal
    components are kept, each divided by the square root of its spread. That lies half-way
    between raw numbers, where brightness drowns the number of lobes, and whitened ones, where
    noise counts as much as anything. No label is used.

    Args:
        rows: n x numbers of the cells that decide (`in_a_row`). Other kinds of cells spread along
            other axes: where red cells decide too, white cells are told apart less well.
        widths: Numbers in each group.
        dim: Components kept.
    """
    mean = rows.mean(axis=0)
    scale = np.empty(rows.shape[1])
    start = 0
    for name, weight in WEIGHTS.items():
        part = slice(start, start + widths[name])
        spread = float(np.sqrt(((rows[:, part] - mean[part]) ** 2).sum(axis=1).mean()))
        scale[part] = weight / max(spread, 1e-9)
        start = part.stop
    inner = evened((rows - mean) * scale, dim, 0.5)
    turned = scale[:, None] * inner.axes
    return Axes(mean.astype(np.float32), turned.astype(np.float32))


def evened(rows: NDArray[np.floating[Any]], dim: int, power: float) -> Axes:
    """Principal axes, each divided by a power of its spread.

    Cosines then let faint differences count for more than in the rows as they are (power 0), and
    for less than after whitening (power 1), which makes as much of noise.

    Args:
        rows: n x numbers.
        dim: Components kept, at most as many as there are numbers.
        power: From 0 to 1.
    """
    mean = rows.mean(axis=0)
    even = rows - mean
    values, axes = np.linalg.eigh(even.T @ even / len(even))
    values, axes = values[::-1][:dim], axes[:, ::-1][:, :dim]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    turned = axes * signs / np.maximum(values, 1e-9) ** (power / 2)
    return Axes(mean.astype(np.float32), turned.astype(np.float32))

"""What can be measured on a cell: colours of nucleus and cytoplasm, shape, and texture.

They make an encoder of their own (`encoder.features.measured`), stand beside a network in a joint
one (`encoder.features.joint`), and guide a network that is trained on few images: one that tells
these numbers from a turned, cropped and recoloured view has to find the nucleus and cannot get by
with the background. Predicting measured features of the unspoilt image is masked feature prediction
without the mask (Wei et al. 2022, MaskFeat).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.image import resize

cv2.setNumThreads(1)  # images are small: threads cost more than they save
VERSION = "measured-cells-v3"
"""Of the numbers that are measured; part of the architecture, and so of the fingerprint."""
SIDE = 112
"""Images are measured at this side, whatever they come in."""
LEVELS = 8
"""Of each colour channel in a joint histogram."""
HUE = 0.765
"""Where the nucleus's hue is turned to, in turns of the colour circle: the violet of most
leucocytes in PBC."""
GLASS = 0.9
"""What the brightness of the glass is set to, in its green: that of PBC."""
MOST_GAIN = 1.5
"""An image without glass is made brighter or darker by no more."""
WEIGHTS: Mapping[str, float] = MappingProxyType({
    # Share of each group in the whole; chosen by the vote among training cells (docs/encoder.md)
    "middle": 1.0,
    "nucleus": 1.0,
    "cytoplasm": 0.5,
    "shape": 0.8,
    "moments": 0.3,
    "lobes": 1.0,
    "concavities": 0.5,
    "outline": 0.3,
    "rings": 0.6,
    "shells": 0.6,
    "gradients": 0.5,
    "texture": 0.8,
    "texture red": 0.5,
    "texture blue": 0.5,
    "nucleus colour": 1.2,
    "cytoplasm colour": 0.5,
})  # fmt: skip
GUIDE: Mapping[str, float] = MappingProxyType({
    # What a network is guided by
    "middle": 1.0,
    "nucleus": 1.0,
    "shape": 0.8,
    "moments": 0.3,
    "rings": 0.6,
    "gradients": 0.5,
    "nucleus colour": 0.5,
    "cytoplasm colour": 0.5,
})  # fmt: skip
RINGS, RING_PX = 10, 4
SHELLS = np.array([0.5, 2, 4, 6, 9, 12, 16, 21, 27, 34], np.float32)
"""Distances from the nucleus between which the cytoplasm is measured, in pixels."""
RADII = (1, 2, 4)
"""Of local binary patterns, in pixels."""
DEPTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares of a nucleus's half-width down to which it is worn away to see its lobes part."""
ANGLES = 48
GREYS = 128
"""Steps of brightness between which a cut is sought."""
SMALL = 30
"""A nucleus of no more pixels has no shape."""
Groups = dict[str, NDArray[np.float32]]
Mask = NDArray[np.bool_]
Marked = NDArray[np.uint8]
"""A mask of 0 and 1, as OpenCV takes it."""


@dataclass(frozen=True)
class Cast:
    """What stain, lamp and camera did to all colours of an image alike."""

    turn: float
    """By how much of the colour circle hues are turned to take it off."""
    gain: float
    """What every channel is multiplied by to take it off."""


def measure(image: RGB, *, even: bool = True) -> Groups:
    """Everything that is measured on one cell in the middle of its image.

    Args:
        image: height x width x 3, uint8, red first.
        even: Whether the cast of all colours is taken off first (`evened_out`).

    Returns:
        Group and numbers; the keys are those of `WEIGHTS`. Turning or mirroring the image
        changes them only by resampling.
    """
    pixels = resize(image, SIDE, "lanczos")
    return measured(evened_out(pixels)[0] if even else pixels)


def evened_out(pixels: RGB) -> tuple[RGB, Cast]:
    """The image with its nucleus at the hue `HUE` and its glass at the brightness `GLASS`.

    The hue of a nucleus is the mean over the middle of the image, weighted by chroma and by the
    cube of darkness. A turn of all hues leaves saturation and value, and so the weights, as they
    are. The glass is where green, once hues are turned, is at its 90th percentile: of the three
    channels red is the first to be cut off at 255 when an image is bright. Queries whose hue or
    brightness was shifted as a whole, by stain or by camera, come out nearly the same.

    Args:
        pixels: side x side x 3, uint8.

    Returns:
        The image, and its cast, to be taken off other sizes of it (`without`).
    """
    side = pixels.shape[0]
    hsv = _hsv(pixels)
    hue, saturation, value = cv2.split(hsv)
    weights = saturation * value * (1 - value) ** 3 * (_from_middle(side) < 0.3 * side)
    angles = hue * np.float32(np.pi / 180)
    x, y = float((weights * np.cos(angles)).sum()), float((weights * np.sin(angles)).sum())
    coloured = np.hypot(x, y) >= 1e-7 * side * side
    turn = HUE - float(np.arctan2(y, x)) / (2 * np.pi) if coloured else 0.0
    rgb = _turned(hsv, turn)
    glass = float(np.percentile(rgb[..., 1], 90))
    gain = float(np.clip(GLASS / max(glass, 1e-3), 1 / MOST_GAIN, MOST_GAIN))
    return _brightened(rgb, gain), Cast(turn, gain)


def without(pixels: RGB, cast: Cast) -> RGB:
    """The image with its cast taken off.

    Args:
        pixels: height x width x 3, uint8.
        cast: Of this image (`evened_out`), at whatever size it was found.
    """
    return _brightened(_turned(_hsv(pixels), cast.turn), cast.gain)


def _brightened(rgb: NDArray[np.float32], gain: float) -> RGB:
    return np.asarray(np.rint(rgb * np.float32(255 * gain)).clip(0, 255), np.uint8)


def _turned(hsv: NDArray[np.float32], by: float) -> NDArray[np.float32]:
    """Red, green and blue, 0 to 1, with every hue moved along the colour circle."""
    moved = hsv.copy()
    moved[..., 0] = np.mod(hsv[..., 0] + np.float32(360 * (by % 1)), np.float32(360))
    return np.asarray(cv2.cvtColor(moved, cv2.COLOR_HSV2RGB), np.float32)


def _hsv(pixels: RGB) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV), np.float32)


def measured(pixels: RGB) -> Groups:
    """The numbers of an image as it is.

    Args:
        pixels: `SIDE` x `SIDE` x 3, uint8, red first.
    """
    x = np.asarray(pixels, np.float32) / np.float32(255)
    lab = np.asarray(cv2.cvtColor(x, cv2.COLOR_RGB2Lab), np.float32)
    green = np.ascontiguousarray(x[..., 1])
    smooth = np.asarray(cv2.GaussianBlur(green, (0, 0), 1), np.float32)
    nucleus = find_nucleus(smooth)
    area = int(nucleus.sum())
    mask = nucleus if area else (_from_middle(SIDE) < 0.15 * SIDE).astype(np.uint8)
    inside = mask.astype(bool)
    away = np.asarray(cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5), np.float32)
    cytoplasm = (away > 1) & (away < 9)
    rows, columns = np.nonzero(inside)
    centre = float(rows.mean()) + 0.5, float(columns.mean()) + 0.5
    steps = (pixels // (256 // LEVELS)).astype(np.int64)
    joint = (steps[..., 0] * LEVELS + steps[..., 1]) * LEVELS + steps[..., 2]
    slope = _slope(smooth)
    rings = (_from(*centre, SIDE) / RING_PX).astype(np.int64)
    shells = np.searchsorted(SHELLS, away, side="right") - 1
    red_texture, green_texture, blue_texture = _textures(x, inside, cytoplasm)
    powers = _powers(lab)
    parts = _means_and_spreads(np.where(inside, 0, np.where(cytoplasm, 1, -1)), 2, powers)
    found = {
        "middle": _histogram(joint[_from_middle(SIDE) < 0.3 * SIDE], LEVELS**3),
        "nucleus": _histogram(joint[inside], LEVELS**3),
        "cytoplasm": _histogram(joint[cytoplasm], LEVELS**3),
        "rings": _means_and_spreads(rings, RINGS, powers),
        "shells": _means_and_spreads(shells, len(SHELLS) - 1, powers),
        "gradients": np.concatenate(
            [
                _histogram(slope[where], 16)
                for where in (inside, cytoplasm, _from_middle(SIDE) < 0.35 * SIDE)
            ]
        ),
        "texture": green_texture,
        "texture red": red_texture,
        "texture blue": blue_texture,
        "nucleus colour": parts[:6],
        "cytoplasm colour": parts[6:],
    }
    return found | _form(nucleus, area, rows, columns, centre, away)


def find_nucleus(green: NDArray[np.float32]) -> Marked:
    """The dark parts near the middle of a smoothed green channel; empty where there are none.

    Green is darkest in chromatin. Of three classes of brightness (Otsu) the darkest is taken,
    and of its parts those of over 25 pixels whose own middle is within 0.28 of the image's side.

    Args:
        green: `SIDE` x `SIDE`, 0 to 1.
    """
    cut = darkest_of_three(green[_from_middle(SIDE) < 0.45 * SIDE])
    if cut is None:
        return np.zeros(green.shape, np.uint8)
    dark = (green < cut).astype(np.uint8)
    _, parts, facts, middles = cv2.connectedComponentsWithStats(dark, connectivity=4)
    off = np.hypot(middles[:, 0] / SIDE - 0.5, middles[:, 1] / SIDE - 0.5)
    kept = (facts[:, cv2.CC_STAT_AREA] > 25) & (off < 0.28)
    kept[0] = False  # what is not dark
    return np.asarray(kept[parts], np.uint8)


def darkest_of_three(values: NDArray[np.float32]) -> float | None:
    """The lower of the two cuts that part values best into three classes (Otsu 1979).

    Args:
        values: Any number, any range.

    Returns:
        The cut; `None` where there are fewer than three values.
    """
    low, high = float(values.min()), float(values.max())
    counts = np.histogram(values, GREYS, (low, high))[0].astype(np.float64)
    if high <= low or np.count_nonzero(counts) < 3:
        return None
    many = np.concatenate([[0], counts.cumsum()])
    total = np.concatenate([[0], (counts * np.arange(GREYS)).cumsum()])
    first, second = _cuts()
    between = (
        _squared(total[first], many[first])
        + _squared(total[second] - total[first], many[second] - many[first])
        + _squared(total[GREYS] - total[second], many[GREYS] - many[second])
    )
    return low + (float(first[between.argmax()]) - 0.5) * (high - low) / GREYS


@lru_cache(maxsize=1)
def _cuts() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    first, second = np.triu_indices(GREYS - 1, 1)
    return first + 1, second + 1


def _squared(total: NDArray[np.float64], many: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(total * total / np.maximum(many, 1e-9), np.float64)


def _form(
    nucleus: Marked,
    area: int,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    centre: tuple[float, float],
    away: NDArray[np.float32],
) -> Groups:
    """Size, shape, lobes, concavities and outline of a nucleus; zeros where there is none."""
    if area <= SMALL:
        widths = {"shape": 9, "moments": 7, "lobes": 24, "concavities": 8, "outline": 28}
        return {name: np.zeros(width, np.float32) for name, width in widths.items()}
    count, parts, facts, _ = cv2.connectedComponentsWithStats(nucleus, connectivity=8)
    largest = 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
    largest_area = float(facts[largest, cv2.CC_STAT_AREA])
    main = (parts == largest).astype(np.uint8)
    edges, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    edge = max(cv2.findContours(main, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    points = np.stack([columns, rows], axis=1).astype(np.int32)
    hull, main_hull = _hull_area(points), _hull_area(edge)
    whole, alone = cv2.moments(nucleus, True), cv2.moments(main, True)
    _, _, width, height = cv2.boundingRect(points)
    around = sum(cv2.arcLength(one, True) for one in edges)
    hu = cv2.HuMoments(whole).ravel()
    radius = float(np.sqrt(area / np.pi))
    row, column = centre
    middle = away[min(int(row), SIDE - 1), min(int(column), SIDE - 1)] / radius
    off = np.hypot(row - SIDE / 2, column - SIDE / 2) / SIDE
    found = {
        "shape": [
            10 * area / SIDE**2,
            2 * area / hull,
            _eccentricity(whole),
            np.log1p(count - 2),
            around**2 / (4 * np.pi * area) / 5,
            2 * largest_area / main_hull,
            _eccentricity(alone),
            area / (width * height),
            largest_area / area,
        ],
        "moments": np.sign(hu) * np.log10(np.abs(hu) + 1e-7) / 7,
        "lobes": _lobes(nucleus, area),
        "concavities": [
            *_bays(edge, area),
            middle,
            5 * off,
            10 * (hull - area) / SIDE**2,
            10 * main_hull / SIDE**2,
        ],
        "outline": _outline(rows + 0.5 - row, columns + 0.5 - column, radius),
    }
    return {name: np.asarray(numbers, np.float32) for name, numbers in found.items()}


def _hull_area(points: NDArray[np.int32]) -> float:
    """Of the convex hull, in whole pixels: its corners are the middles of pixels."""
    hull = cv2.convexHull(points)
    return float(cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1)


def _eccentricity(moments: Mapping[str, float]) -> float:
    size = moments["m00"]
    a, b, c = moments["mu20"] / size, moments["mu02"] / size, moments["mu11"] / size
    apart = np.sqrt((a - b) ** 2 / 4 + c * c)
    long, short = (a + b) / 2 + apart, (a + b) / 2 - apart
    return float(np.sqrt(max(0.0, 1 - short / max(long, 1e-9))))


def _lobes(nucleus: Marked, area: int) -> list[float]:
    """How a nucleus falls apart as it is worn away: a band stays one, a segmented one does not."""
    deep = np.asarray(cv2.distanceTransform(nucleus, cv2.DIST_L2, 5), np.float32)
    most = float(deep.max())
    x, y, width, height = cv2.boundingRect(nucleus)
    box = deep[y : y + height, x : x + width]
    numbers: list[float] = []
    for depth in DEPTHS:
        left = (box > depth * most).astype(np.uint8)
        count, _, facts, _ = cv2.connectedComponentsWithStats(left, connectivity=8)
        sizes = facts[1:, cv2.CC_STAT_AREA]
        numbers += [
            float(np.log(max(count - 1, 1))),
            float(sizes.sum() / area),
            float(sizes.max() / sizes.sum()),
        ]
    inside = deep[nucleus.astype(bool)]
    spread = float(inside.std() / inside.mean())
    return [*numbers, 10 * most / SIDE, 2 * most / float(np.sqrt(area)), spread]


def _bays(edge: NDArray[np.int32], area: int) -> list[float]:
    """Depths of the four deepest bays of an outline, as shares of the nucleus's width."""
    try:
        corners = np.sort(cv2.convexHull(edge, returnPoints=False), axis=0)[::-1]
        bays = cv2.convexityDefects(edge, corners)
    except cv2.error:  # fewer than three corners, or an outline that crosses itself
        bays = None
    deep = [] if bays is None else np.sort(bays.reshape(-1, 4)[:, 3] / 256)[::-1][:4].tolist()
    return [3 * one / float(np.sqrt(area)) for one in [*deep, *[0.0] * (4 - len(deep))]]


def _outline(
    down: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]], radius: float
) -> NDArray[np.float64]:
    """Farthest, total and nearest along each direction from the middle, as waves about it."""
    turn = (np.arctan2(down, right) + np.pi) / (2 * np.pi)
    sector = (turn * ANGLES).astype(np.int64) % ANGLES
    reach = np.hypot(down, right)
    far = np.zeros(ANGLES)
    np.maximum.at(far, sector, reach)
    near = np.full(ANGLES, np.inf)
    np.minimum.at(near, sector, reach)
    near[np.isinf(near)] = 0
    much = np.bincount(sector, minlength=ANGLES).astype(np.float64)
    waves = [np.abs(np.fft.rfft(one)) for one in (far, much, near)]
    return np.asarray(
        3 * np.concatenate([waves[0][:11], waves[1][1:10], waves[2][:8]]) / (ANGLES * radius)
    )


def _textures(x: NDArray[np.float32], *where: Mask) -> list[NDArray[np.float32]]:
    """Histograms of uniform local binary patterns (Ojala et al. 2002), whichever way they turn.

    Args:
        x: side x side x 3.
        where: Parts that are counted apart.

    Returns:
        One row for each channel.
    """
    kinds = [_patterns(x, radius) for radius in RADII]
    return [
        np.concatenate([_histogram(one[..., at][part], 10) for one in kinds for part in where])
        for at in range(3)
    ]


def _patterns(x: NDArray[np.float32], radius: int) -> NDArray[np.uint8]:
    """The pattern about each pixel: 0 to 8 brighter neighbours in a row, or 9 for no such."""
    smooth = np.asarray(cv2.GaussianBlur(x, (0, 0), radius / 2), np.float32)
    edges = (radius, radius, radius, radius)
    wide = cv2.copyMakeBorder(smooth, *edges, cv2.BORDER_REPLICATE).reshape(SIDE + 2 * radius, -1)
    least = smooth.reshape(SIDE, -1) - np.float32(0.004)  # a grey value of 255: noise is no pattern
    codes = np.zeros(least.shape, np.uint8)
    brighter = np.empty(least.shape, np.uint8)
    for bit, (down, right) in enumerate(_AROUND):
        top, left = radius * (1 + down), 3 * radius * (1 + right)
        beside = wide[top : top + SIDE, left : left + 3 * SIDE]
        cv2.compare(beside, least, cv2.CMP_GE, brighter)  # four times as fast as numpy's
        codes |= brighter & np.uint8(1 << bit)
    return _kinds()[codes].reshape(smooth.shape)


_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.uint8]:
    """The number of brighter neighbours where they lie together, else 9."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.uint8)


def _slope(smooth: NDArray[np.float32]) -> NDArray[np.int64]:
    """Steepness in 16 steps."""
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(np.minimum(cv2.magnitude(across, down) * 60, 15), np.int64)


@lru_cache(maxsize=4)
def _grid(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.mgrid[:side, :side].astype(np.float32) + np.float32(0.5)
    return rows, columns


def _from(row: float, column: float, side: int) -> NDArray[np.float32]:
    rows, columns = _grid(side)
    return np.asarray(np.hypot(rows - row, columns - column), np.float32)


@lru_cache(maxsize=4)
def _from_middle(side: int) -> NDArray[np.float32]:
    return _from(side / 2, side / 2, side)


def _histogram(values: NDArray[np.integer[Any]], bins: int) -> NDArray[np.float32]:
    """Square roots of shares: Euclidean distance is then Hellinger's."""
    counts = np.bincount(values.ravel(), minlength=bins).astype(np.float32)
    return np.asarray(np.sqrt(counts / max(float(counts.sum()), 1.0)), np.float32)


def _powers(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """Three channels and their squares: 6 x pixels."""
    values = colours.reshape(-1, 3).T.astype(np.float64)
    return np.concatenate([values, values * values])


def _means_and_spreads(
    parts: NDArray[np.integer[Any]], count: int, powers: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Mean and spread of three channels in each part: count x 6 in a row, 0 for empty parts.

    Args:
        parts: Which part each pixel is of, from -1; others than 0 to count - 1 are left out.
        count: Of parts.
        powers: Of the colours of the pixels (`_powers`).
    """
    of = parts.ravel() + 1
    sums = np.stack([np.bincount(of, one, count + 1)[1 : count + 1] for one in powers], axis=1)
    many = np.bincount(of, minlength=count + 1)[1 : count + 1]
    means = sums / np.maximum(many, 1)[:, None]
    mean, square = means[:, :3], means[:, 3:]
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    return np.concatenate([mean / 20, spread / 10], axis=1).astype(np.float32).ravel()


def in_a_row(groups: Groups, weights: Mapping[str, float] = WEIGHTS) -> NDArray[np.float32]:
    """All numbers of one image behind each other, in the order of the weights."""
    row = np.concatenate([groups[name] for name in weights])
    return np.asarray(np.nan_to_num(row, copy=False), np.float32)


@dataclass(frozen=True)
class Axes:
    """A linear map from measured numbers to vectors whose cosine compares cells."""

    mean: NDArray[np.float32]
    """Numbers of the average cell, taken off first."""
    axes: NDArray[np.float32]
    """numbers x dim."""

    def vectors(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """n x numbers (`in_a_row`) to n x dim, rows of length 1."""
        rotated = (rows - self.mean) @ self.axes
        lengths = np.linalg.norm(rotated, axis=1, keepdims=True)
        return np.asarray(rotated / np.maximum(lengths, 1e-9), np.float32)


def fit(
    rows: NDArray[np.float32],
    widths: Mapping[str, int],
    dim: int = 128,
    *,
    power: float = 0.5,
    weights: Mapping[str, float] = WEIGHTS,
) -> Axes:
    """Axes that let every group count by its weight, and rare differences more than common ones.

    Each group is centred, given equal spread and its weight; of the whole, the first principal
    components are kept, each divided by a power of its spread. That lies between raw numbers,
    where brightness drowns the number of lobes, and whitened ones, where noise counts as much as
    anything. No label is used.

    Args:
        rows: n x numbers of the cells that decide (`in_a_row`). Other kinds of cells spread along
            other axes: where red cells decide too, white cells are told apart less well.
        widths: Numbers in each group.
        dim: Components kept.
        power: Of the spread; see `evened`.
        weights: Of each group, in the order of the rows.
    """
    mean = rows.mean(axis=0)
    scale = np.empty(rows.shape[1])
    start = 0
    for name, weight in weights.items():
        part = slice(start, start + widths[name])
        spread = float(np.sqrt(((rows[:, part] - mean[part]) ** 2).sum(axis=1).mean()))
        scale[part] = weight / max(spread, 1e-9)
        start = part.stop
    inner = evened((rows - mean) * scale, dim, power)
    axes = scale[:, None] * inner.axes
    return Axes(mean.astype(np.float32), axes.astype(np.float32))


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
    rotated = axes * signs / np.maximum(values, 1e-9) ** (power / 2)
    return Axes(mean.astype(np.float32), rotated.astype(np.float32))

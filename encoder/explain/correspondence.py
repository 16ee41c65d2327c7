"""Why two images are near each other: colours of patches, matches of patches, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.contract import Patches

Grid = NDArray[np.float64]
"""A map over the patches of one image: rows x columns."""
WEAK = 0.5
"""Share of the strongest component's span below which a component is shown paler."""
MOST = 0.75
"""Share of the middle of a picture that a foreground covers, to be a cell's."""
LEVELS = 64
"""Steps in which the threshold between cell and glass is looked for."""


@dataclass(frozen=True)
class Coloured:
    """The patches of one image as colours that mean the same in every image of the set."""

    rgb: NDArray[np.uint8]
    """rows x columns x 3; black where there is no foreground."""
    foreground: NDArray[np.bool_]
    """rows x columns."""


@dataclass(frozen=True)
class Match:
    """A patch of one image and a patch of another, each the nearest of the other."""

    one: tuple[int, int]
    """Row and column."""
    other: tuple[int, int]
    """Row and column."""
    cosine: float


def joint_colours(images: Sequence[Patches]) -> list[Coloured]:
    """The first three principal components of patch tokens as red, green and blue.

    Fitted on all images together, so that a colour means the same in each, and foreground first:
    the first component of everything separates the cell from the glass (Oquab et al. 2023,
    "DINOv2", section 7.5 and figure 1), then three components of the foreground alone are shown.

    Args:
        images: Of each, rows x columns x dim patch tokens of one encoder.

    Returns:
        One for each image. Where the tokens do not vary, everything is foreground and grey.
    """
    flat = [np.asarray(tokens, np.float64).reshape(-1, tokens.shape[-1]) for tokens in images]
    every = np.concatenate(flat)
    first = _project(every, every, 1)[:, 0]
    inside = _foreground(first, images)
    shown = _project(every[inside], every, 3)
    low, high = np.percentile(shown[inside], [2, 98], axis=0)
    spans = np.maximum(high - low, WEAK * (high - low).max())  # noise is not blown up to colour
    scaled = 0.5 + (shown - (high + low) / 2) / np.where(spans > 0, spans, 1)
    rgb = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
    rgb[~inside] = 0
    found, at = [], 0
    for tokens in images:
        rows, columns = tokens.shape[:2]
        part = slice(at, at + rows * columns)
        found.append(
            Coloured(
                rgb[part].reshape(rows, columns, 3).copy(),
                inside[part].reshape(rows, columns).copy(),
            )
        )
        at += rows * columns
    return found


def correspondence(one: Patches, other: Patches) -> tuple[Grid, Grid]:
    """How well each patch of an image is matched by the best patch of another: cosines.

    Args:
        one: rows x columns x dim patch tokens.
        other: The same of another image of the same encoder.

    Returns:
        A map over each of the two images, -1 to 1.
    """
    cosines = _units(one) @ _units(other).T
    return (
        cosines.max(axis=1).reshape(one.shape[:2]),
        cosines.max(axis=0).reshape(other.shape[:2]),
    )


def matches(
    one: Patches,
    other: Patches,
    inside: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
    most: int = 12,
) -> list[Match]:
    """Pairs of patches of which each is the nearest of the other, best first.

    Args:
        one: rows x columns x dim patch tokens.
        other: The same of another image.
        inside: Of each image, which patches may be matched; all if `None`.
        most: Most pairs that are returned.
    """
    cosines = _units(one) @ _units(other).T
    if inside is not None:
        cosines = np.where(np.outer(inside[0].ravel(), inside[1].ravel()), cosines, -np.inf)
    forth, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    mutual = [
        (float(cosines[at, to]), at, int(to))
        for at, to in enumerate(forth)
        if back[to] == at and np.isfinite(cosines[at, to])
    ]
    mutual.sort(key=lambda pair: (-pair[0], pair[1]))
    return [
        Match(_place(at, one.shape[1]), _place(to, other.shape[1]), min(cosine, 1.0))
        for cosine, at, to in mutual[:most]
    ]


def _place(at: int, columns: int) -> tuple[int, int]:
    return at // columns, at % columns


def _units(tokens: Patches) -> NDArray[np.float64]:
    rows = np.asarray(tokens, np.float64).reshape(-1, tokens.shape[-1])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float64)


def _project(fitted: NDArray[np.float64], rows: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Coordinates of rows along the first principal components of `fitted`.

    The sign of a component is arbitrary; here its largest weight is positive.
    """
    mean = fitted.mean(axis=0)
    centred = fitted - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
    axes = vectors[:, np.argsort(-values, kind="stable")[:n]]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    found = (rows - mean) @ (axes * np.where(signs == 0, 1, signs))
    if found.shape[1] < n:
        found = np.pad(found, ((0, 0), (0, n - found.shape[1])))
    return np.asarray(found, np.float64)


def _foreground(first: NDArray[np.float64], images: Sequence[Patches]) -> NDArray[np.bool_]:
    """Which side of the first component is the cell: the side that the middles of images lie on."""
    threshold = _otsu(first)
    if threshold is None:
        return np.ones(len(first), bool)
    above = first > threshold
    middle = []
    for tokens in images:
        middle.append((_far(*tokens.shape[:2]) < 0.25).ravel())
    centre = np.concatenate(middle)
    chosen = above if above[centre].mean() >= above[~centre].mean() else ~above
    parts, at = [], 0
    for tokens in images:
        rows, columns = tokens.shape[:2]
        parts.append(_middle(chosen[at : at + rows * columns].reshape(rows, columns)).ravel())
        at += rows * columns
    whole = np.concatenate(parts)
    return whole if whole.sum() >= 8 else np.ones(len(first), bool)


def _middle(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of a foreground hangs together with the middle of the picture, without its border.

    Tokens at the border also hold what the padding is; cells that lie apart are not the one that
    is shown.
    """
    from scipy.ndimage import label

    kept = inside.copy()
    kept[[0, -1]] = False
    kept[:, [0, -1]] = False
    numbers, _ = label(kept)
    middle = numbers[_far(*inside.shape) < 0.25]
    return np.asarray(np.isin(numbers, middle[middle > 0]), bool)


def _far(rows: int, columns: int) -> NDArray[np.float64]:
    """How far each patch lies from the middle: 0 there, 0.5 at the border."""
    y, x = np.mgrid[:rows, :columns]
    return np.asarray(np.maximum(abs((y + 0.5) / rows - 0.5), abs((x + 0.5) / columns - 0.5)))


def told_apart(images: Sequence[Coloured]) -> bool:
    """Whether the foreground of each image is its cell: the middle lies in it, most else outside.

    Else glass and other cells would be coloured as if they were parts of the cell.
    """
    for one in images:
        far = _far(*one.foreground.shape)
        rim = far > 0.3
        rim[[0, -1]] = rim[:, [0, -1]] = False
        inside, outside = one.foreground[far < 0.15], one.foreground[rim]
        if inside.size == 0 or inside.mean() < MOST or (outside.size and outside.mean() > 0.5):
            return False
    return True


def _otsu(values: NDArray[np.float64]) -> float | None:
    """The threshold that parts values best into two (Otsu 1979); `None` if all are equal."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        return None
    counts, edges = np.histogram(values, LEVELS, (low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(np.where(above > 0, between, -1)))])

"""What makes a case hard to read and says nothing of its cells: focus, light, stain, number, size.

After CoCaMIL (complexity-calibrated multiple instance learning), which names blur, size, colouring
style, brightness and stain as complexity factors. Light and stain are measured at the rim of a
picture, where the cell itself is not: an eosinophil is no other stain.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB
from encoder.image import resize
from search.schemas.mil import Factor

SIDE = 64
"""Pictures are measured at this side."""
RIM = 10
"""Width of the rim at that side, in pixels."""
FAR = 4.0
"""Most standard deviations that a factor counts."""
Floats = NDArray[np.float64]


def of_cell(picture: RGB, side_um: float | None) -> dict[Factor, float]:
    """The factors of one cell; NaN where one is not known.

    Returns:
        `focus`: logarithm of the Laplacian's variance over the picture's own; `brightness` (0 to
        1), `hue` (turns, signed, from blue) and `saturation` (0 to 1) of the rim; `size`: side of
        the cell's box in micrometres, else in pixels, as a logarithm.
    """
    small = resize(picture, SIDE, "bilinear")
    green = small[..., 1].astype(np.float64)
    sharp = cv2.Laplacian(green, cv2.CV_64F).var() / (green.var() + 1e-6)
    inner = np.zeros((SIDE, SIDE), bool)
    inner[RIM:-RIM, RIM:-RIM] = True
    rim = small[~inner].astype(np.float64) / 255
    red, mid, blue = rim.mean(axis=0)
    high, low = max(red, mid, blue), min(red, mid, blue)
    chroma = complex(red - (mid + blue) / 2, (mid - blue) * np.sqrt(0.75))
    return {
        "focus": float(np.log(sharp + 1e-6)),
        "brightness": float(high),
        "hue": float(np.angle(chroma * np.exp(2j * np.pi / 3)) / (2 * np.pi)),
        "saturation": float((high - low) / (high + 1e-6)),
        "size": float("nan") if side_um is None else float(np.log(side_um)),
    }


def standardised(
    bags: Sequence[NDArray[np.floating]], train: Sequence[int] | NDArray[np.int64]
) -> list[Floats]:
    """Factors as standard deviations from the middle of the training cases, at most `FAR`.

    Args:
        bags: Of each case, cells x factors; NaN where not known.
        train: Cases whose cells give the middle and the spread.

    Returns:
        The same shapes; 0 where a factor is not known or never differs.
    """
    cells = np.concatenate([bags[at] for at in train])
    known = ~np.isnan(cells)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, cells, 0)
    middle = filled.sum(axis=0) / count
    spread = np.sqrt(np.where(known, (filled - middle) ** 2, 0).sum(axis=0) / count)
    divisor = np.where(spread > 1e-9, spread, np.inf)
    return [np.clip(np.nan_to_num((bag - middle) / divisor), -FAR, FAR) for bag in bags]


def difficulty(bags: Sequence[Floats]) -> Floats:
    """How far the mean factors of each case lie from the middle: one value, 0 for the easiest."""
    return np.array([np.abs(bag.mean(axis=0)).mean() for bag in bags])


def explained(
    means: NDArray[np.floating], factors: NDArray[np.floating], strata: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The factor head: the directions in which mean vectors move with their factors.

    A ridge regression of the vectors on the factors and their squares, within each class, so that
    what tells classes apart is not taken for a factor.

    Args:
        means: cases x dim: the mean vector of each case.
        factors: cases x factors: their mean factors, standardised.
        strata: One class number per case.

    Returns:
        r x dim, rows of length 1 at right angles, strongest first; r is at most twice the factors.
    """
    x, z = np.array(means, np.float64), np.concatenate([factors, factors**2], axis=1)
    for one in np.unique(strata):
        mine = strata == one
        x[mine] -= x[mine].mean(axis=0)
        z[mine] -= z[mine].mean(axis=0)
    gram = z.T @ z
    ridge = 0.1 * max(float(np.trace(gram)) / len(gram), 1e-9)
    moves = z @ np.linalg.solve(gram + ridge * np.eye(len(gram)), z.T @ x)
    _, strength, directions = np.linalg.svd(moves, full_matrices=False)
    kept = strength[: len(gram)] > 0.05 * max(float(strength[0]), 1e-12)
    return np.asarray(directions[: len(gram)][kept])

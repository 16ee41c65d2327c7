"""Optical density of a smear field: what absorbs light, whatever the lamp, camera and stain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from encoder.contract import RGB

Plane = NDArray[np.float32]
"""One number per pixel: height x width."""
OVERVIEW_PX = 200
"""Long side of the overview from which the empty background is fitted."""
FAINT = 0.04
"""Optical density below which nothing is told from noise and grease on the glass."""
SMALLEST = 4
"""Pixels across below which nothing has an outline."""
RIDGE = 0.02
"""Keeps the background flat where hardly any of it is seen."""


def resized(image: RGB, scale: float) -> RGB:
    """The image at another scale, area-averaged when it shrinks by half or more."""
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image
    how = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(size, how))


def _terms(y: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.float32]:
    """The six terms of a quadratic surface at places from -1 to 1, along a last axis."""
    y, x = np.broadcast_arrays(y, x)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Background:
    """The light of the empty glass: one quadratic surface of log intensity per channel."""

    surface: NDArray[np.float32]
    """6 x 3 coefficients over places from -1 to 1."""

    @classmethod
    def of(cls, image: RGB) -> Background:
        """Fit the surface to the pixels in which nothing absorbs green light.

        Starts from the bright tenth of each neighbourhood, so that a vignette is not taken for
        cells, and then repeats: split (Otsu), fit to the bright part, split again.
        """
        small = resized(image, min(1.0, OVERVIEW_PX / max(image.shape[:2])))
        log = np.log(small.astype(np.float32) + 8)
        height, width = log.shape[:2]
        terms = _terms(
            np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
        ).reshape(-1, 6)
        green = log[..., 1]
        density = (_bright(green) - green).ravel()
        flat = log.reshape(-1, 3)
        surface = np.zeros((6, 3), np.float32)
        surface[0] = np.percentile(flat, 95, axis=0)
        for _ in range(4):
            low = density < _split(density)
            middle = np.median(density[low]) if low.any() else 0.0
            spread = np.median(np.abs(density[low] - middle)) if low.any() else 0.0
            empty = density < middle + 2.5 * max(float(spread), 0.02)
            seen = terms[empty]
            ridge = RIDGE * density.size * np.diag([0.0, 1, 1, 1, 1, 1])
            surface = np.linalg.solve(seen.T @ seen + ridge, seen.T @ flat[empty])
            density = terms @ surface[:, 1] - flat[:, 1]
        return cls(surface=surface.astype(np.float32))

    def density(
        self, image: RGB, window: tuple[float, float, float, float] = (0, 0, 1, 1)
    ) -> NDArray[np.float32]:
        """Optical density per channel, height x width x 3; 0 is empty glass.

        Args:
            image: The field, or a part of it, at any scale.
            window: Left, top, right and bottom of the part, as shares of the field.
        """
        height, width = image.shape[:2]
        left, top, right, bottom = (2 * side - 1 for side in window)
        y = np.linspace(top, bottom, height, dtype=np.float32)[:, None]
        x = np.linspace(left, right, width, dtype=np.float32)[None]
        lut = np.log(np.arange(256, dtype=np.float32) + 8)
        out = np.empty((height, width, 3), np.float32)
        for channel in range(3):
            c = self.surface[:, channel]
            plane = c[0] + c[1] * x + c[2] * y + c[3] * x * x + c[4] * x * y + c[5] * y * y
            out[..., channel] = plane - lut[image[..., channel]]
        return out


def _bright(green: Plane) -> Plane:
    """The bright level around each pixel: 90th percentile over a third of the field."""
    step = max(1, max(green.shape) // 40)
    few = ndimage.uniform_filter(green, step)[::step, ::step]
    level = ndimage.percentile_filter(few, 90, size=max(3, max(few.shape) // 3))
    level = ndimage.gaussian_filter(level, max(few.shape) / 6)
    wide = np.repeat(np.repeat(level, step, axis=0), step, axis=1)
    return np.asarray(wide[: green.shape[0], : green.shape[1]], np.float32)


def _split(density: NDArray[np.floating]) -> float:
    """Otsu's threshold on the square root, so that a few very dark nuclei do not set it."""
    from skimage.filters import threshold_otsu

    root = np.sqrt(np.clip(density + 0.02, 0, 1))
    return float(threshold_otsu(root)) ** 2 - 0.02 if np.ptp(root) > 0 else FAINT


@dataclass(frozen=True, kw_only=True)
class Planes:
    """A field, or a part of it, as the finder sees it."""

    cover: Plane
    """Density of anything that covers the glass, mostly green light."""
    nuclear: Plane
    """Density beyond what haemoglobin of this field's colour explains: nuclei and platelets."""
    covered: NDArray[np.bool_]
    """Where anything covers the glass."""
    level: float
    """Median cover of the red cells."""

    @classmethod
    def of(cls, density: NDArray[np.float32], blur: float) -> Planes | None:
        """The planes of an optical density; `None` where nothing covers the glass, or
        there are fewer than `SMALLEST` rows or columns.

        Haemoglobin absorbs blue light about as much as green; thiazine dyes on nuclei absorb
        red and green and let blue pass. The blue plane, scaled to the red cells of the field
        itself, is taken off: colour deconvolution with the second stain read from the picture.

        Args:
            density: Height x width x 3.
            blur: Standard deviation in pixels for the nuclear plane.
        """
        if min(density.shape[:2]) < SMALLEST:
            return None
        red, green, blue = (density[..., at] for at in range(3))
        cover = (0.7 * green + 0.3 * blue).astype(np.float32)
        haem = ndimage.gaussian_filter(np.minimum(green, 1.5 * blue), 0.7)
        if np.ptp(haem) < FAINT:
            return None
        split = _split(haem)
        cells, empty = haem > split, cover[haem < split]
        if not cells.any() or not empty.size:
            return None
        middle, level = float(np.percentile(empty, 30)), float(np.median(cover[cells]))
        if level - middle < FAINT:
            return None
        below = empty[empty < middle]
        noise = 1.48 * float(np.median(middle - below)) if below.size else 0.0
        median = np.median(density[cells], axis=0)
        share = np.clip((median[0] + median[1]) / 2 / max(float(median[2]), 1e-3), 0.4, 1.6)
        limit = max(np.clip(middle + 4 * noise, 0.35 * split, 0.8 * split), FAINT / 2)
        nuclear = (red + green) / 2 - share * np.maximum(blue, 0)
        return cls(
            cover=cover,
            nuclear=ndimage.gaussian_filter(nuclear, blur).astype(np.float32),
            covered=cover > limit,
            level=level,
        )

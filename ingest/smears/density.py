"""Optical density of a smear field: what absorbs light, whatever the lamp, camera and stain."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
APART = 20.0
"""Degrees of hue by which a dye differs from the red cells at least."""
TWICE = 2.3
"""How much denser than the red cells a dye of their own hue is: two cells that lie on each other
are none."""
PALE = 0.8
"""How dense a dye of another hue is at least, as a share of the red cells."""
GREY, BURNT = 0.6, 2.5
"""Dirt and pointers have less colour (chroma over mean density); marks that were drawn into the
picture are denser in one channel."""
LEAST_DYE = 0.002
"""Share of a field that dyed things have at least, to tell their hue by."""
NOISE = 0.03
"""Optical density that noise may have in any channel."""
CLEAR, BETTER = 3.0, 1.7
"""How far, in spreads of the red cells, a field's own axis must set the dye apart from them, and
how many times as far as the usual axis does, to be taken in its place."""
SEEN = 0.7
"""Share of the red cells' density by which the usual channels must see them."""
LEFT, THICK = 0.25, 1.2
"""What an axis leaves of the red cells is taken off where it is more than such a share of their
density, at which they would soon count as dyed; so many times as much where they are thick."""


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
    stains: Stains | None = None
    """What absorbs in front of it; `None` where nothing does."""

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
        light = cls(surface=surface.astype(np.float32))
        return replace(light, stains=Stains.of(light.density(small)))

    def planes(
        self, image: RGB, blur: float, window: tuple[float, float, float, float] = (0, 0, 1, 1)
    ) -> Planes | None:
        """What the finder sees of the field or a part of it: see `density` and `Planes.of`."""
        return Planes.of(self.density(image, window), blur, self.stains)

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


def _hues(density: NDArray[np.float32]) -> tuple[Plane, Plane]:
    """Hue in degrees in which a place absorbs (red 0, green 120), and how coloured it is."""
    red, green, blue = (density[..., at] for at in range(3))
    across, up = red - (green + blue) / 2, (green - blue) * np.sqrt(3) / 2
    coloured = np.hypot(across, up) / np.maximum(density.mean(axis=-1), 1e-3)
    return np.degrees(np.arctan2(up, across)), coloured


def _away(hues: Plane, one: float) -> Plane:
    """Degrees between hues and one hue, 0 to 180."""
    return np.asarray(np.abs((hues - one + 180) % 360 - 180))


def _covered(total: Plane) -> tuple[NDArray[np.bool_], float]:
    """Where anything covers the glass, and the density from which it is a cell.

    Where pale red cells lie beside many dark nuclei, Otsu's threshold sets the nuclei apart from
    all the rest; what is left of them then covers more than they do, and is split again.
    """
    split = _split(total)
    between = (total > max(0.35 * split, FAINT)) & (total < split)
    if between.mean() > (total > split).mean():
        split = _split(total[total < split])
    return total > max(0.35 * split, FAINT), split


@dataclass(frozen=True, kw_only=True)
class Stains:
    """What the red cells and the nuclei of one field absorb, read from the field itself.

    Most of what covers the glass are red cells, of whatever hue lamp, camera and stain give them;
    a dye is what absorbs about as much in another hue, or far more in the same.
    """

    red: NDArray[np.float32]
    """Optical density of the red cells, by channel."""
    spread: NDArray[np.float32]
    """3 x 3: mean product of the densities of two channels over the red cells, and noise."""
    dye: NDArray[np.float32] | None = None
    """Optical density of what is dyed; `None` where nothing is seen to be."""

    @classmethod
    def of(cls, density: NDArray[np.float32]) -> Stains | None:
        """The stains of an overview, height x width x 3; `None` where it has no red cells.

        Of all hues in which something is dyed, the one that stands out most from the red cells.
        """
        density = ndimage.gaussian_filter(density, (0.8, 0.8, 0))
        total = density.mean(axis=-1)
        covered, split = _covered(total)
        hues, coloured = _hues(density)
        counts = np.bincount(
            np.round(hues[covered]).astype(int) % 360, np.minimum(coloured[covered], 1), 360
        )
        usual = float(ndimage.gaussian_filter1d(counts, APART, mode="wrap").argmax())
        apart = _away(hues, usual)
        reds = (apart < APART) & (total > split)
        level = float(np.median(total[reds])) if reds.any() else 0.0
        if level < FAINT:
            return None
        rows = density[reds & (total < TWICE * level)]
        spread = rows.T @ rows / len(rows) + NOISE**2 * np.eye(3, dtype=np.float32)
        plain = cls(red=np.median(rows, axis=0), spread=spread)
        seen = covered & (coloured > GREY) & (density.max(axis=-1) < BURNT)
        other = ndimage.binary_opening(seen & (apart > APART) & (total > PALE * level))
        dense = ndimage.binary_opening(seen & (total > TWICE * level))
        return plain._dyed(density[other | dense], hues[other | dense], LEAST_DYE * total.size)

    def _dyed(self, rows: NDArray[np.float32], hues: Plane, least: float) -> Stains:
        """With the dye among some densities, n x 3: at least so many of about one hue."""
        best, stands = None, 0.0
        for hue in range(0, 360, 10):
            mine = _away(hues, hue) < APART
            if mine.sum() > least:
                dye = np.median(rows[mine], axis=0)
                if (now := self.apart(dye, self.axis(dye))) > stands:
                    best, stands = dye, now
        if best is None:
            return self
        wide = _away(hues, float(_hues(best)[0])) < 2 * APART  # nuclei are not all of one hue
        return replace(self, dye=rows[wide].mean(axis=0))

    def axis(self, dye: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weights of the channels in whose sum a dye stands out most from the red cells: the
        matched filter of constrained energy minimization (Harsanyi 1993). A dye of mean density 1
        is 1.25 on it, about as much as on the usual axis."""
        best = np.linalg.solve(self.spread, dye)
        return np.asarray(1.25 * dye.mean() * best / (best @ dye), np.float32)

    def apart(self, dye: NDArray[np.float32], axis: NDArray[np.float32]) -> float:
        """How far a dye is from the red cells on an axis, in spreads of these."""
        return float(axis @ dye / np.sqrt(axis @ self.spread @ axis))

    @property
    def channels(self) -> NDArray[np.float32] | None:
        """Weights of the channels that see the red cells; `None` where the usual ones do."""
        green, blue = float(self.red[1]), float(self.red[2])
        if min(green, 1.5 * blue) >= SEEN * float(self.red.mean()):
            return None
        seen = np.clip(self.red, 0, None)
        return np.asarray(seen / seen.sum(), np.float32)


def _nuclear(
    density: NDArray[np.float32], red: NDArray[np.float32], stains: Stains | None
) -> tuple[Plane, float]:
    """Density beyond what haemoglobin explains, and how much of it red cells have all the same.

    Haemoglobin absorbs blue light about as much as green; thiazine dyes on nuclei absorb red and
    green and let blue pass. The blue plane, scaled to the red cells of the field itself, is taken
    off: colour deconvolution with the second stain read from the picture. Where this usual axis
    does not tell the field's dye from its red cells, its own axis is taken.

    Args:
        density: Height x width x 3.
        red: Median density of the cells, by channel.
        stains: Of the field.
    """
    share = np.clip((red[0] + red[1]) / 2 / max(float(red[2]), 1e-3), 0.4, 1.6)
    usual = np.array([0.5, 0.5, -share], np.float32)
    if stains is not None and stains.dye is not None:
        own = stains.axis(stains.dye)
        if stains.apart(stains.dye, own) > max(CLEAR, BETTER * stains.apart(stains.dye, usual)):
            return density @ own, float(own @ stains.red)
    plane = (density[..., 0] + density[..., 1]) / 2 - share * np.maximum(density[..., 2], 0)
    return plane, float((red[0] + red[1]) / 2 - share * max(float(red[2]), 0))


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
    def of(
        cls, density: NDArray[np.float32], blur: float, stains: Stains | None = None
    ) -> Planes | None:
        """The planes of an optical density; `None` where nothing covers the glass, or
        there are fewer than `SMALLEST` rows or columns.

        Args:
            density: Height x width x 3.
            blur: Standard deviation in pixels for the nuclear plane.
            stains: Of the field; `None` for the usual ones.
        """
        if min(density.shape[:2]) < SMALLEST:
            return None
        channels = None if stains is None else stains.channels
        if channels is None:
            green, blue = density[..., 1], density[..., 2]
            cover, haem = 0.7 * green + 0.3 * blue, np.minimum(green, 1.5 * blue)
        else:
            cover = haem = density @ channels
        haem = ndimage.gaussian_filter(haem, 0.7)
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
        limit = max(np.clip(middle + 4 * noise, 0.35 * split, 0.8 * split), FAINT / 2)
        nuclear, left = _nuclear(density, np.median(density[cells], axis=0), stains)
        if left > LEFT * level:  # hue alone does not set the red cells apart
            nuclear -= np.float32(left) * np.clip(cover / level, 0, THICK)
        return cls(
            cover=cover.astype(np.float32),
            nuclear=ndimage.gaussian_filter(nuclear, blur).astype(np.float32),
            covered=cover > limit,
            level=level,
        )

"""Stain normalisation of H&E tiles: Macenko, Reinhard and Vahadane; off by default."""

from __future__ import annotations

import base64
import binascii
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB

Floats = NDArray[np.float64]
LIGHT = 255.0
"""Intensity of light that passed nothing."""
FAINT = 0.15
"""Pixels with less optical density in every channel are glass (Macenko 2009, beta)."""
FEWEST = 400
"""With fewer stained pixels than this nothing is estimated."""
SAMPLE = 20_000
"""At most so many pixels of a tile are used for estimates, evenly spread."""
LEAST_CONCENTRATION = 0.05
"""A stain whose strongest pixels have less than this is not there."""
LEAST_ANGLE = np.cos(np.deg2rad(4.0))
"""Two stain vectors closer than four degrees are one."""
REFERENCE_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
"""Haematoxylin and eosin, optical density of red, green and blue (Macenko 2009, section 2.4)."""
REFERENCE_STRENGTH = np.array([1.9705, 1.0308])
"""99th percentile of their concentrations in the same reference."""
ROMANOWSKY = re.compile(
    r"romanow|giemsa|\bmgg\b|may.?gr[uü]n|wright|leishman|pappenheim|jenner|diff.?quik|"
    r"hemacolor|field.?s stain",
    re.IGNORECASE,
)


class StainError(Exception):
    """A normalisation that cannot be done, and why."""


class NotForBlood(StainError):
    """A normaliser of two H&E stains on a Romanowsky smear."""

    def __init__(self, stain: str) -> None:
        super().__init__(
            f"stain normalisation separates haematoxylin from eosin; {stain!r} is a Romanowsky "
            "stain of other dyes, on which it would invent colours. Leave it off for blood smears"
        )


class Normaliser(ABC):
    """Gives tiles the colours of a reference.

    `name` is `method-version`, followed by the target's numbers where it is not the built-in
    reference. It belongs into the `stain` field of the encoder's card, so that vectors of
    normalised and of plain tiles, or of two targets, cannot meet, and `from_name` makes the
    normaliser again for queries.
    """

    method: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, target: Mapping[str, Any] | None = None) -> None:
        self.fitted = target is not None
        self.target = {
            key: np.asarray(value, np.float32).astype(np.float64)  # as a name can hold it
            for key, value in (self.reference() if target is None else target).items()
        }

    @property
    def name(self) -> str:
        """What goes into a fingerprint."""
        base = f"{self.method}-{self.version}"
        if not self.fitted:
            return base
        numbers = np.concatenate([value.ravel() for _, value in sorted(self.target.items())])
        return f"{base}-{base64.urlsafe_b64encode(numbers.astype('<f4').tobytes()).decode()}"

    @classmethod
    def from_name(cls, name: str) -> Normaliser | None:
        """The normaliser of this method whose `name` it is; `None` if it is another's."""
        base = f"{cls.method}-{cls.version}"
        if name == base:
            return cls()
        try:
            numbers = np.frombuffer(base64.urlsafe_b64decode(name.removeprefix(f"{base}-")), "<f4")
        except (ValueError, binascii.Error):
            return None
        shapes = sorted((key, value.shape) for key, value in cls.reference().items())
        ends = np.cumsum([np.prod(shape, dtype=int) for _, shape in shapes])
        if not name.startswith(f"{base}-") or len(numbers) != ends[-1]:
            return None
        parts = zip(shapes, np.split(numbers, ends[:-1]), strict=True)
        return cls({key: part.reshape(shape) for (key, shape), part in parts})

    @classmethod
    def fit(cls, image: RGB) -> Normaliser:
        """A normaliser towards the colours of an image.

        Raises:
            StainError: the image has too little stain, or no two of them.
        """
        return cls(cls.measure(image))

    def apply(self, image: RGB) -> RGB:
        """The image in the colours of the target.

        Raises:
            StainError: it cannot be measured; keep the image as it is, and say so.
        """
        with np.errstate(all="ignore"):
            out = self._moved(image, self.measure(image))
        if not np.isfinite(out).all():
            raise StainError("the normalised tile has NaN or infinity")
        return np.asarray(np.clip(np.rint(out), 0, 255), np.uint8)

    def check(self, stain: str | None) -> None:
        """Refuse slides of blood stains.

        Raises:
            NotForBlood: the slide's stain is of the Romanowsky family.
        """
        if stain is not None and ROMANOWSKY.search(stain):
            raise NotForBlood(stain)

    def to_json(self) -> dict[str, Any]:
        """Enough to make it again in another process."""
        target = {key: value.tolist() for key, value in self.target.items()}
        return {"method": self.method, "target": target if self.fitted else None}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> Normaliser:
        """What `to_json` made."""
        return by_name(facts["method"])(facts["target"])

    @classmethod
    @abstractmethod
    def reference(cls) -> dict[str, Floats]:
        """The built-in target."""

    @classmethod
    @abstractmethod
    def measure(cls, image: RGB) -> dict[str, Floats]:
        """What a target consists of, measured on an image.

        Raises:
            StainError: there is too little stain to measure.
        """

    @abstractmethod
    def _moved(self, image: RGB, source: Mapping[str, Floats]) -> Floats:
        """The pixels after the move from source to target, not yet rounded."""


class _TwoStains(Normaliser):
    """Methods that split optical density into two stains and exchange the stains."""

    @classmethod
    def reference(cls) -> dict[str, Floats]:
        """The stains and strengths of Macenko's reference."""
        unit = REFERENCE_STAINS / np.linalg.norm(REFERENCE_STAINS, axis=0)
        return {"stains": unit, "strength": REFERENCE_STRENGTH}

    @classmethod
    def measure(cls, image: RGB) -> dict[str, Floats]:
        """Stain vectors, and the 99th percentile of their concentrations."""
        density = stained(sample(image))
        stains = haematoxylin_first(cls.separate(density))
        strength = np.percentile(concentrations(stains, density), 99, axis=0)
        if not np.isfinite(strength).all() or (strength < LEAST_CONCENTRATION).any():
            raise StainError("one of the two stains is almost absent from the tile")
        return {"stains": stains, "strength": strength}

    @classmethod
    @abstractmethod
    def separate(cls, density: Floats) -> Floats:
        """3 x 2 stain vectors of length 1, from n x 3 optical densities."""

    def _moved(self, image: RGB, source: Mapping[str, Floats]) -> Floats:
        density = optical_density(image.reshape(-1, 3))
        amounts = concentrations(source["stains"], density)
        amounts *= self.target["strength"] / source["strength"]
        return np.asarray((LIGHT * np.exp(-amounts @ self.target["stains"].T)).reshape(image.shape))


class Macenko(_TwoStains):
    """Macenko et al., A method for normalizing histology slides, ISBI 2009, section 2."""

    method = "macenko"
    version = 1

    @classmethod
    def separate(cls, density: Floats) -> Floats:
        """Extreme angles within the plane of the two largest singular vectors."""
        plane: Floats = np.linalg.eigh(np.cov(density.T))[1][:, [2, 1]]
        plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
        projected = density @ plane
        angles = np.arctan2(projected[:, 1], projected[:, 0])
        ends = np.percentile(angles, [1, 99])
        return np.asarray(np.abs(plane @ np.stack([np.cos(ends), np.sin(ends)])))


class Vahadane(_TwoStains):
    """Vahadane et al., Structure-preserving color normalization, IEEE TMI 2016, section III.

    Sparse non-negative matrix factorisation, V = W H with an L1 penalty on H, by block
    coordinate descent (Mairal et al. 2009, algorithm 2) on a sample of pixels.
    """

    method = "vahadane"
    version = 1
    PENALTY = 0.1
    ROUNDS = 60
    PIXELS = 4_000

    @classmethod
    def separate(cls, density: Floats) -> Floats:
        """Alternate between concentrations and stain vectors, from the reference vectors on."""
        few = density[:: max(1, len(density) // cls.PIXELS)]
        stains = cls.reference()["stains"].copy()
        for _ in range(cls.ROUNDS):
            before = stains.copy()
            amounts = concentrations(stains, few, cls.PENALTY)
            gram, moment = amounts.T @ amounts, few.T @ amounts
            for j in range(2):
                if gram[j, j] < 1e-9:
                    raise StainError("one of the two stains is almost absent from the tile")
                step = (moment[:, j] - stains @ gram[:, j]) / gram[j, j]
                vector = np.maximum(stains[:, j] + step, 0)
                stains[:, j] = vector / max(float(np.linalg.norm(vector)), 1e-12)
            if np.abs(stains - before).max() < 1e-5:
                break
        return stains


class Reinhard(Normaliser):
    """Reinhard et al., Color transfer between images, IEEE CG&A 2001: means and deviations.

    Two things differ from the paper, and make two scanners of one tile more alike. Each channel
    is first divided by the light that passes the slide, so that what counts as glass does not
    depend on the scanner; glass has no part in the statistics and gets the target's light. And
    the space is CIELAB in place of l-alpha-beta, in which little light in one channel becomes a
    large number.
    """

    method = "reinhard"
    version = 2
    LIGHT_PERCENTILE = 95
    """Of each channel: the light that passes the slide."""
    CLEAR = 0.02
    """Share of a tile's strongest density below which a pixel counts less, to nothing at 0."""
    GLASS = (0.01, 0.05)
    """Density of a moved pixel that is glass, and from which on it is none; between, a mixture."""

    @classmethod
    def reference(cls) -> dict[str, Floats]:
        """Of the colours that the reference stains make at even steps of concentration."""
        h, e = np.meshgrid(np.linspace(0.05, 1, 12), np.linspace(0.1, 1, 12))
        amounts = np.stack([h.ravel() ** 2, e.ravel()], axis=1) * REFERENCE_STRENGTH
        stains = REFERENCE_STAINS / np.linalg.norm(REFERENCE_STAINS, axis=0)
        space = to_lab(np.exp(-amounts @ stains.T))
        light = np.full(3, 244.0)  # glass, as most scanners show it
        return {"light": light, "mean": space.mean(axis=0), "deviation": space.std(axis=0)}

    @classmethod
    def measure(cls, image: RGB) -> dict[str, Floats]:
        """Light of each channel, and mean and deviation of what absorbs it, in CIELAB."""
        pixels = sample(image).astype(np.float64)
        light = np.maximum(np.percentile(pixels, cls.LIGHT_PERCENTILE, axis=0), 1)
        density = -np.log(np.maximum(pixels, 1) / light).mean(axis=1)
        if (density >= FAINT).sum() < FEWEST:
            raise StainError("the tile has too little stain to measure its colours")
        weight = np.clip(density / (cls.CLEAR * np.percentile(density, 99)), 0, 1)
        space = to_lab(pixels / light)
        mean = np.average(space, axis=0, weights=weight)
        deviation = np.sqrt(np.average((space - mean) ** 2, axis=0, weights=weight))
        if (deviation < 1e-2).any():
            raise StainError("the tile has one colour only")
        return {"light": light, "mean": mean, "deviation": deviation}

    def _moved(self, image: RGB, source: Mapping[str, Floats]) -> Floats:
        passed = image.reshape(-1, 3) / source["light"]
        space = (to_lab(passed) - source["mean"]) * (self.target["deviation"] / source["deviation"])
        moved = np.maximum(from_lab(space + self.target["mean"]), 1 / LIGHT)
        light = np.maximum(np.percentile(moved, self.LIGHT_PERCENTILE, axis=0), 1 / LIGHT)
        density = -np.log(moved / light).mean(axis=1)
        low, high = self.GLASS
        stained = np.clip((density - low) / (high - low), 0, 1)[:, None]
        out = (stained * moved + (1 - stained) * passed) * self.target["light"]
        return np.asarray(out.reshape(image.shape))


NORMALISERS: tuple[type[Normaliser], ...] = (Macenko, Reinhard, Vahadane)


def by_name(method: str) -> type[Normaliser]:
    """The normaliser of a name such as `macenko`.

    Raises:
        StainError: unknown; the known ones are listed.
    """
    for kind in NORMALISERS:
        if kind.method == method:
            return kind
    known = ", ".join(kind.method for kind in NORMALISERS)
    raise StainError(f"unknown stain normalisation {method!r}; known are {known}")


def optical_density(pixels: NDArray[Any]) -> Floats:
    """Beer and Lambert: -ln(I / I0), with at least one level of light."""
    return np.asarray(-np.log(np.maximum(pixels, 1) / LIGHT), np.float64)


def sample(image: RGB) -> RGB:
    """Every n-th pixel, as n x 3."""
    pixels = image.reshape(-1, 3)
    return pixels[:: max(1, len(pixels) // SAMPLE)]


def stained(pixels: RGB) -> Floats:
    """The optical density of stained pixels.

    Raises:
        StainError: too few of them.
    """
    density = optical_density(pixels)
    density = density[(density >= FAINT).all(axis=1)]
    if len(density) < FEWEST:
        raise StainError("the tile has too little stain to tell two stains apart")
    return density


def haematoxylin_first(stains: Floats) -> Floats:
    """Unit vectors, the one that absorbs more red in front.

    Raises:
        StainError: not finite, or the same stain twice.
    """
    unit = stains / np.linalg.norm(stains, axis=0)
    if not np.isfinite(unit).all():
        raise StainError("the stains of the tile cannot be told apart")
    if float(unit[:, 0] @ unit[:, 1]) > LEAST_ANGLE:
        raise StainError("the tile shows one stain only")
    return np.asarray(unit if unit[0, 0] >= unit[0, 1] else unit[:, ::-1])


def concentrations(stains: Floats, density: Floats, penalty: float = 0.0) -> Floats:
    """Non-negative amounts of two stains (n x 2) that explain optical densities (n x 3).

    Least squares with an L1 penalty, solved exactly: with two unknowns the best point is inside,
    or on one of the two axes, or zero.
    """
    a = float(stains[:, 0] @ stains[:, 1])
    aa, bb = float(stains[:, 0] @ stains[:, 0]), float(stains[:, 1] @ stains[:, 1])
    p = density @ stains - penalty
    determinant = max(aa * bb - a * a, 1e-12)
    first = (bb * p[:, 0] - a * p[:, 1]) / determinant
    second = (aa * p[:, 1] - a * p[:, 0]) / determinant
    alone = np.maximum(p, 0) / np.array([aa, bb])
    only_first = alone[:, 0] ** 2 * aa >= alone[:, 1] ** 2 * bb
    inside = (first >= 0) & (second >= 0)
    return np.stack(
        [
            np.where(inside, first, np.where(only_first, alone[:, 0], 0)),
            np.where(inside, second, np.where(only_first, 0, alone[:, 1])),
        ],
        axis=1,
    )


def to_lab(passed: Floats) -> Floats:
    """n x 3 shares of the light in red, green and blue to CIELAB (sRGB, D65; L from 0 to 100)."""
    pixels = np.asarray(passed, np.float32)[None]
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0], np.float64)


def from_lab(space: Floats) -> Floats:
    """The inverse of `to_lab`; colours that no screen shows are cut off at 0 and 1."""
    rows = np.asarray(space, np.float32)[None]
    return np.asarray(cv2.cvtColor(rows, cv2.COLOR_LAB2RGB)[0], np.float64)

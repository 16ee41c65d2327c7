"""Stain normalisation of H&E tiles: Macenko, Reinhard and Vahadane; off unless asked for."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar

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
    """A normaliser of two H&E stains was asked for a Romanowsky smear."""

    def __init__(self, stain: str) -> None:
        super().__init__(
            f"stain normalisation separates haematoxylin from eosin; {stain!r} is a Romanowsky "
            "stain of other dyes, on which it would invent colours. Leave it off for blood smears"
        )


class Normaliser(ABC):
    """Gives tiles the colours of a reference.

    `name` is `method-version`, followed by a digest of the target where it is not the built-in
    reference. It belongs into the `stain` field of the encoder's card, so that vectors of
    normalised and of plain tiles, or of two targets, cannot meet.
    """

    method: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, target: Mapping[str, Any] | None = None) -> None:
        self.fitted = target is not None
        self.target = {
            key: np.asarray(value, np.float64)
            for key, value in (self.reference() if target is None else target).items()
        }

    @property
    def name(self) -> str:
        """What goes into a fingerprint."""
        base = f"{self.method}-{self.version}"
        if not self.fitted:
            return base
        text = json.dumps({k: np.round(v, 6).tolist() for k, v in sorted(self.target.items())})
        return f"{base}-{sha256(text.encode()).hexdigest()[:8]}"

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

    In the paper's decorrelated l-alpha-beta space. Statistics are of stained pixels alone, and
    glass stays as it is, so that the share of glass in a tile does not shift its colours.
    """

    method = "reinhard"
    version = 1

    @classmethod
    def reference(cls) -> dict[str, Floats]:
        """Of the colours that the reference stains make at even steps of concentration."""
        h, e = np.meshgrid(np.linspace(0.05, 1, 12), np.linspace(0.1, 1, 12))
        amounts = np.stack([h.ravel() ** 2, e.ravel()], axis=1) * REFERENCE_STRENGTH
        stains = REFERENCE_STAINS / np.linalg.norm(REFERENCE_STAINS, axis=0)
        space = to_lab(LIGHT * np.exp(-amounts @ stains.T))
        return {"mean": space.mean(axis=0), "deviation": space.std(axis=0)}

    @classmethod
    def measure(cls, image: RGB) -> dict[str, Floats]:
        """Mean and deviation of the stained pixels."""
        pixels = sample(image)
        space = to_lab(pixels[is_stained(pixels)].astype(np.float64))
        if len(space) < FEWEST:
            raise StainError("the tile has too little stain to measure its colours")
        deviation = space.std(axis=0)
        if (deviation < 1e-4).any():
            raise StainError("the tile has one colour only")
        return {"mean": space.mean(axis=0), "deviation": deviation}

    def _moved(self, image: RGB, source: Mapping[str, Floats]) -> Floats:
        pixels = image.reshape(-1, 3)
        out = pixels.astype(np.float64)
        where = is_stained(pixels)
        space = to_lab(out[where])
        space = (space - source["mean"]) * (self.target["deviation"] / source["deviation"])
        out[where] = from_lab(space + self.target["mean"])
        return out.reshape(image.shape)


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


def is_stained(pixels: RGB) -> NDArray[np.bool_]:
    """Pixels that are not glass."""
    return np.asarray((optical_density(pixels) >= FAINT).all(axis=1))


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


TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
"""RGB to cone space (Reinhard 2001, eq. 4)."""
TO_LAB = np.diag([1 / np.sqrt(3), 1 / np.sqrt(6), 1 / np.sqrt(2)]) @ np.array(
    [[1, 1, 1], [1, 1, -2], [1, -1, 0]]
)
"""Logarithmic cone space to l-alpha-beta (eq. 6)."""


def to_lab(pixels: Floats) -> Floats:
    """n x 3 RGB to l-alpha-beta."""
    return np.asarray(np.log10(np.maximum(pixels @ TO_LMS.T, 1.0)) @ TO_LAB.T)


def from_lab(space: Floats) -> Floats:
    """n x 3 l-alpha-beta to RGB, not yet rounded."""
    return np.asarray(10 ** (space @ np.linalg.inv(TO_LAB).T) @ np.linalg.inv(TO_LMS).T)

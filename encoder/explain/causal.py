"""Which part of an image a score rests on: found by hiding parts of it, and checked so too.

The score is whatever is made of the vector: the cosine to a hit, or the share of a vote. Masks are
clusters of patch features, as in ViT-CX (Xie, Li, Cao and Zhang, IJCAI 2023, "ViT-CX: Causal
Explanation of Vision Transformers"); each is shown alone and hidden alone, and the map is the mean
effect of the masks over a place, divided by how much of them lies there (their correction for
coverage). Works on any encoder and on a CPU: it only has to embed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.contract import RGB, Encoder, Patches, Vectors
from encoder.explain.correspondence import Grid
from encoder.image import resize

Score = Callable[[Vectors], NDArray[np.floating]]
"""Vectors (n x dim) to n scores."""
Masks = NDArray[np.float64]
"""n x rows x columns, 0 to 1."""
HIDDEN_SETS = 24
"""Random sets of places, each a quarter of the image, by which a map is measured."""
MOST_MASKS = 24
QUIET = 0.1
"""Channels that vary less than this share of the one that varies most make no masks."""
SQUARES = 14
"""Rows and columns of the grid for an encoder that has no patches."""
STEPS = 8
"""Points of a deletion or insertion curve, both ends included."""
RANDOM = 4
"""Random maps that a map is held against."""
BLOCKS = 4
"""Rows and columns of the blobs of a random map: about as coarse as a map of a cell."""


@dataclass(frozen=True)
class Check:
    """Whether hiding and showing what a map points at moves the score more than chance does.

    Petsiuk, Das and Saenko (BMVC 2018, "RISE"), with the areas as shares of the step from the
    hidden image to the whole one, so that 0.5 is what a map without meaning gives.
    """

    deletion: float
    """Area under the score while the image is hidden, most important part first; low is good."""
    insertion: float
    """Area under the score while the image is shown, most important part first; high is good."""
    random: tuple[float, ...]
    """Insertion less deletion of random maps on the same image."""

    @property
    def gain(self) -> float:
        """Insertion less deletion."""
        return self.insertion - self.deletion

    @property
    def better(self) -> bool:
        """Whether the map beats every random one."""
        return self.gain > max(self.random)


@dataclass(frozen=True)
class Faithful:
    """Whether a map's numbers are the effects that they claim to be."""

    correlation: float
    """Faithfulness correlation (Bhatt, Weller and Moura, IJCAI 2020): of the sum of the map over
    random sets of places with what hiding them takes from the score; 1 is best, 0 is chance."""
    monotonicity: float
    """Share of the steps in which showing more, least important places first, does not lower the
    score (Luss et al., KDD 2021): 1 is best."""


def points_at(found: Grid, inside: NDArray[np.bool_]) -> bool:
    """The pointing game (Zhang et al., IJCV 2018): whether the highest place of a map is inside.

    Args:
        found: rows x columns.
        inside: The same size, true where the object lies.
    """
    return bool(inside.ravel()[int(found.argmax())])


class Hiding:
    """One image, parts of which are hidden under the colour of its glass.

    Args:
        encoder: What embeds it.
        image: height x width x 3.
        score: What is explained.
        grid: Rows and columns of maps.
    """

    def __init__(
        self, encoder: Encoder, image: RGB, score: Score, grid: tuple[int, int] | None = None
    ) -> None:
        card = encoder.card
        self.image = resize(image, card.input_px, card.resample)
        self.glass = _glass(self.image)
        side = SQUARES if card.patch_px is None else card.input_px // card.patch_px
        self.grid = grid or (side, side)
        self._encoder = encoder
        self._score = score
        whole, hidden = self.scores(np.stack([np.ones(self.grid), np.zeros(self.grid)]))
        self.whole = float(whole)
        """The score of the image as it is."""
        self.hidden = float(hidden)
        """The score of bare glass."""
        self._random: tuple[float, ...] | None = None

    def scores(self, shown: Masks) -> NDArray[np.float64]:
        """Scores of the image with only a part of it shown, for each of n masks."""
        side = self.image.shape[0]
        pictures = [
            self._under(np.asarray(Image.fromarray(mask.astype(np.float32)).resize((side, side))))
            for mask in shown
        ]
        return np.asarray(self._score(self._encoder.embed(pictures)), np.float64)

    def _under(self, mask: NDArray[np.float32]) -> RGB:
        part = mask.clip(0, 1)[..., None]
        mixed = self.image * part + self.glass * (1 - part)
        return np.asarray(np.rint(mixed), np.uint8)

    def causal(self, masks: Masks) -> Grid:
        """The effect of every place on the score; see the top of this module."""
        shown = self.scores(np.concatenate([masks, 1 - masks]))
        alone, without = shown[: len(masks)], shown[len(masks) :]
        effects = ((alone - self.hidden) + (self.whole - without)) / 2
        covered = masks.sum(axis=0)
        total = np.tensordot(effects, masks, axes=1)
        return np.asarray(total / np.maximum(covered, 1e-6), np.float64)

    def check(self, found: Grid) -> Check:
        """Hold a map against random maps on this image."""
        if self._random is None:
            maps = [_blobs(self.grid, seed) for seed in range(RANDOM)]
            areas = self.areas(found, *maps)
            self._random = tuple(insertion - deletion for deletion, insertion in areas[1:])
        else:
            areas = self.areas(found)
        return Check(*areas[0], self._random)

    def faithful(self, found: Grid, seed: int = 0) -> Faithful:
        """How far a map says what hiding does; see `Faithful`.

        Args:
            found: The map.
            seed: Of the sets of places that are hidden.
        """
        rng = np.random.default_rng(seed)
        places = found.size
        hidden = np.zeros((HIDDEN_SETS, places))
        for one in hidden:
            one[rng.choice(places, max(1, places // 4), replace=False)] = 1
        rising_steps = self._steps(-found)  # least important first
        shown = np.concatenate([1 - hidden.reshape(-1, *self.grid), rising_steps])
        scores = self.scores(shown)
        drops = self.whole - scores[:HIDDEN_SETS]
        predicted = hidden @ found.ravel()
        flat = min(float(np.std(drops)), float(np.std(predicted))) < 1e-12
        rising = np.concatenate([[self.hidden], scores[HIDDEN_SETS:], [self.whole]])
        return Faithful(
            correlation=0.0 if flat else float(np.corrcoef(predicted, drops)[0, 1]),
            monotonicity=float(np.mean(np.diff(rising) >= 0)),
        )

    def areas(self, *maps: Grid) -> list[tuple[float, float]]:
        """Areas under the deletion and the insertion of each map; all are embedded together."""
        step = self.whole - self.hidden
        if abs(step) < 1e-9:
            return [(0.5, 0.5)] * len(maps)
        shown = np.concatenate([self._steps(one) for one in maps])
        scores = self.scores(np.concatenate([1 - shown, shown]))
        ways = scores.reshape(2, len(maps), STEPS - 2)
        ends = np.broadcast_to([self.whole, self.hidden], (len(maps), 2))
        deleted = np.column_stack([ends[:, 0], ways[0], ends[:, 1]])
        inserted = np.column_stack([ends[:, 1], ways[1], ends[:, 0]])
        heights = (np.stack([deleted, inserted], axis=1) - self.hidden) / step
        areas = np.asarray(np.trapezoid(heights) / (STEPS - 1), np.float64)
        return [(float(deletion), float(insertion)) for deletion, insertion in areas]

    def _steps(self, found: Grid) -> Masks:
        """What an insertion shows between nothing and the whole image, most important first."""
        order = np.argsort(-found.ravel(), kind="stable")
        place = np.empty(order.size, np.int64)
        place[order] = np.arange(order.size)
        ends = [round(order.size * step / (STEPS - 1)) for step in range(1, STEPS - 1)]
        return np.stack([(place < end).reshape(self.grid) for end in ends]).astype(np.float64)


def feature_masks(tokens: Patches, most: int = MOST_MASKS) -> Masks:
    """Masks from patch tokens: the channels of the tokens as maps, similar ones together.

    Args:
        tokens: rows x columns x dim.
        most: Masks at most.

    Returns:
        n x rows x columns, each from 0 to 1.
    """
    rows, columns, dim = tokens.shape
    maps = np.asarray(tokens, np.float64).reshape(-1, dim).T  # one row for each channel
    maps = maps - maps.mean(axis=1, keepdims=True)
    both = np.concatenate([maps, -maps])  # a channel speaks by being low as well
    lengths = np.linalg.norm(both, axis=1)
    loud = lengths > max(QUIET * lengths.max(), 1e-9)
    if not loud.any():
        return np.ones((1, rows, columns))
    units = both[loud] / lengths[loud, None]
    centres = _clustered(units, most)
    low = centres.min(axis=1, keepdims=True)
    high = centres.max(axis=1, keepdims=True)
    scaled = (centres - low) / np.maximum(high - low, 1e-12)
    return np.asarray(scaled.reshape(-1, rows, columns), np.float64)


def colour_masks(image: RGB, grid: tuple[int, int]) -> Masks:
    """Masks for an encoder without patches: squares that are alike in colour and lie together.

    Args:
        image: height x width x 3.
        grid: Rows and columns of squares.
    """
    rows, columns = grid
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    colour = np.asarray(small, np.float64).reshape(-1, 3) / 255
    y, x = np.mgrid[:rows, :columns]
    place = np.stack([y.ravel() / rows, x.ravel() / columns], axis=1)
    points = np.concatenate([(colour - colour.mean(0)) * 2, place - 0.5], axis=1)
    labels = _parts(points, MOST_MASKS)
    return np.stack(
        [(labels == one).reshape(grid).astype(np.float64) for one in sorted(set(labels))]
    )


def _clustered(units: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Mean directions of clusters by cosine; the first centres lie far apart."""
    chosen = _spread(units, most)
    centres = units[chosen]
    for _ in range(10):
        labels = (units @ centres.T).argmax(axis=1)
        sums = np.stack([units[labels == at].sum(axis=0) for at in range(len(centres))])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 1e-9, sums / np.maximum(lengths, 1e-12), centres)
    return np.asarray(centres, np.float64)


def _parts(points: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Labels of points by the nearest of some centres (k-means from far-apart points)."""
    centres = points[_spread(points, most)]
    for _ in range(10):
        apart = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
        labels = apart.argmin(axis=1)
        centres = np.stack(
            [
                points[labels == at].mean(axis=0) if (labels == at).any() else centres[at]
                for at in range(len(centres))
            ]
        )
    return np.asarray(labels, np.int64)


def _spread(points: NDArray[np.float64], most: int) -> list[int]:
    """Points far apart: each the farthest from those before it (Gonzalez 1985)."""
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmax())]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(most, len(points)) and nearest.max() > 1e-9:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _blobs(grid: tuple[int, int], seed: int) -> Grid:
    """A random map as coarse as a map of a cell: noise of few values, drawn large."""
    noise = np.random.default_rng(seed).normal(size=(BLOCKS, BLOCKS)).astype(np.float32)
    large = Image.fromarray(noise).resize((grid[1], grid[0]), Image.Resampling.BICUBIC)
    return np.asarray(large, np.float64)


def _glass(image: RGB) -> NDArray[np.float64]:
    """The colour of the brightest quarter of an image: the empty glass of a smear."""
    rows = image.reshape(-1, 3).astype(np.float64)
    light = rows.sum(axis=1)
    return np.asarray(np.median(rows[light >= np.quantile(light, 0.75)], axis=0), np.float64)

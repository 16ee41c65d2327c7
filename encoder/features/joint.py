"""A network and measured numbers as one encoder: each says what the other does not see.

The vector has the network's part first and the measured part behind it. Both see the image after
the cast of its colours is taken off (`encoder.features.descriptors.evened_out`: one hue of the
nucleus, one brightness of the glass), so that a shift of them all changes little. Patch tokens are
the network's alone, with zeros behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB, EncoderError, Network, batches
from encoder.features.descriptors import (
    SIDE,
    VERSION,
    Axes,
    evened_out,
    in_a_row,
    measured,
    without,
)
from encoder.features.workers import Workers
from encoder.image import resize

MEAN, AXES, WEIGHT = TABLES = ("measured.mean", "measured.axes", "measured.weight")
"""Names of the three tables among the weights."""
BATCHES = 4
"""Batches of the network that are measured together: several processes share them."""


@dataclass(frozen=True)
class Beside:
    """The measured half of a joint encoder."""

    axes: Axes
    """Turns measured numbers to vectors."""
    weight: float
    """Length of the measured part, that of the network being 1."""

    @property
    def dim(self) -> int:
        """Numbers in the measured part."""
        return int(self.axes.axes.shape[1])


def evened_and_measured(image: RGB, side: int, how: Any) -> tuple[RGB, NDArray[np.float32]]:
    """One image as the network is to see it, and its measured numbers.

    Args:
        image: height x width x 3, uint8.
        side: Of the network's input.
        how: Filter by which the network's input is resized.

    Returns:
        side x side x 3, and one row of `in_a_row`.
    """
    small, cast = evened_out(resize(image, SIDE, "lanczos"))
    return without(resize(image, side, how), cast), in_a_row(measured(small))


class Joint:
    """Both halves, each held to length 1 before it is weighed."""

    def __init__(self, card: EncoderCard, network: Network, beside: Beside) -> None:
        self.card = card
        self.engine = str(getattr(network, "engine", "numpy"))
        self._at_once = int(getattr(network, "batch_size", 32))
        self.batch_size = BATCHES * self._at_once
        self._network = network
        self._beside = beside
        self._workers = Workers()

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """n x (network's dim + measured dim)."""
        seen, rows = self._seen(images)
        pooled = [self._network.vectors(batch) for batch in batches(seen, self._at_once)]
        return self._joined(np.concatenate(pooled), rows)

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The vectors, and the network's patch tokens with zeros for what was measured."""
        seen, rows = self._seen(images)
        parts = [self._network.tokens(batch) for batch in batches(seen, self._at_once)]
        pooled, patches = (np.concatenate(part) for part in zip(*parts, strict=True))
        wide = np.zeros((*patches.shape[:-1], self.card.dim), np.float32)
        wide[..., : patches.shape[-1]] = patches
        return self._joined(pooled, rows), wide

    def attention(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """The network's own."""
        looks: Any = self._network
        return np.asarray(looks.attention(self._seen(images)[0]))

    def _seen(self, images: Sequence[RGB]) -> tuple[list[RGB], NDArray[np.float32]]:
        how = (self.card.input_px, self.card.resample)
        both = self._workers.map(evened_and_measured, images, *how)
        return [image for image, _ in both], np.stack([row for _, row in both])

    def _joined(
        self, pooled: NDArray[np.floating], rows: NDArray[np.float32]
    ) -> NDArray[np.floating]:
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        beside = self._beside.weight * self._beside.axes.vectors(rows)
        return np.concatenate([pooled / np.maximum(lengths, 1e-9), beside], axis=1)


def tables(beside: Beside) -> dict[str, NDArray[np.float32]]:
    """The measured half as it lies among the weights."""
    weight = np.array([beside.weight], np.float32)
    return {MEAN: beside.axes.mean, AXES: beside.axes.axes, WEIGHT: weight}


def from_tables(held: Mapping[str, NDArray[np.floating]], version: str, where: str) -> Beside:
    """The measured half of an export.

    Args:
        held: What `tables` gave.
        version: Of the numbers that the axes are for.
        where: What errors call it.

    Raises:
        EncoderError: numbers of another version, or tables that do not fit.
    """
    if version != VERSION:
        raise EncoderError(
            f"{where} was made for measured numbers {version!r}; this installation measures "
            f"{VERSION!r}: install the version that made it, or export again"
        )
    try:
        mean, axes, weight = (np.asarray(held[name], np.float32) for name in TABLES)
    except KeyError as error:
        raise EncoderError(f"{where} lacks {error}; copy or export the folder again") from error
    fits = axes.ndim == 2 and mean.shape == axes.shape[:1] and weight.shape == (1,)
    if not fits or not np.isfinite(axes).all() or not 0 < float(weight[0]) < np.inf:
        raise EncoderError(
            f"{where}: measured axes of shape {axes.shape} with a mean of {mean.shape} and weight "
            f"{weight.tolist()} do not fit together; export the folder again"
        )
    return Beside(Axes(mean, axes), float(weight[0]))

"""An encoder without weights: a colour histogram, the floor that learned encoders must beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB, Network, NoPatchTokens
from encoder.image import resize

BINS = 6
"""Bins per colour channel."""
CARD = EncoderCard(
    id="colour",
    architecture="colour-histogram-v1",
    dim=2 * BINS**3,
    input_px=64,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    resample="bilinear",
    pooling="none",
    licence="Apache-2.0",
    source="encoder/features/colour.py",
    notes="Compares colours only: the floor for learned encoders, not a measure of morphology.",
)


class Colour:
    """Joint RGB histogram of the whole image and of its middle half, square-rooted.

    Cosine between such rows is the mean Bhattacharyya coefficient of the two pairs of histograms.
    """

    def __init__(self, card: EncoderCard) -> None:
        self.card = card

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """One row of 2 x 216 per image: the Hellinger map of both histograms."""
        return np.stack([self._one(image) for image in images])

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Always refused: a histogram has no patches."""
        raise NoPatchTokens(self.card.id)

    def _one(self, image: RGB) -> NDArray[np.float32]:
        side = self.card.input_px
        small = resize(image, side, self.card.resample)
        bins = small.astype(np.int64) * BINS >> 8
        codes = (bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]
        middle = codes[side // 4 : -side // 4, side // 4 : -side // 4]
        parts = [
            np.sqrt(np.bincount(part.ravel(), minlength=BINS**3) / part.size)
            for part in (codes, middle)
        ]
        return np.concatenate(parts).astype(np.float32)


def build(card: EncoderCard, weights: Path | None, device: str) -> tuple[EncoderCard, Network]:
    """The `colour` network; `weights` and `device` are not used."""
    return card, Colour(card)

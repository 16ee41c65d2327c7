"""An encoder of measured numbers: colours of nucleus and cytoplasm, shape, lobes and texture.

It has no network. What it compares can be named, and it needs no more than a processor; joined
with a network (`encoder.features.joint`) it says more about cells that it was not made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB, EncoderError, Network, NoPatchTokens
from encoder.download import digest_of
from encoder.features.descriptors import SIDE, VERSION, Axes, in_a_row, measure
from encoder.features.workers import Workers

AXES = Path(__file__).with_name("measured.npz")
"""Mean and axes, fitted without labels by `python -m train.shipped.axes`."""
CARD = EncoderCard(
    id="measured",
    architecture=VERSION,
    dim=256,
    input_px=SIDE,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    resample="lanczos",
    pooling="none",
    licence="Apache-2.0",
    source="encoder/features/measured.py; axes fitted without labels on three quarters of PBC",
    notes="Compares measured colours, shape and texture of one cell in the middle of its image. "
    "No network: nothing was learned about morphology. Made for white cells.",
)


def measured_row(image: RGB) -> NDArray[np.float32]:
    """All numbers of one image behind each other."""
    return in_a_row(measure(image))


class Measured:
    """The numbers of `encoder.features.descriptors`, turned onto fitted axes."""

    def __init__(self, card: EncoderCard, axes: Axes) -> None:
        self.card = card
        self._axes = axes
        self._workers = Workers()

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """n x 256, rows of length 1."""
        return self._axes.vectors(np.stack(self._workers.map(measured_row, images)))

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Always refused: measured numbers have no patches."""
        raise NoPatchTokens(self.card.id)


def read_axes(path: Path) -> Axes:
    """What `write_axes` wrote.

    Raises:
        EncoderError: missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            return Axes(held["mean"].astype(np.float32), held["axes"].astype(np.float32))
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"{path} cannot be read as axes of the measured encoder: {error}; "
            "make it anew with python -m train.shipped.axes"
        ) from error


def write_axes(path: Path, axes: Axes) -> None:
    """Mean in single, axes in half precision; the same bytes for the same numbers."""
    part = path.with_suffix(".part.npz")
    np.savez(part, mean=axes.mean, axes=axes.axes.astype(np.float16))
    part.replace(path)


def build(card: EncoderCard, weights: Path | None, device: str) -> tuple[EncoderCard, Network]:
    """The `measured` network over the axes that ship, or those in `weights`."""
    path = weights or AXES
    axes = read_axes(path)
    card = replace(card, dim=axes.axes.shape[1], weights_sha256=digest_of(path))
    return card, Measured(card, axes)

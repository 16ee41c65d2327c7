"""An encoder that sees images through a stain normalisation, and says so in its fingerprint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder, EncoderError
from encoder.stains.normalisers import NORMALISERS, Normaliser, StainError

MOST_PIXELS = 1 << 22
"""An image of more is shrunk before it is normalised; no tile of an ingest has more."""
BYTES_PER_PIXEL = 150
"""What a normalisation takes of each pixel (measured: 106 to 144)."""


class NoSuchNormaliser(EncoderError):
    """A card names a normalisation that cannot be done here."""

    def __init__(self, name: str) -> None:
        known = ", ".join(kind().name for kind in NORMALISERS)
        super().__init__(
            f"the images of this collection were normalised with {name!r}, and this installation "
            f"has {known}. Without the same step a query would be compared with tiles of other "
            "colours: search with a stored item, or install the version that made the collection"
        )


class _Through:
    """A network of normalised images."""

    def __init__(self, encoder: Encoder, normaliser: Normaliser | None) -> None:
        self.engine = encoder.engine
        self.batch_size = encoder.batch_size
        self._encoder = encoder
        self._normaliser = normaliser

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        return self._encoder.embed(self._seen(images))

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        return self._encoder.tokens(self._seen(images))

    def attention(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        return self._encoder.attention(self._seen(images))

    def _seen(self, images: Sequence[RGB]) -> Sequence[RGB]:
        if self._normaliser is None:
            return images
        return [seen(self._normaliser, image)[0] for image in images]


def stained(encoder: Encoder, normaliser: Normaliser, *, done: bool = False) -> Encoder:
    """The encoder of images that are normalised first.

    Args:
        encoder: Of plain images.
        normaliser: Its name becomes the `stain` of the card, and so part of the fingerprint.
        done: The images that come are normalised already, as those of an ingest are.
    """
    through = _Through(encoder, None if done else normaliser)
    return Encoder(replace(encoder.card, stain=normaliser.name), through)


def seen(normaliser: Normaliser, image: RGB) -> tuple[RGB, str | None]:
    """An image in the colours of the target; where that fails as it is, and why it failed."""
    times = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / MOST_PIXELS))
    if times > 1:
        image = np.asarray(Image.fromarray(image).reduce(times))
    try:
        return normaliser.apply(image), None
    except StainError as error:
        return image, str(error)


def normaliser_of(card: EncoderCard) -> Normaliser | None:
    """The normaliser that a card names; `None` if it names none.

    Raises:
        NoSuchNormaliser: of another version, or unknown.
    """
    if card.stain is None:
        return None
    for kind in NORMALISERS:
        if normaliser := kind.from_name(card.stain):
            return normaliser
    raise NoSuchNormaliser(card.stain)


def as_carded(encoder: Encoder, card: EncoderCard, *, done: bool = False) -> Encoder:
    """A plain encoder with the normalisation that a card names before it, if it names one.

    Raises:
        NoSuchNormaliser: it names one that cannot be done here.
    """
    if encoder.card.stain == card.stain or card.stain is None:
        return encoder
    normaliser = normaliser_of(card)
    return encoder if normaliser is None else stained(encoder, normaliser, done=done)

"""An encoder whose vectors are adapted to one library, and says so in its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Vectors, Words


class _Through:
    """A network whose pooled vectors go through an adaptation; patch tokens stay as they are."""

    def __init__(self, base: Encoder, adaptation: Adaptation, site: str) -> None:
        self.engine = base.engine
        self.batch_size = base.batch_size
        self._base, self._adaptation, self._site = base, adaptation, site

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        return self._adapted(self._base.embed(images))

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        pooled, patches = self._base.tokens(images)
        return self._adapted(pooled), patches

    def attention(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        return self._base.attention(images)

    def _adapted(self, vectors: Vectors) -> Vectors:
        sites: Words = np.full(len(vectors), self._site)
        return self._adaptation.apply(vectors, sites)


class AdaptedEncoder(Encoder):
    """An encoder, the adaptation behind it, and the site whose alignment its images get."""

    def __init__(self, base: Encoder, adaptation: Adaptation, site: str = "") -> None:
        """`site` is empty where each image is aligned by the site that it looks most like."""
        super().__init__(adaptation.card, _Through(base, adaptation, site))
        self.base = base
        self.adaptation = adaptation

    def at(self, site: str | None) -> AdaptedEncoder:
        """The same, with every image aligned by one site, if that was fitted."""
        return AdaptedEncoder(self.base, self.adaptation, site or "")

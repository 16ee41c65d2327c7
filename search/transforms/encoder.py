"""An encoder whose vectors are adapted to one library, and says so in its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Vectors, Words

OWN = "(own cells)"
"""The site of images that are aligned by their own smear's cells."""


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

    def __init__(
        self,
        base: Encoder,
        adaptation: Adaptation,
        site: str = "",
        card: EncoderCard | None = None,
    ) -> None:
        """Use an encoder through an adaptation.

        Args:
            base: What embeds.
            adaptation: What its vectors go through.
            site: By which all images are aligned; empty where each is aligned by the site that it
                looks most like.
            card: Of the version; that of the adaptation if left out.
        """
        super().__init__(card or adaptation.card, _Through(base, adaptation, site))
        self.base = base
        self.adaptation = adaptation
        self.site = site

    def at(self, site: str) -> AdaptedEncoder:
        """The same, with every image aligned by one fitted site."""
        return AdaptedEncoder(self.base, self.adaptation, site, self.card)

    def by_own_cells(self, vectors: Vectors) -> AdaptedEncoder:
        """The same, with images aligned by the base vectors of the cells of their own smear."""
        known = self.adaptation.with_site(OWN, vectors)
        return AdaptedEncoder(self.base, known, OWN, self.card)

"""Several encoders as one: their vectors stand behind each other, each of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB, Encoder, EncoderError

JOIN = "+"
"""Between the names of encoders: `hemaseek-s+measured`."""


class _Behind:
    """What the parts say, one behind the other; patch tokens of one, with zeros for the others."""

    def __init__(self, parts: Sequence[Encoder], seeing: int) -> None:
        self.engine = JOIN.join(sorted({part.engine for part in parts}))
        self.batch_size = max(part.batch_size for part in parts)
        self._parts, self._seeing = parts, seeing

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        return np.concatenate([part.embed(images) for part in self._parts], axis=1)

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        pooled, patches = self._parts[self._seeing].tokens(images)
        rows = [
            pooled if at == self._seeing else part.embed(images)
            for at, part in enumerate(self._parts)
        ]
        before = sum(row.shape[1] for row in rows[: self._seeing])
        wide = np.zeros((*patches.shape[:-1], sum(row.shape[1] for row in rows)), np.float32)
        wide[..., before : before + patches.shape[-1]] = patches
        return np.concatenate(rows, axis=1), wide

    def attention(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        return self._parts[self._seeing].attention(images)


def combined(parts: Sequence[Encoder]) -> Encoder:
    """One encoder of several: the cosine of its vectors is the mean of theirs.

    Patch tokens are those of the first part that has any.

    Args:
        parts: Two or more, each once.

    Raises:
        EncoderError: one encoder twice, or fewer than two.
    """
    cards = [part.card for part in parts]
    prints = [card.fingerprint for card in cards]
    name = JOIN.join(card.id for card in cards)
    if len(set(prints)) < max(len(prints), 2):
        raise EncoderError(
            f"encoder {name!r} must name two or more encoders, each once: hemaseek-s+measured"
        )
    seeing = next((at for at, card in enumerate(cards) if card.patch_px is not None), 0)
    return Encoder(_card(name, cards, cards[seeing]), _Behind(parts, seeing))


def _card(name: str, cards: Sequence[EncoderCard], seeing: EncoderCard) -> EncoderCard:
    """The facts of all: their fingerprints are in it, and so in its own."""
    prints = JOIN.join(card.fingerprint for card in cards)
    return replace(
        seeing,
        id=name,
        architecture=f"behind-each-other-v1 {prints}",
        dim=sum(card.dim for card in cards),
        weights_sha256=sha256(prints.encode()).hexdigest(),
        pooling="none",
        parts=tuple(card.dim for card in cards),
        fields_um=next((card.fields_um for card in cards if card.fields_um is not None), None),
        licence="; ".join(dict.fromkeys(card.licence for card in cards)),
        source="; ".join(dict.fromkeys(card.source for card in cards if card.source)),
        notes="Several encoders, whose vectors stand behind each other; `hemaseek adapt --kind "
        "fuse` finds what they have in common.",
    )

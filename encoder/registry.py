"""Every encoder this installation knows. To add one, add its line to `RECIPES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from encoder import colour
from encoder.card import EncoderCard
from encoder.encoder import Encoder, EncoderError, Network

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A card, and how to build its network."""

    card: EncoderCard
    """The facts known before any weights are read."""
    build: Callable[[EncoderCard, Path | None, Device], tuple[EncoderCard, Network]]
    """Card, weights (a path, or `None` to find or download them) and device in; the completed
    card (weights digest, engine) and the network out. Imports torch only when called."""


class UnknownEncoder(EncoderError):
    """No encoder of that name."""

    def __init__(self, id: str) -> None:
        near = get_close_matches(id, RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(
            f"unknown encoder {id!r}.{hint} Known: {', '.join(RECIPES)}; "
            "or a folder with a card.json, or timm:hf-hub:OWNER/NAME, or timm:local-dir:PATH"
        )


RECIPES: dict[str, Recipe] = {
    recipe.card.id: recipe for recipe in (Recipe(card=colour.CARD, build=colour.build),)
}


def load(id: str, *, weights: Path | None = None, device: Device = "auto") -> Encoder:
    """Load an encoder.

    Args:
        id: A name in `RECIPES`, a folder with a `card.json` (an export of `train`), or a timm
            source `timm:hf-hub:OWNER/NAME[@REVISION]` or `timm:local-dir:PATH`.
        weights: The weights file; `None` looks in the weights folder and then downloads.
        device: `auto` takes the GPU if there is one.

    Raises:
        UnknownEncoder: no such name.
        EncoderError: weights that are missing, damaged or of another layout.
    """
    if id not in RECIPES:
        raise UnknownEncoder(id)
    recipe = RECIPES[id]
    card, network = recipe.build(recipe.card, weights, device)
    return Encoder(card, network)

"""Every encoder this installation knows. To add one, add its line to `RECIPES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from encoder.card import EncoderCard
from encoder.combined import JOIN, combined
from encoder.contract import Encoder, EncoderError, Network, need_torch
from encoder.features import colour, measured
from encoder.networks import baselines, published

Device = Literal["auto", "cpu", "cuda"]
SHIPPED = Path(__file__).parent / "weights"
"""Encoders that came with this installation: one exported folder each."""


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
        near = get_close_matches(id, known(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(
            f"unknown encoder {id!r}.{hint} Known: {', '.join(known())}; "
            "or a folder with a card.json, or timm:hf-hub:OWNER/NAME, or timm:local-dir:PATH; or "
            "several joined by a plus"
        )


RECIPES: dict[str, Recipe] = {
    recipe.card.id: recipe
    for recipe in (
        Recipe(card=colour.CARD, build=colour.build),
        Recipe(card=measured.CARD, build=measured.build),
        *(Recipe(card=one.card, build=one.build) for one in published.ALL),
        *(Recipe(card=one.card, build=one.build) for one in baselines.ALL),
    )
}


def shipped() -> dict[str, Path]:
    """Name and folder of the encoders that came with this installation, sorted by name."""
    cards = {path.parent: EncoderCard.read(path) for path in SHIPPED.glob("*/card.json")}
    return {card.id: folder for folder, card in sorted(cards.items(), key=lambda i: i[1].id)}


def known() -> dict[str, EncoderCard]:
    """Name and card of every encoder that can be named, without importing torch.

    The cards of encoders whose weights are not loaded yet have no weights digest, so their
    fingerprints are those of `load(...).card` only for `colour` and the shipped ones.
    """
    cards = {id: EncoderCard.read(folder / "card.json") for id, folder in shipped().items()}
    return cards | {id: recipe.card for id, recipe in RECIPES.items()}


def default_encoder() -> str:
    """The encoder used where none is named: the first shipped one, else `colour`."""
    return next(iter(shipped()), "colour")


def load(id: str, *, weights: Path | None = None, device: Device = "auto") -> Encoder:
    """Load an encoder.

    Args:
        id: A name in `known()`, a folder with a `card.json` (an export of `train`), or a timm
            source `timm:hf-hub:OWNER/NAME[@REVISION]` or `timm:local-dir:PATH`; or several of
            these joined by a plus, whose vectors then stand behind each other.
        weights: The weights file; `None` looks in the weights folder and then downloads.
        device: `auto` takes the GPU if there is one.

    Raises:
        UnknownEncoder: no such name.
        EncoderError: weights that are missing, damaged or of another layout.
    """
    if id in RECIPES:
        card, network = RECIPES[id].build(RECIPES[id].card, weights, device)
        return Encoder(card, network)
    if weights is not None:
        raise EncoderError(f"encoder {id!r} brings its own weights; {weights} cannot be used")
    from encoder.networks import export, hub

    if id.startswith(hub.PREFIX):
        need_torch(f"encoder {id!r}")
        return Encoder(*hub.build(id, device))
    folder = shipped().get(id, Path(id))
    if folder.is_dir():
        return export.load_folder(folder, device)
    if JOIN in id:
        return combined([load(part, device=device) for part in id.split(JOIN)])
    raise UnknownEncoder(id)

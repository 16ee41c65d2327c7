"""What finds cells in a smear field: the contract, and the list of finders.

To add one, add its line to `FINDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from encoder.contract import RGB
from ingest.smears import cellpose, instanseg
from ingest.smears.cells import FinderError, Found
from search.schemas.items import ScaleOrigin

DEFAULT = "classical"
"""The finder that needs no weights and no network."""


class Finder(Protocol):
    """Finds the cells of a field."""

    @property
    def id(self) -> str:
        """Its name in the list of finders."""
        ...

    def find(
        self, image: RGB, um_per_px: float | None = None, origin: ScaleOrigin = "manifest"
    ) -> Found:
        """Find the cells of a field.

        Args:
            image: Height x width x 3, uint8, RGB, any size.
            um_per_px: The field's scale where it is known.
            origin: Where `um_per_px` comes from.

        Raises:
            FinderError: a picture or a scale that the finder cannot take.
        """
        ...


def _classical(weights: Path | None) -> Finder:
    from ingest.smears.classical import Classical

    if weights is not None:
        raise FinderError(f"the classical finder has no weights, but {weights} was given; leave it")
    return Classical()


FINDERS: dict[str, Callable[[Path | None], Finder]] = {
    "classical": _classical,
    "cellpose": cellpose.build,
    "instanseg": instanseg.build,
}
"""Every finder: name to what builds it, from a weights file or `None`."""


def finder(id: str = DEFAULT, weights: Path | None = None) -> Finder:
    """A finder by its name.

    Raises:
        FinderError: no such finder, or its package or its weights are missing.
    """
    if id not in FINDERS:
        near = get_close_matches(id, FINDERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FinderError(f"unknown finder {id!r}.{hint} Known: {', '.join(FINDERS)}")
    return FINDERS[id](weights)


LOOSE = 0.25
"""An estimated scale whose spread is a larger share of it is none: what was measured were no red
cells. Fields of published sets have 0.05 to 0.2, a crowded picture of marrow 0.26."""


def scale_of_picture(image: RGB) -> tuple[float, float] | None:
    """Micrometres per pixel of a picture by its red cells, and the spread of the single cells.

    Returns:
        `None` where the default finder sees too few whole red cells, or cells that are too unlike
        each other.
    """
    found = finder(DEFAULT).find(image).estimate
    if found is None or found.spread is None or found.spread > LOOSE * found.um_per_px:
        return None
    return found.um_per_px, found.spread

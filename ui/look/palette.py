"""Colours of data: categories, sequences and opposites, distinct for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CATEGORIES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#6b6b6b",
)
"""Okabe and Ito (2008), "Color universal design", grey for their black; for up to eight."""
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star")
"""Beyond eight categories the shape changes as well (names as in Plotly and Vega)."""
SEQUENCE = ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838")
"""Cividis (Nuñez, Anderton, Renslow 2018), low to high: the same to almost every eye."""
OPPOSITES = ("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b")
"""Blue to red over white (ColorBrewer RdBu), for what lies either side of nought."""
LINES = ("solid", "dashed", "dotted")
"""Beyond eight categories the line of a box changes as well (names as in CSS)."""
UNKNOWN = "#9a9a9a"
"""What has no value."""


def colours(names: Iterable[str | None]) -> dict[str | None, str]:
    """A colour for each name, the same on every page: by alphabetical place.

    Beyond eight names the colours repeat; distinguish them by `shapes` or `lines` as well.
    """
    return {**_dealt(names, CATEGORIES), None: UNKNOWN}


def shapes(names: Iterable[str | None]) -> dict[str | None, str]:
    """A marker for each name, so that colour is never the only sign."""
    return {**_dealt(names, SHAPES, len(CATEGORIES)), None: SHAPES[0]}


def lines(names: Iterable[str | None]) -> dict[str | None, str]:
    """A line for each name, so that the boxes of more than eight kinds stay distinct."""
    return {**_dealt(names, LINES, len(CATEGORIES)), None: LINES[0]}


def _dealt(
    names: Iterable[str | None], marks: Sequence[str], each: int = 1
) -> dict[str | None, str]:
    """The marks in turn over the names in alphabetical order, `each` names to a mark."""
    known = sorted({name for name in names if name is not None})
    return {name: marks[at // each % len(marks)] for at, name in enumerate(known)}


def shade(share: float, ramp: Sequence[str] = SEQUENCE) -> str:
    """The colour of a number between 0 and 1 on a ramp, as `#rrggbb`."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    low = min(int(place), len(ramp) - 2)
    part = place - low
    one, other = _rgb(ramp[low]), _rgb(ramp[low + 1])
    mixed = [round(a + (b - a) * part) for a, b in zip(one, other, strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue

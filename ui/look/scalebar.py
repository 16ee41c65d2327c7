"""A scale bar over a picture: a round number of micrometres, as a share of the width."""

from __future__ import annotations

from dataclasses import dataclass

from search.schemas.items import Item

ROUND = (1, 2, 5)
MOST = 0.4
"""Share of the width that a bar takes at most."""


@dataclass(frozen=True)
class ScaleBar:
    """A bar of `um` micrometres that takes `share` of the width."""

    um: float
    share: float
    estimated: bool = False

    @property
    def words(self) -> str:
        """What is written at the bar."""
        length = f"{self.um / 1000:g} mm" if self.um >= 1000 else f"{self.um:g} µm"
        return f"about {length}" if self.estimated else length


def scale_bar(width_um: float | None, estimated: bool = False) -> ScaleBar | None:
    """The longest bar of 1, 2 or 5 times a power of ten that fits into `MOST` of a width.

    Args:
        width_um: Micrometres that the width spans; `None` where that is not known.
        estimated: Whether the scale is an estimate; the bar then reads `about`.
    """
    if width_um is None or not 0 < width_um < 1e6:
        return None
    room = width_um * MOST
    lengths = [step * 10.0**power for power in range(-3, 6) for step in ROUND]
    fitting = [length for length in lengths if length <= room]
    if not fitting:
        return None
    return ScaleBar(fitting[-1], fitting[-1] / width_um, estimated)


def side_um(item: Item, px: int | None = None) -> float | None:
    """Micrometres that the longer side of an item spans; `None` where that is not known.

    Args:
        item: The item; its box says how many pixels of its source it spans.
        px: Pixels of its longer side, for an item that is a whole image.
    """
    if item.um_per_px is None:
        return None
    if item.bbox is not None:
        return max(item.bbox.w, item.bbox.h) * item.um_per_px
    return None if px is None else px * item.um_per_px


def bar_html(bar: ScaleBar | None) -> str:
    """The bar, to lie over a picture; nothing where there is no scale."""
    if bar is None:
        return ""
    return (
        f'<span class="hs-scale" style="--hs-bar:{bar.share:.2%}" '
        f'role="img" aria-label="Scale bar: {bar.words}"><b>{bar.words}</b></span>'
    )

"""Pictures side by side, at one physical scale, under one zoom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from ui.widgets.mounting import mount


@dataclass(frozen=True)
class Dot:
    """A numbered mark on a picture."""

    x: float
    """0 to 1, from the left."""
    y: float
    """0 to 1, from the top."""
    text: str


@dataclass(frozen=True)
class Pane:
    """One picture under the zoom."""

    title: str
    src: str
    """Data address of the picture."""
    alt: str
    width: int
    height: int
    span: float | None = None
    """Micrometres of the longer side; `None` where that is not known, and the picture then fills
    its pane."""
    estimated: bool = False
    query: bool = False
    lines: tuple[str, ...] = ()
    overlay: str = ""
    """Data address of a transparent picture to lay over it."""
    overlay_alt: str = ""
    withheld: str = ""
    """Why there is no overlay."""
    dots: tuple[Dot, ...] = field(default=())


def lenses(panes: Sequence[Pane], key: str) -> None:
    """Draw pictures that zoom and move together: wheel, drag, +, -, 0 and the arrow keys.

    Args:
        panes: At most five fit side by side.
        key: A name that no other on the page has.
    """
    sent = []
    for pane in panes:
        facts = asdict(pane)
        facts["overlayAlt"] = facts.pop("overlay_alt")
        sent.append(facts)
    digest = sha256(repr(sent).encode()).hexdigest()
    span = max((pane.span for pane in panes if pane.span), default=1.0)
    mount("lenses", {"key": digest, "panes": sent, "span": span}, key)

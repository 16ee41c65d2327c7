"""HTML whose parts can be clicked, and reached by key: how a click on a picture reaches Python.

Any element with `data-act` (and, if there is one, `data-id`) reports them when it is clicked or
pressed with Enter. `data-key="1"` on a card moves the focus there when that key is pressed
anywhere on the page; `data-card-key="+"` on a button inside a card presses it while the card has
the focus. All text must be escaped by whoever makes the HTML.
"""

from __future__ import annotations

from dataclasses import dataclass

from ui.widgets.mounting import mount


@dataclass(frozen=True)
class Act:
    """What was pressed on a board."""

    act: str
    id: str
    """`data-id`; empty where there is none."""


def board(html: str, key: str) -> Act | None:
    """Draw HTML; returns what was pressed on it since the last run, else `None`.

    Args:
        html: Escaped HTML.
        key: A name that no other board on the page has.
    """
    pressed = mount("board", {"html": html}, key, "act").get("act")
    return None if pressed is None else Act(str(pressed["act"]), str(pressed.get("id", "")))

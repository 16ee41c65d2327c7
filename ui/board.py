"""HTML whose parts can be clicked, and reached by key: the one way from a picture to Python.

Any element with `data-act` (and, if there is one, `data-id`) reports them when it is clicked or
pressed with Enter. `data-key="1"` on a card moves the focus there when that key is pressed
anywhere on the page; `data-card-key="+"` on a button inside a card presses it while the card has
the focus. All text must be escaped by whoever makes the HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import streamlit as st

STALE_S = 30.0
"""A press that no run has taken for this long is forgotten."""


@dataclass(frozen=True)
class Act:
    """What was pressed on a board."""

    act: str
    id: str
    """`data-id`; empty where there is none."""


@cache
def _component() -> Callable[..., Any]:
    script = Path(__file__).with_name("board.js").read_text()
    made: Callable[..., Any] = st.components.v2.component(
        "hemaseek.board", html='<div class="hs-board"></div>', js=script, isolate_styles=False
    )
    return made


def board(html: str, key: str) -> Act | None:
    """Draw HTML, and say what was pressed on it in the run that follows; else `None`.

    A press is kept where the run that it began is ended by another before it comes to the board.

    Args:
        html: Escaped HTML.
        key: A name that no other board on the page has.
    """
    held = f"{key}-pressed"

    def keep() -> None:
        st.session_state[held] = (monotonic(), st.session_state[key].act)

    _component()(data={"html": html}, key=key, on_act_change=keep)
    at, pressed = st.session_state.pop(held, (0.0, None))
    if not pressed or monotonic() - at > STALE_S:
        return None
    return Act(str(pressed["act"]), str(pressed.get("id", "")))

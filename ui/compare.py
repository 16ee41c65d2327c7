"""*Compare*: The query and its neighbours at one physical scale."""

from __future__ import annotations

import streamlit as st

from ui import states
from ui.place import guarded, opened


def show() -> None:
    """Draw the page."""
    place = opened("Compare", "The query and its neighbours at one physical scale.")
    if place is None:
        return
    with guarded():
        st.html(
            states.empty(
                "Nothing is chosen to compare",
                "Search first, then mark up to four neighbours for comparison.",
            )
        )

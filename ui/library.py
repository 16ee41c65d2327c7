"""*Library*: Collections, versions, encoders, and what was brought in."""

from __future__ import annotations

import streamlit as st

from ui import states
from ui.place import guarded, opened


def show() -> None:
    """Draw the page."""
    place = opened("Library", "Collections, versions, encoders, and what was brought in.")
    if place is None:
        return
    with guarded():
        st.html(
            states.empty(
                "Nothing is listed yet",
                "The terminal lists versions with the command below.",
                "hemaseek versions",
            )
        )

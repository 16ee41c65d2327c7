"""*Case*: All cells of one case, their counts, and cases that look alike."""

from __future__ import annotations

import streamlit as st

from ui import states
from ui.place import guarded, opened


def show() -> None:
    """Draw the page."""
    place = opened("Case", "All cells of one case, their counts, and cases that look alike.")
    if place is None:
        return
    with guarded():
        st.html(states.empty("Choose a case", "Open a case from a neighbour on Find similar."))

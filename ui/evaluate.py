"""*Evaluate*: How well the neighbours' votes agree with the labels of the sources."""

from __future__ import annotations

import streamlit as st

from ui import states
from ui.place import guarded, opened


def show() -> None:
    """Draw the page."""
    place = opened(
        "Evaluate", "How well the neighbours' votes agree with the labels of the sources."
    )
    if place is None:
        return
    with guarded():
        st.html(states.empty("No evaluation yet", "None was run on this collection."))

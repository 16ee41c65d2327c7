"""*Atlas*: A collection as a map."""

from __future__ import annotations

import streamlit as st

from ui import states
from ui.place import guarded, opened


def show() -> None:
    """Draw the page."""
    place = opened("Atlas", "A collection as a map.")
    if place is None:
        return
    with guarded():
        st.html(states.empty("No map yet", "A map of this collection has not been computed."))

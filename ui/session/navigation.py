"""Going from one page to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import streamlit as st

PAGES = "hs-pages"
"""Where the session keeps every page by its name in the address; the app puts them there."""


def register(pages: Mapping[str, Any]) -> None:
    """Make pages known to `goto`, by their names in the address."""
    st.session_state[PAGES] = pages


def goto(name: str, params: Mapping[str, str] | None = None) -> NoReturn:
    """Leave this page for another, with parameters in its address.

    `goto("", {"item": ID, "collection": NAME})` searches with a stored item; so does the
    address `/?item=ID&collection=NAME`.
    """
    st.switch_page(st.session_state[PAGES][name], query_params=dict(params or {}))

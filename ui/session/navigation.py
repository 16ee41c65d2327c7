"""Going from one page to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import streamlit as st

from ui.screens.menu import pages


def goto(name: str, params: Mapping[str, str] | None = None) -> NoReturn:
    """Leave this page for another, with parameters in its address.

    `goto("", {"item": ID, "collection": NAME})` searches with a stored item; so does the
    address `/?item=ID&collection=NAME`.
    """
    st.switch_page(pages()[name], query_params=dict(params or {}))

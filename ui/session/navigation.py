"""Going from one page to another, and the address that a page has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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


def begin_with(key: str, name: str, known: Collection[str]) -> None:
    """Let the widget under a key begin with what the address names, if it is known.

    Call it before the widget is drawn; a choice that the session has made is kept.
    """
    wanted = st.query_params.get(name)
    if key not in st.session_state and wanted in known:
        st.session_state[key] = wanted


def show_in_address(**params: str | None) -> None:
    """Write what is shown into the address of the page, so that a link and a reload show it.

    `None` and an empty text are left out; other parameters stay.
    """
    for name, value in params.items():
        if not value:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value

"""What the tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(name="forgetful")
def _forgetful() -> Iterator[None]:
    """The page's client and caches are dropped after the test."""
    import streamlit as st

    from ui.session.place import connect

    yield
    connect().close()  # before it is dropped, or its socket is left open
    st.cache_resource.clear()
    st.cache_data.clear()

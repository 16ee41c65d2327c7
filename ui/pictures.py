"""Pictures of many items at once, each asked for once."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from search.client import Client, ServiceError


@st.cache_data(max_entries=4000, show_spinner=False)
def _one(_client: Client, id: str, collection: str) -> bytes:
    return _client.image(id, collection)


def pictures(client: Client, ids: Iterable[str], collection: str) -> dict[str, bytes]:
    """The JPEG of each item, by id; of one that was removed meanwhile, none."""
    found = {}
    for id in dict.fromkeys(ids):
        try:
            found[id] = _one(client, id, collection)
        except ServiceError as error:
            if error.status != 404:
                raise
    return found

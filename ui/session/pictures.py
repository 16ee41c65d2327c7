"""Thumbnails of many items, requested in parallel and cached."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceError

AT_ONCE = 8
"""Requests at the same time."""


@st.cache_data(max_entries=4000, ttl=600, show_spinner=False)
def _one(_client: Client, id: str, collection: str) -> bytes:
    return _client.image(id, collection)


def pictures(client: Client, ids: Iterable[str], collection: str) -> dict[str, bytes]:
    """The JPEG of each item, by id; of one that was removed meanwhile, none."""

    def one(id: str) -> bytes | None:
        try:
            return _one(client, id, collection)
        except ServiceError as error:
            if error.status != 404:
                raise
            return None

    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(wanted))) as pool:
        found = zip(wanted, pool.map(one, wanted), strict=True)
        return {id: content for id, content in found if content is not None}

"""Thumbnails of many items, requested in parallel and cached."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceError
from search.schemas.items import Item

AT_ONCE = 8
"""Requests at the same time."""


@st.cache_data(max_entries=4000, ttl=600, show_spinner=False)
def _one(_client: Client, id: str, collection: str) -> bytes:
    return _client.image(id, collection)


@st.cache_data(max_entries=1000, ttl=600, show_spinner=False)
def _whole(_client: Client, id: str, collection: str) -> bytes | None:
    try:
        return _client.image(id, collection, "full")
    except ServiceError:  # its file is gone or lies elsewhere; the thumbnail was kept
        return None


def measurable(client: Client, items: Iterable[Item], collection: str) -> dict[str, bytes]:
    """As `pictures`, with the whole picture of a cell where only that tells how large it is.

    A thumbnail has lost the size of its picture; a box has not, and without a scale there is
    nothing to measure.
    """
    listed = list(items)
    found = pictures(client, [item.id for item in listed], collection)
    wanted = [
        item.id
        for item in listed
        if item.bbox is None and item.um_per_px is not None and item.kind == "cell"
    ]
    if wanted:
        with ThreadPoolExecutor(min(AT_ONCE, len(wanted))) as pool:
            whole = zip(
                wanted, pool.map(lambda id: _whole(client, id, collection), wanted), strict=True
            )
            found.update({id: content for id, content in whole if content is not None})
    return found


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

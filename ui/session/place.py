"""What every page begins with: the service, its collections, and a state where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceDown, ServiceError
from search.schemas.collections import CollectionFacts
from search.settings import Settings
from ui.look import states

CHOSEN = "hs-collection"
"""Where the session keeps the collection that is looked at, for all pages."""


@dataclass(frozen=True)
class Place:
    """A service that answers, and the collection that is looked at."""

    client: Client
    collections: list[CollectionFacts]
    """As `/v1/collections` lists them."""
    name: str
    """The collection that is looked at."""

    @property
    def facts(self) -> CollectionFacts:
        """Of the collection that is looked at."""
        return next(collection for collection in self.collections if collection.name == self.name)


@st.cache_resource
def connect() -> Client:
    """The client of this page, made once."""
    settings = Settings()
    key = settings.api_key
    return Client(settings.url, key.get_secret_value() if key else None)


@contextmanager
def guarded() -> Iterator[None]:
    """Errors of the service inside are shown as a state with what to do, never as a traceback."""
    try:
        yield
    except (ServiceDown, ServiceError) as error:
        refused(error)


def refused(error: ServiceDown | ServiceError) -> None:
    """Show what went wrong and what to do."""
    st.html(states.down(error) if isinstance(error, ServiceDown) else states.failed(error))


def opened(title: str, lead: str, *, needs_items: bool = True) -> Place | None:
    """Draw the head of a page with the choice of collection; `None` where the page cannot go on.

    Args:
        title: Heading.
        lead: One sentence: what is done here.
        needs_items: Whether the page is of no use over an empty library.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", key="hs-head"):
        st.html(
            f'<header class="hs-title"><h1>{title}</h1><p class="hs-lead">{lead}</p></header>',
            width="stretch",
        )
        client = connect()
        try:
            collections = client.collections()
        except (ServiceDown, ServiceError) as error:
            refused(error)
            return None
        filled = [collection for collection in collections if collection.items]
        if filled or (collections and not needs_items):
            return Place(client, collections, _choose(filled if needs_items else collections))
    if not needs_items:
        return Place(client, collections, "")
    st.html(
        states.empty(
            "The library is empty",
            "Bring in images first, then reload this page. Sub-folders become labels.",
            "hemaseek ingest PATH --dataset NAME",
        )
    )
    return None


def _choose(collections: list[CollectionFacts]) -> str:
    names = [str(collection.name) for collection in collections]
    default = next((collection.name for collection in collections if collection.default), names[0])
    wanted = st.query_params.get("collection", st.session_state.get(CHOSEN, default))
    at = names.index(wanted) if wanted in names else names.index(default)
    name = names[at]
    if len(names) > 1:
        name = st.selectbox("Collection", names, index=at, width=240)
        if name != wanted and "collection" in st.query_params:
            del st.query_params["collection"]
    st.session_state[CHOSEN] = name
    return name

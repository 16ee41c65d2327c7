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
from ui.session.navigation import goto

CHOSEN = "hs-collection"
"""Where the session keeps the collection that is looked at, for all pages."""
STATE, WRITTEN = "hs-collection-state", "hs-reviews-written"
"""Where the session keeps the state of the collection, and how many reviews it wrote itself."""


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

    @property
    def in_address(self) -> str | None:
        """The name of the collection for an address; `None` where there is but one."""
        return self.name if len(self.collections) > 1 else None


@st.cache_resource
def connect() -> Client:
    """The client of this page, made once."""
    settings = Settings()
    key = settings.api_key
    return Client(settings.url, key.get_secret_value() if key else None)


def collection_state() -> tuple[str, int]:
    """Changes with every review, of anybody, with every import, correction, calibration and record,
    and when another version becomes active: what was answered before is asked again."""
    return st.session_state.get(STATE, ""), st.session_state.get(WRITTEN, 0)


def reviews_written() -> None:
    """Note that this session wrote reviews."""
    st.session_state[WRITTEN] = st.session_state.get(WRITTEN, 0) + 1


def show_note(key: str) -> None:
    """Show once what the session keeps under `key`: words that are not empty, and their tone."""
    words, tone = st.session_state.pop(key, ("", ""))
    if words:
        st.html(states.notes([words], tone))


@contextmanager
def needs_role(role: str, refusal: str) -> Iterator[None]:
    """A call that a key without the role may not make: the page then says so and goes on."""
    try:
        yield
    except ServiceError as error:
        if error.status != 403:
            raise
        st.html(states.notes([f"{refusal}: {error}. It needs the role {role}."]))


@contextmanager
def guarded() -> Iterator[None]:
    """Errors of the service inside are shown as a state with what to do, never as a traceback."""
    try:
        yield
    except (ServiceDown, ServiceError) as error:
        refused(error)


def refused(error: ServiceDown | ServiceError) -> None:
    """Show what went wrong and what to do."""
    if not isinstance(error, ServiceDown):
        st.html(states.failed(error))
        return
    st.html(states.down(error))
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.code("hemaseek serve", language=None, width="content")


def opened(
    title: str, lead: str, *, needs_items: bool = True, compact: bool = False
) -> Place | None:
    """Draw the head of a page with the choice of collection; `None` where the page cannot go on.

    Args:
        title: Heading.
        lead: One sentence: what is done here.
        needs_items: Whether the page is of no use over an empty library.
        compact: Whether the work needs the room: the title is then for screen readers alone.
    """
    client = connect()
    collections: list[CollectionFacts] = []
    failure: ServiceDown | ServiceError | None = None
    name, elsewhere = "", False
    key, kind = ("hs-head-compact", "hs-sr") if compact else ("hs-head", "hs-title")
    with st.container(horizontal=True, vertical_alignment="bottom", key=key):
        st.html(
            f'<header class="{kind}"><h1>{title}</h1><p class="hs-lead">{lead}</p></header>',
            width="stretch",
        )
        try:
            collections = client.collections()
        except (ServiceDown, ServiceError) as error:
            failure = error
        choice = [one for one in collections if one.items] if needs_items else collections
        linked = st.query_params.get("collection")
        elsewhere = bool(choice) and linked not in (None, *(one.name for one in choice))
        if choice and not elsewhere:
            name = _choose(choice, compact)
    if failure is not None:
        refused(failure)
        with st.container(horizontal=True, horizontal_alignment="center"):
            if st.button("Try again", icon=":material/refresh:", key="try-again"):
                st.rerun()
        return None
    if elsewhere:
        _not_here(str(linked))
        return None
    if name or not needs_items:
        place = Place(client, collections, name)
        if name:
            facts = place.facts
            st.session_state[STATE] = f"{facts.fingerprint} {facts.items} {facts.state}"
        return place
    nothing(
        "The library is empty",
        "Import cells first: sample cells, an upload, or a folder. Then everything here works.",
        "hemaseek ingest PATH --dataset NAME",
    )
    with st.container(horizontal=True, horizontal_alignment="center"):
        if st.button("Import cells", type="primary", icon=":material/download:", key="to-import"):
            goto("library", {"view": "Imports"})
    return None


def _not_here(linked: str) -> None:
    """A link that names a collection that cannot be shown never shows another one by itself."""
    st.html(
        states.empty(
            f"Collection {linked} is not here",
            "The link names it, and it was removed, is empty, or is not open to this page.",
        )
    )
    with st.container(horizontal=True, horizontal_alignment="center"):
        if st.button("Show what is here", type="primary", key="to-what-is-here"):
            st.query_params.clear()
            st.rerun()


def nothing(title: str, text: str, command: str = "") -> None:
    """Say that nothing is there and how that changes, with a command that can be copied."""
    st.html(states.empty(title, text))
    if command:
        with st.container(horizontal=True, horizontal_alignment="center"):
            st.code(command, language=None, width="content")


def _choose(collections: list[CollectionFacts], compact: bool) -> str:
    names = [str(collection.name) for collection in collections]
    default = next((collection.name for collection in collections if collection.default), names[0])
    wanted = st.query_params.get("collection", st.session_state.get(CHOSEN, default))
    at = names.index(wanted) if wanted in names else names.index(default)
    name = names[at]
    if len(names) > 1:
        name = st.selectbox(
            "Collection",
            names,
            index=at,
            width=240,
            label_visibility="collapsed" if compact else "visible",
        )
        if name != wanted and "collection" in st.query_params:
            del st.query_params["collection"]
    st.session_state[CHOSEN] = name
    return name

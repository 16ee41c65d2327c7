"""The search of a session: in its memory, and in the address of the page."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st

from ui.address import BadAddress, Searching
from ui.look import states
from ui.session.place import Place

SEARCH, WRITTEN, ROUND = "hs-search", "hs-written", "hs-round"
"""The search, the address last written, and a number in the keys of widgets that show them."""
FIRST = "hs-first-search"
"""Set after an import, until a search is made: the page then says how one begins."""
PICKING = "hs-picking"
"""By upload: `True` where a cell is to be chosen in it, `False` where the whole is the query."""


def current(place: Place) -> Searching:
    """The search of this session, or the one that the address names."""
    search: Searching = st.session_state.get(SEARCH, Searching())
    params = st.query_params.to_dict()
    if params and params != st.session_state.get(WRITTEN):
        try:
            search = Searching.of_address(params)
        except BadAddress as error:
            st.html(states.notes([states.sentence(str(error))], "bad"))
            search = Searching()
        renew()
    if search.collection != place.name:
        if search.collection is not None and (search.item or search.refined):
            search = Searching()  # items belong to their collection
        search = search.model_copy(update={"collection": place.name})
    return keep(search)


def under_way() -> bool:
    """Whether a search is shown, by the session or by the address."""
    search: Searching = st.session_state.get(SEARCH, Searching())
    return search.asks or bool({"item", "upload"} & set(st.query_params))


def keep(search: Searching) -> Searching:
    """Remember a search in the session and in the address."""
    st.session_state[SEARCH] = search
    if search.asks:
        st.session_state.pop(FIRST, None)
    address = search.address() if search.asks else {}
    if st.query_params.to_dict() != address:
        st.query_params.from_dict(address)
    st.session_state[WRITTEN] = address
    return search


def renew() -> None:
    """Give the widgets new keys, so that they show the changed search."""
    st.session_state[ROUND] = this_round() + 1


def this_round() -> int:
    """Part of the keys of widgets that show the search."""
    return int(st.session_state.get(ROUND, 0))


def change(search: Searching, **changes: object) -> NoReturn:
    """Go on with another search."""
    keep(search.model_copy(update=changes))
    renew()
    st.rerun()


def start_again(search: Searching) -> NoReturn:
    """Clear the search; the collection stays."""
    st.session_state.pop(PICKING, None)
    change(Searching(collection=search.collection))


def picking(upload: str) -> bool | None:
    """Whether a cell is being chosen in an upload; `None` where that is not decided."""
    found: bool | None = st.session_state.get(PICKING, {}).get(upload)
    return found


def set_picking(upload: str, choosing: bool) -> None:
    """Decide whether a cell is to be chosen in an upload."""
    st.session_state[PICKING] = {upload: choosing}

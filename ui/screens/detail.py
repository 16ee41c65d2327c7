"""Stored items, opened one after the other: large, in their field, with what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from search.schemas.items import Item
from search.schemas.reviews import ReviewRecord, standing
from ui.address import MOST_COMPARED, Searching
from ui.look import states
from ui.look.card import data_url, pixels, scale_words
from ui.look.scalebar import bar_html, scale_bar, side_um
from ui.screens.relabel import relabel
from ui.session.current import change
from ui.session.navigation import goto
from ui.session.place import Place, guarded
from ui.session.results import compared, full_picture, mark, shown_source
from ui.widgets.viewer import mark as box_of
from ui.widgets.viewer import viewer

SHOWN = ("label", "case", "patient", "dataset", "site", "stain", "scanner", "acquired", "kind")
AT = "hs-opened"
"""Where the session keeps which of the items is open."""
RELABEL = "hs-opened-label"
CELL, FIELD = "Cell", "In its field"
BOX = "#e69f00"
VIEWER_PX = 420


@dataclass(frozen=True)
class Shown:
    """An item of a list that is gone through."""

    item: Item
    score: float | None = None
    """Its similarity, where it was found by a search."""


def open_item(
    place: Place,
    shown: Sequence[Shown],
    id: str,
    search: Searching | None = None,
    *,
    label: bool = False,
) -> None:
    """Open an item of a list, from which one goes to the one before and the next.

    Args:
        place: The service and the collection.
        shown: The list.
        id: Of the item that is opened first; nothing is done where it is not in the list.
        search: The search that a new one with the item continues; its filters are kept.
        label: Whether it is opened to be labelled.
    """
    ids = [one.item.id for one in shown]
    if id in ids:
        st.session_state[AT] = ids.index(id)
        st.session_state[RELABEL] = label
        _opened(place, tuple(shown), search)


@st.dialog("Stored item", width="large")
def _opened(place: Place, shown: Sequence[Shown], search: Searching | None) -> None:
    at = min(int(st.session_state.get(AT, 0)), len(shown) - 1)
    one = shown[at]
    with guarded():
        _steps(at, len(shown))
        left, right = st.columns([1, 1], gap="medium")
        with left:
            view = st.segmented_control(
                "View", [CELL, FIELD], default=CELL, key="hs-opened-view",
                label_visibility="collapsed",
            )  # fmt: skip
            if view == FIELD:
                _in_its_field(place, one.item)
            else:
                jpeg = full_picture(place.client, one.item.id, place.name)
                st.html(large_picture(one.item, jpeg))
        with right:
            with st.container(horizontal=True, gap="small"):
                _actions(place, one.item, search)
            with st.expander("Reclassify", expanded=bool(st.session_state.get(RELABEL))):
                if relabel(place, [one.item.id], f"opened-{one.item.id}"):
                    st.rerun(scope="fragment")
            reviewed = place.client.item_reviews(one.item.id, place.name)
            st.html(facts_table(one, reviewed.history))


def _steps(at: int, n: int) -> None:
    if n < 2:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="hs-steps"):
        st.button(
            "Previous", icon=":material/arrow_back:", disabled=at == 0, shortcut="Left",
            on_click=_go, args=(at - 1,),
        )  # fmt: skip
        st.html(f'<p class="hs-reason hs-step">{at + 1} of {n}</p>', width="content")
        st.button(
            "Next", icon=":material/arrow_forward:", disabled=at == n - 1, shortcut="Right",
            on_click=_go, args=(at + 1,),
        )  # fmt: skip


def _go(at: int) -> None:
    st.session_state[AT] = at


def _in_its_field(place: Place, item: Item) -> None:
    """The source with the box of the item, and its other stored cells."""
    source = shown_source(place, item.source)
    if source is None:
        return
    box = box_of(item, BOX, item.label or "no label", strong=True)
    viewer(
        source,
        [] if box is None else [box],
        f"opened-{item.source}",
        picked=None if box is None else item.id,
        height=VIEWER_PX,
    )
    words = f"A {'slide' if source.slide else 'picture'} of {source.dataset}"
    size = f"{source.width:,} × {source.height:,} pixels"
    st.html(f'<p class="hs-reason">{escape(words)}, {size}.</p>')
    if box is None:
        st.html(states.notes(["This item is the whole of its picture."], "good"))


def _actions(place: Place, item: Item, search: Searching | None) -> None:
    if st.button("Search with this cell", type="primary", icon=":material/search:", key="ask"):
        if search is None:
            goto("", {"item": item.id, "collection": place.name})
        change(search, item=item.id, upload=None, crop=None, like=(), unlike=(), region=None)
    if item.case and st.button("Open this case", icon=":material/assignment_ind:"):
        goto("case", {"case": item.case, "by": "case", "collection": place.name})
    if search is None:
        return
    chosen = compared(search)
    marked = item.id in chosen
    if st.button(
        "Unmark" if marked else "Mark for comparison",
        icon=":material/view_column:",
        disabled=not marked and len(chosen) >= MOST_COMPARED,
        help=f"Up to {MOST_COMPARED} beside the query.",
    ):
        mark(search, item.id)
        st.rerun()


def large_picture(item: Item, jpeg: bytes) -> str:
    """The picture at full size with its scale bar."""
    bar = scale_bar(side_um(item, max(pixels(jpeg))), item.um_per_px_origin == "estimate")
    alt = escape(f"Stored item: {item.label or 'no label'}")
    return (
        f'<figure class="hs-query"><span class="hs-frame"><img src="{data_url(jpeg)}" alt="{alt}">'
        f"{bar_html(bar)}</span></figure>"
    )


def facts_table(one: Shown, reviews: Sequence[ReviewRecord] = ()) -> str:
    """What is known of an item, as a table; what is not known is shown as unknown.

    The last label of each reviewer stands below the recorded one, unless it was withdrawn.
    """
    item = one.item
    rows = [(name, getattr(item, name)) for name in SHOWN]
    rows[1:1] = [
        (
            "reviewed as",
            f"{review.label}, by {review.reviewer or review.caller} on {review.at[:10]}",
        )
        for review in standing(reviews)
    ]
    rows += [("scale", scale_words(item)), ("id", item.id)]
    if one.score is not None:
        rows.insert(0, ("similarity", f"{one.score:.3f}"))
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        if value is not None
        else f'<tr><th>{escape(name)}</th><td class="hs-none">unknown</td></tr>'
        for name, value in rows
    )
    return f'<table class="hs-table hs-known">{cells}</table>'

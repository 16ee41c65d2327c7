"""One stored item, opened: its picture at full size, and all that is known of it."""

from __future__ import annotations

from html import escape

import streamlit as st

from search.schemas.items import Item
from ui.address import MOST_COMPARED, Searching
from ui.look.card import data_url, pixels, scale_words
from ui.look.scalebar import bar_html, scale_bar, side_um
from ui.session.current import change
from ui.session.navigation import goto
from ui.session.place import Place, guarded
from ui.session.results import compared, mark

SHOWN = ("label", "case", "patient", "dataset", "site", "stain", "scanner", "acquired", "kind")


@st.dialog("Stored item", width="large")
def detail(place: Place, search: Searching, item: Item) -> None:
    """Show an item, and offer what can be done with it."""
    with guarded():
        jpeg = place.client.image(item.id, place.name, "full")
        left, right = st.columns([1, 1], gap="medium")
        with left:
            st.html(large_picture(item, jpeg))
        with right:
            st.html(facts_table(item))
            if st.button(
                "Search with this cell", type="primary", icon=":material/search:", key="ask"
            ):
                change(search, item=item.id, upload=None, crop=None, like=(), unlike=())
            if item.case and st.button("Open this case", icon=":material/assignment_ind:"):
                goto("case", {"case": item.case, "collection": place.name})
            chosen = compared()
            marked = item.id in chosen
            if st.button(
                "Unmark" if marked else "Mark for comparison",
                icon=":material/view_column:",
                disabled=not marked and len(chosen) >= MOST_COMPARED,
                help=f"Up to {MOST_COMPARED} beside the query.",
            ):
                mark(item.id)
                st.rerun()


def large_picture(item: Item, jpeg: bytes) -> str:
    """The picture at full size with its scale bar."""
    bar = scale_bar(side_um(item, max(pixels(jpeg))), item.um_per_px_origin == "estimate")
    alt = escape(f"Stored item: {item.label or 'no label'}")
    return (
        f'<figure class="hs-query"><span class="hs-frame"><img src="{data_url(jpeg)}" alt="{alt}">'
        f"{bar_html(bar)}</span></figure>"
    )


def facts_table(item: Item) -> str:
    """What is known of an item, as a table; what is not known is shown as unknown."""
    rows = [(name, getattr(item, name)) for name in SHOWN]
    rows += [("scale", scale_words(item)), ("id", item.id)]
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        if value is not None
        else f'<tr><th>{escape(name)}</th><td class="hs-none">unknown</td></tr>'
        for name, value in rows
    )
    return f'<table class="hs-table hs-known">{cells}</table>'

"""How a search begins: a picture, a sample, or a stored item."""

from __future__ import annotations

import streamlit as st

from search.client.transport import ServiceDown, ServiceError
from search.schemas.cells import FoundCells
from ui.address import Searching
from ui.look import states
from ui.look.card import card
from ui.session.current import FIRST, change, start_again, this_round
from ui.session.place import Place, refused
from ui.session.results import (
    cells_of,
    pictures,
    sampled,
    search_results,
    stored_item,
    uploads,
)
from ui.session.uploads import Upload
from ui.widgets.board import board
from ui.widgets.paste import pasted

TYPES = ["jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "gif"]
FIELD_PX = 420
"""An uploaded picture with a longer side than this is taken for a field of many cells."""


def begin(place: Place, search: Searching) -> None:
    """Three ways to start: an image, a stored item, a sample."""
    at = this_round()
    if st.session_state.get(FIRST):
        words = (
            "Your first search: click a sample below, or drop in a cell. You will see the stored "
            "cells that look most like it and how their labels vote; a click on one opens it."
        )
        st.html(states.notes([words], "good"))
    left, right = st.columns([3, 2], gap="large")
    with left, st.container(key="hs-begin"):
        st.html('<h2 class="hs-section">Your image</h2>')
        given = uploader("Drop in a cell or a whole field, or paste with Ctrl+V", f"upload-{at}")
        given = pasted(f"paste-{at}") or given
        st.html(
            '<p class="hs-reason">JPEG, PNG, TIFF, BMP or WebP, up to 20 MB; it is not stored with '
            "the library. In a field, cells are found and offered to click.</p>"
        )
    with right:
        st.html('<h2 class="hs-section">A stored item</h2>')
        typed = st.text_input(
            "Item id",
            key=f"item-{at}",
            placeholder="3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11",
        )
    if given is not None:
        take(place, search, *given)
    if typed.strip():
        _open(place, search, typed.strip())
    st.html('<h2 class="hs-section">A sample from the library</h2>')
    about = place.facts
    samples = sampled(place.client, place.name, about.dim, about.fingerprint)
    shown = pictures(place.client, samples, place.name)
    cards = "".join(
        card(item, shown[item.id], act="ask", number=at) for at, item in enumerate(samples, 1)
    )
    pressed = board(f'<ol class="hs-grid" aria-label="Samples">{cards}</ol>', f"samples-{at}")
    if pressed is not None:
        change(search, item=pressed.id, upload=None, crop=None, region=None)


def uploader(label: str, key: str) -> tuple[str, bytes] | None:
    """A place to drop a file; its name and bytes."""
    upload = st.file_uploader(label, type=TYPES, key=key)
    return None if upload is None else (upload.name, upload.getvalue())


def take(place: Place, search: Searching, name: str, content: bytes) -> None:
    """Go on with a picture once the service took it; else say why not, and all stays as it was."""
    if not content:
        words = (
            f"{name} is empty, or larger than the 15 MB that can be pasted; drop it in as a file"
        )
        st.html(states.notes([f"{words}."], "bad"))
        return
    upload = Upload.of(content, name)
    changes = {
        "upload": upload.id,
        "item": None,
        "crop": None,
        "like": (),
        "unlike": (),
        "region": None,
    }
    try:
        with st.spinner(f"Reading {name}"):
            if is_field(upload):
                cells_of(place.client, content, upload.id, search.um_given)
            else:  # the answer is kept, so that it is not searched for twice
                narrowed = search.model_copy(update=changes)
                search_results(place.client, narrowed, content)
    except (ServiceDown, ServiceError) as error:
        refused(error)
        return
    uploads().keep(content, name)
    change(search, **changes)


def is_field(upload: Upload) -> bool:
    """Whether a picture is large enough to be a field of many cells."""
    return upload.size is not None and max(upload.size) > FIELD_PX


def begin_again(place: Place, search: Searching) -> None:
    """After a refusal: another picture, or a new search."""
    with st.container(key="hs-again", width=640):
        given = uploader("Drop in another image", f"instead-{this_round()}")
        if given is not None:
            take(place, search, *given)
        if st.button("New search", key="new-after", icon=":material/restart_alt:"):
            start_again(search)


def _open(place: Place, search: Searching, typed: str) -> None:
    try:
        found = stored_item(place.client, typed, place.name)
    except ServiceError as error:
        if error.status not in {404, 422}:
            raise
        words = "An id is 32 hex digits in five groups, as a card's details show it."
        if error.status == 404:
            words = "It may have been deleted or re-indexed, or lie in another collection."
        st.html(states.notes([f"There is no item {typed[:40]}. {words}"], "bad"))
        return
    change(search, item=found.id, upload=None, crop=None, region=None)


def forgotten(search: Searching) -> None:
    """A link to a search whose picture is not kept any more."""
    st.html(
        states.empty(
            "The picture of this search is not kept any more",
            "Pictures are not stored with the library; this page remembers them for a day. "
            "Drop in the same picture again, and the search goes on as it was.",
        )
    )
    given = uploader("The same image", f"again-{this_round()}")
    if given is not None:
        kept = uploads().keep(given[1], given[0])
        if kept.id == search.upload:
            change(search)
        st.html(states.notes(["This is another picture than the link was made with."]))
        if st.button("Search with this image instead"):
            change(search, upload=kept.id, crop=None, like=(), unlike=(), region=None)
    if st.button("New search", key="new", icon=":material/restart_alt:"):
        start_again(search)


def scale_input(search: Searching, upload: Upload, found: FoundCells | None = None) -> None:
    """A field for the scale of a picture; an estimate from its red cells stands below."""
    typed = st.number_input(
        "Scale (µm per px)",
        min_value=0.001,
        max_value=1000.0,
        value=search.um_given,
        step=0.01,
        format="%.4f",
        placeholder="not known",
        key=f"scale-{upload.id}-{this_round()}",
        help="From your microscope. Without it, sizes are not compared.",
    )
    if typed != search.um_given:
        change(search, um_per_px=typed, um_estimated=False)
    estimate = search.um_per_px if found is None else found.um_per_px
    if typed is None and estimate is not None:
        st.html(
            f'<p class="hs-reason">By its red cells about {estimate:.3g} µm per px: an '
            "estimate, which is used until you give the scale.</p>"
        )

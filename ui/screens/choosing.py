"""How a search begins: a picture, a sample, a stored item, or a cell in a field."""

from __future__ import annotations

import streamlit as st

from search.client.transport import ServiceError
from search.schemas.cells import FoundCells
from ui.address import Searching
from ui.look import states
from ui.look.card import card
from ui.session.current import change, set_picking, start_again, this_round
from ui.session.place import Place
from ui.session.results import cells_of, pictures, sampled, stored_item, uploads
from ui.session.uploads import Upload
from ui.widgets.board import board
from ui.widgets.field import field
from ui.widgets.paste import pasted

TYPES = ["jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "gif"]
KINDS = ("white", "red", "platelet")


def begin(place: Place, search: Searching) -> None:
    """Three ways to start: an image, a stored item, a sample."""
    at = this_round()
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
        take(search, *given)
    if typed.strip():
        _open(place, search, typed.strip())
    st.html('<h2 class="hs-section">A sample from the library</h2>')
    about = place.facts
    samples = sampled(place.client, place.name, about.dim, about.fingerprint)
    shown = pictures(place.client, [item.id for item in samples], place.name)
    cards = "".join(
        card(item, shown[item.id], act="ask", number=at) for at, item in enumerate(samples, 1)
    )
    pressed = board(f'<ol class="hs-grid" aria-label="Samples">{cards}</ol>', f"samples-{at}")
    if pressed is not None:
        change(search, item=pressed.id, upload=None, crop=None)


def uploader(label: str, key: str) -> tuple[str, bytes] | None:
    """A place to drop a file; its name and bytes."""
    upload = st.file_uploader(label, type=TYPES, key=key)
    return None if upload is None else (upload.name, upload.getvalue())


def take(search: Searching, name: str, content: bytes) -> None:
    """Go on with a picture."""
    if not content:
        words = (
            f"{name} is empty, or larger than the 15 MB that can be pasted; drop it in as a file"
        )
        st.html(states.notes([f"{words}."], "bad"))
        return
    upload = uploads().keep(content, name)
    change(search, upload=upload.id, item=None, crop=None, like=(), unlike=())


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
    change(search, item=found.id, upload=None, crop=None)


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
            change(search, upload=kept.id, crop=None, like=(), unlike=())
    if st.button("New search", key="new", icon=":material/restart_alt:"):
        start_again(search)


def choose_cell(place: Place, search: Searching, upload: Upload) -> None:
    """A field with its cells, to click one or to draw a box."""
    left, right = st.columns([1, 3], gap="medium")
    with right:
        waiting = st.empty()
        waiting.html('<p class="hs-lead" role="status">Looking for cells…</p>')
        found = cells_of(place.client, upload.content, upload.id, search.um_per_px)
        waiting.empty()
    with left:
        words = (
            "Click a cell in the picture, or draw a box around one."
            if found.cells
            else "No cell was found here. Draw a box around one, or use the whole picture."
        )
        st.html(f'<h2 class="hs-section">Which cell?</h2><p class="hs-reason">{words}</p>')
        kinds = [kind for kind in KINDS if _n(found, kind)]
        shown = (
            st.pills(
                "Cells offered",
                kinds,
                default=kinds[:1],
                selection_mode="multi",
                format_func=lambda kind: f"{kind} · {_n(found, kind)}",
                key=f"kinds-{upload.id}",
            )
            if kinds
            else []
        )
        scale_input(search, upload, found)
        if st.button("Use the whole image", key="whole", width="stretch"):
            set_picking(upload.id, False)
            change(search)
        if st.button("New search", key="new", icon=":material/restart_alt:", width="stretch"):
            start_again(search)
    with right:
        cells = [cell for cell in found.cells if cell.kind in shown]
        box = field(upload.content, cells, f"field-{upload.id}")
        st.html(
            '<p class="hs-keys"><span>Click a cell, or drag a box around one</span> '
            "<span><kbd>Tab</kbd> goes from cell to cell</span> "
            "<span><kbd>Enter</kbd> takes it</span></p>"
        )
    if box is not None:
        change(search, crop=box)


def scale_input(search: Searching, upload: Upload, found: FoundCells | None = None) -> None:
    """A field for the scale of a picture; an estimate from its red cells stands below."""
    typed = st.number_input(
        "Scale (µm per px)",
        min_value=0.001,
        max_value=1000.0,
        value=search.um_per_px,
        step=0.01,
        format="%.4f",
        placeholder="not known",
        key=f"scale-{upload.id}-{this_round()}",
        help="From your microscope. Without it, sizes are not compared.",
    )
    if typed != search.um_per_px:
        change(search, um_per_px=typed)
    if typed is None and found is not None and found.um_per_px is not None:
        st.html(
            f'<p class="hs-reason">By its red cells about {found.um_per_px:.3g} µm per px: an '
            "estimate.</p>"
        )


def _n(found: FoundCells, kind: str) -> int:
    return sum(cell.kind == kind for cell in found.cells)

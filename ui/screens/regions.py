"""A part of the query picture, drawn by hand, that the gallery follows."""

from __future__ import annotations

import streamlit as st

from search.client.transport import ServiceDown, ServiceError
from search.schemas.items import Box
from ui.address import Searching
from ui.look import states
from ui.look.card import pixels
from ui.session.current import change, this_round
from ui.session.place import Place
from ui.session.results import search_results
from ui.session.uploads import Upload
from ui.widgets.field import field

SHOWN_PX = 640


def part_of_query(place: Place, search: Searching, upload: Upload) -> None:
    """Offer to look at a part of an uploaded query; a box is taken once the service took it."""
    if search.region is not None:
        words = "The gallery follows the part you drew; the vote is of the whole query."
        st.html(states.notes([words], "good"))
        if st.button("Use the whole query", icon=":material/fullscreen:", width="stretch"):
            change(search, region=None)
    with st.expander("Search with a part of it"):
        st.html('<p class="hs-reason">Drag a box around what the neighbours should share.</p>')
        picture = upload.part(search.crop, SHOWN_PX)
        drawn = field(picture, (), f"part-{upload.id}-{this_round()}")
    if drawn is None:
        return
    region = in_query(drawn, pixels(picture), search.crop, upload.size)
    try:
        search_results(place.client, search.model_copy(update={"region": region}), upload.content)
    except (ServiceDown, ServiceError) as error:
        words = str(error)
        st.html(states.notes([f"{words[:1].upper()}{words[1:]}. The gallery is as before."], "bad"))
        return
    change(search, region=region)


def in_query(
    drawn: Box, shown: tuple[int, int], crop: Box | None, size: tuple[int, int] | None
) -> Box:
    """A box on the shown picture in pixels of the query, whose crop may hang over the border.

    Args:
        drawn: In pixels of the shown picture.
        shown: Its width and height; what hangs over the border is not part of it.
        crop: The part of the upload that is the query; `None` for the whole.
        size: Of the upload.
    """
    width, height = size or shown
    whole = crop or Box(x=0, y=0, w=width, h=height)
    left, top = max(whole.x, 0), max(whole.y, 0)
    by = (min(whole.x + whole.w, width) - left) / shown[0]
    x = round(drawn.x * by) + left - whole.x
    y = round(drawn.y * by) + top - whole.y
    w = max(1, min(round(drawn.w * by), whole.w - x))
    h = max(1, min(round(drawn.h * by), whole.h - y))
    return Box(x=x, y=y, w=w, h=h)

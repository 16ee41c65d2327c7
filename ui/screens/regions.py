"""A part of the query picture, drawn by hand, that the gallery follows."""

from __future__ import annotations

from io import BytesIO

import streamlit as st
from PIL import Image, ImageDraw

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
LEAST_PX = 320
"""A smaller picture is enlarged, so that a box can be drawn on it."""
BOX = ("#14171c", "#ffd400")
"""Two lines, one in the other: one of them is seen on any cell."""


def part_of_query(place: Place, search: Searching, upload: Upload) -> None:
    """Offer to look at a part of an uploaded query; a box is taken once the service took it."""
    if search.region is not None:
        words = "The gallery follows the part you drew; the vote is of the whole query."
        st.html(states.notes([words], "good"))
        if st.button("Use the whole query", icon=":material/fullscreen:", width="stretch"):
            change(search, region=None)
    with st.expander("Search with a part of it"):
        st.html('<p class="hs-reason">Drag a box around what the neighbours should share.</p>')
        picture = _enlarged(upload.part(search.crop, SHOWN_PX))
        drawn = field(picture, (), f"part-{upload.id}-{this_round()}")
    if drawn is None:
        return
    region = in_query(drawn, pixels(picture), search.crop, upload.size)
    try:
        search_results(place.client, search.model_copy(update={"region": region}), upload.content)
    except (ServiceDown, ServiceError) as error:
        words = f"{states.sentence(str(error))} The gallery is as before."
        st.html(states.notes([words], "bad"))
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


def with_region(jpeg: bytes, search: Searching, upload: Upload) -> bytes:
    """The shown query with the part that the gallery follows in a box; unchanged without one."""
    region = search.region
    if region is None:
        return jpeg
    with Image.open(BytesIO(jpeg)) as image:
        shown = image.convert("RGB")
    width, height = upload.size or shown.size
    whole = search.crop or Box(x=0, y=0, w=width, h=height)
    left, top = max(whole.x, 0), max(whole.y, 0)
    by = shown.width / (min(whole.x + whole.w, width) - left)
    x, y = (region.x + whole.x - left) * by, (region.y + whole.y - top) * by
    pen, thick = ImageDraw.Draw(shown), max(2, shown.width // 60)
    for colour, wide in zip(BOX, (2 * thick, thick), strict=True):
        pen.rectangle((x, y, x + region.w * by, y + region.h * by), outline=colour, width=wide)
    return _encoded(shown)


def _enlarged(jpeg: bytes) -> bytes:
    with Image.open(BytesIO(jpeg)) as image:
        by = LEAST_PX / max(image.size)
        if by <= 1:
            return jpeg
        size = (round(image.width * by), round(image.height * by))
        return _encoded(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def _encoded(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()

"""A picture on which found cells are offered to click, and a box can be drawn by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO

import streamlit as st
from PIL import Image

from encoder.image import read_rgb
from search.schemas.cells import FoundCell
from search.schemas.items import Box
from ui.look.card import data_url
from ui.widgets.mounting import mount

SHOWN_PX = 1400
"""Longer side of a picture as it is sent to the browser."""
NAMES = {"white": "white cell", "red": "red cell", "platelet": "platelet"}


def field(
    content: bytes,
    cells: Sequence[FoundCell],
    key: str,
    names: Mapping[Box, tuple[str, str, str]] | None = None,
) -> Box | None:
    """Draw a picture with its cells; the box that was clicked or drawn in this run, else `None`.

    Args:
        content: The encoded picture.
        cells: What was found in it; a click on one gives its `crop`.
        key: A name that no other field on the page has.
        names: By the box of a cell what it is called, its colour, and its line.
    """
    src, width, height = _sent(content)
    offered = [
        {
            "at": at,
            "kind": cell.kind,
            "bbox": cell.bbox.model_dump(),
            "crop": cell.crop.model_dump(),
            "name": f"{NAMES[cell.kind]} {at + 1}"
            + (", cut by the border" if cell.touches_border else ""),
            "called": (names or {}).get(cell.bbox, ("", "", "")),
        }
        for at, cell in enumerate(cells)
    ]
    digest = sha256(f"{src[-64:]}{len(src)}{offered}".encode()).hexdigest()
    data = {
        "key": digest,
        "src": src,
        "alt": "The uploaded picture",
        "width": width,
        "height": height,
        "cells": offered,
    }
    pressed = mount("field", data, key, "box").get("box")
    if pressed is None:
        return None
    return Box.model_validate({side: int(pressed[side]) for side in ("x", "y", "w", "h")})


@st.cache_data(max_entries=16, show_spinner=False)
def _sent(content: bytes) -> tuple[str, int, int]:
    """A picture as the browser gets it, with the width and height of the original."""
    small = Image.fromarray(read_rgb(content))
    width, height = small.size
    small.thumbnail((SHOWN_PX, SHOWN_PX))
    out = BytesIO()
    small.save(out, "JPEG", quality=90)
    return data_url(out.getvalue()), width, height

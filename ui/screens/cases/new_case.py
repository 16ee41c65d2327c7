"""On the case page: a case model applied to a new case, uploaded as smear fields or as a slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from search.client.transport import ServiceError
from search.schemas.cells import FoundCell
from search.schemas.items import Box
from search.schemas.mil import MilAnswer, MilCell, MilModel, MilQuestion
from search.schemas.questions import About
from ui.look import states
from ui.look.card import data_url
from ui.look.palette import shade
from ui.screens.cases.models import counts_for, share_of, told, verdict
from ui.screens.choosing import TYPES
from ui.session.place import Place
from ui.widgets.field import field

SLIDES = ["svs", "ndpi", "scn", "bif", "dcm"]
"""Endings of slides in one file."""
NAMED = 5
"""Cells of a field whose number is written beside them."""
KEPT = "case-model-new-answer"
SHOWN_LEVEL = 10
"""Of the pyramid of a slide that is shown: up to 1,024 pixels a side."""
Picture = tuple[str, int, int]
"""A small picture of a slide as an address, and the slide's own width and height."""


def new_case(place: Place, model: MilModel) -> None:
    """Take fields or a slide, and show what the model says of them and on what that rests."""
    with st.expander("Apply the model to a new case"):
        with st.form("case-model-new", border=False):
            files = st.file_uploader(
                "Smear fields, or one slide",
                type=[*TYPES, *SLIDES],
                accept_multiple_files=True,
                help="Cells of fields are found; a slide is cut into tiles. Nothing is stored.",
            )
            patient = st.text_input(
                "Patient (pseudonym)",
                help="Where the library has the patient, networks that did not see it answer.",
            )
            sent = st.form_submit_button("Apply the model", type="primary")
        if sent:
            st.session_state.pop(KEPT, None)
            _apply(place, model, files, patient.strip() or None)
        kept = st.session_state.get(KEPT)
        if kept is not None and kept[0] == model.id:
            _show(model, *kept[1:])


def _apply(place: Place, model: MilModel, files: Sequence[Any], patient: str | None) -> None:
    slides = [one for one in files if _is_slide(one)]
    if not files or (slides and len(files) > 1):
        words = "Choose the smear fields of one case, or one slide alone."
        st.html(states.notes([words], "bad"))
        return
    question = MilQuestion(model=model.id, order="effect", about=About(patient=patient))
    contents = [one.getvalue() for one in files]
    try:
        with st.spinner("Looking at the new case"):
            if slides:
                answer = place.client.predict_slide(place.name, question, contents[0])
            else:
                answer = place.client.predict_fields(place.name, question, contents)
    except ServiceError as error:
        st.html(states.notes([str(error)], "bad"))
        return
    picture = _overview(contents[0]) if slides else None
    st.session_state[KEPT] = (model.id, answer, None if slides else contents, picture)


def _is_slide(file: Any) -> bool:
    """Whether an upload is a slide, by its ending, or by its header where that says nothing."""
    from ingest.slides.tiff import is_large

    ending = PurePath(file.name).suffix.lower()[1:]
    return ending in SLIDES or (ending in ("tif", "tiff") and is_large(BytesIO(file.getvalue())))


def _overview(content: bytes) -> Picture | None:
    """A slide as a small picture, with its width and height; `None` where it cannot be shown."""
    from ingest.slides.deepzoom import DeepZoom, SourceUnreadable

    zoom = DeepZoom(workers=1)
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "slide.tif"  # readers go by what is in it
            path.write_bytes(content)
            jpeg, pyramid = zoom.whole(path, SHOWN_LEVEL)
    except SourceUnreadable:
        return None
    finally:
        zoom.close()
    return data_url(jpeg), pyramid.width, pyramid.height


def _show(
    model: MilModel,
    answer: MilAnswer,
    fields: Sequence[bytes] | None,
    picture: Picture | None = None,
) -> None:
    st.html(verdict(answer, model))
    if fields is None:
        st.html(slide_map(answer.cells, picture))
    else:
        at = 0
        if len(fields) > 1:
            share = [sum(one.attention for one in _of(answer, n)) for n in range(len(fields))]
            at = st.selectbox(
                "Field",
                range(len(fields)),
                format_func=lambda n: f"Field {n + 1} · {share[n]:.0%} of the attention",
            )
        cells = _of(answer, at)
        found = [
            FoundCell(kind="white", bbox=one.box, crop=one.box, score=1, touches_border=False)
            for one in cells
            if one.box is not None
        ]
        field(fields[at], found, f"case-model-field-{at}", named(answer.cells, cells))
    st.html(
        '<p class="hs-reason">Boxes from blue (counts little, or against the answer) to yellow '
        "(counts most).</p>"
    )


def _of(answer: MilAnswer, at: int) -> list[MilCell]:
    return [one for one in answer.cells if one.field == at]


def named(every: Sequence[MilCell], shown: Sequence[MilCell]) -> Mapping[Box, tuple[str, str, str]]:
    """By the box of each cell of one field its words, colour and line; words for those that count
    most there.

    Args:
        every: The cells of all fields, whose largest effect (or attention) is yellow.
        shown: Those of the field.
    """
    most = max(map(counts_for, every), default=0.0)
    first = sorted(shown, key=counts_for, reverse=True)[:NAMED]
    return {
        one.box: (
            told(one) if any(one is other for other in first) else "",
            shade(share_of(one, most)),
            "solid",
        )
        for one in shown
        if one.box is not None
    }


def slide_map(tiles: Sequence[MilCell], picture: Picture | None = None) -> str:
    """A slide with its tiles, each in the colour of what it counts, as a drawing.

    Args:
        tiles: Those with a box are drawn, in pixels of the slide.
        picture: The slide; without one, tiles are drawn on nothing, and what lies around them is
            left out.
    """
    placed = [(one, one.box) for one in tiles if one.box is not None]
    if not placed:
        return ""
    left, top = min(box.x for _, box in placed), min(box.y for _, box in placed)
    wide = max(box.x + box.w for _, box in placed) - left
    high = max(box.y + box.h for _, box in placed) - top
    behind = ""
    if picture is not None:
        left, top, (src, wide, high) = 0, 0, picture
        behind = f'<img src="{src}" alt="">'
    most = max(map(counts_for, tiles), default=0.0)
    squares = "".join(
        f'<i title="x {box.x}, y {box.y}: {escape(told(one))}" style="'
        f"left:{(box.x - left) / wide:.3%};top:{(box.y - top) / high:.3%};"
        f"width:{box.w / wide:.3%};height:{box.h / high:.3%};"
        f'background:{shade(share_of(one, most))}"></i>'
        for one, box in placed
    )
    return (
        f'<div class="hs-slide-map" role="img" aria-label="The slide: {len(placed):,} tiles by '
        f'what they count" style="aspect-ratio:{wide}/{high};max-width:{60 * wide / high:.1f}vh">'
        f"{behind}{squares}</div>"
    )

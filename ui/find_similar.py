"""*Find similar*: an uploaded image beside its stored neighbours, with their vote."""

from __future__ import annotations

from typing import Any

import streamlit as st

from search.client import Client
from search.records import Filter, Question, VoteAnswer
from ui import states
from ui.gallery import facts, gallery, query_card, vote_panel
from ui.place import guarded, opened

TYPES = ["jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp"]
FILTERS = ("label", "dataset", "site", "stain", "scanner")


def show() -> None:
    """Draw the page."""
    place = opened(
        "Find similar cells",
        "Drop in the image of one cell. You see the stored cells that look most like it, "
        "and how their labels vote.",
    )
    if place is None:
        return
    with guarded():
        question, upload = asked(place.client, place.name)
        if upload is None:
            st.html(
                states.empty(
                    "Start with a picture",
                    "Upload an image at the left to begin: JPEG, PNG, TIFF, BMP or WebP, "
                    "up to 20 MB.",
                )
            )
            return
        found, pictures = look(place.client, question.model_dump_json(), upload.getvalue())
        answered(found, pictures, upload.name, upload.getvalue())


def asked(client: Client, name: str) -> tuple[Question, Any]:
    """What the sidebar asks for: the question, and the uploaded file or `None`."""
    with st.sidebar:
        upload = st.file_uploader("Image of a cell", type=TYPES)
        k = st.slider("Neighbours", 1, 50, 20)
        patient = st.text_input(
            "Patient (pseudonym)", help="Leaves this patient's own cells out of the answer."
        )
        chosen = {}
        with st.expander("Only neighbours with"):
            for field in FILTERS:
                counts = client.facets(name, field)
                if len(counts) > 1:
                    names_of = {f"{value} ({n:,})": value for value, n in counts.items()}
                    picked = st.multiselect(field.capitalize(), list(names_of))
                    chosen[field] = [names_of[shown] for shown in picked]
    where = Filter.model_validate({field: values for field, values in chosen.items() if values})
    about = {"patient": patient.strip() or None}
    question = Question.model_validate(
        {"collection": name, "k": k, "where": where.model_dump(), "about": about}
    )
    return question, upload


@st.cache_data(max_entries=32, show_spinner="Looking for similar cells")
def look(_client: Client, question: str, image: bytes) -> tuple[VoteAnswer, list[bytes]]:
    """The answer to a question, and the pictures of its hits."""
    found = _client.vote(Question.model_validate_json(question), image)
    name = found.answer.collection
    return found, [_client.image(hit.item.id, name) for hit in found.answer.hits]


def answered(found: VoteAnswer, pictures: list[bytes], name: str, image: bytes) -> None:
    """Draw an answer: the query and the vote at the left, the neighbours at the right."""
    left, right = st.columns([1, 3], gap="large")
    with left:
        st.html(query_card(image, name) + vote_panel(found))
    with right:
        if not found.answer.hits:
            st.warning("No stored cell meets these conditions. Remove a filter at the left.")
        st.html(facts(found.answer) + gallery(found.answer.hits, pictures))

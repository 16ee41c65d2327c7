"""A reviewer's label for stored cells: known labels first, a new one only when it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceError
from ui.look import states
from ui.look.tables import count
from ui.session.place import Place, collection_state, reviews_written

NEW, NONE = "Another label, not known here yet", "Remove my review"
"""Offered below the known labels."""
REVIEWER, SAVED = "hs-reviewer", "hs-reviewed"
LABELS = 200
MOST_UNDONE = 500
"""Cells whose earlier labels are kept, so that one press brings them back."""


def relabel(place: Place, ids: Sequence[str], key: str) -> bool:
    """Draw what a reviewer needs to label cells; whether labels were saved in this run.

    Args:
        place: The service and the collection.
        ids: Of the cells.
        key: A name that no other on the page has.
    """
    changed = _undo(place, key)
    if not ids:
        return changed
    recorded = place.client.facets(place.name, "label", LABELS)
    known = list(dict.fromkeys([*recorded, *_given(place.client, place.name, collection_state())]))
    chosen = st.selectbox(
        f"Reclassify {count(len(ids), 'cell')}",
        [*known, NEW, NONE],
        index=None,
        placeholder="Type to find a label",
        key=f"{key}-label",
    )
    label = _new(known, key) if chosen == NEW else chosen
    left, right = st.columns(2)
    with left:
        reviewer = st.text_input(
            "Reviewer", value=st.session_state.get(REVIEWER, ""), max_chars=100,
            placeholder="Name or initials", key=f"{key}-reviewer",
        )  # fmt: skip
    with right:
        note = st.text_input("Note", max_chars=500, placeholder="optional", key=f"{key}-note")
    if not st.button("Save the review", type="primary", key=f"{key}-save"):
        return changed
    if not label or not reviewer.strip():
        st.html(states.notes(["Choose a label and name the reviewer; then save."]))
        return changed
    st.session_state[REVIEWER] = reviewer.strip()
    return _save(place, ids, None if label == NONE else label, note.strip(), key) or changed


@st.cache_data(max_entries=8, show_spinner=False)
def _given(_client: Client, name: str, state: tuple[str, int]) -> list[str]:
    """The labels that reviewers have given, wherever they stand."""
    return sorted({one.label for one in _client.reviews(name) if one.label is not None})


def _new(known: Sequence[str], key: str) -> str | None:
    """A label that no stored cell has; asked for twice where a known one is near."""
    typed = st.text_input("New label", max_chars=200, key=f"{key}-new").strip()
    if not typed or typed in known:
        return typed or None
    by_lower = {one.lower(): one for one in known}
    near = [by_lower[one] for one in get_close_matches(typed.lower(), by_lower, 3, 0.6)]
    starts = [one for one in known if one.lower().startswith(typed.lower()) and one not in near]
    hint = f" Did you mean {' or '.join([*near, *starts][:3])}?" if near or starts else ""
    st.html(states.notes([f"No stored cell is labelled “{typed}”.{hint}"]))
    sure = st.checkbox(f"Yes, “{typed}” is a new label", key=f"{key}-sure-{typed}")
    return typed if sure else None


def _save(place: Place, ids: Sequence[str], label: str | None, note: str, key: str) -> bool:
    reviewer = str(st.session_state[REVIEWER])
    before = _mine(place, ids, reviewer)
    try:
        done = place.client.review(place.name, dict.fromkeys(sorted(ids), label), reviewer, note)
    except ServiceError as error:
        if error.status != 403:
            raise
        words = f"Nothing was saved: {error}. Reviewing needs the role write."
        st.html(states.notes([words], "bad"))
        return False
    words = (
        f"{count(done.written, 'review')} saved, {done.unchanged:,} unchanged. The recorded "
        "labels stay as they are."
    )
    st.session_state[SAVED] = (key, words, before, reviewer)
    reviews_written()
    return True


def _mine(place: Place, ids: Sequence[str], reviewer: str) -> dict[str, str | None]:
    """The label that this reviewer has given each cell so far; of few enough cells."""
    if len(ids) > MOST_UNDONE:
        return {}
    found = {}
    for id in ids:
        history = place.client.item_reviews(id, place.name).history
        own = [one.label for one in history if one.reviewer == reviewer]
        found[id] = own[-1] if own else None
    return found


def _undo(place: Place, key: str) -> bool:
    """What was saved last here, and a button that takes it back; whether it did."""
    saved = st.session_state.get(SAVED)
    if saved is None or saved[0] != key:
        return False
    _, words, before, reviewer = saved
    st.html(states.notes([words], "good"))
    if not before or not st.button("Undo", icon=":material/undo:", key=f"{key}-undo"):
        return False
    for label in set(before.values()):
        ids = [id for id, one in before.items() if one == label]
        place.client.review(place.name, dict.fromkeys(ids, label), reviewer)
    st.session_state[SAVED] = (key, "Taken back: your reviews are as before.", {}, reviewer)
    reviews_written()
    return True

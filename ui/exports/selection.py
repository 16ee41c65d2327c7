"""The cells that a person selected: kept under a name in the library, and as files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import get_args

import streamlit as st

from search.client.transport import ServiceDown, ServiceError
from search.schemas.cases import CaseRecordsQuestion
from search.schemas.exports import ExportFormat, ExportWanted, SelectionRecord, SelectionWanted
from search.schemas.filters import Filter
from search.schemas.items import Item, with_patient
from ui.exports.downloads import items_csv
from ui.look import states
from ui.look.tables import count
from ui.session.place import Place
from ui.session.results import selected, set_selected
from ui.widgets.saving import save_button

MOST_EXPORTED, AT_ONCE = 20_000, 500
"""Cells of a table at most, and how many are asked for at once."""
FORMATS = {
    "hdf5": "HDF5 (CLAM, TRIDENT)",
    "safetensors": "safetensors",
    "h5ad": "AnnData (h5ad)",
    "geojson": "GeoJSON (QuPath)",
    "dicom-sr": "DICOM SR",
}


def cells_csv(place: Place, ids: Sequence[str]) -> bytes:
    """Stored cells as a table, in the order of `ids`; what was removed since is left out."""
    found = {}
    for at in range(0, min(len(ids), MOST_EXPORTED), AT_ONCE):
        part = Filter(ids=tuple(ids[at : min(at + AT_ONCE, MOST_EXPORTED)]))
        page = place.client.items_page(place.name, part, AT_ONCE)
        found.update({item.id: item for item in page.items})
    reviewed = {one.item.id: one for one in place.client.reviews(place.name)}
    patients = _patients(place, list(found.values()))
    named = [with_patient(found[id], patients) for id in ids if id in found]
    return items_csv(named, reviewed)


def _patients(place: Place, items: Sequence[Item]) -> dict[str, str]:
    """Patients that records name, by case; nothing is asked where every cell names its own."""
    found: dict[str, str] = {}
    question = CaseRecordsQuestion(limit=1000)
    while any(item.patient is None and item.case is not None for item in items):
        page = place.client.case_records(place.name, question)
        found |= {one.case: one.patient for one in page.records if one.patient is not None}
        if page.next is None:
            break
        question = question.model_copy(update={"after": page.next})
    return found


def selection(place: Place, shown: Sequence[str] = ()) -> None:
    """A button with the number of selected cells; behind it they are kept, exported, or cleared.

    Args:
        place: The service and the collection.
        shown: Cells on the page that can be selected together.
    """
    ids = selected(place.name)
    words = f"Selected {len(ids):,}" if ids else "Selection"
    with st.popover(words, icon=":material/bookmark:", help="Select, keep and export cells"):
        if not ids:
            words = "Select cells by the button ✓ on a card (key s), or the cells of a gate."
            st.html(f'<p class="hs-reason">{words}</p>')
        with st.container(horizontal=True):
            if set(shown) - set(ids) and st.button("Select all shown", key="sel-all"):
                set_selected(place.name, [*ids, *shown])
                st.rerun()
            if ids and st.button("Clear", key="sel-clear"):
                set_selected(place.name, ())
                st.rerun()
        if ids:
            _as_file(place, ids)
        with st.container(key="sel-kept"):
            try:
                _kept(place, ids)
            except ServiceDown as error:
                st.html(states.notes([str(error)], "bad"))
            except ServiceError as error:
                more = " Keeping needs the role write." if error.status == 403 else ""
                st.html(states.notes([f"Nothing was kept or removed: {error}.{more}"], "bad"))


def _as_file(place: Place, ids: Sequence[str]) -> None:
    content = partial(cells_csv, place, ids)
    save_button("CSV of the selection", content, "selection.csv", key="sel-csv")
    format = st.selectbox(
        "Other formats, with vectors",
        get_args(ExportFormat),
        index=None,
        format_func=lambda one: FORMATS[one],
        placeholder="Choose a format",
        key="sel-format",
    )
    if format is None:
        return
    try:
        with st.spinner("Making the file"):
            name, made = place.client.export(
                place.name, ExportWanted(format=format, items=tuple(ids))
            )
    except (ServiceDown, ServiceError) as error:
        st.html(states.notes([f"No file of this format: {error}."], "bad"))
        return
    save_button(f"Download {name}", made, name, key="sel-file")


def _kept(place: Place, ids: Sequence[str]) -> None:
    """Keep the selection under a name; open or forget one that is kept."""
    if ids:
        name = st.text_input(
            "Name or tag", max_chars=60, placeholder="blasts to discuss", key="sel-name"
        ).strip()
        note = st.text_input("Note", max_chars=500, placeholder="optional", key="sel-note").strip()
        if st.button(f"Keep {count(len(ids), 'cell')}", key="sel-keep", type="primary"):
            if not name or "/" in name:
                st.html(states.notes(["Give a name, without a slash; then keep it."]))
            else:
                wanted = SelectionWanted(items=tuple(ids), note=note)
                place.client.keep_selection(place.name, name, wanted)
                st.html(states.notes([f"Kept as “{name}”, for everybody."], "good"))
    kept = {one.name: one for one in place.client.selections(place.name).selections}
    if not kept:
        return
    chosen = st.selectbox(
        "Kept selections",
        list(kept),
        index=None,
        format_func=lambda one: _words(kept[one]),
        placeholder="Choose one",
        key="sel-chosen",
    )
    if chosen not in kept:
        return
    with st.container(horizontal=True):
        if st.button("Select these cells", key="sel-open"):
            set_selected(place.name, kept[chosen].items)
            st.rerun()
        if st.button("Forget it", key="sel-drop"):
            place.client.drop_selection(place.name, chosen)
            st.rerun()


def _words(one: SelectionRecord) -> str:
    parts = [one.name, count(len(one.items), "cell"), one.note, one.at[:10]]
    return " · ".join(part for part in parts if part)

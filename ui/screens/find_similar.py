"""*Find similar*: a picture, a sample or a stored item beside its neighbours, with their vote."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from urllib.parse import urlencode

import streamlit as st

from search.client.transport import ServiceDown, ServiceError
from search.schemas.filters import Filter
from ui.address import MOST_COMPARED, Searching
from ui.exports.downloads import as_csv, as_json
from ui.exports.selection import selection
from ui.look import states
from ui.look.card import pixels
from ui.look.gallery import (
    Shelf,
    facts,
    gallery,
    keys,
    looked_at,
    query_card,
    vote_panel,
    warned,
)
from ui.look.scalebar import scale_bar, side_um
from ui.screens.choosing import (
    begin,
    begin_again,
    forgotten,
    is_field,
    scale_input,
)
from ui.screens.detail import Shown, open_item
from ui.screens.regions import part_of_query, with_region
from ui.screens.whole_field import whole_field
from ui.session.current import (
    change,
    current,
    keep,
    picking,
    set_picking,
    start_again,
    this_round,
    under_way,
)
from ui.session.filtering import at_least, more_filters
from ui.session.navigation import goto
from ui.session.place import Place, opened, refused
from ui.session.results import (
    Results,
    compared,
    counted,
    full_picture,
    mark,
    pictures,
    search_results,
    select,
    selected,
    stored_item,
    uploads,
    voting,
    with_voters,
)
from ui.session.uploads import Upload
from ui.widgets.board import board
from ui.widgets.saving import save_button

SHOWN_FILTERS = ("label", "site", "stain", "scanner", "dataset", "kind")
IN_VIEW = 3
"""Filters that stand above the gallery, in one line; the others are behind a button."""
KS = (5, 10, 20, 50)


def show() -> None:
    """Draw the page."""
    place = opened(
        "Find similar cells",
        "Give a cell. You see the stored cells that look most like it, patient by patient, "
        "and how their labels vote.",
        compact=under_way(),
    )
    if place is None:
        return
    search = current(place)
    try:
        _draw(place, search)
    except (ServiceDown, ServiceError) as error:
        refused(error)
        if search.asks:
            begin_again(place, search)


def _draw(place: Place, search: Searching) -> None:
    if not search.asks:
        begin(place, search)
        return
    upload = None if search.upload is None else uploads().get(search.upload)
    if search.upload is not None and upload is None:
        forgotten(search)
    elif upload is not None and _choosing(search, upload):
        whole_field(place, search, upload)
    else:
        answered(place, search, upload)


def _choosing(search: Searching, upload: Upload) -> bool:
    if search.crop is not None or upload.size is None:
        return False
    choosing = picking(upload.id)
    return is_field(upload) if choosing is None else choosing


def answered(place: Place, search: Searching, upload: Upload | None) -> None:
    """The query at the left, its neighbours at the right."""
    left, right = st.columns([1, 3], gap="medium")
    with right:
        search = filters(place, search)
        waiting = st.empty()
        waiting.html(states.skeleton(search.k))
        with left, st.container(key="hs-pinned"):
            pinned = st.empty()
        try:
            found = search_results(place.client, search, None if upload is None else upload.content)
            found, hidden = at_least(replace(found, answer=with_voters(found)), search.least)
            items = {hit.item.id: hit.item for hit in found.answer.hits}
            shown = pictures(place.client, list(items.values()), place.name)
        finally:
            waiting.empty()
    with left:
        query = query_jpeg(place, search, upload)
        pinned.html(
            query_picture(place, search, upload, query)
            + looked_at(found.answer)
            + vote_panel(found.voted)
            + warned(found.answer)
            + states.notes([f"{hidden}; they voted all the same."] if hidden else [])
        )
        query_actions(place, search, upload)
    with right:
        neighbours(place, search, found, shown, query)


BY_RECORDED = (
    "The filter goes by recorded labels: what a reviewer called otherwise stays in or out with its "
    "recorded one."
)
"""Where labels are filtered and there are reviews."""


def filters(place: Place, search: Searching) -> Searching:
    """Filters with counts, the number of neighbours, and grouping; the search as they make it."""
    at, reviewed = this_round(), bool(place.facts.reviews_state)
    counts = counted(place.client, place.name, search.where.model_dump_json())
    chosen: dict[str, tuple[str, ...]] = {}
    with st.container(horizontal=True, key="hs-filters", vertical_alignment="center"):
        offered = [
            name for name in SHOWN_FILTERS if len(counts[name]) > 1 or getattr(search.where, name)
        ]
        for name in offered[:IN_VIEW]:
            active = tuple(getattr(search.where, name))
            values = counts[name]
            picked = st.multiselect(
                name.capitalize(),
                list(dict.fromkeys([*values, *active])),
                default=list(active),
                format_func=partial(_with_count, values),
                placeholder=f"{name.capitalize()}: any of {len(values)}",
                key=f"f-{name}-{at}",
                width=140,
                label_visibility="collapsed",
            )
            chosen[name] = tuple(picked)
        options = sorted({*KS, search.k})
        k = st.selectbox(
            "Neighbours",
            options,
            index=options.index(search.k),
            format_func=lambda n: f"{n} neighbours",
            key=f"k-{at}",
            width=132,
            label_visibility="collapsed",
        )
        grouped = st.toggle(
            "By patient",
            value=search.grouped,
            key=f"grouped-{at}",
            help="One card for each patient, best first. Where the patient is unknown, one for "
            "each case, else for each picture.",
        )
        more = more_filters(search, counts, at, offered[IN_VIEW:])
    if reviewed and chosen.get("label"):
        st.html(states.notes([BY_RECORDED]))
    where = Filter.model_validate({**search.where.model_dump(), **chosen, **more["where"]})
    changes = {"where": where, "least": more["least"], "k": k, "grouped": grouped}
    changed = search.model_copy(update=changes)
    if changed != search:
        keep(changed)
        st.rerun()  # the counts of the other filters follow from this one
    return search


def _with_count(counts: dict[str, int], value: str) -> str:
    return f"{value} · {counts.get(value, 0):,}"


def query_actions(place: Place, search: Searching, upload: Upload | None) -> None:
    """What can be done with the query."""
    if search.like or search.unlike:
        words = "The vote is of the query alone; the gallery follows your examples."
        st.html(states.notes([words], "good"))
    if upload is not None and upload.size is not None:
        words = "Find cells in it" if search.crop is None else "Back to the field"
        if st.button(words, key="other", icon=":material/crop_free:", width="stretch"):
            set_picking(upload.id, True)
            change(search, crop=None, region=None)
        part_of_query(place, search, upload)
        with st.expander("Query details"):
            scale_input(search, upload)
            typed = st.text_input(
                "Patient (pseudonym)",
                value=search.patient or "",
                key=f"patient-{this_round()}",
                help="As the library has it; this patient's own cells are then left out. "
                "It never becomes part of a link.",
            )
            if (typed.strip() or None) != search.patient:
                change(search, patient=typed.strip() or None)
    if st.button("New search", key="new", icon=":material/restart_alt:", width="stretch"):
        start_again(search)


def query_jpeg(place: Place, search: Searching, upload: Upload | None) -> bytes:
    """The query as a JPEG."""
    if upload is None:
        return full_picture(place.client, str(search.item), place.name)
    return upload.part(search.crop)


def query_picture(place: Place, search: Searching, upload: Upload | None, jpeg: bytes) -> str:
    """The query with its scale bar."""
    if upload is None:
        item = stored_item(place.client, str(search.item), place.name)
        bar = scale_bar(side_um(item, max(pixels(jpeg))), item.um_per_px_origin == "estimate")
        words = " · ".join(part for part in ("stored item", item.label, item.dataset) if part)
        return query_card(jpeg, words, bar, f"The query: a stored item, {item.label or 'no label'}")
    size = upload.size if search.crop is None else (search.crop.w, search.crop.h)
    um = search.um_per_px
    bar = None if um is None or size is None else scale_bar(max(size) * um, search.um_estimated)
    words = upload.name if search.crop is None else f"a cell of {upload.name}"
    shown = with_region(jpeg, search, upload)
    return query_card(shown, words if um else f"{words} · scale unknown", bar)


def neighbours(
    place: Place, search: Searching, found: Results, shown: dict[str, bytes], query: bytes
) -> None:
    """The gallery, and what can be done with it."""
    answer = found.answer
    if not answer.hits:
        st.html(states.empty(*_nothing(search)))
        return
    chosen, voters = compared(search), voting(found)
    actions = st.container(
        horizontal=True, key="hs-actions", vertical_alignment="center", wrap=False
    )
    shelf = Shelf(shown, search, chosen, voters, selected(place.name))
    pressed = board(gallery(answer, shelf) + keys(), "gallery")
    with actions:
        st.html(facts(answer, voters), width="stretch")
        with st.container(horizontal=True, width="content", gap="xsmall"):
            if chosen and st.button(
                f"Compare {len(chosen)}",
                type="primary",
                icon=":material/view_column:",
                key="compare",
            ):
                goto("compare")
            if (search.like or search.unlike) and st.button(
                "Remove examples", icon=":material/undo:"
            ):
                change(search, like=(), unlike=())
            selection(place, [hit.item.id for hit in answer.hits])
            downloads(search, found, shown, query)
    if pressed is None:
        return
    if pressed.act in {"like", "unlike"}:
        keep(search.toggled(pressed.act, pressed.id))
        st.rerun()
    elif pressed.act == "select":
        select(place.name, pressed.id)
        st.rerun()
    elif pressed.act == "compare":
        if mark(search, pressed.id):
            st.rerun()
        st.toast(f"Up to {MOST_COMPARED} neighbours are compared at once; unmark one first.")
    elif pressed.act in {"open", "label"}:
        listed = [Shown(hit.item, hit.score) for hit in answer.hits]
        open_item(place, listed, pressed.id, search, label=pressed.act == "label")


def _nothing(search: Searching) -> tuple[str, str]:
    """Why no neighbour is shown, and what to do."""
    if search.where.empty and search.least is None and not search.own:
        return (
            "There is nothing else to compare with",
            "Every stored cell is of the query's own patient, case or picture, and those are left "
            "out. Import cells of other patients.",
        )
    if search.least is not None:
        return (
            "No stored cell is similar enough",
            "Lower the similarity that is shown at least, behind More, or remove a filter.",
        )
    return "No stored cell matches these filters", "Remove a filter, or switch grouping off."


def downloads(search: Searching, found: Results, shown: dict[str, bytes], query: bytes) -> None:
    """The answer as files, and the link that reproduces it."""
    save_button(
        "PDF",
        partial(_report, search, found, shown, query),
        "similar-cells.pdf",
        help="A report to keep: the query, its neighbours with their scores, the encoder and the "
        "date. It names no file, case or patient.",
    )
    save_button("CSV", as_csv(found.answer), "neighbours.csv")
    save_button("JSON", as_json(found.answer, found.voted, search.address()), "neighbours.json")
    with st.popover("Link", icon=":material/link:"):
        kept = " This page remembers the picture for a day." if search.upload else ""
        st.html(f'<p class="hs-reason">Opens this search again; it names no patient.{kept}</p>')
        base = str(st.context.url or "").split("?")[0]
        st.code(f"{base}?{urlencode(search.address())}", language=None, wrap_lines=True)


def _report(search: Searching, found: Results, shown: dict[str, bytes], query: bytes) -> bytes:
    """The PDF, made on download."""
    from ui.exports.pdf import search_report

    what = "a stored item" if search.item else "an uploaded picture"
    if search.upload and search.crop is not None:
        what = "a cell of an uploaded picture"
    answer = found.answer
    return search_report(
        found.voted.model_copy(update={"answer": answer}),
        [shown[hit.item.id] for hit in answer.hits],
        query,
        f"{what}, {search.item or str(search.upload)[:16]}",
        found.made,
    )

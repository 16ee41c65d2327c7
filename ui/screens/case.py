"""*Case*: its record, its cells by recorded label, review and vote; its slide; similar cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Literal

import streamlit as st

from search.schemas.cases import CaseCount, CountedCell, CountQuestion
from search.schemas.filters import Filter
from search.schemas.questions import BagField, Question
from ui.look import states
from ui.look.card import Action, card
from ui.look.differential import counts_of, differential_table
from ui.look.gallery import EXCLUSION
from ui.look.palette import colours, lines, shade
from ui.look.tables import count, legend
from ui.screens.cases import groups, models, new_case, over_time
from ui.screens.cases import record as case_record
from ui.screens.detail import Shown, open_item
from ui.screens.relabel import relabel
from ui.session.navigation import begin_with, show_in_address
from ui.session.pictures import pictures
from ui.session.place import Place, collection_state, guarded, opened
from ui.session.results import shown_source
from ui.widgets.board import board
from ui.widgets.viewer import Mark, mark, viewer

BY: dict[BagField, str] = {"case": "Case", "patient": "Patient", "source": "Slide or field"}
VIEWS = ("Cells", "Mosaic", "Slide", "Similar cases", "Case model", "Over time", "Two groups")
PAGE = 48
"""Cells that are shown at once."""
FOUND = 60
"""Cells of a slide that are marked as similar to the selected one."""
Show = Literal["All", "Differ", "Not sure", "Reviewed", "Disputed"]
SHOW: dict[Show, str] = {
    "All": "All cells",
    "Differ": "Neighbours disagree with the label",
    "Not sure": "Neighbours are not sure",
    "Reviewed": "Reviewed",
    "Disputed": "Reviewers disagree",
}


def show() -> None:
    """Draw the page."""
    place = opened(
        "Case",
        "What is recorded of a case, its cells by label, review and vote, and similar cases.",
    )
    if place is None:
        return
    with guarded():
        chosen = _choose(place)
        if chosen is None:
            return
        by, value = chosen
        found = _count(place, by, value)
        facts = case_record.facts_of(place, found)
        case_record.header(place, facts)
        begin_with("case-view-kept", "view", VIEWS)
        view = st.segmented_control(
            "View",
            VIEWS,
            default=st.session_state.get("case-view-kept", VIEWS[0]),
            key="case-view",
            label_visibility="collapsed",
        )
        st.session_state["case-view-kept"] = view or VIEWS[0]
        shown = None if view == VIEWS[0] else view
        show_in_address(by=by, case=value, view=shown, collection=place.in_address)
        left, right = st.columns([2, 3], gap="medium")
        with left:
            _counts(found)
            case_record.download(place, facts, found)
        with right:
            if view == "Slide":
                _slide(place, found)
            elif view == "Similar cases":
                case_record.similar(place, found)
            elif view == "Case model":
                model = models.read(place, found)
                if model is not None:
                    new_case.new_case(place, model)
            elif view == "Over time":
                over_time.over_time(place, found)
            elif view == "Two groups":
                groups.compare_groups(place)
            elif view == "Mosaic":
                case_record.mosaic(place, facts)
            else:
                _cells(place, found)


def _choose(place: Place) -> tuple[BagField, str] | None:
    wanted_by = st.query_params.get("by", "case")
    bys = list(BY)
    left, middle, right = st.columns([1, 2, 1], vertical_alignment="bottom")
    with left:
        by = st.selectbox(
            "Group by",
            bys,
            index=bys.index(wanted_by) if wanted_by in bys else 0,
            format_func=BY.__getitem__,
            key="case-by",
        )
    counts = place.client.facets(place.name, by, 1000)
    if not counts:
        st.html(
            states.empty(
                f"No {BY[by].lower()} is known",
                "Choose another grouping above, or ingest with a table that has a column for it.",
            )
        )
        return None
    # Names of sources are digests, which no one looks for: the one with most cells comes first.
    names = sorted(counts, key=lambda one: (-counts[one] if by == "source" else 0, one))
    wanted = st.query_params.get("case", "")
    if wanted and wanted not in counts:  # beyond those that are listed, or not there any more
        where = Filter.model_validate({by: (wanted,)})
        counts = {**place.client.facet(by, where, place.name, 1), **counts}
        names = [wanted, *names] if wanted in counts else names
        if wanted not in counts:
            words = f"There is no {BY[by].lower()} {wanted[:60]} here; it may have been deleted."
            st.html(states.notes([f"{words} Choose another."], "bad"))
    with middle:
        value = st.selectbox(
            BY[by],
            names,
            index=names.index(wanted) if wanted in names else 0,
            format_func=lambda one: f"{one}  ({count(counts[one], 'item')})",
            key=f"case-value-{by}",
            help="Type to search. Beyond a thousand, the most frequent are listed.",
        )
    with right:
        st.slider("Neighbours that vote", 3, 100, 20, key="case-k")
    return by, value


def _count(place: Place, by: BagField, value: str) -> CaseCount:
    """The differential count; computed again after each review, import and switch."""
    k = int(st.session_state.get("case-k", 20))
    seen = (place.name, by, value, k, *collection_state())
    counted = st.session_state.get("case-count")
    if counted is None or counted[0] != seen:
        with st.spinner("Counting the cells"):
            counted = (
                seen,
                place.client.count_case(place.name, CountQuestion(case=value, by=by, k=k)),
            )
        st.session_state["case-count"] = counted
    found: CaseCount = counted[1]
    return found


def _counts(found: CaseCount) -> None:
    facts = [
        count(found.items, "item"),
        f"{found.recorded:,} with a recorded label",
        f"{found.reviewed:,} reviewed",
        EXCLUSION[found.patient_exclusion],
        f"encoder {found.encoder}",
    ]
    others = "patients" if found.patient_exclusion == "applied" else "sources"
    caption = (
        f"Each vote is of the {found.k} nearest cells of other {others}; of "
        f"{count(found.not_sure, 'cell')} it is not sure."
    )
    agreement = ""
    if found.agreement is not None:
        agreement = (
            f'<p class="hs-reason">Where the vote is sure, it agrees with the label for '
            f"<b>{found.agreement:.0%}</b> of the cells.</p>"
        )
    st.html(
        states.notes(found.warnings)
        + f'<h2 class="hs-section">Differential count</h2>{states.facts(facts)}'
        + differential_table(counts_of(found), caption)
        + agreement
    )


# ---------------------------------------------------------------- cells and their labels


def _cells(place: Place, found: CaseCount) -> None:
    labels = sorted({row.label for row in found.rows})
    top, side = st.columns([3, 2], vertical_alignment="bottom")
    with top:
        kind: Show = st.selectbox("Show", list(SHOW), format_func=SHOW.__getitem__, key="case-show")
    with side:
        only = st.selectbox("Label", ["Any label", *labels], key="case-label")
    cells = [cell for cell in found.cells if _wanted(cell, kind)]
    if only != "Any label":
        cells = [
            c for c in cells if only in (c.reviewed or c.item.label, c.voted if c.sure else "")
        ]
    chosen = _chosen(found)
    with st.container(border=True, key="case-review"):
        if not chosen:
            st.html('<p class="hs-reason">Choose cells to reclassify them: ✓, or the key x.</p>')
        if relabel(place, sorted(chosen), "relabel"):
            st.session_state["case-chosen"] = (found.value, frozenset())
            st.rerun()
    if not cells:
        st.html(states.empty("No such cell", "Choose another filter above."))
        return
    pages = -(-len(cells) // PAGE)
    page = min(int(st.session_state.get("case-page", 1)), pages)
    shown = cells[(page - 1) * PAGE : page * PAGE]
    images = pictures(place.client, [cell.item.id for cell in shown], place.name)
    cards = "".join(
        _card(cell, images[cell.item.id], cell.item.id in chosen)
        for cell in shown
        if cell.item.id in images
    )
    pressed = board(
        f'<div class="hs-small"><ol class="hs-grid" aria-label="Cells">{cards}</ol></div>',
        "case-board",
    )
    words = f"{len(cells):,} of {len(found.cells):,} cells"
    if pages > 1:
        st.number_input(f"Page of {pages} ({words})", 1, pages, page, key="case-page", width=240)
    else:
        st.html(f'<p class="hs-reason">{words}</p>')
    if pressed is None:
        return
    if pressed.act == "open":
        listed = [Shown(cell.item) for cell in shown if cell.item.id in images]
        open_item(place, listed, pressed.id)
        return
    if pressed.act == "choose":
        st.session_state["case-chosen"] = (found.value, chosen ^ {pressed.id})
    elif pressed.act == "slide":
        st.session_state["case-picked"] = pressed.id
        st.session_state["case-view-kept"] = "Slide"
        del st.session_state["case-view"]
    st.rerun()


def _card(cell: CountedCell, picture: bytes, chosen: bool) -> str:
    return card(
        cell.item,
        picture,
        act="choose",
        note=_note(cell),
        mark="hs-chosen" if chosen else "",
        actions=(
            Action("choose", "✓", "Choose for reclassification", key="x", on=chosen),
            Action("slide", "target", "Show on the slide", key="s"),
            Action("open", "⤢", "Open it large", key="o"),
        ),
    )


def _chosen(found: CaseCount) -> frozenset[str]:
    value, ids = st.session_state.get("case-chosen", ("", frozenset()))
    return frozenset(ids) if value == found.value else frozenset()


def _wanted(cell: CountedCell, kind: Show) -> bool:
    called = cell.reviewed or cell.item.label
    return {
        "All": True,
        "Differ": cell.sure and called is not None and called != cell.voted,
        "Not sure": not cell.sure,
        "Reviewed": cell.reviewed is not None,
        "Disputed": cell.disputed,
    }[kind]


def _note(cell: CountedCell) -> str:
    words = [f"neighbours: {cell.voted} {cell.share:.0%}" if cell.sure else "neighbours: not sure"]
    if cell.reviewed is not None:
        words.append(f"reviewed: {cell.reviewed}{' (disputed)' if cell.disputed else ''}")
    return " · ".join(words)


# ---------------------------------------------------------------- the slide


def _slide(place: Place, found: CaseCount) -> None:
    cells = {cell.item.id: cell for cell in found.cells}
    picked = st.session_state.get("case-picked")
    most = Counter(cell.item.source for cell in found.cells)
    sources = sorted(most, key=lambda one: (-most[one], one))
    start = cells[picked].item.source if picked in cells else sources[0]
    if len(sources) > 1:
        start = st.selectbox(
            "Slide or field",
            sources,
            index=sources.index(start),
            format_func=lambda one: _named(sources.index(one) + 1, found, one),
        )
    source = shown_source(place, start)
    if source is None:
        return
    here = [cell for cell in found.cells if cell.item.source == start]
    by_vote = (
        st.segmented_control(
            "Colour boxes by", ["Label", "Neighbours"], default="Label", key="case-colour"
        )
        == "Neighbours"
    )
    marks, names = _marks(here, by_vote=by_vote)
    alike = _alike(place, start, picked if picked in cells else None)
    marks = [*marks, *alike]
    if not marks:
        st.html(states.notes(["Each picture is one cell: there are no boxes to draw."], "good"))
    if names:
        st.html(legend(names))
    clicked = viewer(source, marks, f"case-viewer-{start}", picked=picked)
    scale = "scale unknown" if source.um_per_px is None else f"{source.um_per_px:.3g} µm per px"
    st.html(
        f'<p class="hs-reason">{source.width:,} × {source.height:,} pixels, {scale}. Click a '
        "box for its cell.</p>"
    )
    if clicked is not None and clicked != picked:
        st.session_state["case-picked"] = clicked
        st.rerun()
    if picked in cells:
        _picked(place, cells[picked], len(alike))


def _named(at: int, found: CaseCount, source: str) -> str:
    """A source by its place, its dataset and its day: names of files often name patients."""
    cells = [cell.item for cell in found.cells if cell.item.source == source]
    day = cells[0].acquired
    words = [f"Picture {at}", cells[0].dataset, day.isoformat() if day else ""]
    return " · ".join([*(one for one in words if one), count(len(cells), "cell")])


def _marks(
    cells: Sequence[CountedCell], *, by_vote: bool
) -> tuple[list[Mark], list[tuple[str, str, str]]]:
    """The boxes of the cells in colour and line of what they are called, and the legend."""

    def name(cell: CountedCell) -> str | None:
        return (cell.voted if cell.sure else None) if by_vote else cell.reviewed or cell.item.label

    # Over what is on this slide, so that eight labels stay distinct however many the case has.
    called = {
        label
        for cell in cells
        for label in (cell.reviewed or cell.item.label, cell.voted if cell.sure else None)
    }
    palette, line = colours(called), lines(called)
    made = []
    for cell in cells:
        text = f"{name(cell) or ('not sure' if by_vote else 'no label')} · {_note(cell)}"
        box = mark(cell.item, palette[name(cell)], text, line=line[name(cell)])
        if box is not None:
            made.append(box)
    present = {name(cell) for cell in cells}
    names = [
        (label or ("not sure" if by_vote else "no label"), colour, line[label])
        for label, colour in palette.items()
        if label in present
    ]
    return made, names


def _alike(place: Place, source: str, picked: str | None) -> list[Mark]:
    """The cells of this slide most similar to the selected one, the most similar in yellow."""
    if picked is None or not st.session_state.get("case-alike"):
        return []
    question = Question(
        collection=place.name,
        item=picked,
        k=FOUND,
        where=Filter(source=(source,)),
        exclude=("item",),
        exact=True,
    )
    hits = place.client.search(question).hits
    if not hits:
        return []
    low, high = hits[-1].score, hits[0].score
    found = []
    for at, hit in enumerate(hits, 1):
        share = (hit.score - low) / (high - low) if high > low else 1.0
        text = f"hit {at}: {hit.item.label or 'no label'}, similarity {hit.score:.3f}"
        box = mark(hit.item, shade(share), text, strong=True)
        if box is not None:
            found.append(box)
    return found


def _picked(place: Place, cell: CountedCell, alike: int) -> None:
    left, right = st.columns([1, 2], gap="medium")
    image = pictures(place.client, [cell.item.id], place.name).get(cell.item.id)
    with left:
        if image is not None:
            one = card(cell.item, image, note=_note(cell))
            st.html(f'<ol class="hs-grid" aria-label="The selected cell">{one}</ol>')
    with right:
        st.html(f'<p class="hs-reason">{escape(cell.reason)}</p>')
        st.toggle(
            "Mark similar cells on this slide",
            key="case-alike",
            help=f"The {FOUND} most similar cells of this slide, from blue to yellow.",
        )
        if alike:
            st.html(
                f'<p class="hs-reason">{count(alike, "cell")} marked, most similar in yellow.</p>'
            )
        if st.button("Choose for reclassification", key="case-choose-picked"):
            value, ids = st.session_state.get("case-chosen", ("", frozenset()))
            del value
            st.session_state["case-chosen"] = (
                st.session_state["case-count"][1].value,
                frozenset(ids) | {cell.item.id},
            )
            st.session_state["case-view-kept"] = "Cells"
            del st.session_state["case-view"]
            st.rerun()

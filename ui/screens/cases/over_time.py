"""On the case page: the cases of its patient in order, as a table and as curves."""

from __future__ import annotations

from html import escape

import streamlit as st

from search.schemas.cases import CaseCount, Timeline
from ui.look import states
from ui.look.card import card
from ui.look.curves import COLOURS, chart
from ui.look.tables import plain, table
from ui.session.pictures import pictures
from ui.session.place import Place
from ui.widgets.board import board


def over_time(place: Place, found: CaseCount) -> None:
    """The view of a patient's cases in order: a table, and a curve of the most frequent labels."""
    patients = {found.value} if found.by == "patient" else {c.item.patient for c in found.cells}
    known = sorted(one for one in patients if one is not None)
    if len(known) != 1:
        words = "No patient is known" if not known else "These cells are of several patients"
        st.html(states.empty(words, "A patient's cases stand in order where the patient is known."))
        return
    with st.spinner("Reading the patient's cases"):
        times = place.client.timeline(place.name, known[0])
    if times.warnings:
        st.html(states.notes(times.warnings))
    board(timeline_html(times, found.value), "case-over-time")  # plain HTML would lose the SVG
    _kinds(place, times)


def timeline_html(times: Timeline, current: str) -> str:
    """A patient's cases as a table, the current one marked, and as curves."""
    series = _series(times)
    shown = sorted(series, key=lambda name: (-max(series[name]), name))[: len(COLOURS)]
    rows = [
        [
            f"<b>{escape(one.case)}</b>" if one.case == current else escape(one.case),
            plain(one.date.isoformat() if one.date else None),
            plain(one.cells),
            plain(one.treatment),
            f"{one.distance:.0%}",
            *(f"{series[name][at]:.0%}" for name in shown),
        ]
        for at, one in enumerate(times.moments)
    ]
    votes = any(one.origin == "votes" for one in times.moments)
    caption = "Shares of " + ("neighbours' votes where no cell has a label" if votes else "labels")
    if not any(one.differential for one in times.moments):
        caption = "No cell has a label or a clear vote: shares of kinds of cells that look alike"
    heads = ["Case", "Date", "Cells", "Treatment", "Changed since the first", *map(escape, shown)]
    drawing = ""
    if len(times.moments) > 1:
        days = [one.days for one in times.moments]
        last = max((day for day in days if day is not None), default=0)
        at = [
            day / last if day is not None and last else n / (len(days) - 1)
            for n, day in enumerate(days)
        ]
        lines = {name: list(zip(at, series[name], strict=True)) for name in shown[:2]}
        across = f"Days since the first case (0 to {last})" if last else "Cases in order"
        drawing = chart(lines, across, "Share of the cells", across_ends=("first", "last"))
    head = f'<h2 class="hs-section">{escape(times.patient)} over time</h2>'
    return head + table(heads, rows, f"{caption}.", text=(3,)) + drawing


def _series(times: Timeline) -> dict[str, list[float]]:
    """The share of each label in every case; where no cell is called anything, of each kind."""
    labels = {label for one in times.moments for label in one.differential}
    if labels:
        return {
            label: [one.differential.get(label, 0.0) for one in times.moments] for label in labels
        }
    return {
        f"kind {kind.number}": [one.shares[kind.number - 1] for one in times.moments]
        for kind in times.prototypes
    }


def _kinds(place: Place, times: Timeline) -> None:
    """An example of each kind of cells that the patient has."""
    images = pictures(place.client, [one.example.id for one in times.prototypes], place.name)
    cards = "".join(
        card(one.example, images[one.example.id], note=f"kind {one.number}")
        for one in times.prototypes
        if one.example.id in images
    )
    st.html(
        '<h2 class="hs-section">Kinds of cells</h2><div class="hs-small">'
        f'<ol class="hs-grid" aria-label="Kinds of cells">{cards}</ol></div>'
    )

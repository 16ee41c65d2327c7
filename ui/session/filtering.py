"""Filters beyond the usual ones: patient, case, day, scale, and how similar a hit must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import streamlit as st

from ui.address import Searching
from ui.look.tables import count
from ui.session.results import Results

NAMES = ("patient", "case")
EARLIEST = date(1900, 1, 1)
DATES = {"acquired_from": "Taken on or after", "acquired_to": "Taken on or before"}
SCALES = {"um_per_px_min": "Scale from (µm per px)", "um_per_px_max": "Scale to (µm per px)"}


def more_filters(
    search: Searching,
    counts: Mapping[str, Mapping[str, int]],
    at: int,
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Draw the filters behind a button; what they are set to.

    Args:
        search: What they show.
        counts: For `patient`, `case` and `others` their values with counts.
        at: The round of the page's widgets.
        others: Further fields that found no room on the page.

    Returns:
        `where`: fields of a filter; `least`: the similarity that is shown at least, if any.
    """
    where: dict[str, Any] = {}
    active = active_filters(search) + sum(bool(getattr(search.where, one)) for one in others)
    words = f"More · {active}" if active else "More"
    with st.popover(words, icon=":material/tune:", help="More filters"):
        for name in (*others, *NAMES):
            given = list(getattr(search.where, name))
            where[name] = tuple(
                st.multiselect(
                    name.capitalize(),
                    list(dict.fromkeys([*counts.get(name, {}), *given])),
                    default=given,
                    accept_new_options=name in NAMES,
                    placeholder="any",
                    key=f"m-{name}-{at}",
                )
            )
        one, two = st.columns(2)
        for column, (name, label) in zip((one, two), DATES.items(), strict=True):
            where[name] = column.date_input(
                label, value=getattr(search.where, name), min_value=EARLIEST, format="YYYY-MM-DD",
                key=f"m-{name}-{at}",
            )  # fmt: skip
        one, two = st.columns(2)
        for column, (name, label) in zip((one, two), SCALES.items(), strict=True):
            where[name] = column.number_input(
                label, min_value=0.0, max_value=1000.0, value=getattr(search.where, name),
                step=0.01, format="%.3f", placeholder="any", key=f"m-{name}-{at}",
            )  # fmt: skip
        least = st.number_input(
            "Similarity at least", min_value=-1.0, max_value=1.0, value=search.least, step=0.01,
            format="%.3f", placeholder="any", key=f"m-least-{at}",
            help="Less similar neighbours are hidden. They vote all the same.",
        )  # fmt: skip
    return {"where": where, "least": least}


def active_filters(search: Searching) -> int:
    """How many of these filters are set."""
    named = (*NAMES, *DATES, *SCALES)
    return sum(bool(getattr(search.where, one)) for one in named) + (search.least is not None)


def at_least(found: Results, least: float | None) -> tuple[Results, str]:
    """What is similar enough, and a sentence about what is hidden (empty for nothing)."""
    if least is None:
        return found, ""
    answer = found.answer
    kept = tuple(hit for hit in answer.hits if hit.score >= least)
    groups = tuple(
        group.model_copy(update={"hits": hits})
        for group in answer.groups
        if (hits := tuple(hit for hit in group.hits if hit.score >= least))
    )
    hidden = len(answer.hits) - len(kept)
    words = f"{count(hidden, 'neighbour')} less similar than {least:g} hidden" if hidden else ""
    shown = answer.model_copy(update={"hits": kept, "groups": groups})
    return replace(found, answer=shown), words

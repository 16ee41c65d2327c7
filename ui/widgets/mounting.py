"""The page's own components: scripts whose reports are kept until a run reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

import streamlit as st

STALE_S = 30.0
"""A report that no run has taken for this long is forgotten."""


def mount(
    name: str, data: Mapping[str, Any], key: str, *reports: str, **layout: Any
) -> dict[str, Any]:
    """Draw a component; returns what it reported since the last run, each report once.

    A report is kept where the run that it began is ended by another before it comes here: a press
    on something that has just appeared is not lost to what is still being drawn below it.

    Args:
        name: `NAME.js` lies beside this module; it draws into an element of class `hs-NAME`.
        data: Passed to the script.
        key: A name that no other component on the page has.
        reports: Names that the script passes to `setTriggerValue`.
        layout: `width` and `height`, as Streamlit's components have them.

    Returns:
        The reports that came, by name; those that did not are left out.
    """
    callbacks = {f"on_{report}_change": partial(_keep, key, report) for report in reports}
    _made(name)(data=dict(data), key=key, **layout, **callbacks)
    reported = {report: st.session_state.pop(_place(key, report), None) for report in reports}
    return {
        report: found[1]
        for report, found in reported.items()
        if found is not None and found[1] and monotonic() - found[0] <= STALE_S
    }


@cache
def _made(name: str) -> Callable[..., Any]:
    made: Callable[..., Any] = st.components.v2.component(
        f"hemaseek.{name}",
        html=f'<div class="hs-{name}"></div>',
        js=Path(__file__).with_name(f"{name}.js").read_text(),
        isolate_styles=False,
    )
    return made


def _keep(key: str, report: str) -> None:
    value = getattr(st.session_state[key], report)
    if value:  # called for every report of a component when one of them comes
        st.session_state[_place(key, report)] = (monotonic(), value)


def _place(key: str, report: str) -> str:
    return f"{key}-{report}-reported"

"""Reports of components: taken once, kept for a run that comes late, forgotten in the end."""

from __future__ import annotations

from time import monotonic

import pytest
from streamlit.testing.v1 import AppTest

from ui.widgets import mounting


def script() -> None:
    import streamlit as st

    from ui.widgets.mounting import mount

    st.session_state["reports"] = mount("board", {"html": ""}, "one", "act", "pick")


def app(seconds_ago: float, value: object) -> AppTest:
    made = AppTest.from_function(script)
    made.session_state["one-act-reported"] = (monotonic() - seconds_ago, value)
    return made


def test_a_report_whose_run_was_ended_is_taken_by_the_next_and_only_by_it() -> None:
    page = app(1, {"id": "a"})

    assert page.run().session_state["reports"] == {"act": {"id": "a"}}
    assert page.run().session_state["reports"] == {}


def test_a_report_that_nobody_took_for_long_is_forgotten() -> None:
    assert app(mounting.STALE_S + 1, {"id": "a"}).run().session_state["reports"] == {}


@pytest.mark.parametrize("value", [{"id": "b"}, None])
def test_reports_of_a_component_are_kept_and_empty_ones_are_not(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reported:
        act = value

    state: dict[str, object] = {"one": Reported()}
    monkeypatch.setattr(mounting.st, "session_state", state)
    mounting._keep("one", "act")

    assert [kept[1] for name, kept in state.items() if name != "one"] == ([value] if value else [])  # type: ignore[index]

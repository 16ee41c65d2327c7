"""The page *Library* without a browser: what can be adapted, and the reason where nothing can."""

from __future__ import annotations

from time import monotonic

import pytest
from live import Live
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from search.schemas.collections import Brought, RunRecord
from search.schemas.versions import GateFacts
from ui.screens.library import ADAPTATIONS, JOB, _outcome, _passed, all_read

pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.mark.parametrize(("failed", "tone"), [(0, "good"), (2, "warn")])
def test_items_that_failed_are_told_where_every_file_could_be_read(failed: int, tone: str) -> None:
    run = RunRecord(
        id=1, started="", ended="", state="done", summary=f"5 stored, {failed} failed in 1.0 s"
    )
    found = Brought(collection="cells", done=5, pending=0, quarantined=0, runs=(run,), set_aside=())

    words, said = all_read(found)

    assert said == tone
    assert ("but 2 of the last run's items could not be taken" in words) is bool(failed)


def test_figures_without_a_limit_are_not_said_to_be_not_measured() -> None:
    told = GateFacts(name="robustness", passed=None, figures={"a": 1.0}, limits={}, note="")
    lacking = GateFacts(name="centre", passed=None, figures={}, limits={}, note="one site")
    good = GateFacts(name="knn", passed=True, figures={"a": 1.0}, limits={"a": 0.5}, note="")

    assert "1 passed, 1 not measured" in _passed([told, lacking, good])
    assert "for information" in _outcome(told)
    assert "not measured" in _outcome(lacking)


def test_an_adaptation_is_started_from_its_form_and_its_reason_shown(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    app = AppTest.from_string("from ui.screens import library\nlibrary.show()", default_timeout=120)
    app.session_state["library-view"] = "Versions"
    app.run()
    assert not app.exception
    with Client(live.url) as client:
        before = client.versions("cells")

    (kind,) = [box for box in app.selectbox if box.label == "Kind"]
    assert kind.options == list(ADAPTATIONS.values())  # no fusion: it is of one encoder
    kind.select("align")
    (button,) = [one for one in app.button if one.label == "Adapt the collection"]
    button.click().run()
    until = monotonic() + 60
    while JOB in app.session_state and monotonic() < until:
        app.run()

    shown = " ".join(str(part.proto.body) for part in app.get("html"))
    assert "aligning needs" in shown
    with Client(live.url) as client:
        after = client.versions("cells")
    assert [(one.id, one.served) for one in after] == [(one.id, one.served) for one in before]

"""The page *Library* without a browser: what can be adapted, and the reason where nothing can."""

from __future__ import annotations

from time import monotonic

import pytest
from live import Live
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from ui.screens.library import ADAPTATIONS, JOB

pytestmark = pytest.mark.usefixtures("forgetful")


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
        assert client.versions("cells") == before

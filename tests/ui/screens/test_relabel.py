"""What a reviewer is offered as a label."""

from __future__ import annotations

import pytest
from live import Live
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from search.schemas.filters import Filter

pytestmark = pytest.mark.usefixtures("forgetful")
PAGE = """
from ui.screens.relabel import relabel
from ui.session.place import opened

place = opened("Reviews", "")
relabel(place, [ID], "here")
"""


def test_a_label_that_only_a_reviewer_gave_is_known_to_the_next_one(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    with Client(live.url) as client:
        (item,) = client.items_page("cells", Filter(), 1).items
        client.review("cells", {item.id: "smudge cell"}, "Ada")
        try:
            app = AppTest.from_string(PAGE.replace("ID", repr(item.id)), default_timeout=60).run()
        finally:
            client.review("cells", {item.id: None}, "Ada")

    assert not app.exception
    (box,) = [one for one in app.selectbox if one.label == "Reclassify 1 cell"]
    assert "smudge cell" in box.options
    assert box.options[0] != "smudge cell"

"""The page *Compare* without a browser: panes, maps, differences, and links that lead nowhere."""

from __future__ import annotations

import json
from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from live import REPOSITORY, Live
from PIL import Image
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from search.schemas.explanations import ExplainMap, MapCheck
from search.schemas.questions import Question
from ui.look.overlays import SIDE, checked, heat

SCRIPT = "from ui.screens import compare\ncompare.show()"


pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.fixture(name="ids")
def _ids(live: Live) -> list[str]:
    image = next(iter(sorted((live.folder / "cells" / "eosinophil").glob("*.png"))))
    with Client(live.url) as client:
        first = client.search(Question(k=1, exclude=()), image).hits[0].item.id
        return [first, *(hit.item.id for hit in client.search(Question(item=first, k=3)).hits)]


def page(monkeypatch: pytest.MonkeyPatch, live: Live, **params: str) -> AppTest:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    app = AppTest.from_string(SCRIPT, default_timeout=120)
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def html(app: AppTest) -> str:
    return " ".join(str(part.proto.body) for part in app.get("html"))


def panes(app: AppTest) -> list[dict[str, Any]]:
    (part,) = [one for one in app.get("bidi_component") if '"panes"' in one.proto.json]
    found: list[dict[str, Any]] = json.loads(part.proto.json)["panes"]
    return found


def test_a_query_and_its_hits_stand_at_one_scale(
    live: Live, monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    app = page(monkeypatch, live, item=ids[0], **{"with": ",".join(ids[1:])})

    assert not app.exception
    assert [pane["query"] for pane in panes(app)] == [True, False, False, False]
    with Client(live.url) as client:
        items = [client.item(id) for id in ids]
    for pane, item in zip(panes(app), items, strict=True):
        if item.um_per_px is not None and item.bbox is not None:
            assert pane["span"] == pytest.approx(max(item.bbox.w, item.bbox.h) * item.um_per_px)
        assert pane["alt"]


def test_what_differs_from_the_query_is_marked(
    live: Live, monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    app = page(monkeypatch, live, item=ids[0], **{"with": ids[1]})

    assert "Differences" in html(app)
    with Client(live.url) as client:
        mine, other = client.item(ids[0]), client.item(ids[1])
    assert mine.patient != other.patient
    assert f"≠ {other.patient}" in html(app)


def test_without_marks_the_first_hits_are_compared(
    live: Live, monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    app = page(monkeypatch, live, item=ids[0], grouped="no")

    assert not app.exception
    assert len(panes(app)) == 1 + 2  # the nearest of each of the two other patients


def test_a_causal_map_is_shown_or_the_page_says_why_not(
    live: Live, monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    app = page(monkeypatch, live, item=ids[0], **{"with": ids[1]})

    app.segmented_control(key="hs-map").set_value("causal").run()

    assert not app.exception
    for pane in panes(app):
        assert bool(pane["overlay"]) != bool(pane["withheld"])
        assert any("insertion" in line for line in pane["lines"])


def test_an_encoder_without_patches_says_so_in_words(
    live: Live, monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    app = page(monkeypatch, live, item=ids[0], **{"with": ids[1]})

    app.segmented_control(key="hs-map").set_value("colours").run()

    assert not app.exception
    assert "has no patch tokens" in html(app)
    assert not any(pane["overlay"] for pane in panes(app))


def test_a_deleted_hit_is_left_out_and_the_page_says_so(
    live: Live, monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    gone = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"

    app = page(monkeypatch, live, item=ids[0], **{"with": f"{gone},{ids[1]}"})

    assert not app.exception
    assert "not in the library any more" in html(app)
    assert len(panes(app)) == 2


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Nothing is chosen to compare"),
        ({"item": "x", "with": "y"}, "does not name a search"),
        ({"upload": "0" * 32}, "Nothing is chosen to compare"),
    ],
    ids=["nothing", "no ids", "a forgotten picture"],
)
def test_a_link_that_leads_nowhere_ends_in_a_sentence(
    live: Live, monkeypatch: pytest.MonkeyPatch, params: dict[str, str], words: str
) -> None:
    app = page(monkeypatch, live, **params)

    assert not app.exception
    assert words in html(app)


def test_a_map_is_shown_with_its_check_against_random_maps() -> None:
    found = ExplainMap(
        kind="causal",
        of=None,
        values=((0.0, 1.0), (0.5, 0.2)),
        check=MapCheck(deletion=0.2, insertion=0.8, random=(0.1, 0.3), better=True),
    )

    assert checked(found) == (
        "insertion 0.80, deletion 0.20; difference +0.60, best of random maps +0.30"
    )
    assert heat(found).startswith("data:image/png;base64,")


def test_a_map_of_a_part_of_a_picture_lies_over_that_part() -> None:
    found = ExplainMap(kind="causal", of=None, values=((1.0, 1.0), (1.0, 1.0)), check=None)

    content = b64decode(heat(found, (0.25, 0.25, 0.5, 0.5)).partition(",")[2])
    alpha = np.asarray(Image.open(BytesIO(content)))[..., 3]

    assert alpha[SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4].min() > 150
    assert alpha.astype(bool).mean() == 0.25


def test_the_components_scripts_are_part_of_the_package() -> None:
    for name in ("board", "field", "lenses", "paste"):
        assert (REPOSITORY / "ui" / "widgets" / f"{name}.js").is_file()

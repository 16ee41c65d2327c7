"""Case, Atlas, Evaluate and Library without a browser, over a real service."""

from __future__ import annotations

import pytest
from live import Live
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from search.client.evaluations import wait_for
from search.schemas.evaluations import EvaluationPlan

pytestmark = pytest.mark.usefixtures("forgetful")


def page(monkeypatch: pytest.MonkeyPatch, url: str, name: str) -> AppTest:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", url)
    return AppTest.from_string(
        f"from ui.screens import {name}\n{name}.show()", default_timeout=120
    ).run()


def html(app: AppTest) -> str:
    return " ".join(
        [*(str(part.proto.body) for part in app.get("html")), *(c.value for c in app.code)]
    )


def test_a_case_is_counted_by_source_reviewers_and_neighbours(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url, "case")
    shown = html(app)

    assert not app.exception
    assert "Differential count" in shown
    assert all(f">{head}</th>" in shown for head in ("Recorded", "Neighbours"))
    assert ">Reviewed</th>" not in shown  # nobody has reviewed a cell of it
    assert "own patient left out" in shown


def test_a_map_is_shown_with_the_counts_that_it_is_made_of(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url, "atlas")
    shown = html(app)

    assert not app.exception
    assert "102 of 102 items" in shown
    assert "No gate yet" in shown
    assert "On the whole map, the 12 most frequent of " in shown


def test_the_library_shows_what_is_in_it_and_by_which_encoder(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url, "library")
    shown = html(app)

    assert not app.exception
    assert "36a0ad706d8abe9e" in shown
    assert "colour-histogram-v1" in shown
    assert "Contents of cells" in shown


def test_an_evaluation_is_shown_with_its_intervals_and_its_confusions(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(live.url) as client:
        plan = EvaluationPlan(ks=(1,), probe=False, ann=False, resamples=20)
        done = wait_for(client.evaluation, client.evaluate(plan).id)
    app = page(monkeypatch, live.url, "evaluate")
    shown = html(app)

    assert done.state == "done"
    assert not app.exception
    assert "1-NN" in shown
    assert "95 % confidence intervals" in shown
    assert "each patient left out in turn" in shown


@pytest.mark.parametrize("name", ["case", "atlas", "evaluate", "library"])
def test_every_page_says_that_the_service_is_down(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    app = page(monkeypatch, "http://127.0.0.1:9", name)

    assert not app.exception
    assert "hemaseek serve" in html(app)

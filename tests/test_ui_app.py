"""The page without a browser: what it draws for an upload, and for everything that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from live import REPOSITORY, Live
from streamlit.testing.v1 import AppTest

from ui.place import connect

APP = str(REPOSITORY / "ui" / "app.py")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    connect().close()  # before it is forgotten, or its socket is left open
    st.cache_resource.clear()
    st.cache_data.clear()


def page(monkeypatch: pytest.MonkeyPatch, url: str) -> AppTest:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", url)
    return AppTest.from_file(APP, default_timeout=60).run()


def html(app: AppTest) -> str:
    return " ".join(str(part.proto.body) for part in app.get("html"))


def drawn(live: Live, label: str) -> Path:
    return next(iter(sorted((live.folder / "cells" / label).glob("*.png"))))


def test_it_asks_for_an_image_first(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(monkeypatch, live.url)

    assert not app.exception
    assert "Upload an image" in html(app)


def test_an_upload_shows_its_neighbours_and_their_vote(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn(live, "eosinophil")
    app = page(monkeypatch, live.url)

    app.file_uploader[0].upload(image.name, image.read_bytes(), "image/png").run()
    shown = html(app)

    assert not app.exception
    assert shown.count('class="hs-card ') == 20
    assert "Neighbour 1: " in shown
    assert "patient exclusion not possible" in shown
    assert "Vote of the neighbours" in shown
    assert "Research use only" in shown


def test_a_named_patient_is_left_out(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    import csv

    with (live.folder / "manifest.csv").open() as handle:
        row = next(csv.DictReader(handle))
    image = live.folder / row["path"]
    app = page(monkeypatch, live.url)
    app.text_input[0].input(row["patient"])

    app.file_uploader[0].upload(image.name, image.read_bytes(), "image/png").run()
    shown = html(app)

    assert "own patient left out" in shown
    assert f"case {row['case']}" not in shown


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("paper.png", b"%PDF-1.7 not a picture", "not an image"),
        ("cut.png", b"\x89PNG\r\n\x1a\n cut short", "not an image"),
    ],
)
def test_a_file_that_is_no_image_ends_in_a_sentence(
    live: Live, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, words: str
) -> None:
    app = page(monkeypatch, live.url)

    app.file_uploader[0].upload(name, content, "image/png").run()

    assert not app.exception
    assert words in html(app)
    assert 'role="alert"' in html(app)


def test_a_service_that_is_down_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(monkeypatch, "http://127.0.0.1:9")

    assert not app.exception
    assert "hemaseek serve" in html(app)


@pytest.mark.parametrize("name", ["compare", "case", "atlas", "evaluate", "library"])
def test_every_page_opens(live: Live, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    script = f"from ui import {name}\n{name}.show()"

    app = AppTest.from_string(script, default_timeout=60).run()

    assert not app.exception
    assert "<h1>" in html(app)

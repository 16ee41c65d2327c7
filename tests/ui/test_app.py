"""The page without a browser: what it draws for a query, and for everything that goes wrong."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import streamlit as st
from live import REPOSITORY, Live
from PIL import Image
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from search.schemas.questions import Question
from search.settings import Settings
from ui.cli.demo import free_port
from ui.session.place import connect

APP = str(REPOSITORY / "ui" / "app.py")


pytestmark = pytest.mark.usefixtures("forgetful")


def page(monkeypatch: pytest.MonkeyPatch, url: str, **params: str) -> AppTest:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", url)
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def html(app: AppTest) -> str:
    """All that is drawn as HTML, in the page and on boards."""
    drawn = [str(part.proto.body) for part in app.get("html")]
    boards = [str(part.proto.json) for part in app.get("bidi_component")]
    commands = [part.value for part in app.code]
    return " ".join(drawn + boards + commands).replace('\\"', '"')


def drawn(live: Live, label: str) -> Path:
    return next(iter(sorted((live.folder / "cells" / label).glob("*.png"))))


def stored(live: Live) -> str:
    with Client(live.url) as client:
        found = client.search(Question(k=1, exclude=()), drawn(live, "eosinophil"))
    return found.hits[0].item.id


def upload(app: AppTest, name: str, content: bytes) -> AppTest:
    return app.file_uploader[0].upload(name, content, "image/png").run()


def test_it_offers_an_upload_a_stored_item_and_samples(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url)
    shown = html(app)

    assert not app.exception
    assert "Drop in a cell" in app.file_uploader[0].label
    assert shown.count('data-act="ask"') == 7
    assert "Neighbour" not in shown


def test_an_upload_shows_its_neighbours_by_patient_and_their_vote(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn(live, "eosinophil")

    app = upload(page(monkeypatch, live.url), image.name, image.read_bytes())
    shown = html(app)

    assert not app.exception
    assert shown.count('class="hs-card ') == 3  # the library has three patients
    assert shown.count("Of the same patient") == 6
    assert "Neighbour 1: " in shown
    assert "patient exclusion not possible" in shown
    assert "Vote of the neighbours" in shown
    assert "not calibrated" in shown
    assert "Research use only" in shown


def test_an_address_searches_with_a_stored_item(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = stored(live)

    app = page(monkeypatch, live.url, item=id, grouped="no", k="5")
    shown = html(app)

    assert not app.exception
    assert shown.count('class="hs-card ') == 5
    assert "own patient left out" in shown
    assert f'data-card="{id}"' not in shown
    assert app.query_params["item"] == id


def test_a_link_with_examples_shows_them_marked(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = stored(live)
    with Client(live.url) as client:
        other, third = (hit.item.id for hit in client.search(Question(item=id, k=2)).hits)

    app = page(monkeypatch, live.url, item=id, like=other, unlike=third, grouped="no")
    shown = html(app)

    assert not app.exception
    assert "the gallery follows your examples" in shown
    assert 'class="hs-card hs-liked"' in shown


def test_a_filter_is_applied_and_counts_of_the_others_follow(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url, item=stored(live), grouped="no", k="50")
    labels = next(box for box in app.multiselect if box.label == "Label")

    labels.select("lymphocyte").run()
    sites = next(box for box in app.multiselect if box.label == "Site")
    shown = html(app)

    assert not app.exception
    assert "Neighbour 1: lymphocyte" in shown
    assert "Neighbour 1: eosinophil" not in shown
    with Client(live.url) as client:
        counts = client.facet("site", app.session_state["hs-search"].where, "cells")
    assert {option.rpartition(" · ")[2] for option in sites.options} == {
        f"{n}" for n in counts.values()
    }
    assert '"label":["lymphocyte"]' in app.query_params["where"]


def test_a_named_patient_is_left_out_and_never_part_of_the_address(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    import csv

    with (live.folder / "manifest.csv").open() as handle:
        row = next(row for row in csv.DictReader(handle) if "cells" in row["path"])
    image = live.folder / row["path"]
    app = upload(page(monkeypatch, live.url), image.name, image.read_bytes())

    box = next(box for box in app.text_input if box.label.startswith("Patient"))
    box.input(row["patient"]).run()
    shown = html(app)

    assert not app.exception
    assert "own patient left out" in shown
    assert f"patient {row['patient']} " not in shown
    assert row["patient"] not in str(app.query_params)


def test_a_field_is_judged_whole_and_offers_its_cells(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = next(iter(sorted((live.folder / "fields").rglob("*.png"))))

    app = upload(page(monkeypatch, live.url), image.name, image.read_bytes())
    (field,) = [part for part in app.get("bidi_component") if '"cells"' in part.proto.json]

    assert not app.exception
    assert '"kind":"white"' in field.proto.json.replace(" ", "")
    shown = html(app)
    assert "Differential count of this field" in shown
    assert "White cells of this field" in shown
    assert ">Percent</th>" in shown


def test_an_address_searches_with_a_cell_of_a_field(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = next(iter(sorted((live.folder / "fields").rglob("*.png"))))
    app = upload(page(monkeypatch, live.url), image.name, image.read_bytes())
    app.query_params["crop"] = "10,10,200,200"

    app.run()

    assert not app.exception
    assert f"a cell of {image.name}" in html(app)
    assert "Neighbour 1: " in html(app)


def test_a_link_to_a_forgotten_picture_says_so(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(monkeypatch, live.url, upload="0" * 32)

    assert not app.exception
    assert "not kept any more" in html(app)


def giant_png() -> bytes:
    """A PNG of 300 million pixels by its header; its pixels are black and pack well."""
    width, height = 20_000, 15_000

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    packer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def encoded(size: tuple[int, int], kind: str) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, kind)
    return out.getvalue()


def pages_of_tiff() -> bytes:
    out = io.BytesIO()
    pages = [Image.effect_noise((40, 40), 60).convert("RGB") for _ in range(2)]
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    return out.getvalue()


REFUSED = {
    "a PDF": (lambda: b"%PDF-1.7 not a picture", "not an image"),
    "a text": (lambda: b"lymphocyte, eosinophil", "not an image"),
    "a drawing": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "an archive": (lambda: b"PK\x03\x04 and more", "not an image"),
    "a cut PNG": (lambda: b"\x89PNG\r\n\x1a\n cut short", "not an image"),
    "a cut JPEG": (lambda: encoded((300, 300), "JPEG")[:4000], "damaged or cut short"),
    "a TIFF of two pages": (pages_of_tiff, "2 pictures"),
    "300 megapixels": (giant_png, "Crop or shrink it first"),
    "nothing": (lambda: b"", "drop it in as a file"),
}
"""What is refused: the picture, and a part of the sentence."""
DOUBTED = {
    "one pixel": (lambda: encoded((1, 1), "PNG"), "too small to be trusted"),
    "a blank": (lambda: solid((60, 60)), "nearly blank"),
}
"""What is answered with a warning."""


def solid(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (240, 236, 230)).save(out, "PNG")
    return out.getvalue()


def test_a_refused_picture_keeps_the_uploader_and_leaves_no_trace(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url)
    for name, (make, words) in REFUSED.items():
        app = upload(app, f"{name}.png", make())

        assert not app.exception, name
        assert words in html(app), name
        assert dict(app.query_params) == {}, name
        assert app.file_uploader[0].label.startswith("Drop in"), name
        assert html(app).count('data-act="ask"') == 7, name

    image = drawn(live, "eosinophil")
    app = upload(app, image.name, image.read_bytes())
    assert "Neighbour 1: " in html(app)


@pytest.mark.parametrize("name", list(DOUBTED))
def test_a_picture_with_little_in_it_is_answered_with_a_warning(
    live: Live, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, words = DOUBTED[name]

    app = upload(page(monkeypatch, live.url), "picture.png", make())

    assert not app.exception
    assert words in html(app)
    assert "Neighbour 1: " in html(app)


def test_a_search_that_the_service_refuses_can_be_left(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn(live, "eosinophil")
    app = upload(page(monkeypatch, live.url), image.name, image.read_bytes())
    app.query_params["crop"] = "9000,9000,40,40"
    app.run()
    assert "does not lie on the image" in html(app)
    assert len(app.file_uploader) == 1

    next(one for one in app.button if one.label == "New search").click().run()

    assert dict(app.query_params) == {}
    assert html(app).count('data-act="ask"') == 7


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"item": "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"}, "may have been deleted"),
        ({"item": "not-an-id"}, "does not name a search"),
        ({"k": "many"}, "does not name a search"),
        ({"where": "{"}, "does not name a search"),
        ({"upload": "x", "crop": "1,2"}, "does not name a search"),
    ],
    ids=["deleted item", "no id", "no number", "cut filter", "cut box"],
)
def test_a_link_that_leads_nowhere_ends_in_a_sentence_with_a_way_on(
    live: Live, monkeypatch: pytest.MonkeyPatch, params: dict[str, str], words: str
) -> None:
    app = page(monkeypatch, live.url, **params)

    assert not app.exception
    assert words in html(app)
    assert len(app.file_uploader) == 1


def test_a_typed_id_that_is_not_there_ends_in_a_sentence(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page(monkeypatch, live.url)
    box = next(box for box in app.text_input if box.label == "Item id")

    box.input("cell 17").run()

    assert not app.exception
    assert "There is no item cell 17" in html(app)


def test_when_the_service_is_down_the_page_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(monkeypatch, "http://127.0.0.1:9")

    assert not app.exception
    assert "hemaseek serve" in html(app)


@pytest.fixture(name="bare", scope="module")
def _bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service over an empty library that wants a key."""
    import threading
    import time

    import uvicorn

    from ui.cli.serving import application

    folder = tmp_path_factory.mktemp("bare")
    settings = Settings(library=folder / "library", port=free_port(), api_key="right")
    config = uvicorn.Config(application(settings), port=settings.port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield settings.url
    server.should_exit = True
    thread.join(30)


def test_a_wrong_key_ends_in_a_sentence(bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMASEEK_API_KEY", "wrong")

    app = page(monkeypatch, bare)

    assert not app.exception
    assert "The service requires a key" in html(app)
    assert "HEMASEEK_API_KEY" in html(app)


def test_an_empty_library_says_how_to_fill_it(bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMASEEK_API_KEY", "right")

    app = page(monkeypatch, bare)

    assert not app.exception
    assert httpx.get(f"{bare}/health", trust_env=False).json()["status"] == "empty"
    assert "hemaseek ingest PATH" in html(app)
    assert "Import cells" in [one.label for one in app.button]


@pytest.mark.parametrize("name", ["compare", "case", "atlas", "evaluate", "library"])
def test_every_page_says_that_the_key_is_wrong_or_that_nothing_is_there(
    bare: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", bare)
    app = AppTest.from_string(f"from ui.screens import {name}\n{name}.show()", default_timeout=60)
    for key, words in (("wrong", "The service requires a key"), ("right", "hemaseek ingest PATH")):
        monkeypatch.setenv("HEMASEEK_API_KEY", key)
        app.run()
        connect().close()
        st.cache_resource.clear()

        assert not app.exception
        assert words in html(app)


def test_a_link_to_a_deleted_case_says_so(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    app = AppTest.from_string("from ui.screens import case\ncase.show()", default_timeout=60)
    app.query_params["case"] = "case-17"
    app.run()

    assert not app.exception
    assert "There is no case case-17 here; it may have been deleted." in html(app)


@pytest.mark.parametrize("name", ["compare", "case", "atlas", "evaluate", "library"])
def test_every_page_opens(live: Live, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    script = f"from ui.screens import {name}\n{name}.show()"

    app = AppTest.from_string(script, default_timeout=60).run()

    assert not app.exception
    assert "<h1>" in html(app)


def test_a_gate_is_kept_in_the_library_under_its_name_and_removed(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(live.url) as client:
        name = client.collections()[0].name
        drawn_on = client.map(name)
        low, high = min(*drawn_on.x, *drawn_on.y) - 1, max(*drawn_on.x, *drawn_on.y) + 1
        corners = f"{low},{low};{high},{low};{high},{high};{low},{high}"
        monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
        script = "from ui.screens import atlas\natlas.show()"
        app = AppTest.from_string(script, default_timeout=60)
        app.query_params["method"] = "pca"
        app.query_params["gates"] = f"Gate 1:{corners}"
        app.run()
        app.text_input(key="atlas-name-Gate 1").set_value("everything")
        app.button(key="atlas-keep").click().run()
        (kept,) = client.gates(name).gates

        assert not app.exception
        assert (kept.gate.name, kept.gate.method) == ("everything", "pca")
        assert kept.cells == len(drawn_on.ids)
        app.button(key="atlas-remove").click().run()
        assert client.gates(name).gates == ()

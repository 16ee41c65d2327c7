"""From an empty library to the first search, and a service that stops, in headless Chromium."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from browsing import browsed, check_page, choose, copied, wait_until_idle
from live import Live, served
from playwright.sync_api import Page, expect

from ingest.samples.synthetic import write_library
from search.settings import Settings
from ui.cli.demo import free_port

LONG = 150_000
pytestmark = pytest.mark.browser


@pytest.fixture(name="service", scope="module")
def _service() -> Iterator[ExitStack]:
    """What is open as long as the service runs."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as service:
        patch.setenv("HEMASEEK_ENCODER", "hemaseek-xs")  # of the imports that the page begins
        yield service


@pytest.fixture(name="live", scope="module")
def _live(service: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """A service over an empty library; drawn cells lie in a folder beside it."""
    folder = tmp_path_factory.mktemp("first")
    write_library(folder / "drawn", patients=1, fields_per_patient=0, cells_per_label=1)
    settings = Settings(library=folder / "library", port=free_port(), preload=False)
    service.enter_context(served(settings))
    return Live(settings.url, folder / "drawn" / "cells", settings)


@pytest.fixture(name="opened", scope="module")
def _opened(live: Live, chromium: str) -> Iterator[tuple[str, Page]]:
    with browsed(live, chromium, LONG) as opened:
        yield opened


def imported(page: Page, words: str) -> None:
    """Wait for the end of an import, whose progress is shown meanwhile."""
    page.get_by_role("status").filter(has_text="Importing:").wait_for()
    page.get_by_role("note").filter(has_text=words).wait_for(timeout=4 * LONG)
    wait_until_idle(page)


def test_a_page_of_an_empty_library_leads_to_the_import(opened: tuple[str, Page]) -> None:
    address, page = opened
    for path in ("atlas", ""):
        page.goto(f"{address}/{path}")
        page.get_by_role("heading", name="The library is empty").wait_for()
        expect(page.get_by_role("button", name="Import cells")).to_be_visible()
    check_page(page)
    assert copied(page) == "hemaseek ingest PATH --dataset NAME"

    page.get_by_role("button", name="Import cells").click()
    page.get_by_role("button", name="Import sample cells").wait_for()
    check_page(page)


@pytest.fixture(name="filled", scope="module")
def _filled(
    live: Live, opened: tuple[str, Page], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Page]:
    """The page over a library that was filled from it, by an upload and by a folder."""
    address, page = opened
    given = tmp_path_factory.mktemp("given") / "mine.zip"
    with zipfile.ZipFile(given, "w") as archive:
        for label in ("monocyte", "lymphocyte"):
            one = next((live.folder / label).glob("*.png"))
            archive.write(one, f"{label}/{one.name}")
    page.goto(f"{address}/library?view=Imports")
    choose(page, "Upload")
    wait_until_idle(page)
    page.get_by_role("textbox", name="Dataset").fill("mine")
    send = page.get_by_role("button", name="Import", exact=True)
    send.click()
    page.get_by_text("Give at least one file").wait_for()
    page.set_input_files("input[type=file]", str(given))
    page.get_by_text("mine.zip").first.wait_for()
    send.click()
    imported(page, "2 items stored.")

    choose(page, "Folder")
    path = page.get_by_role("textbox", name="Folder, table (CSV) or COCO file on this machine")
    path.wait_for()
    wait_until_idle(page)
    page.get_by_role("textbox", name="Dataset").fill("clinic")
    path.fill("/nowhere")
    send.click()
    page.get_by_text("There is nothing at /nowhere").wait_for()
    path.fill(str(live.folder))
    send.click()
    imported(page, f"{len(list(live.folder.rglob('*.png')))} items stored")
    return address, page


def test_the_first_search_after_an_import_is_guided(filled: tuple[str, Page]) -> None:
    page = filled[1]
    check_page(page)
    page.get_by_role("button", name="Find similar cells").click()
    page.get_by_role("note").filter(has_text="Your first search").wait_for()
    check_page(page)

    page.locator("[aria-label='Samples'] .hs-open").first.click()
    page.locator("[aria-label='Vote of the neighbours']").wait_for()
    expect(page.get_by_text("Your first search")).to_have_count(0)
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)
    for card in page.locator("[aria-label^='Patients'] .hs-card").all_inner_texts():  # none hidden
        assert "patient unknown · " in card
        assert "of one picture" in card


def test_the_gallery_follows_a_box_that_is_drawn_on_the_query(
    live: Live, filled: tuple[str, Page]
) -> None:
    address, page = filled
    page.goto(address)
    page.set_input_files("input[type=file]", str(next((live.folder / "eosinophil").glob("*.png"))))
    page.locator("[aria-label='Vote of the neighbours']").wait_for()
    wait_until_idle(page)
    query = page.locator(".hs-query img")
    whole, vote = str(query.get_attribute("src")), page.inner_text(".hs-verdict")
    scores = page.locator(".hs-score").all_inner_texts()

    page.get_by_text("Search with a part of it").click()
    frame = page.locator(".hs-field")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=3)
    page.mouse.up()
    page.wait_for_url("**region=**")
    page.get_by_text("The gallery follows the part you drew").wait_for()
    wait_until_idle(page)

    assert page.locator(".hs-score").all_inner_texts() != scores
    expect(page.locator(".hs-verdict")).to_have_text(
        vote, use_inner_text=True
    )  # of the whole query
    expect(query).not_to_have_attribute("src", whole)  # the part is drawn on it
    check_page(page)


def test_sample_cells_can_be_imported_and_an_import_cancelled(opened: tuple[str, Page]) -> None:
    address, page = opened
    page.goto(f"{address}/library?view=Imports")
    page.get_by_role("button", name="Import sample cells").click()
    page.get_by_role("status").filter(has_text="Importing:").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("note").filter(has_text="it was cancelled").wait_for()
    page.get_by_role("button", name="Import sample cells").wait_for()


def test_a_service_that_is_down_is_named_with_what_starts_it(
    service: ExitStack, live: Live, opened: tuple[str, Page]
) -> None:
    address, page = opened
    service.close()
    for path in ("library", ""):
        page.goto(f"{address}/{path}")
        page.get_by_role("heading", name="The service is down").wait_for()
    check_page(page)
    assert copied(page) == "hemaseek serve"

    service.enter_context(served(live.settings))
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="The service is down")).to_have_count(0)

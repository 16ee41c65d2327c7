"""The page in headless Chromium, over a real service and a library of drawn cells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live import Live
from playwright.sync_api import Page, sync_playwright

from ui.demo import page as page_process

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.browser


@pytest.fixture(name="browser_page", scope="module")
def _browser_page(live: Live, chromium: str) -> Iterator[Page]:
    settings = live.settings.model_copy(update={"service_url": live.url})
    with page_process(settings) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 720})
        opened.goto(address, timeout=90_000)
        yield opened
        browser.close()


def test_an_upload_is_answered_by_a_gallery_in_view(live: Live, browser_page: Page) -> None:
    (image, *_) = sorted((live.folder / "cells" / "lymphocyte").glob("*.png"))

    browser_page.set_input_files("input[type=file]", str(image), timeout=90_000)
    cards = browser_page.locator(".hs-card")
    cards.first.wait_for(timeout=90_000)

    assert cards.count() == 20
    assert browser_page.locator("[aria-label='Vote of the neighbours']").is_visible()
    assert cards.first.is_visible()
    assert "Neighbour 1" in str(cards.first.locator("img").get_attribute("alt"))


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_nothing_scrolls_sideways(browser_page: Page, width: int, height: int) -> None:
    browser_page.set_viewport_size({"width": width, "height": height})
    wide = browser_page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )

    assert wide <= 0


def test_every_picture_has_alternative_text(browser_page: Page) -> None:
    silent = browser_page.evaluate(
        "() => [...document.images].filter(image => !image.alt).map(image => image.outerHTML)"
    )

    assert silent == []


def test_the_picture_of_the_page_shows_the_query_and_its_neighbours(
    browser_page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from PIL import Image

    path = tmp_path_factory.mktemp("shots") / "find-similar.png"

    browser_page.screenshot(path=path)

    with Image.open(path) as shot:
        box = browser_page.locator(".hs-card img").first.bounding_box()
        assert box is not None
        corner = (round(box["x"]), round(box["y"]))
        cell = shot.convert("RGB").crop((*corner, corner[0] + 60, corner[1] + 60))
        colours = cell.getcolors(maxcolors=60 * 60)
    assert colours is None or len(colours) > 50  # a photograph, not an empty frame

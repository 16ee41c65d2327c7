"""Words of a library that would be a script, a link or a form: none of them runs on any page."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from browsing import browsed, wait_until_idle
from live import Live, served
from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks.fuzz_api import png
from encoder.registry import load
from search.client.client import Client
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id
from search.settings import Settings
from ui.cli.demo import free_port

SCRIPTS = (
    "<script>window.top.hit=1</script>",
    "<img src=x onerror=window.top.hit=1>",
    "[here](javascript:window.top.hit=1)",
    "</style></td><svg onload=window.top.hit=1>",
    '" autofocus onfocus="window.top.hit=1',
    "<iframe srcdoc='<script>window.top.hit=1</script>'></iframe>",
)
pytestmark = pytest.mark.browser


@pytest.fixture(name="hostile", scope="module")
def _hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service whose labels, patients, cases, sites and the rest are scripts."""
    folder = tmp_path_factory.mktemp("hostile")
    encoder, entries = load("colour"), []
    for at in range(24):
        content = png((40 + 8 * at, 60, 200 - 7 * at), at)
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        word, source = SCRIPTS[at % len(SCRIPTS)], source_id(content)
        item = Item(
            id=item_id("made", source), dataset=word, source=source, label=word, site=word,
            patient=f"{word} {at // 6}", case=f"{word} {at // 3}", stain=word, scanner=word,
        )  # fmt: skip
        entries.append(Entry(item, encoder.embed([pixels])[0], make_thumbnail(pixels)))
    for name in ("cells", "others"):
        with Library.open(folder / "library").create(name, encoder.card) as collection:
            collection.add(entries)
    settings = Settings(library=folder / "library", port=free_port())
    with served(settings):
        yield Live(settings.url, folder, settings)


@pytest.fixture(name="opened", scope="module")
def _opened(hostile: Live, chromium: str) -> Iterator[tuple[str, Page]]:
    with browsed(hostile, chromium, 150_000) as opened:
        yield opened


def ran(page: Page) -> list[str]:
    """What ran, or would run at a click."""
    found = ["a script ran"] if page.evaluate("() => window.hit !== undefined") else []
    for frame in page.frames:
        found += frame.evaluate(
            """() => [
                ...[...document.querySelectorAll("a")].map(one => one.getAttribute("href") || "")
                    .filter(one => one.trim().toLowerCase().startsWith("javascript:")),
                ...[...document.querySelectorAll("[onerror],[onload],[onfocus]")]
                    .map(one => one.outerHTML.slice(0, 200))
                    .filter(one => one.includes("hit=1")),
            ]"""
        )
    return found


def test_no_word_of_a_library_runs_in_the_browser(hostile: Live, opened: tuple[str, Page]) -> None:
    address, page = opened
    with Client(hostile.url) as client:
        first, other, third = (one.id for one in client.items("cells", Filter(), most=3))
        client.review("cells", {first: SCRIPTS[1]}, SCRIPTS[0], SCRIPTS[2])
    places = [
        f"?item={first}", f"compare?item={other}&like={third}",
        "case?by=patient", "case?by=case", "atlas", "evaluate", "library",
    ]  # fmt: skip
    for place in places:
        page.goto(f"{address}/{place}")
        wait_until_idle(page)
        expect(page.locator("[data-testid='stException']"), place).to_have_count(0)
        assert ran(page) == [], place


def test_a_reload_stays_with_the_collection_and_no_link_shows_another_by_itself(
    hostile: Live, opened: tuple[str, Page]
) -> None:
    address, page = opened
    with Client(hostile.url) as client:
        (first,) = (one.id for one in client.items("others", Filter(), most=1))
    page.goto(f"{address}/case?by=case")
    chosen = page.get_by_role("combobox", name="Collection")
    chosen.click()
    page.get_by_role("option", name="others").click()
    page.wait_for_url("**collection=others**")
    for place in (page.url, f"?item={first}", "atlas?method=pca"):
        if place != page.url:
            page.goto(f"{address}/{place}&collection=others")
        wait_until_idle(page)
        page.reload()
        wait_until_idle(page)
        expect(chosen, place).to_have_value("others")
        assert "collection=others" in page.url, place
    page.goto(f"{address}/case?by=case&collection=gone")
    page.get_by_text("Collection gone is not here").wait_for()
    expect(page.locator(".hs-card")).to_have_count(0)
    page.get_by_role("button", name="Show what is here").click()
    expect(chosen).to_be_visible()

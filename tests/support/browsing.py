"""One page in headless Chromium, and the checks for every page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live import REPOSITORY, Live
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from ui.cli.demo import page as page_process

AXE = Path(
    os.environ.get("HEMASEEK_AXE")
    or REPOSITORY / "runs" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
)
"""The script of axe-core, of npm; its licence keeps it out of this repository."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browsed(live: Live, chromium: str, patience_ms: int) -> Iterator[tuple[str, Page]]:
    """The address of a page process over a service, and a tab that waits so long for anything.

    At its end nothing of ours may have been written to the console as an error.
    """
    settings = live.settings.model_copy(update={"service_url": live.url})
    with page_process(settings) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        page = context.new_page()
        page.set_default_timeout(patience_ms)
        expect.set_options(timeout=patience_ms)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.extend(_ours(said)))
        yield address, page
        browser.close()
    assert not errors, errors


def _ours(said: ConsoleMessage) -> list[str]:
    """An error on the console; Streamlit looks for its own addresses below each page at first."""
    where = said.location.get("url", "")
    return [] if said.type != "error" or "/_stcore/" in where else [f"{said.text} ({where})"]


def wait_until_idle(page: Page) -> None:
    """Wait until the page is drawn and no further run begins."""
    idle = page.locator("[data-test-script-state='notRunning']")
    while True:
        idle.wait_for()
        page.wait_for_timeout(200)
        if idle.count():
            return


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.1 A and AA; nothing where `make axe` has not fetched it."""
    if not AXE.is_file():
        return []
    wait_until_idle(page)  # what is about to go is drawn faint
    if not page.evaluate("() => !!window.axe"):
        page.evaluate(AXE.read_text())
    return [
        f"{rule}: {html[:200]}"
        for rule, htmls in page.evaluate(
            "() => axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
            ".then(found => found.violations.map(one => [one.id, one.nodes.map(n => n.html)]))"
        )
        for html in htmls
    ]


def check_page(page: Page, *, axe: bool = True) -> None:
    """Check every page for: no horizontal scrolling, no image without alt, no traceback, and
    nothing that axe finds."""
    wide = page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    silent = page.evaluate("() => [...document.images].filter(one => !one.alt).length")
    assert not (found := violations(page) if axe else []), found
    assert (wide, silent, page.locator("[data-testid='stException']").count()) == (0, 0, 0)


def choose(page: Page, name: str) -> None:
    """Choose one of several in a row of buttons."""
    page.get_by_role("radio", name=name, exact=True).or_(
        page.get_by_role("button", name=name, exact=True)
    ).first.click()


def downloaded(page: Page, name: str) -> bytes:
    """The file that a button gives."""
    with page.expect_download() as waited:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(waited.value.path()).read_bytes()


def copied(page: Page) -> str:
    """What the button of the first command on the page puts on the clipboard."""
    page.locator("[data-testid='stCode']").first.hover()
    page.get_by_role("button", name="Copy to clipboard").first.click()
    return str(page.evaluate("() => navigator.clipboard.readText()"))

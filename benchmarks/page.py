"""Seconds until the page shows something, and from a question to its gallery.

uv run --extra all python benchmarks/page.py

Over drawn cells on this machine, in headless Chromium: the median of five. Each turn begins in a
browser that has nothing of the page in its cache; the second search is in the same tab. The
encoder's own time is told beside, so that what the page adds can be read off.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from encoder.registry import default_encoder, load
from ingest.samples.synthetic import draw_cell
from search.schemas.questions import Question
from search.settings import Settings
from ui.cli.demo import drawn, free_port, page, running
from ui.cli.ingesting import run_ingest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
TIMES = 5
SIZE: ViewportSize = {"width": 1280, "height": 720}


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; `make test-browser` installs it")
    with tempfile.TemporaryDirectory() as scratch:
        cells = drawn(Path(scratch) / "cells")
        settings = Settings(library=Path(scratch) / "library", port=free_port())
        name = default_encoder()
        run_ingest(cells.scans, settings, load(name), name)
        with running(settings) as client:
            at = settings.model_copy(update={"service_url": client.url})
            with page(at) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                took: dict[str, list[float]] = {}
                for turn in range(TIMES + 1):
                    times = one_visit(browser.new_page(viewport=SIZE), address, Path(scratch), turn)
                    found = client.search(Question(k=10), Path(scratch) / f"cell-{turn}-0.png")
                    times["embedding alone"] = found.seconds["embed"]
                    for what, seconds in times.items() if turn else ():  # the first warms up
                        took.setdefault(what, []).append(seconds)
                browser.close()
    print(f"encoder {name}")
    for what, seconds in took.items():
        print(f"{what:34} {median(seconds):.2f} s, slowest {max(seconds):.2f} s")


def one_visit(opened: Page, address: str, folder: Path, turn: int) -> dict[str, float]:
    """Open the page and search twice with a picture; seconds of each step."""
    took = {}
    started = perf_counter()
    opened.goto(address)
    opened.locator(".hs-title").wait_for()
    took["opened, head and frame"] = perf_counter() - started
    opened.locator("[aria-label='Samples'] .hs-card").first.wait_for()
    took["opened, samples of the library"] = perf_counter() - started
    for at, what in enumerate(("first search to gallery", "second search to gallery")):
        path = folder / f"cell-{turn}-{at}.png"
        seed = 2 * turn + at
        Image.fromarray(draw_cell("eosinophil", seed, patient=9, size=224)).save(path)
        if at:
            opened.get_by_role("button", name="New search").click()
            opened.locator("[aria-label='Samples'] .hs-card").first.wait_for()
        sent = perf_counter()
        opened.set_input_files("input[type=file]", str(path))
        opened.locator("[aria-label*='most similar first'] .hs-card").first.wait_for()
        took[what] = perf_counter() - sent
    opened.close()
    return took


if __name__ == "__main__":
    main()

"""Seconds until the page shows something, and from a question to its gallery.

uv run --extra all python benchmarks/page.py

Over drawn cells on this machine, in headless Chromium: the median of five. The encoder's own time
is told beside, so that what the page adds can be read off.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from PIL import Image
from playwright.sync_api import sync_playwright

from encoder.registry import default_encoder, load
from ingest.synthetic import draw_cell
from search.records import Question
from search.settings import Settings
from ui.demo import drawn, free_port, page, running
from ui.ingesting import run_ingest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
TIMES = 5


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
                first, asked, embedded = [], [], []
                for turn in range(TIMES + 1):  # the first warms up
                    path = Path(scratch) / f"cell-{turn}.png"
                    Image.fromarray(draw_cell("eosinophil", turn, patient=9, size=224)).save(path)
                    opened = browser.new_page(viewport={"width": 1280, "height": 720})
                    started = perf_counter()
                    opened.goto(address)
                    opened.locator(".hs-title").wait_for()
                    shown = perf_counter()
                    opened.locator("[aria-label='Samples'] .hs-card").first.wait_for()
                    sent = perf_counter()
                    opened.set_input_files("input[type=file]", str(path))
                    opened.locator("[aria-label*='most similar first'] .hs-card").first.wait_for()
                    done = perf_counter()
                    if turn:
                        first.append(shown - started)
                        asked.append(done - sent)
                        found = client.search(Question(k=10), path)
                        embedded.append(found.seconds["embed"])
                    opened.close()
                browser.close()
    print(f"encoder {name}")
    print(f"first content        {median(first):.2f} s")
    print(f"upload to gallery    {median(asked):.2f} s, embedding {median(embedded):.3f} s")


if __name__ == "__main__":
    main()

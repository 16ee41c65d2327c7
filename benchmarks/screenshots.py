"""Pictures of the page for the README, over drawn cells.

uv run --extra all python benchmarks/screenshots.py [FOLDER]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from encoder.registry import default_encoder, load
from ingest.synthetic import draw_cell
from search.settings import Settings
from ui.demo import drawn, free_port, page, running
from ui.ingesting import run_ingest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; `make test-browser` installs it")
    with tempfile.TemporaryDirectory() as scratch:
        cells = drawn(Path(scratch) / "cells")
        query = Path(scratch) / "cell.png"
        Image.fromarray(draw_cell("eosinophil", 4242, patient=9, size=224)).save(query)
        settings = Settings(library=Path(scratch) / "library", port=free_port())
        name = default_encoder()
        run_ingest(cells.scans, settings, load(name), name)
        with running(settings) as client:
            at = settings.model_copy(update={"service_url": client.url})
            with page(at) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                opened = browser.new_page(viewport={"width": 1280, "height": 800})
                opened.goto(address, timeout=90_000)
                opened.set_input_files("input[type=file]", str(query), timeout=90_000)
                opened.locator(".hs-card").first.wait_for(timeout=90_000)
                opened.wait_for_timeout(1500)
                opened.screenshot(path=folder / "find-similar.png")
                browser.close()
    print(f"written to {folder}")


if __name__ == "__main__":
    main()

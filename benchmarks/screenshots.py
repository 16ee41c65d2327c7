"""Pictures of every page, by day and by night.

uv run --extra all python benchmarks/screenshots.py            # drawn cells, to docs/screenshots
uv run --extra all python benchmarks/screenshots.py --real     # HEMASEEK_DATA, to runs/screenshots

Pictures of real cells never go into the repository: their folder is one that git ignores.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from encoder.registry import default_encoder, load
from ingest.synthetic import draw_cell
from search.client import Client
from search.records import Question
from search.settings import Settings
from ui.demo import drawn, free_port, from_real, page, running
from ui.ingesting import run_ingest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
LONG = 180_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="real cells, to runs/screenshots")
    parser.add_argument("--only", nargs="*", help="names of pictures")
    asked = parser.parse_args()
    folder = Path("runs/screenshots" if asked.real else "docs/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; `make test-browser` installs it")
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(library=Path(scratch) / "library", port=free_port())
        if asked.real:
            if settings.data is None:
                raise SystemExit("set HEMASEEK_DATA to the folder of real cells")
            cells = from_real(settings.data, "")
            query, field = cells.query, next(iter(sorted(settings.data.rglob("bccd/**/*.jpg"))))
        else:
            cells = drawn(Path(scratch) / "cells")
            query = Path(scratch) / "eosinophil.png"
            Image.fromarray(draw_cell("eosinophil", 4242, patient=9, size=224)).save(query)
            field = next(iter(sorted((Path(scratch) / "cells" / "fields").rglob("*.png"))))
        name = default_encoder()
        run_ingest(cells.scans, settings, load(name), name)
        with running(settings) as client:
            client.calibrate(None, "cells")
            shots = pictures(client, query, field)
            at = settings.model_copy(update={"service_url": client.url})
            with page(at) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                for scheme in ("light", "dark"):
                    context = browser.new_context(
                        viewport={"width": 1280, "height": 800},
                        color_scheme=scheme,  # type: ignore[arg-type]
                    )
                    opened = context.new_page()
                    opened.set_default_timeout(LONG)
                    for shot, act in shots.items():
                        if asked.only and shot not in asked.only:
                            continue
                        act(opened, address)
                        opened.wait_for_timeout(1500)
                        name = f"{shot}.png" if scheme == "light" else f"{shot}-dark.png"
                        small(opened.screenshot(), folder / name)
                        print(folder / name, flush=True)
                    context.close()
                browser.close()


def small(content: bytes, path: Path) -> None:
    """Write a picture in 256 colours: a third of the bytes, and the eye does not miss the rest."""
    with Image.open(io.BytesIO(content)) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
        few.save(path, optimize=True)


def pictures(client: Client, query: Path, field: Path) -> dict[str, Callable[[Page, str], None]]:
    """What is done before each picture is taken."""
    found = client.search(Question(k=40), query)
    item = next((hit.item for hit in found.hits if hit.item.case), found.hits[0].item)
    others = client.search(Question(item=item.id, k=3)).hits
    ids = ",".join(hit.item.id for hit in others)

    def find_similar(page: Page, address: str) -> None:
        page.goto(address)
        page.set_input_files("input[type=file]", str(query))
        page.locator("[aria-label='Vote of the neighbours']").wait_for()
        page.locator("[aria-label*='most similar first'] .hs-card").first.wait_for()

    def begin(page: Page, address: str) -> None:
        page.goto(address)
        page.locator("[aria-label='Samples'] .hs-card").first.wait_for()

    def choose(page: Page, address: str) -> None:
        page.goto(address)
        page.set_input_files("input[type=file]", str(field))
        page.locator(".hs-field").wait_for()

    def compare(page: Page, address: str) -> None:
        page.goto(f"{address}/compare?item={item.id}&collection=cells&with={ids}")
        page.locator(".hs-lens").first.wait_for()
        page.get_by_role("button", name="Causal").click()
        page.locator(".hs-overlay, .hs-withheld").first.wait_for()

    def case(page: Page, address: str) -> None:
        page.goto(f"{address}/case?case={item.case or ''}&collection=cells")
        page.locator(".hs-title").wait_for()
        page.wait_for_timeout(6000)

    def plain(name: str) -> Callable[[Page, str], None]:
        def act(page: Page, address: str) -> None:
            page.goto(f"{address}/{name}?collection=cells")
            page.locator(".hs-title").wait_for()
            page.wait_for_timeout(6000)

        return act

    return {
        "begin": begin,
        "find-similar": find_similar,
        "choose-cell": choose,
        "compare": compare,
        "case": case,
        "atlas": plain("atlas"),
        "evaluate": plain("evaluate"),
        "library": plain("library"),
    }


if __name__ == "__main__":
    main()

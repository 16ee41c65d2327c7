"""The atlas of 80,000 cells in a browser: until it is drawn, a zoom, a move, and a gate.

uv run --extra all python benchmarks/atlas.py --items 80000

Made-up vectors in clusters, shown by PCA in headless Chromium without a graphics card; medians of
`--times`. A zoom and a move end when the canvas has its pixels. A gate is drawn as soon as the
mouse is let go, with the number of points in it; its table follows from the server.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from page import FLAGS, SIZE
from playwright.sync_api import Page, sync_playwright

from encoder.card import EncoderCard
from ingest.samples.synthetic import draw_cell
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.schemas.items import Item, item_id, source_id
from search.settings import Settings
from ui.cli.demo import free_port, page, running

LABELS = ("BL", "EO", "LY", "MO", "MY", "PMY", "SNE", "BNE", "ERB", "BA")
DIM = 16
CHUNK = 20_000
WAIT_MS = 300_000
DRAWN = "n => document.querySelector('.hs-scatter canvas')?.ariaLabel?.includes(`Map of ${n} `)"
TIMED = """([kind, n]) => {
  const canvas = document.querySelector(".hs-scatter canvas"), box = canvas.getBoundingClientRect();
  const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
  const began = performance.now();
  if (kind === "zoom") canvas.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: -100 }));
  const key = n % 2 ? "ArrowLeft" : "ArrowRight";
  if (kind === "move") canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
  canvas.getContext("2d").getImageData(0, 0, 1, 1);
  return performance.now() - began;
}"""


def filled(folder: Path, items: int) -> None:
    """A library of made-up cells."""
    rng = np.random.default_rng(0)
    picture = make_thumbnail(draw_cell("monocyte", 0))
    centres = rng.normal(size=(len(LABELS), DIM)) * 2
    card = EncoderCard(id="random-vectors", architecture="none", dim=DIM)
    with Library.open(folder).create("cells", card) as cells:
        for first in range(0, items, CHUNK):
            made = []
            for at in range(first, min(first + CHUNK, items)):
                kind, source = int(rng.integers(len(LABELS))), source_id(str(at).encode())
                item = Item(
                    id=item_id("d", source), dataset="d", source=source, label=LABELS[kind],
                    patient=f"P{at % 200}", case=f"C{at % 400}", site=f"S{at % 3}",
                )  # fmt: skip
                vector = np.asarray(centres[kind] + rng.normal(size=DIM), np.float32)
                made.append(Entry(item, vector, picture))
            cells.add(made)


def gate(opened: Page, number: int) -> tuple[float, float]:
    """Draw a gate; milliseconds until it stands on the map with its count, and in the table."""
    box = opened.locator(".hs-scatter canvas").bounding_box()
    if box is None:
        raise SystemExit("the map is not in view")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    reach = min(box["width"], box["height"]) * (0.1 + 0.03 * number)
    opened.mouse.move(x + reach, y)
    opened.mouse.down()
    for at in range(1, 16):
        turn = at * math.pi / 8
        opened.mouse.move(x + reach * math.cos(turn), y + reach * math.sin(turn))
    began = perf_counter()
    opened.mouse.up()
    opened.wait_for_function(
        "() => / inside$/.test(document.querySelector('.hs-scatter [role=status]').textContent)"
    )
    drawn = perf_counter()
    row = opened.locator(".hs-table tbody tr").nth(number)
    row.locator("th", has_text=f"Gate {number + 1}").wait_for(timeout=WAIT_MS)
    return 1000 * (drawn - began), 1000 * (perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=80_000)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; `make test-browser` installs it")
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(library=Path(scratch) / "library", port=free_port())
        filled(settings.library, given.items)
        with running(settings) as client:
            at = settings.model_copy(update={"service_url": client.url})
            with page(at) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                measure(browser.new_page(viewport=SIZE), address, given.items, given.times)
                browser.close()


def measure(opened: Page, address: str, items: int, times: int) -> None:
    """Print what each step takes."""
    for what in ("first opened, PCA computed", "opened again"):
        began = perf_counter()
        opened.goto(f"{address}/atlas?method=pca", wait_until="commit", timeout=WAIT_MS)
        opened.wait_for_function(DRAWN, arg=items, timeout=WAIT_MS)
        print(f"{what:34} {perf_counter() - began:8.2f} s", flush=True)
    opened.locator(".hs-table tbody tr").first.wait_for(timeout=WAIT_MS)
    for kind in ("zoom", "move"):
        took = [opened.evaluate(TIMED, [kind, at]) for at in range(times)]
        print(f"{kind:34} {median(took):8.0f} ms, slowest {max(took):.0f}", flush=True)
    opened.get_by_role("button", name="Show all of it").click()
    gates = [gate(opened, at) for at in range(min(times, 5))]
    for at, what in enumerate(("a gate, drawn and counted", "the same, in its table")):
        took = [one[at] for one in gates]
        print(f"{what:34} {median(took):8.0f} ms, slowest {max(took):.0f}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

"""Pictures of every page, by day and by night.

uv run --extra all python benchmarks/screenshots.py            # drawn cells, to docs/screenshots
uv run --extra all python benchmarks/screenshots.py --real     # HEMASEEK_DATA, to runs/screenshots

Pictures of real cells never go into the repository: their folder is one that git ignores.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from encoder.registry import default_encoder, load
from ingest.layouts.known import scan
from ingest.layouts.scan import Options, Scan
from ingest.samples.synthetic import DATASET, draw_cell
from search.client.client import Client
from search.client.evaluations import wait_for
from search.schemas.evaluations import EvaluationPlan
from search.schemas.questions import Question
from search.settings import Settings
from ui.cli.demo import drawn, free_port, from_real, page, running
from ui.cli.ingesting import run_ingest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
LONG = 180_000
BESIDE = "colours"
"""A second collection of the same cells with another encoder, to be compared with the first."""


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
            cells.scans.append(drawn_fields(Path(scratch) / "cells"))
        name = default_encoder()
        run_ingest(cells.scans, settings, load(name), name)
        beside = settings.model_copy(update={"collection": BESIDE})
        run_ingest(cells.scans, beside, load("colour"), "colour")
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
                        quiet(opened)
                        name = f"{shot}.png" if scheme == "light" else f"{shot}-dark.png"
                        small(opened.screenshot(), folder / name)
                        print(folder / name, flush=True)
                    context.close()
                browser.close()


def quiet(page: Page) -> None:
    """Wait until nothing is being drawn any more, nor moves."""
    idle = page.locator("[data-test-script-state='notRunning']")
    for _ in range(3):
        idle.wait_for()
        page.wait_for_timeout(500)


def drawn_fields(folder: Path) -> Scan:
    """The drawn fields, each with its case, so that there are boxes to be drawn on them."""
    found = scan(folder / "fields", None, Options(dataset=DATASET))
    with (folder / "fields.csv").open() as handle:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(handle)}
    names = ("case", "patient", "site", "stain")
    found.tasks = [
        replace(
            task,
            facts=replace(
                task.facts,
                um_per_px=float(rows[task.path.name]["um_per_px"]),
                um_per_px_origin="manifest",
                **{name: rows[task.path.name][name] for name in names},
            ),
        )
        for task in found.tasks
    ]
    return found


def small(content: bytes, path: Path) -> None:
    """Write a picture in 256 colours; rare ones are kept: thin lines of a colour say something."""
    with Image.open(io.BytesIO(content)) as image:
        whole = image.convert("RGB")
        palette = whole.quantize(256, Image.Quantize.FASTOCTREE)
        whole.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(
            path, optimize=True
        )


def pictures(client: Client, query: Path, field: Path) -> dict[str, Callable[[Page, str], None]]:
    """What is done before each picture is taken."""
    found = client.search(Question(k=40), query)
    item = next((hit.item for hit in found.hits if hit.item.case), found.hits[0].item)
    others = client.search(Question(item=item.id, k=3)).hits
    ids = ",".join(hit.item.id for hit in others)
    by = "patient" if client.facets("cells", "patient", 1) else "source"

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

    def opened(page: Page, address: str) -> None:
        page.goto(f"{address}/?item={item.id}&collection=cells")
        page.locator("[aria-label*='most similar first'] .hs-open").first.click()
        page.get_by_role("dialog").get_by_text("In its field").wait_for()

    def importing(page: Page, address: str) -> None:
        page.goto(f"{address}/library?collection=cells&view=Imports")
        page.locator(".st-key-hs-importing").wait_for()

    def compare(page: Page, address: str) -> None:
        page.goto(f"{address}/compare?item={item.id}&collection=cells&with={ids}")
        page.locator(".hs-lens").first.wait_for()
        page.get_by_text("What drives similarity", exact=True).click()
        page.locator(".hs-overlay, .hs-withheld").first.wait_for()

    for name in (BESIDE, "cells"):
        plan = EvaluationPlan(collection=name, ks=(1, 5, 20), ask=600, probe=False)
        wait_for(client.evaluation, client.evaluate(plan).id)
    mapped = client.start_map("cells", "tsne").id
    while client.job(mapped).state in {"queued", "running"}:
        time.sleep(1)

    def case(page: Page, address: str) -> None:
        page.goto(f"{address}/case?by={by}&collection=cells")
        page.locator(".hs-card").first.wait_for()

    def slide(page: Page, address: str) -> None:
        case(page, address)
        page.get_by_text("Slide", exact=True).first.click()
        page.locator(".hs-viewer[data-open=true]").wait_for()
        page.mouse.wheel(0, 300)

    def atlas(page: Page, address: str) -> None:
        page.goto(f"{address}/atlas?collection=cells")
        canvas = page.locator(".hs-scatter canvas")
        canvas.wait_for()
        box = canvas.bounding_box() or {"x": 0, "y": 0, "width": 0, "height": 0}
        x, y = box["x"] + box["width"] * 0.62, box["y"] + box["height"] * 0.35
        page.mouse.move(x + 90, y)
        page.mouse.down()
        for at in range(1, 24):
            turn = at * math.pi / 12
            page.mouse.move(x + 90 * math.cos(turn), y + 90 * math.sin(turn))
        page.mouse.up()
        page.get_by_text("Show the cells of").wait_for()

    def evaluate(page: Page, address: str) -> None:
        page.goto(f"{address}/evaluate?collection=cells")
        page.locator(".hs-matrix").wait_for()

    def pair(page: Page, address: str) -> None:
        evaluate(page, address)
        quiet(page)
        page.get_by_role("combobox", name="Compare with").click()
        page.get_by_role("option").nth(1).click()
        page.get_by_text("paired bootstrap").scroll_into_view_if_needed()

    def library(page: Page, address: str) -> None:
        page.goto(f"{address}/library?collection=cells")
        page.get_by_role("heading", name="Encoder").wait_for()

    return {
        "begin": begin,
        "find-similar": find_similar,
        "choose-cell": choose,
        "opened-cell": opened,
        "import": importing,
        "compare": compare,
        "case": case,
        "case-slide": slide,
        "atlas": atlas,
        "evaluate": evaluate,
        "evaluate-pair": pair,
        "library": library,
    }


if __name__ == "__main__":
    main()

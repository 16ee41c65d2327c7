"""Case, Atlas, Evaluate and Library in headless Chromium, over a real service and drawn cells."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest
from browsing import (
    AXE,
    browsed,
    check_page,
    choose,
    downloaded,
    violations,
    wait_until_idle,
)
from live import REPOSITORY, Live
from pdf_text import words
from playwright.sync_api import Page, expect

from search.client.client import Client
from search.client.evaluations import wait_for
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.evaluations import EvaluationPlan, EvaluationRecord, SplitName
from search.schemas.filters import Filter
from search.schemas.questions import Question
from ui.look.theme import DARK, LIGHT

LONG = 150_000
pytestmark = pytest.mark.browser


@pytest.fixture(name="opened", scope="module")
def _opened(live: Live, chromium: str) -> Iterator[tuple[str, Page]]:
    with browsed(live, chromium, LONG) as opened:
        yield opened


def test_a_reviewer_reclassifies_a_cell_and_the_recorded_label_stays(
    live: Live, opened: tuple[str, Page]
) -> None:
    address, page = opened
    page.goto(f"{address}/case?by=patient")
    first = page.locator(".hs-card").first
    first.wait_for()
    id = str(first.get_attribute("data-card"))
    check_page(page)

    first.locator(".hs-open").click()
    save = page.get_by_role("button", name="Save the review")
    label = page.get_by_role("combobox", name="Reclassify 1 cell")
    label.click()
    label.fill("Another label")
    label.press("Enter")
    typed = page.get_by_role("textbox", name="New label")
    typed.fill("lymphocytes")
    typed.press("Enter")
    page.get_by_text("Did you mean lymphocyte").wait_for()
    typed.fill("smudge cell")
    typed.press("Enter")
    page.get_by_text("“smudge cell” is a new label").click()
    wait_until_idle(page)
    save.click()
    page.get_by_text("name the reviewer").wait_for()
    page.get_by_role("textbox", name="Reviewer").fill("Ada")
    page.get_by_role("textbox", name="Reviewer").press("Enter")
    wait_until_idle(page)
    save.click()
    page.get_by_text("1 review saved").wait_for()

    with Client(live.url) as client:
        reviewed = client.item_reviews(id, "cells")
        assert (reviewed.label, reviewed.history[0].reviewer) == ("smudge cell", "Ada")
        assert client.item(id).label == reviewed.history[0].source_label != "smudge cell"
    page.locator(".hs-table").get_by_text("smudge cell").wait_for()

    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Taken back").wait_for()
    with Client(live.url) as client:
        again = client.item_reviews(id, "cells")
        assert again.label is None
        assert len(again.history) == 2
    page.wait_for_url("**case=**")


def test_leukocytes_are_counted_in_percent_beside_what_is_usual_and_the_rest_apart(
    opened: tuple[str, Page],
) -> None:
    address, page = opened
    page.goto(f"{address}/case?by=patient")
    page.locator(".hs-card").first.wait_for()

    tables = page.locator(".hs-table")
    white, apart = tables.nth(0).inner_text(), tables.nth(1).inner_text()
    assert "Usual" in white
    assert "12–44" in white  # lymphocytes
    page.get_by_text("Ranges depend on the laboratory").first.wait_for()
    assert "%" in white
    assert "%" not in apart
    assert "platelet" in apart
    assert "platelet" not in white
    report = words(downloaded(page, "PDF of this case"))
    for part in ("Differential count", "lymphocyte", "Research use only", "Davis"):
        assert part.lower() in report.lower(), part


def test_two_groups_of_cases_are_compared_by_what_is_recorded(
    live: Live, opened: tuple[str, Page]
) -> None:
    address, page = opened
    with Client(live.url) as client:
        names = sorted(client.facets("cells", "case", 100))
        given = [
            CaseChange(case=name, treatment="none" if name.endswith("1") else "azacitidine")
            for name in names
        ]
        client.change_cases("cells", CaseRecordsWanted(changes=tuple(given)))
    page.goto(f"{address}/case?by=case&view=Two groups")
    page.get_by_role("heading", name="Two groups of cases").wait_for()
    wait_until_idle(page)
    for kind in ("Cells that look alike", "Label"):
        page.get_by_role("columnheader", name=kind, exact=True).wait_for()
    counted = page.locator(".hs-facts").last.inner_text()
    assert all(f"{group}: 3 cases of 3 patients" in counted for group in ("none", "azacitidine"))
    expect(page.locator("img.hs-thumb").nth(1)).to_be_visible()
    check_page(page)

    page.get_by_role("combobox", name="Second group").click()
    page.get_by_role("option").first.click()  # what the first group has
    page.get_by_text("is in both groups; leave it out of one of them").wait_for()


HOVER = """canvas => {
    const box = canvas.getBoundingClientRect();
    const tip = canvas.parentElement.querySelector(".hs-scatter-tip");
    for (let y = box.top; y < box.bottom; y += 9) for (let x = box.left; x < box.right; x += 9) {
        canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y}));
        if (!tip.hidden) return tip.textContent;
    }
    return "";
}"""
"""Moves over a map until it is over a point; what is said there."""


def test_a_map_by_neighbourhoods_is_made_when_the_atlas_is_first_opened(
    opened: tuple[str, Page],
) -> None:
    address, page = opened
    page.goto(f"{address}/atlas")
    page.locator(".hs-scatter canvas").wait_for()

    chosen = page.get_by_role("radio", name="t-SNE", exact=True)
    expect(chosen).to_be_checked()
    wait_until_idle(page)
    assert page.locator(".hs-scatter canvas").evaluate(HOVER)
    seen = page.locator(".hs-scatter-tip img")
    seen.wait_for()
    page.wait_for_function("() => document.querySelector('.hs-scatter-tip img')?.naturalWidth > 0")


def test_a_stored_source_is_shown_in_tiles(opened: tuple[str, Page]) -> None:
    address, page = opened
    page.goto(f"{address}/case?by=patient")
    page.locator(".hs-card").first.wait_for()
    with page.expect_response(lambda answer: "/hemaseek/tiles/" in answer.url) as came:
        choose(page, "Slide")
    page.locator(".hs-viewer[data-open=true]").wait_for()

    assert came.value.status == 200
    assert came.value.headers["content-type"] == "image/jpeg"
    expect(page.locator(".hs-viewer-bar b")).to_have_text(re.compile("µm$"))
    check_page(page)


def test_a_lasso_makes_a_gate_that_survives_reload_and_opens_its_cells_in_their_fields(
    opened: tuple[str, Page],
) -> None:
    address, page = opened
    page.goto(f"{address}/atlas?method=pca")
    canvas = page.locator(".hs-scatter canvas")
    canvas.wait_for()
    wait_until_idle(page)
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    reach = min(box["width"], box["height"]) * 0.47

    page.mouse.move(x + reach, y)
    page.mouse.down()
    for at in range(1, 20):
        turn = at * math.pi / 10
        page.mouse.move(x + reach * math.cos(turn), y + reach * math.sin(turn))
    page.mouse.up()
    at_once = page.locator(".hs-scatter [role=status]").text_content()
    page.locator("[aria-label='Cells of the gate'] .hs-card").first.wait_for()

    row = page.locator(".hs-table tbody tr").first
    expect(row.locator("th")).to_have_text("Gate 1")
    wait_until_idle(page)
    assert int(row.locator("td").first.inner_text()) > 20
    assert at_once == f"{row.locator('td').first.inner_text()} inside"
    check_page(page)

    counted = row.inner_text()
    wait_until_idle(page)
    inside = int(row.locator("td").first.inner_text())
    cells = downloaded(page, "CSV of its cells").decode("utf-8-sig").splitlines()
    assert len(cells) == 1 + inside
    page.get_by_role("button", name="Select its cells").click()
    page.get_by_role("button", name=f"Selected {inside}").wait_for()
    page.reload()
    page.locator("[aria-label='Cells of the gate'] .hs-card").first.wait_for()
    expect(row).to_have_text(counted, use_inner_text=True)
    page.locator("[aria-label='Cells of the gate'] .hs-open").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("In its field").click()
    dialog.locator(".hs-viewer[data-open=true]").wait_for()
    boxes = dialog.get_by_role("button", name="Show the boxes")
    boxes.click()
    expect(boxes).to_have_attribute("aria-pressed", "false")
    check_page(page)


def test_an_evaluation_is_run_and_a_confusion_opens_its_pictures(
    opened: tuple[str, Page],
) -> None:
    address, page = opened
    page.goto(f"{address}/evaluate")
    page.get_by_text("Linear probe", exact=True).click()
    page.get_by_text("Approximate vs exact search").click()
    page.get_by_role("button", name="Start evaluation").click()
    page.get_by_text("The evaluation is done.").wait_for(timeout=4 * LONG)
    page.locator(".hs-matrix button").first.wait_for()
    page.get_by_text("Each patient left out in turn. 95 % confidence").wait_for()
    methods = page.locator(".hs-table tbody th").all_inner_texts()
    assert methods[0].endswith("-NN")  # votes before the probe, each by its name

    assert downloaded(page, "CSV").decode("utf-8-sig").startswith("collection,encoder,split,method")
    report = downloaded(page, "Markdown").decode()
    assert report.startswith("# ")
    assert all(f"| {method} " in report for method in methods)

    page.locator(".hs-matrix button").first.click()
    page.locator("[aria-label='Confused cells'] .hs-card").first.wait_for()
    check_page(page)


def evaluated(live: Live, split: SplitName) -> EvaluationRecord:
    plan = EvaluationPlan(collection="cells", split=split, ks=(1, 5), probe=False, ann=False)
    with Client(live.url) as client:
        return wait_for(client.evaluation, client.evaluate(plan).id, every_s=0.1)


def test_two_evaluations_are_compared_query_by_query(live: Live, opened: tuple[str, Page]) -> None:
    address, page = opened
    one, other = (evaluated(live, at) for at in ("leave-one-patient-out", "leave-one-source-out"))
    assert one.result is not None
    assert other.result is not None
    page.goto(f"{address}/evaluate")
    beside = page.get_by_role("combobox", name="Compare with")
    beside.click()
    page.get_by_role("option").nth(1).click()
    page.get_by_role("heading", name="Cell by cell").wait_for()
    page.get_by_text(f"{one.result.data.asked:,} queries in both").wait_for()
    page.get_by_text("By label", exact=True).click()
    page.get_by_role("columnheader", name="Recall").wait_for()
    wait_until_idle(page)
    check_page(page)

    page.reload()
    page.get_by_role("heading", name="Cell by cell").wait_for()


def test_axe_is_there_and_finds_what_is_wrong(opened: tuple[str, Page]) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: `make axe` fetches it from npm; no page was checked for WCAG")
    page = opened[1].context.new_page()
    page.set_content(
        "<html lang=en><title>x</title><i data-test-script-state=notRunning>i</i>"
        "<img src=x><input><p style='color:#999;background:#aaa'>pale</p>"
    )
    found = {one.partition(":")[0] for one in violations(page)}
    page.close()
    assert {"image-alt", "label", "color-contrast"} <= found


def test_every_page_fits_and_is_legible_by_day_and_by_night(
    live: Live, opened: tuple[str, Page]
) -> None:
    address, page = opened
    audit = (REPOSITORY / "tests" / "support" / "contrast.js").read_text()
    with Client(live.url) as client:
        item = next(iter(client.items_page("cells", Filter(), 1).items)).id
        others = ",".join(hit.item.id for hit in client.search(Question(item=item, k=2)).hits)
    evaluated(live, "leave-one-patient-out")
    bad = []
    for path, there in {
        "": "[aria-label='Samples'] .hs-card",
        f"?item={item}&collection=cells": ".hs-grid .hs-acts",
        f"compare?item={item}&collection=cells&with={others}": ".hs-table",
        "case?by=patient": ".hs-card",
        "atlas": ".hs-scatter canvas",
        "evaluate": ".hs-matrix",
        "library": ".hs-table",
        "library?view=Imports": "[data-testid='stForm'], .hs-section",
    }.items():
        page.goto(f"{address}/{path}")
        page.locator(there).first.wait_for()
        wait_until_idle(page)
        for scheme, tokens in (("light", LIGHT), ("dark", DARK)):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            ground = tuple(int(tokens["paper"][at : at + 2], 16) for at in (1, 3, 5))
            page.wait_for_function(
                "ground => getComputedStyle(document.querySelector('.stApp'))"
                ".backgroundColor === ground",
                arg=f"rgb{ground}",
            )
            bad += [(path, scheme, one) for one in page.evaluate(audit)]
            for width, height in ((1920, 1080), (1280, 720)):
                page.set_viewport_size({"width": width, "height": height})
                check_page(page, axe=width == 1280)
    page.emulate_media(color_scheme="light")

    assert not bad, "\n".join(sorted({f"{path} {scheme}: {one}" for path, scheme, one in bad})[:20])


def test_a_version_is_built_beside_the_active_one_and_then_becomes_active(
    live: Live, opened: tuple[str, Page]
) -> None:
    address, page = opened
    page.goto(f"{address}/library")
    page.get_by_role("heading", name="Encoder").wait_for()
    check_page(page)

    choose(page, "Versions")
    encoder = page.get_by_label("Encoder")
    encoder.click()
    encoder.fill("colour")
    encoder.press("Enter")
    page.get_by_role("button", name="Build the version").click()
    page.get_by_text("is active now").wait_for(timeout=4 * LONG)

    with Client(live.url) as client:
        first, second = client.versions("cells")
    assert (first.previous, second.served) == (True, True)

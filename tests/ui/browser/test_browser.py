"""The page in headless Chromium, over a real service and a library of drawn cells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import browsed, check_page, downloaded, wait_until_idle
from live import Live
from pdf_text import words
from PIL import Image
from playwright.sync_api import Page, expect

LONG = 60_000
pytestmark = pytest.mark.browser


@pytest.fixture(name="opened", scope="module")
def _opened(live: Live, chromium: str) -> Iterator[tuple[str, Page]]:
    with browsed(live, chromium, LONG) as opened:
        yield opened


@pytest.fixture(name="page")
def _page(opened: tuple[str, Page]) -> Page:
    address, page = opened
    page.goto(address)
    page.locator(".hs-card").first.wait_for()
    return page


def drawn(live: Live, label: str) -> Path:
    return next(iter(sorted((live.folder / "cells" / label).glob("*.png"))))


def search(page: Page) -> None:
    """Begin with the first sample."""
    page.locator(".hs-open").first.click()
    page.locator("[aria-label='Vote of the neighbours']").wait_for()
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)


def test_an_upload_is_answered_by_a_gallery_in_view(live: Live, page: Page) -> None:
    page.set_input_files("input[type=file]", str(drawn(live, "lymphocyte")))
    cards = page.locator("[aria-label^='Patients'] .hs-card")
    cards.first.wait_for()

    expect(cards).to_have_count(3)
    expect(page.locator("[aria-label='Vote of the neighbours']")).to_be_visible()
    expect(cards.first.locator("img").first).to_have_attribute("alt", re.compile("Neighbour 1"))
    for width, height in ((1280, 720), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        expect(cards.first).to_be_in_viewport()
        check_page(page)
    page.set_viewport_size({"width": 1280, "height": 720})


def test_the_gallery_shows_photographs(page: Page, tmp_path: Path) -> None:
    page.screenshot(path=tmp_path / "page.png")

    with Image.open(tmp_path / "page.png") as shot:
        box = page.locator(".hs-card img").first.bounding_box()
        assert box is not None
        corner = (round(box["x"]), round(box["y"]))
        cell = shot.convert("RGB").crop((*corner, corner[0] + 60, corner[1] + 60))
        colours = cell.getcolors(maxcolors=60 * 60)
    assert colours is None or len(colours) > 50  # not an empty frame


def test_a_pasted_picture_becomes_the_query(live: Live, page: Page) -> None:
    from base64 import b64encode

    picture = b64encode(drawn(live, "monocyte").read_bytes()).decode()
    page.evaluate(
        """text => {
            const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
            const held = new DataTransfer();
            held.items.add(new File([bytes], 'pasted.png', {type: 'image/png'}));
            document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: held}));
        }""",
        picture,
    )

    page.locator("[aria-label='Vote of the neighbours']").wait_for()

    expect(page.locator("figcaption", has_text="pasted.png")).to_be_visible()


def test_a_cell_of_a_field_is_clicked_or_boxed_by_hand(live: Live, page: Page) -> None:
    field = next(iter(sorted((live.folder / "fields").rglob("*.png"))))
    page.set_input_files("input[type=file]", str(field))
    page.locator(".hs-cell-white").first.wait_for()
    page.get_by_role("heading", name="Differential count of this field").wait_for()
    check_page(page)

    assert "Research use only" in words(downloaded(page, "PDF"))

    page.locator(".hs-cell-white").first.click()
    page.locator("[aria-label='Vote of the neighbours']").wait_for()
    page.wait_for_url("**crop=**")
    by_click = page.url
    expect(page.locator(".hs-query .hs-scale")).to_have_text(re.compile("^about"))
    page.get_by_role("button", name="Back to the field").click()
    frame = page.locator(".hs-field").filter(has=page.locator(".hs-cell-white"))
    frame.wait_for()
    wait_until_idle(page)  # so that it stays where it is
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 140, steps=3)
    page.mouse.up()
    page.locator("[aria-label='Vote of the neighbours']").wait_for()

    page.wait_for_url(lambda url: "crop=" in url and url != by_click)


def test_a_refused_picture_leaves_the_page_as_it_was_and_the_next_one_is_answered(
    live: Live, page: Page, tmp_path: Path
) -> None:
    (tmp_path / "notes.png").write_text("lymphocyte, eosinophil")
    address = page.url
    page.set_input_files("input[type=file]", str(tmp_path / "notes.png"))
    page.get_by_role("alert").filter(has_text="not an image").wait_for()
    check_page(page)
    expect(page).to_have_url(address)  # nothing that a reload or Back would repeat
    page.get_by_role("heading", name="Your image").wait_for()

    page.set_input_files("input[type=file]", str(drawn(live, "monocyte")))
    page.locator("[aria-label='Vote of the neighbours']").wait_for()
    page.get_by_role("button", name="New search").click()
    page.locator("[aria-label='Samples'] .hs-card").first.wait_for()
    expect(page).not_to_have_url(re.compile("upload"))


def save_review(page: Page) -> None:
    """Save what the open dialog says of one cell, and load the page again."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Save the review").click()
    dialog.get_by_text("1 review saved").wait_for()
    page.keyboard.press("Escape")
    page.reload()


def test_a_hit_is_reclassified_by_a_key_and_its_label_votes_until_it_is_undone(page: Page) -> None:
    search(page)
    voted = page.inner_text(".hs-verdict")
    page.keyboard.press("1")
    page.keyboard.press("l")
    dialog = page.get_by_role("dialog")
    label = dialog.get_by_role("combobox", name="Reclassify 1 cell")
    label.click()
    label.fill("platelet")
    page.get_by_role("option", name="platelet", exact=True).click()
    for name, value in (("Reviewer", "Ada"), ("Note", "a clump")):
        typed = dialog.get_by_role("textbox", name=name)
        typed.fill(value)
        typed.press("Enter")
        wait_until_idle(page)
    save_review(page)
    page.get_by_text("reviewed by Ada").first.wait_for()
    page.get_by_text("1 label of these neighbours is a reviewer's").wait_for()
    check_page(page)

    page.keyboard.press("1")
    page.keyboard.press("l")
    dialog.get_by_role("combobox", name="Reclassify 1 cell").click()
    page.get_by_role("option", name="Remove", exact=False).click()
    wait_until_idle(page)
    reviewer = dialog.get_by_role("textbox", name="Reviewer")
    reviewer.fill("Ada")
    reviewer.press("Enter")
    wait_until_idle(page)
    save_review(page)
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)
    expect(page.get_by_text("reviewed by Ada")).to_have_count(0)
    expect(page.locator(".hs-verdict")).to_have_text(voted, use_inner_text=True)


def test_keys_mark_examples_and_open_an_item(page: Page) -> None:
    search(page)

    page.keyboard.press("1")
    page.keyboard.press("+")
    page.locator(".hs-liked").wait_for()
    page.wait_for_url("**like=**")

    page.keyboard.press("1")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Search with this cell").wait_for()
    expect(dialog.locator(".hs-table")).to_be_visible()
    expect(dialog.get_by_role("row", name="similarity")).to_be_visible()
    expect(dialog.get_by_role("button", name="Open this case")).to_be_visible()
    id = dialog.locator(".hs-table td").last.inner_text()
    page.keyboard.press("ArrowRight")
    dialog.get_by_text("2 of").wait_for()
    expect(dialog.locator(".hs-table td").last).not_to_have_text(id)
    check_page(page)


def test_a_filter_narrows_the_gallery_and_a_link_reproduces_it(page: Page) -> None:
    search(page)

    page.get_by_role("combobox", name="Label").click()
    page.get_by_role("option").nth(1).click()
    page.wait_for_url("**where=**")
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)
    shown = page.locator(".hs-card").all_inner_texts()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)

    expect(page.locator(".hs-card")).to_have_text(shown, use_inner_text=True)
    assert len(set(page.locator(".hs-label span:first-child").all_inner_texts())) == 1
    expect(page.locator(".hs-verdict")).to_have_text("No vote")  # it would repeat the filter
    expect(page.locator(".hs-votes")).to_have_count(0)


def test_more_filters_are_by_patient_case_day_number_and_similarity(page: Page) -> None:
    search(page)
    patient = page.locator(".hs-card .hs-note-line").first.inner_text().split()[1]
    page.get_by_role("button", name="More", exact=False).first.click()
    for name in ("Patient", "Case"):
        page.get_by_role("combobox", name=name, exact=True).wait_for()
    day = page.get_by_role("group", name="Taken on or after")
    day.get_by_role("spinbutton", name="year").press_sequentially("2024")
    page.get_by_role("gridcell").filter(has_text="15").first.click()
    page.wait_for_url("**acquired_from**")
    page.get_by_role("heading", name="No stored cell matches these filters").wait_for()

    page.goto(page.url.partition("&where=")[0])
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)
    page.get_by_role("button", name="More", exact=False).first.click()
    page.get_by_role("combobox", name="Patient", exact=True).fill(patient)
    page.get_by_role("option").first.click()
    page.wait_for_url("**patient**")
    for name, value, part in (
        ("Scale from (µm per px)", "0.01", "um_per_px_min"),
        ("Similarity at least", "0.5", "least=0.5"),
    ):
        wait_until_idle(page)
        typed = page.get_by_role("spinbutton", name=name)
        if not typed.is_visible():
            page.get_by_role("button", name="More", exact=False).first.click()
        typed.fill(value)
        typed.press("Enter")
        page.wait_for_url(f"**{part}**")
    page.get_by_role("button", name="More · 3").wait_for()
    wait_until_idle(page)
    check_page(page)

    page.keyboard.press("Escape")
    notes = page.locator(".hs-card .hs-note-line").all_inner_texts()
    assert notes
    assert all(note.startswith(f"patient {patient}") for note in notes)
    assert all(float(score) >= 0.5 for score in page.locator(".hs-score").all_inner_texts())


def test_a_picture_that_shows_nothing_gets_no_verdict(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (120, 120), (232, 226, 236)).save(tmp_path / "glass.png")
    page.set_input_files("input[type=file]", str(tmp_path / "glass.png"))
    panel = page.locator("[aria-label='Vote of the neighbours']")
    panel.wait_for()

    expect(panel.locator(".hs-verdict")).to_have_text("No verdict on this picture")
    expect(panel).to_contain_text("nearly blank")
    expect(panel.locator(".hs-bar").first).to_be_hidden()


def test_query_verdict_and_two_rows_need_no_scroll_and_voters_are_marked(page: Page) -> None:
    search(page)
    grouped = page.locator(".hs-votes").all_inner_texts()
    page.goto(f"{page.url}&grouped=no")
    page.locator("[aria-label^='Neighbours'] .hs-card").nth(9).wait_for()
    wait_until_idle(page)

    for one in (".hs-query img", ".hs-verdict", ".hs-trust"):
        box = page.locator(one).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 720, one
    last = page.locator(".hs-card").nth(9).bounding_box()
    assert last is not None
    assert last["y"] + last["height"] <= 720
    expect(page.locator(".hs-votes")).to_have_count(10)
    assert sum(int(text.removesuffix("votes").strip() or 1) for text in grouped) == 10
    expect(page.locator(".hs-trust").first).to_have_text(
        re.compile(r"Searched \d+ of \d+ cells\. Shown: 10 cells of \d patient")
    )


def test_marks_belong_to_their_query_and_nothing_marked_compares_different_patients(
    page: Page,
) -> None:
    search(page)
    page.keyboard.press("1")
    page.keyboard.press("c")
    page.get_by_role("button", name="Compare 1").wait_for()
    page.get_by_role("button", name="New search").click()
    page.locator("[aria-label='Samples'] .hs-open").nth(1).click()
    page.locator("[aria-label^='Patients'] .hs-card").first.wait_for()
    wait_until_idle(page)

    expect(page.get_by_role("button", name="Compare 1")).to_have_count(0)
    page.get_by_role("link", name="Compare").click()
    page.locator(".hs-lens").nth(1).wait_for()
    wait_until_idle(page)
    row = page.locator("tr", has=page.get_by_role("rowheader", name="patient", exact=True))
    patients = row.locator("td").all_inner_texts()[1:]
    assert len(set(patients)) == len(patients) > 1


def test_the_answer_can_be_downloaded(page: Page) -> None:
    search(page)

    with page.expect_download() as waited:
        page.get_by_role("button", name="CSV").click()

    text = Path(waited.value.path()).read_text("utf-8-sig")
    assert text.startswith("rank,score,id")
    assert len(text.splitlines()) > 3

    with page.expect_download() as waited:
        page.get_by_role("button", name="PDF").click()
    text = words(Path(waited.value.path()).read_bytes())
    item = page.url.partition("item=")[2].partition("&")[0]
    for part in ("Research use only", "encoder", "colour", item, "UTC", "cells of each"):
        assert part in text.lower() or part in text
    for line in text.splitlines()[1:]:
        rank, score, id, *_ = line.split(",")
        assert f"{float(score):.3f}" in text, rank
        assert id in text


def test_cells_are_selected_kept_under_a_name_and_exported(page: Page) -> None:
    search(page)
    for number in ("1", "2"):
        page.keyboard.press(number)
        page.keyboard.press("s")
        page.get_by_role("button", name=f"Selected {number}").wait_for()
    ids = page.locator(".hs-card").evaluate_all("all => all.map(one => one.dataset.card)")[:2]
    page.get_by_role("button", name="Selected 2").click()
    with page.expect_download() as waited:
        page.get_by_role("button", name="CSV of the selection").click()
    rows = Path(waited.value.path()).read_text("utf-8-sig").splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ids
    page.get_by_role("textbox", name="Name or tag").fill("to discuss")
    page.get_by_role("textbox", name="Name or tag").press("Enter")
    wait_until_idle(page)
    page.get_by_role("button", name="Keep 2 cells").click()
    page.get_by_text("Kept as “to discuss”").wait_for()
    check_page(page)

    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_role("button", name="Selection", exact=False).first.wait_for()
    wait_until_idle(page)
    chosen = page.get_by_role("combobox", name="Kept selections")
    if not chosen.is_visible():
        page.get_by_role("button", name="Selection").first.click()
    chosen.click()
    page.get_by_role("option", name="to discuss · 2 cells").click()
    page.get_by_role("button", name="Select these cells").click()
    page.get_by_role("button", name="Selected 2").wait_for()


def test_hits_are_compared_under_one_zoom_with_maps(page: Page) -> None:
    search(page)
    for number in ("1", "2"):
        page.keyboard.press(number)
        page.keyboard.press("c")
        page.get_by_role("button", name=f"Compare {number}").wait_for()
    page.get_by_role("button", name="Compare 2").click()
    lenses = page.locator(".hs-lens")
    lenses.nth(2).wait_for()
    wait_until_idle(page)

    box = lenses.nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.wheel(0, -200)
    planes = page.locator(".hs-plane")
    expect(planes.first).not_to_have_attribute("style", re.compile(r"scale\(1\)"))
    moved = {planes.nth(at).get_attribute("style") for at in range(3)}

    expect(lenses).to_have_count(3)
    assert len(moved) == 1
    assert "scale(1)" not in str(moved)
    page.get_by_text("What drives similarity", exact=True).click()
    page.locator(".hs-overlay, .hs-withheld").nth(2).wait_for()
    check_page(page)

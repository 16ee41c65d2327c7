"""An uploaded field: its cells found and judged, the differential count, and each a click away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from html import escape

import streamlit as st

from search.schemas.cells import FoundCell, FoundCells, JudgedCell, JudgedField
from search.schemas.items import Box
from ui.address import Searching
from ui.exports.downloads import field_csv
from ui.look import states
from ui.look.card import data_url
from ui.look.differential import RANGES, percent_bar, usual
from ui.look.gallery import EXCLUSION, aligned
from ui.look.palette import colours, lines
from ui.look.tables import count, plain, table
from ui.screens.choosing import scale_input
from ui.session.current import change, set_picking, start_again
from ui.session.place import Place
from ui.session.results import cells_of, judged_field
from ui.session.uploads import Upload
from ui.widgets.board import board
from ui.widgets.field import field
from ui.widgets.saving import save_button

KINDS = ("white", "red", "platelet")
LISTED = 60
"""Judged cells that are shown as cards."""
CELL_PX = 160
"""Side of a cell on its card."""


def whole_field(place: Place, search: Searching, upload: Upload) -> None:
    """A field with its cells judged; a click on one, or a box drawn by hand, searches with it."""
    left, right = st.columns([2, 5], gap="medium")
    with right:
        waiting = st.empty()
        waiting.html('<p class="hs-lead" role="status">Looking for cells…</p>')
        found = cells_of(place.client, upload.content, upload.id, search.um_given)
        whites = _of(found, "white")
        judged = None
        if whites:
            words = f"Judging {count(len(whites), 'white cell')}…"
            waiting.html(f'<p class="hs-lead" role="status">{words}</p>')
            judged = judged_field(place.client, search, upload.content)
        waiting.empty()
    with left:
        st.html(_differential(found, judged))
        shown = _kinds(found, upload)
        _downloads(judged, upload)
        with st.expander("Scale of this picture"):
            scale_input(search, upload, found)
        _leave(search, upload)
    with right:
        # At once, before anything else is drawn: a run that ends in between would lose the click.
        _search_with(_picture(found, judged, shown, upload), search, found)
        if judged is not None:
            _search_with(_cards(judged, upload), search, found)


def _search_with(crop: Box | None, search: Searching, found: FoundCells) -> None:
    """Search with a part of the field, by the scale that its red cells tell where none is given."""
    if crop is None:
        return
    kinds = {cell.crop: cell.kind for cell in found.cells}
    cell = {"white": "white", "red": "red", "platelet": "red"}.get(kinds.get(crop, ""))
    changes = {"crop": crop, "region": None, "cell": cell}
    if search.um_given is None and found.um_per_px is not None:
        scale = {"um_per_px": found.um_per_px, "um_spread": found.um_per_px_spread}
        change(search, um_estimated=True, **changes, **scale)
    change(search, **changes)


def _leave(search: Searching, upload: Upload) -> None:
    with st.container(horizontal=True):
        if st.button("Use the whole image as one cell", key="whole"):
            set_picking(upload.id, False)
            change(search)
        if st.button("New search", key="new", icon=":material/restart_alt:"):
            start_again(search)


def _of(found: FoundCells, kind: str) -> list[FoundCell]:
    return [cell for cell in found.cells if cell.kind == kind]


def _kinds(found: FoundCells, upload: Upload) -> list[str]:
    """The kinds of cells whose boxes are shown."""
    kinds = [kind for kind in KINDS if _of(found, kind)]
    if not kinds:
        return []
    chosen: list[str] = st.pills(
        "Boxes shown",
        kinds,
        default=kinds[:1],
        selection_mode="multi",
        format_func=lambda kind: f"{kind} · {len(_of(found, kind))}",
        key=f"kinds-{upload.id}",
    )
    return chosen


def _differential(found: FoundCells, judged: JudgedField | None) -> str:
    """The count of the field, and what it is of."""
    head = '<h2 class="hs-section">Differential count of this field</h2>'
    others = [["Red cells seen", plain(len(_of(found, "red"))), ""]]
    others.append(["Platelets seen", plain(len(_of(found, "platelet"))), ""])
    if judged is None:
        words = "No white cell was found here. Draw a box around one, or use the whole image."
        return head + states.notes([words]) + table(["", "Cells", ""], others)
    rows = [
        [
            escape(one.label),
            plain(one.cells),
            percent_bar(one.percent),
            usual(one.label),
        ]
        for one in judged.counts
    ]
    rows.append(["Not sure", plain(judged.unsure), "", ""])
    if judged.erythroblasts_per_100 is not None and judged.erythroblasts:
        words = f"{judged.erythroblasts_per_100:.0f} per 100"
        rows.append(["Nucleated red cells", plain(judged.erythroblasts), words, "none"])
    caption = (
        f"Votes of the {judged.k} nearest stored cells; {EXCLUSION[judged.patient_exclusion]}; "
        f"encoder {judged.encoder}. {RANGES} {aligned(judged.alignment)}"
    ).rstrip()
    heads = ["Leukocytes", "Cells", "Percent", "Usual"]
    shown = table(heads, [*rows, *([*one, ""] for one in others)], caption)
    return head + states.notes(list(judged.warnings)) + shown


def _picture(
    found: FoundCells, judged: JudgedField | None, shown: Sequence[str], upload: Upload
) -> Box | None:
    cells = [cell for cell in found.cells if cell.kind in shown]
    names: dict[Box, tuple[str, str, str]] = {}
    if judged is not None:
        palette, line = _looks(judged)
        for one in judged.cells:
            label = sure_label(one)
            names[one.cell.bbox] = (called(one), palette[label] or "", line[label])
    st.html(
        '<p class="hs-keys"><span>Click a cell to see its neighbours, or drag a box around one'
        "</span> <span><kbd>Tab</kbd> goes from cell to cell</span> "
        "<span><kbd>Enter</kbd> takes it</span></p>"
    )
    return field(upload.content, cells, f"field-{upload.id}", names=names)


def _looks(judged: JudgedField) -> tuple[dict[str | None, str], dict[str | None, str]]:
    labels = {sure_label(one) for one in judged.cells}
    return colours(labels), {**lines(labels), None: "dashed"}


def sure_label(one: JudgedCell) -> str | None:
    """The label of a cell whose vote is sure."""
    return one.label if one.state == "sure" else None


def called(one: JudgedCell) -> str:
    """What a cell is called, in words."""
    words = {"sure": one.label or "", "not sure": "not sure"}
    return words.get(one.state, "unlike anything here")


def _cards(judged: JudgedField, upload: Upload) -> Box | None:
    """The judged cells as cards; the square of the one that was clicked."""
    palette, line = _looks(judged)
    cards = []
    for at, one in enumerate(judged.cells[:LISTED]):
        label = sure_label(one)
        jpeg = upload.part(one.cell.crop, CELL_PX)
        name = escape(called(one))
        why = escape(one.reason)
        mark = f"border:2px {line[label]} {palette[label]}"
        cards.append(
            f'<li class="hs-card" tabindex="-1" data-card="{at}"><figure><button class="hs-open" '
            f'data-act="cell" data-id="{at}" aria-label="Find cells like this one: {name}">'
            f'<img src="{data_url(jpeg)}" alt="White cell {at + 1}: {name}"></button></figure>'
            f'<div><span class="hs-label"><span><i class="hs-box" style="{mark}"></i>{name}</span>'
            f'</span><span class="hs-faint">{why}</span></div></li>'
        )
    head = f'<h2 class="hs-section">{count(len(judged.cells), "white cell")}</h2>'
    grid = f'<ol class="hs-grid" aria-label="White cells of this field">{"".join(cards)}</ol>'
    pressed = board(f'{head}<div class="hs-small">{grid}</div>', f"field-cells-{upload.id}")
    return None if pressed is None else judged.cells[int(pressed.id)].cell.crop


def _downloads(judged: JudgedField | None, upload: Upload) -> None:
    if judged is None:
        return
    with st.container(horizontal=True, gap="xsmall"):
        words = "The field with its boxes, the count, and every cell. It names no file."
        save_button("PDF", partial(_report, judged, upload), "field.pdf", help=words)
        save_button("CSV", field_csv(judged), "field-cells.csv")


def _report(judged: JudgedField, upload: Upload) -> bytes:
    """The PDF, made on download."""
    from ui.exports.field_report import field_report

    pictures = [upload.part(one.cell.crop, CELL_PX) for one in judged.cells]
    return field_report(judged, upload.part(None, 1400), pictures, datetime.now(UTC))

"""A case as PDF."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from pdf_text import words
from PIL import Image

from search.schemas.cases import CaseCount, CaseFacts, CountRow, MosaicCell
from search.schemas.cases import Differential as Counted
from search.schemas.items import Item, item_id
from ui.exports.case_report import case_report

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
ITEM = Item(id=item_id("made", "0" * 32), dataset="made", source="0" * 32, label="lymphocyte")


def _facts(**given: object) -> CaseFacts:
    counted = Counted.model_construct()
    base = {
        "value": "K-17", "by": "case", "collection": "cells", "items": 120, "cases": ("K-17",),
        "patients": ("Jane-Roe",), "sites": ("Bergen",), "datasets": ("made",), "sources": 3,
        "differential": counted, "examples": (), "mosaic": (MosaicCell(item=ITEM, share=0.25),),
    }  # fmt: skip
    return CaseFacts.model_construct(**(base | given))


def _counted() -> CaseCount:
    rows = (
        CountRow(label="lymphocyte", recorded=90, reviewed=0, voted=80),
        CountRow(label="platelet", recorded=30, reviewed=0, voted=31),
    )
    return CaseCount(
        value="K-17", by="case", collection="cells", encoder="toy", fingerprint="0" * 16, k=20,
        items=120, cells=(), complete=True, rows=rows, recorded=120, reviewed=0, not_sure=9,
        agreement=0.9, patient_exclusion="applied", warnings=("Few cells.",),
    )  # fmt: skip


def _jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (120, 60, 140)).save(out, "JPEG")
    return out.getvalue()


def test_it_holds_the_record_the_count_and_the_mosaic_and_names_no_patient() -> None:
    record = {"K-17": {"Diagnosis": "CLL", "Date": "2024-03-01"}}

    made = case_report(_facts(), _counted(), record, {ITEM.id: _jpeg()}, MADE)

    said = words(made)
    for expected in ("K-17", "CLL", "2024-03-01", "100 %", "30", "Few cells.", "25.0%", "toy"):
        assert expected in said, expected
    assert said.count("%") == 2 + 1 + 1  # of lymphocytes twice, "Usual, %", a share; no platelets
    assert "Jane" not in said
    assert made == case_report(_facts(), _counted(), record, {ITEM.id: _jpeg()}, MADE)


def test_a_patient_is_not_named_and_what_is_missing_is_said() -> None:
    facts = _facts(by="patient", value="Jane-Roe", mosaic=())

    said = words(case_report(facts, _counted(), {}, {}, MADE))

    assert "Jane" not in said
    assert "No diagnosis, date or treatment is recorded." in said
    assert "No picture of a cell can be shown." in said

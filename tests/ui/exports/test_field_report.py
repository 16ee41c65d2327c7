"""A judged field as PDF and CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest
from pdf_text import words
from PIL import Image

from search.schemas.cells import CountedLabel, FoundCell, JudgedCell, JudgedField
from search.schemas.items import Box
from ui.exports.downloads import field_csv
from ui.exports.field_report import field_report

CELL = FoundCell(
    kind="white",
    bbox=Box(x=10, y=12, w=20, h=22),
    crop=Box(x=0, y=0, w=40, h=40),
    score=0.9,
    touches_border=False,
)
JUDGED = JudgedCell(
    cell=CELL,
    state="sure",
    reason="9 of 10 neighbours.",
    label="=lymphocyte",
    share=0.9,
    probability=None,
    nearest=None,
    score=None,
    warnings=(),
)
FIELD = JudgedField(
    cells=(JUDGED,),
    counts=(CountedLabel(label="=lymphocyte", cells=1, percent=100),),
    leukocytes=1,
    unsure=0,
    erythroblasts=0,
    erythroblasts_per_100=0,
    red=31,
    platelets=2,
    left_out=0,
    width=120,
    height=80,
    um_per_px=None,
    um_per_px_origin=None,
    finder="classical",
    collection="cells",
    encoder="toy",
    fingerprint="0123456789abcdef",
    k=10,
    patient_exclusion="impossible",
    warnings=("The count is of 1 leukocyte.",),
)


def jpeg(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 180, 190)).save(out, "JPEG")
    return out.getvalue()


def test_the_report_has_count_cells_encoder_and_warnings() -> None:
    made = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

    content = field_report(FIELD, jpeg((120, 80)), [jpeg((40, 40))], made)

    text = words(content)
    for part in ("Differential count", "lymphocyte", "Red cells seen", "31", "9 of 10", "toy"):
        assert part in text, part
    assert "The count is of 1 leukocyte." in text
    assert "patient exclusion not possible" in text
    with pytest.raises(ValueError, match="as many pictures"):
        field_report(FIELD, jpeg((120, 80)), [], made)


def test_the_table_has_a_line_for_each_cell_and_no_formula() -> None:
    (row,) = csv.DictReader(io.StringIO(field_csv(FIELD).decode("utf-8-sig")))

    assert (row["x"], row["h"], row["label"]) == ("10", "22", "'=lymphocyte")

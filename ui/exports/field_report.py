"""A whole field as a PDF to keep: the picture with its boxes, the count, and every cell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

from PIL import Image as PillowImage
from PIL import ImageDraw
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, Spacer, Table

from search.schemas.cells import JudgedCell, JudgedField
from ui.exports.pdf import BODY, HEAD, NUMBER, SMALL, TITLE, document, lined, picture, text
from ui.look.gallery import EXCLUSION
from ui.look.tables import count

WHOLE = 150 * mm
"""Longer side of the field on the paper."""
CELL = 18 * mm
WIDTH_PX = 1400
"""Of the field in the file."""


def field_report(
    judged: JudgedField, field: bytes, cells: Sequence[bytes], made: datetime
) -> bytes:
    """A judged field as PDF; equal input gives equal bytes. It names no file.

    Args:
        judged: What the service answered.
        field: The field as JPEG.
        cells: JPEG of each judged cell, in its order.
        made: When it was judged, with its time zone.

    Raises:
        ValueError: not one picture for each cell.
    """
    if len(cells) != len(judged.cells):
        raise ValueError(f"{len(judged.cells)} cells need as many pictures, got {len(cells)}")
    story = [
        Paragraph("A field of cells", TITLE),
        Paragraph(text(judged.disclaimer), SMALL),
        Spacer(1, 3 * mm),
        picture(_boxed(judged, field), WHOLE, WIDTH_PX),
        Spacer(1, 3 * mm),
        *(Paragraph(f"Warning: {text(one)}", BODY) for one in judged.warnings),
        Paragraph("Differential count", HEAD),
        _counts(judged),
        Paragraph(_basis(judged), SMALL),
        Spacer(1, 3 * mm),
        Paragraph(f"The {count(len(judged.cells), 'white cell')}", HEAD),
        _cells(judged.cells, cells),
    ]
    words = f"{judged.encoder} {judged.fingerprint}"
    return document("A field of cells", judged.disclaimer, story, words, made)


def _boxed(judged: JudgedField, field: bytes) -> bytes:
    """The field with a numbered box around each judged cell."""
    with PillowImage.open(BytesIO(field)) as opened:
        whole = opened.convert("RGB")
    by = whole.width / judged.width
    draw = ImageDraw.Draw(whole)
    for at, one in enumerate(judged.cells, 1):
        box = one.cell.bbox
        corners = [box.x * by, box.y * by, (box.x + box.w) * by, (box.y + box.h) * by]
        draw.rectangle(corners, outline=(20, 23, 28), width=4)
        draw.rectangle(corners, outline=(255, 255, 255), width=2)
        draw.text((corners[0] + 4, corners[1] + 2), str(at), fill=(20, 23, 28))
    out = BytesIO()
    whole.save(out, "JPEG", quality=90)
    return out.getvalue()


def _counts(judged: JudgedField) -> Table:
    rows: list[list[Any]] = [[Paragraph(f"<b>{one}</b>", SMALL) for one in ("", "Cells", "%")]]
    rows += [
        [
            Paragraph(text(one.label), BODY),
            Paragraph(str(one.cells), NUMBER),
            Paragraph("-" if one.percent is None else f"{one.percent:.0f}", NUMBER),
        ]
        for one in judged.counts
    ]
    for name, n in (
        ("Not sure", judged.unsure),
        ("Red cells seen", judged.red),
        ("Platelets seen", judged.platelets),
    ):
        rows.append([Paragraph(name, BODY), Paragraph(f"{n:,}", NUMBER), ""])
    return lined(rows, (70, 20, 20))


def _basis(judged: JudgedField) -> str:
    words = [
        f"Percent of {count(judged.leukocytes, 'leukocyte')} whose vote is sure",
        f"votes of the {judged.k} nearest cells of {text(judged.collection)}",
        EXCLUSION[judged.patient_exclusion],
        f"cells found by {text(judged.finder)}",
    ]
    if judged.erythroblasts_per_100 is not None:
        words.append(f"{judged.erythroblasts_per_100:.0f} nucleated red cells per 100 leukocytes")
    return "; ".join(words) + "."


def _cells(judged: Sequence[JudgedCell], pictures: Sequence[bytes]) -> Table | Paragraph:
    if not judged:
        return Paragraph("No white cell was found.", BODY)
    rows = []
    for at, (one, content) in enumerate(zip(judged, pictures, strict=True), 1):
        label = str(one.label) if one.state == "sure" else one.state.capitalize()
        rows.append(
            [
                Paragraph(str(at), NUMBER),
                picture(content, CELL),
                Paragraph(text(label), BODY),
                Paragraph(text(" ".join([one.reason, *one.warnings])), SMALL),
            ]
        )
    return lined(rows, (8, 22, 50, 94))

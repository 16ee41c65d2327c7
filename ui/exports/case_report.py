"""A case as a PDF to keep: what is recorded of it, its differential count, and its mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, Spacer, Table

from search.schemas.cases import CaseCount, CaseFacts, MosaicCell
from search.votes.differential import Differential, part_of, reference
from ui.exports.pdf import (
    BODY,
    HEAD,
    NUMBER,
    SMALL,
    SMALL_NUMBER,
    TITLE,
    document,
    lined,
    picture,
    text,
)
from ui.look.differential import RANGES, counts_of
from ui.look.gallery import EXCLUSION
from ui.look.tables import count

CELL = 16 * mm
ACROSS = 8
"""Cells of the mosaic beside each other."""


def case_report(
    facts: CaseFacts,
    counted: CaseCount,
    records: Mapping[str, Mapping[str, str]],
    pictures: Mapping[str, bytes],
    made: datetime,
) -> bytes:
    """A case as PDF; equal input gives equal bytes. Names of patients are left out.

    Args:
        facts: What there is of the case.
        counted: Its differential count, as recorded and by the neighbours' votes.
        records: For each of its cases, what is recorded, by labels in their order.
        pictures: JPEG of the cells of the mosaic, by item id; a cell without one is left out.
        made: When it was asked for, with its time zone.
    """
    title = f"{facts.by.capitalize()} {facts.value}" if facts.by != "patient" else "A patient"
    story: list[Any] = [
        Paragraph(text(title), TITLE),
        Paragraph(text(facts.disclaimer), SMALL),
        Spacer(1, 3 * mm),
        Paragraph(text(_extent(facts)), BODY),
        Spacer(1, 3 * mm),
        Paragraph("What is recorded", HEAD),
        *_recorded(records),
        Spacer(1, 3 * mm),
        Paragraph("Differential count", HEAD),
        *(Paragraph(f"Warning: {text(one)}", BODY) for one in counted.warnings),
        _counts(counted),
        Paragraph(text(_basis(counted)), SMALL),
        Spacer(1, 3 * mm),
        Paragraph(f"Mosaic: {count(len(facts.mosaic), 'cell')} for all {facts.items:,}", HEAD),
        *_mosaic(facts.mosaic, pictures),
    ]
    return document(title, facts.disclaimer, story, counted.encoder, made)


def _extent(facts: CaseFacts) -> str:
    words = [count(facts.items, "item"), count(facts.sources, "source")]
    if facts.sites:
        words.append(f"site {', '.join(facts.sites)}")
    return f"{'; '.join(words)}; collection {facts.collection}."


def _recorded(records: Mapping[str, Mapping[str, str]]) -> list[Any]:
    if not any(records.values()):
        return [Paragraph("No diagnosis, date or treatment is recorded.", BODY)]
    parts: list[Any] = []
    for case, known in records.items():
        if len(records) > 1:
            parts.append(Paragraph(f"<b>{text(case)}</b>", BODY))
        rows = [
            [Paragraph(text(name), SMALL), Paragraph(text(known[name]), BODY)] for name in known
        ]
        parts.append(lined(rows, (40, 134)))
    return parts


def _counts(counted: CaseCount) -> Table:
    judges = counts_of(counted)
    heads = ["", *judges, "Usual, %"]
    rows: list[list[Any]] = [
        [Paragraph(f"<b>{one}</b>", SMALL_NUMBER if one in judges else SMALL) for one in heads]
    ]
    for row in counted.rows:
        cells = [Paragraph(_share(one, row.label), NUMBER) for one in judges.values()]
        known = reference(row.label)
        usual = Paragraph(text(known.words if known else ""), SMALL)
        rows.append([Paragraph(text(row.label), BODY), *cells, usual])
    return lined(rows, (50, *[30] * len(judges), 30))


def _share(one: Differential, label: str) -> str:
    cells = one.counts.get(label, 0)
    percent = one.percent(label) if part_of(label) == "leukocytes" else None
    return f"{cells:,}" if percent is None else f"{percent:.0f} % ({cells:,})"


def _basis(counted: CaseCount) -> str:
    return (
        f"Percent of leukocytes; everything else in numbers. Votes of the {counted.k} nearest "
        f"cells each; {EXCLUSION[counted.patient_exclusion]}; of {count(counted.not_sure, 'cell')} "
        f"the vote is not sure. {RANGES}"
    )


def _mosaic(cells: tuple[MosaicCell, ...], pictures: Mapping[str, bytes]) -> list[Any]:
    shown = sorted((one for one in cells if one.item.id in pictures), key=lambda one: -one.share)
    if not shown:
        return [Paragraph("No picture of a cell can be shown.", BODY)]
    tiles: list[Any] = [
        [
            picture(pictures[one.item.id], CELL),
            Paragraph(f"{text(one.item.label or 'no label')} {one.share:.1%}", SMALL),
        ]
        for one in shown
    ]
    rows = [tiles[at : at + ACROSS] for at in range(0, len(tiles), ACROSS)]
    rows[-1] += [""] * (ACROSS - len(rows[-1]))
    return [lined(rows, [174 / ACROSS] * ACROSS)]

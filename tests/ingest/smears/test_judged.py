"""Which labels count among the leukocytes of a field."""

from __future__ import annotations

import pytest

from ingest.smears.judged import differential
from search.schemas.answers import State
from search.schemas.cells import FoundCell, JudgedCell
from search.schemas.items import Box


def judged(label: str | None, state: State = "sure") -> JudgedCell:
    box = Box(x=0, y=0, w=9, h=9)
    cell = FoundCell(kind="white", bbox=box, crop=box, score=1, touches_border=False)
    return JudgedCell(
        cell=cell,
        state=state,
        reason="",
        label=label,
        share=1,
        probability=None,
        nearest=None,
        score=None,
        warnings=(),
    )


def test_erythroblasts_and_platelets_are_counted_apart_from_leukocytes() -> None:
    labels = ["lymphocyte", "lymphocyte", "lymphocyte", "odd cell", "erythroblast", "PLATELET"]
    cells = [*map(judged, labels), judged("monocyte", "not sure")]

    counts, leukocytes, erythroblasts = differential(cells)

    assert (leukocytes, erythroblasts) == (4, 1)
    assert [(one.label, one.cells) for one in counts] == [
        ("lymphocyte", 3),
        ("odd cell", 1),
        ("PLATELET", 1),
        ("erythroblast", 1),
    ]
    assert [one.percent for one in counts] == [pytest.approx(75), pytest.approx(25), None, None]

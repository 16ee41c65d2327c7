"""A patient's cases as a table and curves."""

from __future__ import annotations

from datetime import date

from search.schemas.cases import CaseMoment, Timeline
from ui.screens.cases.over_time import timeline_html


def moment(case: str, day: date | None, blasts: float, distance: float) -> CaseMoment:
    start = date(2024, 1, 1)
    return CaseMoment(
        case=case,
        date=day,
        days=(day - start).days if day else None,
        cells=100,
        differential={"<blast>": blasts, "LY": 1 - blasts},
        origin="labels",
        shares=(blasts, 1 - blasts),
        distance=distance,
        treatment="azacitidine & more",
        outcome=None,
    )


def test_cases_stand_in_order_with_their_change_and_a_curve_for_each_label() -> None:
    moments = (
        moment("C1", date(2024, 1, 1), 0.6, 0),
        moment("C2", date(2024, 3, 1), 0.1, 0.5),
    )
    times = Timeline(
        patient="P<1>", collection="cells", fingerprint="0" * 16, prototypes=(), moments=moments
    )

    html = timeline_html(times, "C2")

    assert html.index("C1") < html.index("<b>C2</b>")
    assert "50%" in html
    assert "60%" in html
    assert html.count("<polyline") == 2
    assert "Days since the first case (0 to 60)" in html
    assert "&lt;blast&gt;" in html
    assert "<blast>" not in html
    assert "azacitidine &amp; more" in html

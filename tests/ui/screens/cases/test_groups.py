"""Two groups of cases, side by side."""

from __future__ import annotations

from search.schemas.cases import GroupDifference, GroupsAnswer
from ui.screens.cases.groups import groups_html


def row(kind: str, name: str, *, clear: bool) -> GroupDifference:
    return GroupDifference.model_validate(
        {"kind": kind, "name": name, "first": 0.5, "second": 0.26, "difference": -0.24}
        | {"low": -0.31, "high": -0.155, "clear": clear}
    )


def test_a_difference_stands_with_its_interval_and_is_named_only_where_it_is_clear() -> None:
    rows = (
        row("prototype", "3 (mostly <b>)", clear=True),
        row("label", "LY", clear=False),
    )
    answer = GroupsAnswer(
        collection="cells", fingerprint="0" * 16, first_cases=1, second_cases=18, both=1,
        first_patients=1, second_patients=6, rows=rows, warnings=("A group has few.",),
    )  # fmt: skip

    html = groups_html(answer, ("none", "<treated>"), {})

    assert "none: 1 case of 1 patient<" in html
    assert "&lt;treated&gt;: 18 cases of 6 patients<" in html
    assert "-24.0 [-31.0, -15.5]" in html
    assert html.count(">differs<") == 1
    assert "1 of 2 rows differs clearly" in html
    assert "A group has few." in html
    assert "<b>" not in html

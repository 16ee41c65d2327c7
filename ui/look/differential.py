"""A differential count as a table: percent of leukocytes on one scale, the rest apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from search.schemas.cases import CaseCount
from search.votes.differential import ENOUGH, Differential, Part, part_of, reference
from ui.look.states import notes
from ui.look.tables import plain, table

APART: tuple[Part, ...] = ("nucleated red cells", "platelets", "red cells", "other")
BAR_PX = 72
"""Length of the bar of 100 %."""
RANGES = (
    "Usual: percent in the blood of healthy adults (Davis's manual of laboratory tests). "
    "Ranges depend on the laboratory: use your own."
)
OUTSIDE = "“High” and “low” stand only where counting so few cells cannot explain them."


def counts_of(counted: CaseCount) -> dict[str, Differential]:
    """A case's counts by the recorded labels, the reviewed ones if any, and the votes."""
    judges = {"Recorded": "recorded", "Reviewed": "reviewed", "Neighbours": "voted"}
    return {
        head: Differential({row.label: getattr(row, name) for row in counted.rows})
        for head, name in judges.items()
        if name != "reviewed" or counted.reviewed
    }


def percent_bar(percent: float | None, cells: int | None = None) -> str:
    """A percentage with a bar under it; all bars are on one scale, whatever their column."""
    if percent is None:
        return plain(None)
    beside = "" if cells is None else f' <span class="hs-count">({cells:,})</span>'
    bar = f'<i class="hs-meter" style="width:{BAR_PX * percent / 100:.0f}px"></i>'
    return f"{percent:.0f} %{beside}{bar if percent else ''}"


def usual(label: str, outside: str = "") -> str:
    """The reference range of a label, with a word where its share lies outside."""
    known = reference(label)
    if known is None:
        return plain(None)
    words = f'<span class="hs-differs"> {escape(outside)}</span>' if outside else ""
    return f"{escape(known.words)}{words}"


def differential_table(columns: Mapping[str, Differential], caption: str) -> str:
    """Leukocytes in percent with their reference ranges, then everything that is counted apart.

    Args:
        columns: Counts of the same cells by different judges, by what they are called; whether a
            share is usual is said of the first that has enough leukocytes.
        caption: One sentence above it.
    """
    labels = _ordered(columns)
    white = [label for label in labels if part_of(label) == "leukocytes"]
    judge = next((one for one in columns.values() if one.total("leukocytes") >= ENOUGH), None)
    rows = [
        [
            escape(label),
            *(
                percent_bar(one.percent(label), one.counts.get(label, 0))
                for one in columns.values()
            ),
            usual(label, judge.outside(label) if judge else ""),
        ]
        for label in white
    ]
    rows.append(["Leukocytes", *(plain(one.total("leukocytes")) for one in columns.values()), ""])
    few = [
        "Fewer than 100 leukocytes: the percentages are rough, and are not held to the usual range."
    ]
    words = " ".join([caption, RANGES, *([OUTSIDE] if judge else [])])
    shown = table(["Leukocytes", *columns, "Usual"], rows, words) if white else ""
    return (
        (notes(few) if white and judge is None else "")
        + shown
        + _apart(columns, [label for label in labels if label not in white])
    )


def _apart(columns: Mapping[str, Differential], labels: Sequence[str]) -> str:
    if not labels:
        return ""
    rows = []
    for part in APART:
        mine = [label for label in labels if part_of(label) == part]
        for label in mine:
            cells = [plain(one.counts.get(label, 0)) for one in columns.values()]
            rows.append([f"{escape(label)}", f"{part}", *cells])
        if mine and part == "nucleated red cells":
            per = [
                plain(None) if one.red_per_100 is None else f"{one.red_per_100:.0f}"
                for one in columns.values()
            ]
            rows.append(["per 100 leukocytes", part, *per])
    return table(
        ["Counted apart", "", *columns], rows, "Cells that are no leukocytes, in numbers.", text=[1]
    )


def _ordered(columns: Mapping[str, Differential]) -> list[str]:
    counts: dict[str, int] = {}
    for one in columns.values():
        for label, n in one.counts.items():
            counts[label] = max(n, counts.get(label, 0))
    return sorted((label for label in counts if counts[label]), key=lambda one: (-counts[one], one))

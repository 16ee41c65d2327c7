"""Figures as HTML tables: every text escaped, every number in columns that line up."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from search.text import count as count


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", text: Sequence[int] = ()
) -> str:
    """A table; the first column names the row.

    Args:
        heads: Of the columns.
        rows: Cells as HTML, escaped by whoever makes them; see `plain`.
        caption: One sentence above it.
        text: Columns of text, which are set to the left.
    """
    above = f'<p class="hs-caption">{escape(caption)}</p>' if caption else ""
    head = "".join(
        f'<th scope="col"{_left(at, text)}>{escape(one)}</th>' for at, one in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if at == 0 else f"<td{_left(at, text)}>{cell}</td>"
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    whole = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'{above}<table class="hs-table">{whole}</table>'


def plain(value: object) -> str:
    """A value as a cell: text escaped, whole numbers with commas, nothing as a dash."""
    if value is None or value == "":
        return '<span aria-label="none">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return escape(str(value))


def moment(stamp: str) -> str:
    """A time in ISO format as a cell: date and time to the second, without the zone."""
    return escape(stamp[:19].replace("T", " "))


def badge(text: str, tone: str = "") -> str:
    """A few words in a rounded frame; `tone` is empty, `good`, `warn` or `bad`."""
    kind = f" hs-{tone}" if tone in ("good", "warn", "bad") else ""
    return f'<span class="hs-badge{kind}">{escape(text)}</span>'


def legend(kinds: Sequence[tuple[str, str, str]]) -> str:
    """Names with the colours and lines of their boxes."""
    parts = "".join(
        f'<li><i class="hs-box" style="border:2px {escape(line)} {escape(colour)}"></i>'
        f"{escape(name)}</li>"
        for name, colour, line in kinds
    )
    return f'<ul class="hs-legend">{parts}</ul>'


def _left(at: int, text: Sequence[int]) -> str:
    return ' class="hs-text"' if at in text else ""

"""A table of cases: one row a case, or one row an image with the columns of its case."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from difflib import get_close_matches
from io import StringIO
from typing import Any

from pydantic import ValidationError

from search.errors import BadQuestion
from search.schemas.cases import COLUMN, CaseChange, CaseValues
from search.text import composed, count, is_missing

KNOWN = tuple(name for name in CaseValues.model_fields if name not in ("case", "more"))
"""Columns that every collection has."""
_IMAGES = "path label site stain scanner acquired um_per_px kind dataset"
_BOXES = "x y w h xmin ymin xmax ymax"
OF_IMAGES = frozenset(f"{_IMAGES} {_BOXES}".split())
"""Columns of an ingest's table: they say nothing of the case, and are left to the ingest."""
SEXES = {"f": "female", "w": "female", "female": "female", "weiblich": "female"} | {
    "m": "male",
    "male": "male",
    "männlich": "male",
    "other": "other",
    "d": "other",
    "x": "other",
}
MARKS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What separates values."""
NEAR = 0.85
"""How alike a column must be to a known one to be taken for a slip."""


class BadCaseTable(BadQuestion):
    """A table that does not say what is known of cases, and where."""


def read_cases(text: str, name: str = "the table") -> tuple[CaseChange, ...]:
    """What a table says of cases, in order of its lines.

    Separated by commas, semicolons or tabs. An empty value says nothing, as do words like `NA`.
    Columns beyond the known ones become further columns of the cases.

    Args:
        text: Its content.
        name: What errors call it.

    Raises:
        BadCaseTable: no column `case`, a column that is there twice or that is nearly a known
            one, or a value that is none of its kind; names the line.
    """
    first = text.partition("\n")[0]
    mark = max(MARKS, key=first.count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        header = [column_name(one) for one in next(reader, [])]
        check_columns(header, name)
        changes = []
        for values in reader:
            where = f"line {reader.line_num} of {name}"
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(header):
                came, wanted = count(len(values), "value"), count(len(header), "column")
                raise BadCaseTable(
                    f"{where} has {came} for {wanted}; separate them by {MARKS[mark]}, and put a "
                    "text that has one into quotes"
                )
            row = dict(zip(header, values, strict=True))
            changes.append(change_of(row, where))
    except csv.Error as error:
        why = "a quotation mark is never closed" if "end of data" in str(error) else str(error)
        raise BadCaseTable(f"{name} is not a CSV table: {why}") from error
    if not changes:
        raise BadCaseTable(f"{name} has no row beneath its column names")
    return tuple(changes)


def column_name(word: str) -> str:
    """A column as it is called here: `Blasts (%)` is `blasts`."""
    return re.sub(r"[^a-z0-9]+", "_", composed(word).strip().lower()).strip("_")


def check_columns(header: list[str], name: str) -> None:
    """Refuse a header that cannot be understood.

    Raises:
        BadCaseTable: see `read_cases`.
    """
    if "case" not in header:
        have = f"; it has {', '.join(header[:10])}" if any(header) else ""
        raise BadCaseTable(
            f"{name} has no column 'case', which says whose values a row holds{have}"
        )
    if twice := sorted({one for one in header if header.count(one) > 1}):
        raise BadCaseTable(f"{name} has the column {twice[0]!r} twice")
    for one in header:
        if one in KNOWN or one in OF_IMAGES or one == "case":
            continue
        if near := get_close_matches(one, KNOWN, 1, NEAR):
            raise BadCaseTable(
                f"{name} has a column {one!r}, which is nearly {near[0]!r}; call it so, or "
                "give it a name of its own"
            )
        if COLUMN.fullmatch(one) is None:
            raise BadCaseTable(
                f"{name} has a column {one!r}; a name has letters, digits and _, at most 40, and "
                "begins with a letter"
            )


def change_of(row: Mapping[str, str], where: str) -> CaseChange:
    """What one row says of its case.

    Args:
        row: Values by column, with `case`; columns of images are left out.
        where: What errors call the row.

    Raises:
        BadCaseTable: no case, or a value that is none of its kind.
    """
    said = {
        name: composed(value).strip()
        for name, value in row.items()
        if name not in OF_IMAGES and value.strip() and not is_missing(value)
    }
    if "case" not in said:
        raise BadCaseTable(f"{where} names no case; every row with values of a case must")
    if "sex" in said:
        said["sex"] = SEXES.get(said["sex"].lower(), said["sex"])
    facts: dict[str, Any] = {name: v for name, v in said.items() if name in (*KNOWN, "case")}
    facts["more"] = {name: value for name, value in said.items() if name not in facts}
    try:
        return CaseChange.model_validate(facts)
    except ValidationError as error:
        raise BadCaseTable(f"{where}: {_words(error, said)}") from None


def _words(error: ValidationError, said: Mapping[str, str]) -> str:
    """The first complaint in words; a value is named only where it can be no text of a report."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name == "date":
        return f"date {said[name]!r} is not a day; write it as 2024-03-01"
    if name == "sex":
        return f"sex {said[name]!r} is not known; write female, male or other"
    return f"{name}: {first['msg'].removeprefix('Value error, ')}"

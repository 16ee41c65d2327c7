"""On the case page: two groups of cases (treated and not, say) compared by their kinds of cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

import streamlit as st

from search.client.transport import ServiceError
from search.schemas.cases import (
    CaseFilter,
    CaseRecord,
    GroupDifference,
    GroupsAnswer,
    GroupsQuestion,
)
from ui.look import states
from ui.look.card import data_url
from ui.look.tables import badge, count, table
from ui.screens.cases.record import all_records
from ui.session.pictures import pictures
from ui.session.place import Place, collection_state

COLUMNS = {
    "treatment": "Treatment",
    "diagnosis": "Diagnosis",
    "diagnosis_code": "Code",
    "outcome": "Outcome",
    "sex": "Sex",
    "age_band": "Age band",
}
"""Columns of a record whose values can be groups."""


def compare_groups(place: Place) -> None:
    """The view: two groups chosen by what is recorded, and how their cells differ."""
    records = all_records(place)
    values = {column: counts for column in COLUMNS if len(counts := _values(records, column)) > 1}
    if not values:
        st.html(
            states.empty(
                "No two groups are known",
                "Groups are chosen by what is recorded of the cases, such as their treatment. "
                "Record it above, case by case, or all at once with",
                "hemaseek cases import",
            )
        )
        return
    column = st.selectbox(
        "Groups by", list(values), format_func=COLUMNS.__getitem__, key="groups-column"
    )
    chosen = _choose(column, values[column])
    if chosen is None:
        return
    first, second = chosen
    question = GroupsQuestion(
        first=CaseFilter.model_validate({column: first}),
        second=CaseFilter.model_validate({column: second}),
    )
    try:
        asked = question.model_dump_json()
        answer = _answer(place, place.name, asked, _state(records), collection_state())
    except ServiceError as error:
        if error.status not in {400, 422}:
            raise
        st.html(states.notes([states.sentence(str(error))]))
        return
    examples = [row.example.id for row in answer.rows if row.example]
    images = pictures(place.client, examples, place.name)
    st.html(groups_html(answer, (", ".join(first), ", ".join(second)), images))


def _values(records: Sequence[CaseRecord], column: str) -> Counter[str]:
    return Counter(str(value) for one in records if (value := getattr(one, column)) is not None)


def _choose(column: str, counts: Mapping[str, int]) -> tuple[list[str], list[str]] | None:
    """The values of both groups; the two most frequent at first."""
    names = sorted(counts, key=lambda one: (-counts[one], one))
    groups = []
    for side, at, title in zip(st.columns(2), (0, 1), ("First group", "Second group"), strict=True):
        groups.append(
            side.multiselect(
                title,
                names,
                default=[names[at]],
                format_func=partial(_named, counts),
                key=f"groups-{column}-{at}",
            )
        )
    first, second = groups
    if both := sorted(set(first) & set(second)):
        st.html(states.notes([f"“{both[0]}” is in both groups; leave it out of one of them."]))
        return None
    if not first or not second:
        st.html(states.notes(["Choose at least one value for each group."]))
        return None
    return first, second


def _named(counts: Mapping[str, int], value: str) -> str:
    return f"{value} · {count(counts[value], 'case')}"


def _state(records: Sequence[CaseRecord]) -> str:
    """Changes when a record does."""
    return f"{len(records)}-{max((edit.at for one in records for edit in one.edits), default='')}"


@st.cache_data(ttl=300, max_entries=50, show_spinner="Comparing the groups")
def _answer(
    _place: Place, name: str, question: str, records: str, state: tuple[str, int]
) -> GroupsAnswer:
    return _place.client.compare_groups(name, GroupsQuestion.model_validate_json(question))


def groups_html(answer: GroupsAnswer, names: tuple[str, str], images: Mapping[str, bytes]) -> str:
    """Both groups side by side: kinds of cells with an example each, then labels.

    Args:
        answer: The comparison.
        names: Of the groups.
        images: Pictures of the examples by id.
    """
    sizes = [
        f"{name}: {count(cases, 'case')} of {count(patients, 'patient')}"
        for name, cases, patients in (
            (names[0], answer.first_cases, answer.first_patients),
            (names[1], answer.second_cases, answer.second_patients),
        )
    ]
    if answer.both:
        sizes.append(f"{count(answer.both, 'patient')} in both groups")
    differ = sum(row.clear for row in answer.rows)
    verb = "differs" if differ == 1 else "differ"
    told = (
        f"{differ} of {count(len(answer.rows), 'row')} {verb} clearly: its interval leaves out 0 "
        "also when it is widened for the number of rows (Bonferroni)."
        if differ
        else "No row differs clearly, once its interval is widened for the number of rows."
    )
    parts = [
        '<h2 class="hs-section">Two groups of cases</h2>',
        states.facts(sizes),
        states.notes(list(answer.warnings)),
        f'<p class="hs-reason">Mean share of the cells of a case; each case counts alike. '
        f"Intervals: 95 %, over whole patients. {told}</p>",
    ]
    for kind, title in (("prototype", "Cells that look alike"), ("label", "Label")):
        rows = [_row(row, images) for row in answer.rows if row.kind == kind]
        if rows:
            heads = [title, "", *names, "Second minus first, points", ""]
            parts.append(table(heads, rows, text=[1, 5]))
    return "".join(parts) + f'<p class="hs-reason">{escape(answer.disclaimer)}</p>'


def _row(row: GroupDifference, images: Mapping[str, bytes]) -> list[str]:
    name = f"Kind {row.name}" if row.kind == "prototype" else row.name
    picture = ""
    if row.example and row.example.id in images:
        alt = escape(f"Typical cell of kind {row.name}")
        picture = f'<img class="hs-thumb" src="{data_url(images[row.example.id])}" alt="{alt}">'
    return [
        escape(name),
        picture,
        f"{row.first:.1%}",
        f"{row.second:.1%}",
        f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
        badge("differs", "warn") if row.clear else "",
    ]

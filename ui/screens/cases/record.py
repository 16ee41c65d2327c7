"""What is known of a case beside its cells, its mosaic by class, and similar cases with theirs."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any, Literal
from urllib.parse import urlencode

import streamlit as st

from search.client.transport import ServiceError
from search.schemas.cases import (
    CaseAnswer,
    CaseChange,
    CaseCount,
    CaseFacts,
    CaseFilter,
    CaseMatch,
    CaseQuestion,
    CaseRecord,
    CaseRecordsQuestion,
    CaseRecordsWanted,
    Distance,
)
from search.schemas.evaluations import CaseEvaluation
from search.schemas.questions import BagField
from ui.look import states
from ui.look.card import card, data_url
from ui.look.gallery import EXCLUSION
from ui.look.tables import count, moment, table
from ui.session.pictures import pictures
from ui.session.place import Place, collection_state
from ui.widgets.saving import save_button

COLUMNS = {
    "diagnosis": "Diagnosis",
    "diagnosis_code": "Code",
    "date": "Date",
    "treatment": "Treatment",
    "outcome": "Outcome",
    "sex": "Sex",
    "age_band": "Age band",
}
"""Columns of a record with their labels, in the order of the header."""
SHORT = ("diagnosis", "diagnosis_code", "date", "treatment", "outcome")
"""Columns that the form of a correction has in one line each."""
DISTANCES: dict[Distance, str] = {
    "composition": "Cell composition, against the usual",
    "max_sim": "Cell by cell",
    "vlad": "Around prototypes",
    "prototypes": "Shares of prototypes",
    "mean": "Mean of the cells",
    "transport": "Distribution of the cells",
}


def facts_of(place: Place, found: CaseCount) -> CaseFacts:
    """What there is of the case; asked for once for each state of its records and cells."""
    changes = st.session_state.get("case-records", 0)
    seen = (place.name, found.by, found.value, changes, collection_state())
    kept = st.session_state.get("case-facts")
    if kept is None or kept[0] != seen:
        kept = (seen, place.client.case(found.value, place.name, found.by))
        st.session_state["case-facts"] = kept
    facts: CaseFacts = kept[1]
    return facts


def header(place: Place, facts: CaseFacts) -> None:
    """The records of a case at a glance, with the form that corrects them and their history."""
    saved = st.session_state.pop("case-record-saved", "")
    if saved:
        st.html(states.notes([saved], "good"))
    for record in facts.records:
        st.html(record_html(record, alone=len(facts.records) == 1))
        if record.report:
            with st.expander("Report"):
                st.text(record.report)
        if record.edits:
            with st.expander(f"History ({count(len(record.edits), 'change')})"):
                st.html(_history(record))
    if facts.by != "case":
        return
    if not facts.records:
        st.html(
            '<p class="hs-reason">No diagnosis, date or treatment is recorded of this case. Add '
            "them here, or all at once with <code>hemaseek cases import</code>.</p>"
        )
    with st.expander("Correct the record" if facts.records else "Add a record"):
        _form(place, facts)


def known_of(record: CaseRecord) -> dict[str, str]:
    """What is known of a case, by labels in the order of the header; further columns last."""
    known = [(label, getattr(record, name)) for name, label in COLUMNS.items()]
    known += [(name.replace("_", " ").capitalize(), one) for name, one in record.more.items()]
    return {label: _words(value) for label, value in known if value is not None}


def download(place: Place, facts: CaseFacts, counted: CaseCount) -> None:
    """A button that makes the case's PDF."""

    def made() -> bytes:
        from ui.exports.case_report import case_report

        ids = [cell.item.id for cell in facts.mosaic]
        records = {record.case: known_of(record) for record in facts.records}
        images = pictures(place.client, ids, place.name)
        return case_report(facts, counted, records, images, datetime.now(UTC))

    save_button("PDF of this case", made, "case.pdf")


def record_html(record: CaseRecord, *, alone: bool = True) -> str:
    """A record as a list of what is known; further columns last."""
    said = "".join(
        f"<li>{escape(label)}: <b>{escape(value)}</b></li>"
        for label, value in known_of(record).items()
    )
    title = "" if alone else f'<h3 class="hs-section">{escape(record.case)}</h3>'
    return f'{title}<ul class="hs-facts" aria-label="Record of the case">{said}</ul>'


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _history(record: CaseRecord) -> str:
    rows = []
    for edit in reversed(record.edits):
        for name, after in edit.after.items():
            before = edit.before.get(name)
            rows.append(
                [
                    escape(moment(edit.at)),
                    escape(edit.author or edit.caller),
                    escape(COLUMNS.get(name, name)),
                    escape("" if before is None else _words(before)[:80]),
                    escape("withdrawn" if after is None else _words(after)[:80]),
                ]
            )
    return table(["When", "By", "What", "Before", "After"], rows, text=(1, 2, 3, 4))


def _form(place: Place, facts: CaseFacts) -> None:
    record = facts.records[0] if facts.records else CaseRecord(case=facts.value)
    with st.form("case-record", border=False):
        given = {
            name: st.text_input(
                COLUMNS[name],
                value="" if getattr(record, name) is None else str(getattr(record, name)),
                placeholder="2024-03-01" if name == "date" else "",
                max_chars=300,
            )
            for name in SHORT
        }
        author = st.text_input(
            "Your name or initials", value=st.session_state.get("case-reviewer", ""), max_chars=100
        )
        sent = st.form_submit_button("Save the record", type="primary")
    if not sent:
        return
    known = {name: getattr(record, name) for name in SHORT}
    new = {name: value.strip() for name, value in given.items() if value.strip()}
    clear = tuple(n for n in SHORT if known[n] is not None and n not in new)
    try:
        change = CaseChange.model_validate({"case": facts.value, "clear": clear, **new})
    except ValueError:
        st.html(states.notes([f"{new.get('date')!r} is not a day; write it as 2024-03-01."], "bad"))
        return
    wanted = CaseRecordsWanted(changes=(change,), author=author.strip() or None)
    try:
        done = place.client.change_cases(place.name, wanted)
    except ServiceError as error:
        more = " Correcting needs the role write." if error.status == 403 else ""
        st.html(states.notes([f"Nothing was saved: {error}.{more}"], "bad"))
        return
    st.session_state["case-reviewer"] = author.strip()
    st.session_state["case-records"] = st.session_state.get("case-records", 0) + 1
    st.session_state["case-record-saved"] = (
        "The record is saved; earlier values are in its history."
        if done.written
        else "The record says that already; nothing was changed."
    )
    st.rerun()


def mosaic(place: Place, facts: CaseFacts) -> None:
    """Cells that stand for all of the case, by class, each class with its share."""
    if not facts.mosaic:
        st.html(states.empty("No cell to show", "The case has no items any more."))
        return
    classes: dict[str, list[Any]] = {}
    for cell in facts.mosaic:
        classes.setdefault(cell.item.label or "no label", []).append(cell)
    images = pictures(place.client, [cell.item.id for cell in facts.mosaic], place.name)
    st.html(
        f'<p class="hs-reason">{count(len(facts.mosaic), "cell")} that stand for all '
        f"{facts.items:,}: each cell of the case looks like one of its own class here. The share "
        "says how many do.</p>"
    )
    order = sorted(classes, key=lambda name: -sum(cell.share for cell in classes[name]))
    for name in order:
        cells = sorted(classes[name], key=lambda cell: -cell.share)
        cards = "".join(
            card(cell.item, images[cell.item.id], note=f"like {cell.share:.1%} of the case")
            for cell in cells
            if cell.item.id in images
        )
        share = sum(cell.share for cell in cells)
        st.html(
            f'<h3 class="hs-section">{escape(name)} {share:.0%}</h3>'
            f'<div class="hs-small"><ol class="hs-grid" aria-label="{escape(name)}">{cards}</ol>'
            "</div>"
        )


def similar(place: Place, found: CaseCount) -> None:
    """The most similar cases, what is known of each, and the cells that matched."""
    question = _question(place, found)
    with st.spinner("Comparing with other cases"):
        answer: CaseAnswer = _cases(
            place,
            question.model_dump_json(),
            st.session_state.get("case-records", 0),
            collection_state(),
        )
    if answer.warnings:
        st.html(states.notes(answer.warnings))
    if not answer.cases:
        st.html(states.empty("No other case", "No other case meets the conditions above."))
        return
    ids = [pair.item.id for match in answer.cases for pair in match.pairs]
    ids += [pair.query_item for match in answer.cases for pair in match.pairs if pair.query_item]
    images = pictures(place.client, ids, place.name)
    st.html(
        told(answer) + f'<p class="hs-reason">{count(answer.compared, "other")} compared'
        f"{'' if answer.complete else ', the nearest of all by what stands for each'}; "
        f"{escape(EXCLUSION[answer.patient_exclusion])}. Left of each pair is a cell of this case, "
        "right the most similar cell of theirs.</p>"
    )
    for at, match in enumerate(answer.cases, 1):
        st.html(_match(at, match, images, answer.by, place.in_address))


def _question(place: Place, found: CaseCount) -> CaseQuestion:
    by: Literal["case", "patient", "source"] = found.by
    left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
    with left:
        words = st.multiselect(
            "Only cases with this diagnosis",
            sorted({one.diagnosis for one in all_records(place) if one.diagnosis is not None}),
            key="case-diagnoses",
            placeholder="Any diagnosis",
        )
    with middle:
        distance = st.selectbox(
            "Compare by", list(DISTANCES), format_func=DISTANCES.__getitem__, key="case-distance"
        )
    with right:
        white = st.toggle(
            "White cells",
            key="case-white",
            disabled=by == "patient",
            help="Leaves out what the cell finder took for red cells and platelets.",
        )
    return CaseQuestion(
        collection=place.name,
        by=by,
        case=found.value,
        k=6,
        pairs=6,
        distance=distance,
        found="white" if white and by != "patient" else "all",
        of_cases=CaseFilter(diagnosis=tuple(words)),
    )


def all_records(place: Place) -> list[CaseRecord]:
    """The records of all cases of the collection, cached for five minutes."""
    changes = st.session_state.get("case-records", 0)
    return _records(place, place.name, changes, collection_state())


@st.cache_data(ttl=300, max_entries=8, show_spinner=False)
def _records(_place: Place, name: str, changes: int, state: tuple[str, int]) -> list[CaseRecord]:
    found: list[CaseRecord] = []
    after = None
    while True:
        page = _place.client.case_records(name, CaseRecordsQuestion(limit=1000, after=after))
        found += page.records
        if (after := page.next) is None:
            return found


@st.cache_data(ttl=300, max_entries=50, show_spinner=False)
def _cases(_place: Place, question: str, changes: int, state: tuple[str, int]) -> Any:
    return _place.client.similar_cases(CaseQuestion.model_validate_json(question))


def told(answer: CaseAnswer) -> str:
    """What is recorded of the similar cases, counted by patient: no finding about this one."""
    whose: dict[str, set[str]] = {}
    for match in answer.cases:
        for one in match.records:
            own = match.patients[0] if len(match.patients) == 1 else f"(of {one.case})"
            if one.diagnosis:
                whose.setdefault(one.diagnosis, set()).add(one.patient or own)
    if not whose:
        return ""
    said = ", ".join(
        f"{escape(word)} ({count(len(own), 'patient')})" for word, own in whose.items()
    )
    return (
        f'<p class="hs-reason">Recorded of the {len(answer.cases)} most similar cases, of '
        f"{count(len(set().union(*whose.values())), 'patient')}: <b>{said}</b>. They look alike; "
        "that is no diagnosis of this case.</p>"
    )


def _match(
    at: int, match: CaseMatch, images: dict[str, bytes], by: BagField, collection: str | None
) -> str:
    pairs = "".join(
        f'<li><figure><img src="{data_url(images[pair.query_item])}" alt="A cell of this case">'
        f'<img src="{data_url(images[pair.item.id])}" '
        f'alt="{escape(pair.item.label or "no label")}, of case {escape(match.value)}"></figure>'
        f"{escape(pair.item.label or 'no label')} {pair.score:.3f}</li>"
        for pair in match.pairs
        if pair.query_item in images and pair.item.id in images
    )
    shares = ", ".join(
        f"{label} {share:.0%}" for label, share in list(match.differential.shares.items())[:5]
    )
    site = f" · {', '.join(match.sites)}" if match.sites else ""
    records = "".join(record_html(one, alone=len(match.records) == 1) for one in match.records)
    unknown = '<p class="hs-faint">Nothing is recorded of it.</p>'
    there = {"by": by, "case": match.value}
    address = escape(urlencode(there | ({"collection": collection} if collection else {})))
    link = f'<a href="?{address}" target="_self" style="color:inherit">'
    return (
        f'<section class="hs-panel"><h3 class="hs-section">{at}. '
        f"{link}{escape(match.value)}</a></h3>{records or unknown}"
        f'<p class="hs-faint">distance {match.distance:.3f} · '
        f"{count(match.cells, 'cell')}{escape(site)}<br>{escape(shares)}</p>"
        f"<ol class='hs-pairs'>{pairs}</ol></section>"
    )


SCORES = {
    "top_1": "Nearest",
    "top_3": "Among 3",
    "top_5": "Among 5",
    "map": "mAP",
    "vote": "Majority vote",
}


def scores_html(found: CaseEvaluation) -> str:
    """How often similar cases have the label of the query case."""
    rows = []
    for one in found.scores:
        cells = [escape(DISTANCES[one.distance])]
        for name in SCORES:
            span = one.intervals[name]
            value = getattr(one, name)
            cells.append(f"{value:.3f} [{span.low:.3f}, {span.high:.3f}]")
        over = one.over_mean and one.over_mean["map"]
        cells.append(f"{over.difference:+.3f} (p {over.p:.3f})" if over else "")
        rows.append(cells)
    chance = [f"{found.chance[name]:.3f}" if name in found.chance else "" for name in SCORES]
    rows.append(["Random order", *chance, ""])
    best = max(found.scores, key=lambda one: one.map)
    labels = [
        [escape(one.label), str(one.cases), f"{one.top_1:.3f}", f"{one.vote:.3f}"]
        for one in best.labels
    ]
    caption = (
        f"Share of {found.asked:,} cases of {count(found.patients, 'patient')} whose most similar "
        f"cases of other patients have the same {found.column.replace('_', ' ')}, with 95 % "
        "confidence intervals over whole patients."
    )
    return (
        states.notes(list(found.notes))
        + table(["Compared by", *SCORES.values(), "mAP over mean"], rows, caption)
        + table(
            [found.column.replace("_", " ").capitalize(), "Cases", "Nearest", "Majority vote"],
            labels,
            f"By {DISTANCES[best.distance].lower()}; least often found: {best.worst}.",
        )
    )

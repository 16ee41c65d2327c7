"""On the case page: what a case model says of the case, and on which cells that rests."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import streamlit as st

from search.client.transport import ServiceError
from search.schemas.cases import CaseCount
from search.schemas.mil import MilAnswer, MilCell, MilModel, MilPlan, MilQuestion, Pooling
from ui.look import states
from ui.look.card import card
from ui.look.palette import shade
from ui.look.tables import badge, count, table
from ui.session.jobs import follow, outcome
from ui.session.pictures import pictures
from ui.session.place import Place, show_note
from ui.session.results import shown_source
from ui.widgets.viewer import Mark, mark, viewer

SHOWN = 24
"""Cells that speak most for the answer, and are shown."""
POOLINGS: dict[Pooling, str] = {
    "abmil_gated": "Attention (gated)",
    "abmil": "Attention",
    "clam_sb": "CLAM",
    "transmil": "Transformer (TransMIL)",
    "mean": "Mean of the cells",
    "max": "Strongest cell",
}
HEADLINE = {
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
    "c_index": "c-index",
}
JOB = "case-model-job"


def read(place: Place, found: CaseCount) -> MilModel | None:
    """The view of a case model: verdict, probabilities, attention on cells and on the slide.

    Returns:
        The model that was chosen; `None` where there is none yet.
    """
    show_note("case-model-said")
    models = place.client.models(place.name)
    chosen: MilModel | None = None
    if models:
        newest = [*reversed(models)]
        chosen = st.selectbox("Case model", newest, format_func=_named, key="case-model")
        _answer(place, found, chosen)
    else:
        st.html(
            states.empty(
                "No case model yet",
                "A case model learns a column of the cases, such as the one below, from their "
                "cells.",
                "hemaseek mil train",
            )
        )
    if not follow(place.client, JOB, "Training", _ended):
        _training(place)
    return chosen


def _answer(place: Place, found: CaseCount, model: MilModel) -> None:
    question = MilQuestion(model=model.id, case=found.value, by=found.by, order="effect")
    try:
        answer = place.client.predict_case(place.name, question)
    except ServiceError as error:
        st.html(states.notes([str(error)], "bad"))
        return
    st.html(verdict(answer, model))
    top = answer.cells[:SHOWN]
    images = pictures(place.client, [one.item.id for one in top if one.item], place.name)
    cards = "".join(
        card(one.item, images[one.item.id], number=at, note=told(one))
        for at, one in enumerate(top, 1)
        if one.item and one.item.id in images
    )
    st.html(
        f'<h2 class="hs-section">{_heading(answer, len(top))}</h2><div class="hs-small">'
        f'<ol class="hs-grid" aria-label="Cells by what they count">{cards}</ol></div>'
    )
    _on_slide(place, answer.cells)


def told(one: MilCell) -> str:
    """What one cell did for the answer, in words."""
    attention = f"attention {one.attention:.1%}"
    return attention if one.effect is None else f"effect {one.effect:+.2f} · {attention}"


def _heading(answer: MilAnswer, shown: int) -> str:
    cells = f"The {count(shown, 'cell')}"
    if answer.cells and answer.cells[0].effect is None:
        return f"{cells} with most attention, of {answer.looked_at:,}"
    towards = "a higher risk" if answer.towards is None else escape(answer.towards)
    return f"{cells} that speak most for {towards}, of {answer.looked_at:,}"


def verdict(answer: MilAnswer, model: MilModel) -> str:
    """What the model says, how sure, on what that rests, and how good it was on held-out cases."""
    facts = [
        f"{count(model.cases, 'case')} of {count(model.patients, 'patient')}",
        *(
            f"held-out {words} {value:.2f} [{span.low:.2f}, {span.high:.2f}]"
            for name, words in HEADLINE.items()
            if (value := model.scores.figures.get(name)) is not None
            and (span := model.scores.intervals.get(name)) is not None
        ),
        {
            "applied": "answered by networks that did not see this patient",
            "impossible": "the patient is not known: it may have been trained on",
        }.get(answer.unseen, "not held out"),
    ]
    if model.stale:
        facts.append("the collection has changed since it was trained")
    head = badge(answer.label, "good") if answer.label else badge("Not sure", "warn")
    if answer.risk is not None:
        head = badge(f"risk above {answer.risk_percentile or 0:.0%} of the cases", "")
    rows = [
        [escape(name), f'<i class="hs-meter" style="width:{share:.1%}"></i> {share:.0%}']
        for name, share in answer.probabilities.items()
    ]
    shares = table([escape(model.plan.label.capitalize()), "Probability"], rows) if rows else ""
    return (
        f'<h2 class="hs-section">{head}</h2><p class="hs-reason">{escape(answer.reason)}</p>'
        + shares
        + states.facts(facts)
        + states.notes([*model.notes, *answer.warnings])
        + f'<p class="hs-faint">{escape(answer.disclaimer)}</p>'
    )


def attended(cells: Sequence[MilCell], source: str) -> list[Mark]:
    """The boxes of a source's cells, from blue to yellow with their effect, or attention."""
    found = []
    most = max(map(counts_for, cells), default=0.0)
    for one in sorted(cells, key=counts_for):  # those that count most on top
        if one.item is None or one.item.source != source:
            continue
        share = share_of(one, most)
        text = f"{told(one)} · {one.item.label or 'no label'}"
        box = mark(one.item, shade(share), text, strong=share > 0.7)
        if box is not None:
            found.append(box)
    return found


def share_of(one: MilCell, most: float) -> float:
    """How far a cell is coloured, from 0 to 1 for the one that counts `most`."""
    return (counts_for(one) / most) ** 0.5 if most else 0.0


def counts_for(one: MilCell) -> float:
    """What colours a cell: its effect, none where it speaks against the answer; or attention."""
    return one.attention if one.effect is None else max(0.0, one.effect)


def _on_slide(place: Place, cells: Sequence[MilCell]) -> None:
    weights: dict[str, float] = {}
    for one in cells:
        if one.item and one.item.bbox:
            weights[one.item.source] = weights.get(one.item.source, 0.0) + one.attention
    if not weights:
        return
    order = sorted(weights, key=lambda one: (-weights[one], one))
    at = st.selectbox(
        "Slide or field",
        range(len(order)),
        format_func=lambda n: f"Picture {n + 1} · {weights[order[n]]:.0%} of the attention",
        key="case-model-source",
    )
    source = shown_source(place, order[at])
    if source is None:
        return
    viewer(source, attended(cells, order[at]), f"case-model-{order[at]}")
    st.html(
        '<p class="hs-reason">Boxes from blue (counts little, or against the answer) to yellow '
        "(counts most).</p>"
    )


def _training(place: Place) -> None:
    with st.expander("Train a case model"), st.form("case-model-train", border=False):
        left, middle, right = st.columns(3)
        with left:
            label = st.text_input(
                "Column to learn", MilPlan().label, help="A column of the records of cases."
            )
        with middle:
            pooling = st.selectbox("Pooling", list(POOLINGS), format_func=POOLINGS.__getitem__)
        with right:
            name = st.text_input("Name", "model", max_chars=60)
        sent = st.form_submit_button("Train", type="primary")
    if not sent:
        return
    plan = MilPlan(label=label.strip() or MilPlan().label, pooling=pooling, name=name or "model")
    try:
        st.session_state[JOB] = place.client.train_model(place.name, plan).id
    except ServiceError as error:
        role = " Training needs the role write." if error.status == 403 else ""
        st.session_state["case-model-said"] = (f"{error}.{role}", "bad")
    st.rerun()


def _ended(job: Any) -> None:
    words, tone = outcome(job)
    st.session_state["case-model-said"] = (words or "The model is trained.", tone)


def _named(model: MilModel) -> str:
    return f"{model.name} · {model.plan.label} · {POOLINGS[model.plan.pooling]}"

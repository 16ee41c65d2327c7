"""Two evaluations compared query by query: a verdict and a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from search.client.client import Client
from search.client.transport import ServiceError
from search.schemas.evaluations import PairedResult, PairedScore
from ui.look import states
from ui.look.tables import count, plain, table

SCORES = {
    "weighted_f1": "Weighted F1",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
}
UNITS = {"patient": "patients", "source": "sources", "mixed": "patients and sources"}


@st.cache_data(max_entries=32, show_spinner="Comparing cell by cell")
def _paired(_client: Client, id: str, other: str, method: str) -> PairedResult:
    return _client.paired(id, other, method)


def side_by_side(client: Client, id: str, other: str, method: str) -> None:
    """Draw the comparison, or say why there is none."""
    try:
        found = _paired(client, id, other, method)
    except ServiceError as error:
        if error.status != 422:
            raise
        st.html(states.notes([f"They cannot be compared cell by cell: {error}."]))
        return
    st.html(comparison(found))
    with st.expander("By label"):
        st.html(by_label(found))


def comparison(found: PairedResult) -> str:
    """The verdict, what lies behind it, and the scores of both with their difference."""
    tone = "warn" if found.verdict == "not shown" else "good"
    one, other = _names(found)
    chances = (
        "McNemar's test does not apply: several cells are of one patient or source"
        if found.mcnemar is None
        else f"McNemar's exact test: p {_p(found.mcnemar)}"
    )
    facts = [
        f"{count(found.asked, 'query', 'queries')} in both",
        f"both correct {found.both_right:,}",
        f"only {one} {found.only_first:,}",
        f"only {other} {found.only_second:,}",
        f"neither {found.neither:,}",
        chances,
    ]
    caption = (
        f"The same cells, {found.first.method}; 95 % confidence intervals of the "
        f"difference, paired bootstrap over {found.clusters:,} {UNITS[found.unit]}."
    )
    return (
        '<h3 class="hs-section">Cell by cell</h3>'
        + states.notes([found.words], tone)
        + states.notes(list(found.notes))
        + states.facts(facts)
        + table(
            ["", one, other, "Difference", ""],
            [_row(SCORES.get(score.name, score.name), score) for score in found.scores],
            caption,
            text=[4],
        )
    )


def by_label(found: PairedResult) -> str:
    """The recall of each label in both, the largest difference first."""
    one, other = _names(found)
    order: Sequence[PairedScore] = sorted(
        found.classes, key=lambda score: (-abs(score.difference), score.name)
    )
    rows = [[*_row(score.name, score), plain(score.asked)] for score in order]
    return table(["Recall", one, other, "Difference", "", "Queries"], rows, text=[4])


def _row(name: str, score: PairedScore) -> list[str]:
    low, high = score.span.low, score.span.high
    clear = low > 0 or high < 0
    return [
        escape(name),
        plain(score.first),
        plain(score.second),
        f'{score.difference:+.3f}<span class="hs-faint">[{low:+.3f}, {high:+.3f}]</span>',
        "differs" if clear else "not shown to differ",
    ]


def _names(found: PairedResult) -> tuple[str, str]:
    """What the two are called: by encoder, by version where that is the same."""
    first, second = found.first, found.second
    if first.encoder != second.encoder:
        return first.encoder, second.encoder
    if (first.collection, first.version) != (second.collection, second.version):
        return f"version {first.version}", f"version {second.version}"
    return "this evaluation", "the other"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"

"""*Evaluate*: how often the neighbours vote for the recorded label, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html import escape
from typing import get_args

import streamlit as st

from search.client.client import Client
from search.schemas.evaluations import (
    EvaluationPlan,
    EvaluationRecord,
    EvaluationResult,
    MethodResult,
    SplitName,
)
from search.schemas.filters import Filter
from search.schemas.questions import Labels
from search.settings import Settings
from ui.exports.downloads import scores_csv
from ui.exports.evaluation_report import markdown
from ui.look import states
from ui.look.card import card
from ui.look.curves import chart
from ui.look.palette import SEQUENCE, shade
from ui.look.tables import count, moment, plain, table
from ui.look.theme import contrast
from ui.screens.cases.record import scores_html
from ui.screens.detail import Shown, open_item
from ui.screens.paired import UNITS, side_by_side
from ui.session.jobs import follow, outcome
from ui.session.navigation import begin_with, show_in_address
from ui.session.pictures import measurable
from ui.session.place import Place, collection_state, guarded, needs_role, opened, show_note
from ui.widgets.board import board
from ui.widgets.saving import save_button

JOB = "evaluate-job"
NOTE = "evaluate-note"
SCORES = {
    "weighted_f1": "Weighted F1",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "map_at_k": "mAP at k",
}
SPLITS = {
    "auto": "Automatic",
    "leave-one-patient-out": "Leave one patient out",
    "leave-one-source-out": "Leave one source out",
    "leave-one-site-out": "Leave one site out",
    "one-site-in": "Train on one site, test on each other",
    "stratified": "Stratified folds of whole patients",
    "temporal": "Temporal split",
}
LABELS = {"reviewed": "Reviewed, else recorded", "recorded": "Recorded only"}
SHOWN = 24
"""Pictures of a confusion that are shown."""
NOBODY = "Nothing"
VIEWS = ("Confusions", "Classes", "Curves", "Index and site")


def show() -> None:
    """Draw the page."""
    place = opened(
        "Evaluate",
        "How often the neighbours vote for the recorded label, and where they do not.",
    )
    if place is None:
        return
    with guarded():
        show_note(NOTE)
        left, right = st.columns([1, 3], gap="medium")
        with left:
            going = _follow(place.client)
            if not going:
                _begin(place)
        done = [one for one in place.client.evaluations() if one.state == "done"]
        with right:
            if not done:
                st.html(
                    states.empty(
                        "The first evaluation is running",
                        "Its figures will be shown here. You may leave this page meanwhile.",
                    )
                    if going
                    else states.empty(
                        "No evaluation yet",
                        "Choose a train-test split at the left, then start. Nothing is changed.",
                    )
                )
                return
            _shown(place, done)


def upload_limit(mib: float) -> int:
    """The largest upload up to a limit, in MiB, that Streamlit does not promise more than.

    It says whole gigabytes, of 10^9 bytes and rounded, from half of one on: 512 MiB would be
    1GB, and the service would refuse what the page asks for.
    """
    gigabytes = mib * 2**20 / 1e9
    if 0.5 < gigabytes < round(gigabytes):
        mib = (round(gigabytes) - 0.5) * 1e9 / 2**20
    return max(1, int(mib))


def _follow(client: Client) -> bool:
    return follow(client, JOB, "Evaluating", _ended, client.evaluation, client.end_evaluation)


def _ended(job: EvaluationRecord) -> None:
    words, tone = outcome(job)
    st.session_state[NOTE] = (words or "The evaluation is done.", tone)


def _begin(place: Place) -> None:
    with st.form("evaluate-plan"):
        st.html(f'<h2 class="hs-section">Evaluate {escape(place.name)}</h2>')
        split: SplitName = st.selectbox(
            "Train-test split",
            list(get_args(SplitName)),
            format_func=lambda one: SPLITS.get(one, one),
            help="A cell is never judged by cells of its own patient, case or source.",
        )
        ks = st.multiselect("Neighbours (k)", [1, 3, 5, 10, 20, 50], default=[1, 5, 20])
        labels: Labels = st.selectbox(
            "Labels",
            list(get_args(Labels))[::-1],
            format_func=lambda one: LABELS[one],
            help="What counts as the label of a cell, in the queries and in the reference set.",
        )
        probe = st.checkbox("Linear probe", value=True)
        index = st.checkbox("Approximate vs exact search", value=True)
        few = st.number_input(
            "Number of queries",
            20,
            100_000,
            2000,
            step=500,
            help="At most; all other cells stay in the reference set.",
        )
        labelled = st.file_uploader(
            "Your own test set",
            type=["zip", "parquet"],
            max_upload_size=upload_limit(Settings().max_shard_mb),
            help="A ZIP of pictures whose folders are labels, or a shard. It is not kept.",
        )
        sent = st.form_submit_button("Start evaluation", type="primary")
    if not sent:
        return
    if not ks:
        st.html(states.notes(["Choose at least one number of neighbours."]))
        return
    plan = EvaluationPlan(
        collection=place.name,
        split=split,
        ks=tuple(ks),
        probe=probe,
        ann=index,
        ask=int(few),
        labels=labels,
    )
    with needs_role("write", "The evaluation was not started"):
        begun = place.client.evaluate(plan, labelled.getvalue() if labelled else None)
        st.session_state[JOB] = begun.id
        st.rerun()


# ---------------------------------------------------------------- results


@st.cache_data(max_entries=16, ttl=60, show_spinner="Reading the evaluation")
def _record(_client: Client, id: str, state: tuple[str, int]) -> EvaluationRecord:
    return _client.evaluation(id)


def _shown(place: Place, done: Sequence[EvaluationRecord]) -> None:
    names = _names(done)
    one_at, other_at = st.columns([1, 1])
    with one_at:
        begin_with("evaluate-id", "evaluation", names)
        id = st.selectbox(
            "Evaluation", list(names), format_func=names.__getitem__, key="evaluate-id"
        )
    with other_at:
        others = [one for one in names if one != id]
        begin_with("evaluate-beside", "against", others)
        beside = st.selectbox(
            "Compare with",
            [NOBODY, *others],
            format_func=lambda one: names.get(one, one),
            key="evaluate-beside",
            help="Another encoder, another version, another split.",
        )
    against = None if beside == NOBODY else beside
    show_in_address(evaluation=id, against=against, collection=place.in_address)
    record = _record(place.client, id, collection_state())
    result = record.result
    if record.cases is not None:
        st.html(scores_html(record.cases))
        return
    if result is None:
        st.html(states.notes(["The result of this evaluation was deleted; start it again."]))
        return
    other = None if beside == NOBODY else _record(place.client, beside, collection_state()).result
    if record.stale:
        st.html(states.notes(["The collection has changed since this evaluation."]))
    st.html(_facts(result))
    st.html(_scores(result, other))
    methods = {one.method: one for one in votes_first(result)}
    best = record.headline.method if record.headline else next(iter(methods))
    begin_with("evaluate-method", "method", methods)
    if st.session_state.get("evaluate-method") not in methods:
        st.session_state["evaluate-method"] = best
    name = st.segmented_control("Details of", list(methods), key="evaluate-method") or best
    method = methods[name]
    twin = next((one for one in other.methods if one.method == name), None) if other else None
    if other and twin is None:
        st.html(states.notes([f"The other evaluation has no {name}."]))
    elif other:
        side_by_side(place.client, id, beside, name)
    _closer(place, record, result, method, twin)
    _downloads(record, result)


def _downloads(record: EvaluationRecord, result: EvaluationResult) -> None:
    """The figures as files."""
    stem = f"evaluation-{record.id[:8]}"
    command = f"an evaluation of the page, {record.id}"
    with st.container(horizontal=True, gap="xsmall"):
        save_button("CSV", partial(scores_csv, result), f"{stem}.csv")
        save_button("Markdown", partial(markdown, result, None, [command], ""), f"{stem}.md")
        save_button("JSON", partial(record.model_dump_json, indent=2), f"{stem}.json")


def _names(done: Sequence[EvaluationRecord]) -> dict[str, str]:
    """What a choice of evaluations shows, the newest first; no two the same, for a choice is known
    by its words."""
    names: dict[str, str] = {}
    for one in reversed(done):
        best = one.headline
        head = f", {best.method} weighted F1 {best.weighted_f1:.3f}" if best else ""
        version = f" version {one.version}" if one.version else ""
        version += f", {one.encoder}" if one.encoder else ""
        split = f", {SPLITS[one.plan.split].lower()} split"
        if one.plan.cases is not None:
            split = f", similar cases by {one.plan.cases.column}"
        name = f"{one.collection}{version}{head}{split} ({moment(one.made)})"
        names[one.id] = f"{name} {one.id[:8]}" if name in names.values() else name
    return names


def _facts(result: EvaluationResult) -> str:
    data = result.data
    words = [
        f"encoder {result.encoder.id}",
        result.split.words,
        f"{data.asked:,} of {count(data.used, 'cell')} used as queries",
        count(data.patients, "patient") if data.patients else "patients unknown",
        count(data.sites, "site") if data.sites else "sites unknown",
        f"confidence intervals over {result.clusters:,} {UNITS[result.unit]}",
    ]
    if data.labels == "reviewed" and data.reviewed:
        words.append(f"{count(data.reviewed, 'label')} by reviewers")
    return states.notes(list(result.notes)) + states.facts(words)


def _scores(result: EvaluationResult, other: EvaluationResult | None) -> str:
    """Every method with its intervals; with another evaluation, its figure under each."""
    twins = {one.method: one for one in other.methods} if other else {}
    kept = [
        key for key in SCORES if any(getattr(one.scores, key) is not None for one in result.methods)
    ]
    rows = [
        [escape(one.method), *(_score(one, key, twins.get(one.method)) for key in kept)]
        for one in votes_first(result)
    ]
    if any(one.answerable is not None for one in result.methods):
        rows += [
            [
                f'{escape(one.method)}<span class="hs-faint">answerable queries alone</span>',
                *(plain(getattr(one.answerable, key)) for key in kept),
            ]
            for one in votes_first(result)
            if one.answerable is not None
        ]
    caption = (
        f"{states.sentence(result.split.words)} 95 % confidence intervals in brackets, bootstrap "
        f"over {UNITS[result.unit]}. k-NN is the vote of the k nearest neighbours, as a search "
        "answers; the linear probe is a classifier trained on the vectors."
    )
    if any(one.scores.map_at_k is not None for one in result.methods):
        caption += (
            " mAP at k scores the order of all k neighbours, the vote only which label leads: with "
            "more neighbours one may rise while the other falls."
        )
    if other:
        caption += f" Below each: {other.encoder.id}, version {other.data.version}."
    return table(["", *(SCORES[key] for key in kept)], rows, caption) + _over_folds(result)


def votes_first(result: EvaluationResult) -> list[MethodResult]:
    """The methods, votes of neighbours before the probe."""
    return sorted(result.methods, key=lambda one: (one.k is None, one.k or 0))


def _of(result: EvaluationResult, method: MethodResult) -> str:
    """Whose figures these are: the method and the split."""
    return f"{method.method}. {states.sentence(result.split.words)}"


def _over_folds(result: EvaluationResult) -> str:
    """Mean and standard deviation over the folds; nothing where there are none."""
    spreads = {one.method: one.over_folds() for one in result.methods}
    folds = max((len(one.per_fold) for one in result.methods), default=0)
    rows = [
        [escape(name), *(f"{mean:.3f} ± {sd:.3f}" for mean, sd in spread.values())]
        for name, spread in spreads.items()
        if spread
    ]
    if folds < 2 or not rows:
        return ""
    heads = [SCORES[key] for key in next(filter(None, spreads.values()))]
    return table(["", *heads], rows, f"Mean ± standard deviation over {folds} folds.")


def _score(one: MethodResult, key: str, twin: MethodResult | None) -> str:
    value = getattr(one.scores, key)
    if value is None:
        return plain(None)
    span = one.intervals.get(key)
    cell = f"{value:.3f}"
    if span:
        cell += f'<span class="hs-faint">[{span.low:.3f}, {span.high:.3f}]</span>'
    if twin is not None and (theirs := getattr(twin.scores, key)) is not None:
        cell += f'<span class="hs-faint">{theirs:.3f} ({value - theirs:+.3f})</span>'
    return cell


def _closer(
    place: Place,
    record: EvaluationRecord,
    result: EvaluationResult,
    method: MethodResult,
    twin: MethodResult | None,
) -> None:
    if method.notes:
        st.html(states.notes(list(method.notes)))
    begin_with("evaluate-view", "view", VIEWS)
    st.session_state.setdefault("evaluate-view", VIEWS[0])
    view = st.segmented_control("View", VIEWS, key="evaluate-view", label_visibility="collapsed")
    show_in_address(method=method.method, view=None if view == VIEWS[0] else view)
    if view == "Classes":
        st.html(classes(result, method))
    elif view == "Curves":
        _curves(result, method, twin)
    elif view == "Index and site":
        _index(result)
    else:
        _confusions(place, record, result, method)


def classes(result: EvaluationResult, method: MethodResult) -> str:
    """The scores of each label; those that nobody can answer right under the split come apart."""
    rows, apart = [], []
    for one in sorted(method.classes, key=lambda one: (one.recall is None, one.recall or 0)):
        if one.answerable == 0 and one.asked:
            apart.append(f"{one.label} ({count(one.asked, 'query', 'queries')})")
            continue
        span = one.recall_span
        recall = plain(one.recall)
        if span:
            recall += f'<span class="hs-faint">[{span.low:.2f}, {span.high:.2f}]</span>'
        rows.append(
            [
                escape(one.label),
                plain(one.asked),
                plain(one.known),
                recall,
                plain(one.precision),
                plain(one.f1),
                plain(one.auroc),
            ]
        )
    heads = ["Label", "Queries", "Reference", "Recall", "Precision", "F1", "AUROC"]
    caption = f"{_of(result, method)} The lowest recall comes first."
    lost = (
        [
            "These labels cannot be answered right under this split, because no reference outside "
            f"the query's own patient, case, source or site has them: {', '.join(apart)}. The "
            "scores of all queries count them as wrong."
        ]
        if apart
        else []
    )
    return states.notes(lost) + (table(heads, rows, caption) if rows else "")


def _curves(result: EvaluationResult, method: MethodResult, twin: MethodResult | None) -> None:
    st.html(f'<p class="hs-caption">{escape(_of(result, method))}</p>')
    left, right = st.columns(2, gap="medium")
    named = {"this evaluation": method} | ({"the other": twin} if twin else {})
    with left:
        lines = {
            name: [(b.probability, b.accuracy) for b in one.reliability if b.count]
            for name, one in named.items()
        }
        board(  # an SVG is taken out of plain HTML
            '<h3 class="hs-section">Calibration: is a share a probability?</h3>'
            + chart(lines, "share of the first label", "correct", diagonal=True)
            + f'<p class="hs-reason">On the dashed line it would be. Mean distance from it: '
            f"{method.ece:.1%}. Votes are shown with calibrated probabilities where the collection "
            "was calibrated.</p>",
            "evaluate-reliability",
        )
    with right:
        lines = {
            name: [(p.coverage, p.accuracy) for p in one.by_margin] for name, one in named.items()
        }
        low = min((y for line in lines.values() for _, y in line), default=0.0)
        board(
            '<h3 class="hs-section">Accuracy when “not sure” is allowed</h3>'
            + chart(lines, "share of queries answered", "correct", low=max(0.0, int(low * 10) / 10))
            + '<p class="hs-reason">To the left, only votes with a large lead are answered; '
            "the rest are not sure.</p>",
            "evaluate-coverage",
        )


def _index(result: EvaluationResult) -> None:
    if result.index:
        rows = [
            [
                count(one.k, "neighbour"),
                f"{one.recall:.1%}",
                f"{one.agree:.1%}",
                plain(one.exact.weighted_f1),
                plain(one.index.weighted_f1),
            ]
            for one in result.index.by_k
        ]
        heads = ["", "Recall", "Same vote", "F1, exact", "F1, index"]
        queries = count(result.index.asked, "query", "queries")
        caption = f"{queries} searched both ways. {result.index.rule}"
        st.html(table(heads, rows, caption))
    if result.bias:
        one = result.bias
        robust = "" if one.robustness is None else f" Robustness index {one.robustness:.2f}."
        text = (
            f"{one.own_site:.0%} of the {one.k} nearest neighbours are of the query's own site, "
            f"{one.expected:.0%} expected.{robust}"
        )
        st.html(states.notes([text], "warn" if one.excess > 0.1 else "good"))
    if not result.index and not result.bias:
        st.html(states.notes(["Neither the index nor the sites were evaluated."], "good"))


# ---------------------------------------------------------------- confusions


def _confusions(
    place: Place, record: EvaluationRecord, result: EvaluationResult, method: MethodResult
) -> None:
    of = (record.id, method.method)
    chosen = st.session_state.get("evaluate-cell", (("", ""), "", ""))
    truth, predicted = chosen[1:] if chosen[0] == of else ("", "")
    facts = []
    if method.dangerous:
        facts.append(f"{count(method.dangerous, 'answer')} confusing a blast with a mature cell")
    if method.tied:
        facts.append(f"{count(method.tied, 'tied vote')}, counted as wrong")
    pressed = board(
        f"{states.facts(facts)}"
        f'<p class="hs-caption">{escape(_of(result, method))} Rows: the label. Columns: '
        "the prediction. Click a number for its pictures.</p>"
        f"{matrix(result.labels, method, truth, predicted)}",
        "evaluate-matrix",
    )
    if pressed is not None and pressed.act == "cell":
        row, column = (int(part) for part in pressed.id.split(","))
        wanted = result.labels[column] if column < len(result.labels) else ""
        st.session_state["evaluate-cell"] = (of, result.labels[row], wanted)
        st.rerun()
    if truth:
        _pictures(place, record, method, truth, predicted)


def matrix(labels: Sequence[str], method: MethodResult, truth: str, predicted: str) -> str:
    """The confusions as a table of buttons, darker where a larger share of a row lies."""
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in (*labels, "unanswered"))
    rows = []
    for at, label in enumerate(labels):
        counts = [*method.confusion.matrix[at], method.confusion.unanswered[at]]
        total = max(1, sum(counts))
        cells = "".join(
            _cell(at, to, n, n / total, label, [*labels, "unanswered"][to], (truth, predicted))
            for to, n in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        f'<div class="hs-scroll"><table class="hs-matrix"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(
    row: int, column: int, n: int, share: float, truth: str, predicted: str, open: tuple[str, str]
) -> str:
    if not n:
        return '<td><span class="hs-nought" aria-label="none">·</span></td>'
    ground = shade(share, SEQUENCE)
    # Between black and white one is always legible; a dark grey is not on the middle of the ramp.
    ink = max("#000000", "#ffffff", key=lambda one: contrast(ground, one))
    name = f"{n} of {truth}, predicted {predicted}: {share:.0%}"
    here = (truth, "" if predicted == "unanswered" else predicted) == open
    return (
        f'<td><button data-act="cell" data-id="{row},{column}" aria-label="{escape(name)}" '
        f'aria-pressed="{str(here).lower()}" title="{escape(name)}" '
        f'style="background:{ground};color:{ink}">{n:,}</button></td>'
    )


def _pictures(
    place: Place, record: EvaluationRecord, method: MethodResult, truth: str, predicted: str
) -> None:
    wanted = {"said": predicted} if predicted else {"unanswered": True}
    found = place.client.evaluation_answers(
        record.id, method.method, truth=truth, limit=SHOWN, **wanted
    )
    called = predicted or "unanswered"
    words = f"{truth}, predicted {called}: {count(found.total, 'cell')}, highest share first"
    st.html(f'<h3 class="hs-section">{escape(words)}</h3>')
    stored = [one for one in found.answers if one.stored]
    if not stored:
        st.html(states.notes(["Pictures of an uploaded set are not kept."], "good"))
        return
    ids = [one.item for one in stored]
    page = place.client.items_page(record.collection, Filter(ids=tuple(ids)), SHOWN).items
    items = {item.id: item for item in page}
    images = measurable(place.client, page, record.collection)
    cards = "".join(
        card(
            items[one.item],
            images[one.item],
            note=f"{called} {one.share:.0%}, lead {one.margin:.0%}",
            act="open",
        )
        for one in stored
        if one.item in items and one.item in images
    )
    pressed = board(
        f'<div class="hs-small"><ol class="hs-grid" aria-label="Confused cells">{cards}</ol></div>',
        "evaluate-pictures",
    )
    if pressed is not None:
        there = replace(place, name=record.collection)
        open_item(there, [Shown(items[id]) for id in ids if id in items], pressed.id)

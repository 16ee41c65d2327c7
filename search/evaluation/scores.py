"""Scores, intervals and curves of predictions, and the index compared with exact search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.evaluation.labelled import Cells
from search.evaluation.metrics import (
    Draws,
    confusion,
    drawn_matrices,
    draws,
    ends,
    scores,
    scores_of_many,
)
from search.evaluation.ranking import drawn_weights, mean_of_classes, ranked_by_class
from search.index.contract import Store
from search.index.recall import agreement
from search.neighbours.duplicates import IDENTICAL
from search.neighbours.groups import Rows
from search.schemas.answers import Hit
from search.schemas.evaluations import (
    ClassScores,
    ConfusionMatrix,
    EvaluationPlan,
    FoldScores,
    IndexAtK,
    IndexResult,
    MethodResult,
    Scores,
    Span,
)
from search.schemas.filters import Filter
from search.votes.knn import votes
from search.votes.lineage import is_dangerous
from search.votes.reliability import coverage_curve, ece, reliability

RANKED = 200
"""Resamples of the intervals of AUROC and AUPRC, which take longer than the others."""
AT_ONCE = 64
"""Queries through the index between two looks at whether to stop."""


@dataclass(frozen=True)
class Task:
    """What is predicted: the labels of some cells."""

    cells: Cells
    truth: Rows
    """Class number of every cell."""
    names: NDArray[np.str_]
    """Of the classes."""
    queries: Rows
    """Rows of the cells whose labels are predicted."""
    plan: EvaluationPlan


@dataclass(frozen=True)
class Predictions:
    """The predictions of one method for every query."""

    method: str
    k: int | None
    rows: Rows
    """m rows that are queries, fold after fold."""
    shares: NDArray[np.float64]
    """m x classes."""
    first: Rows
    """m class numbers, -1 where there was no neighbour; ties given to the nearer neighbour."""
    margin: NDArray[np.float64]
    tied: NDArray[np.bool_]
    precision: NDArray[np.float64] | None
    """m average precisions of the neighbours."""
    references: Rows
    """m counts of references that have the query's label, its own group left out."""
    folds: Sequence[tuple[str, int, int]] = ()
    """Name, number of train and of test rows of each fold, in the order of `rows`."""
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> Rows:
        """m class numbers; -1 for no answer. A tied vote is none: it is never right."""
        return np.where(self.tied, -1, self.first)


def scored(made: Predictions, task: Task) -> MethodResult:
    """Every figure of the predictions of one method; the bootstrap draws whole groups."""
    right_label, predicted, classes = task.truth[made.rows], made.labels, len(task.names)
    matrix = confusion(right_label, predicted, classes, unanswered=True)
    right = (predicted == right_label).astype(np.float64)
    drawn = draws(task.cells.group[made.rows], task.plan.resamples, task.plan.seed)
    matrices = drawn_matrices(right_label, predicted, classes, drawn, unanswered=True)
    auroc, auprc = ranked_by_class(made.shares, right_label, np.ones((1, len(predicted))))
    precision = made.precision
    intervals = _intervals(made, right_label, matrices, drawn)
    top = made.shares.max(axis=1)
    curve = reliability(top, right)
    kept = matrix[:, :classes].astype(np.int64)
    can = made.references > 0
    table = _classes(made, task, matrix, matrices, auroc[0], auprc[0])
    tested = [one for one in table if one.recall is not None]
    return MethodResult(
        method=made.method,
        k=made.k,
        scores=Scores(
            **scores(matrix),
            auroc=_known(float(mean_of_classes(auroc)[0])),
            auprc=_known(float(mean_of_classes(auprc)[0])),
            map_at_k=None if precision is None else _known(_mean(precision)),
        ),
        intervals=intervals,
        per_fold=tuple(_folds(made, right_label, classes)),
        classes=table,
        worst=min(tested, key=lambda one: (one.recall, one.f1, one.label)).label
        if tested
        else None,
        confusion=ConfusionMatrix(
            matrix=tuple(tuple(row) for row in kept.tolist()),
            unanswered=tuple(matrix[:, classes].astype(np.int64).tolist()),
        ),
        tied=int(made.tied.sum()),
        tied_right=int((made.tied & (made.first == right_label)).sum()),
        dangerous=_dangerous(kept, task.names),
        reliability=curve,
        ece=ece(curve),
        by_margin=coverage_curve(made.margin, right),
        notes=made.notes,
        answerable=None
        if can.all() or not can.any()
        else Scores(
            **scores(confusion(right_label[can], predicted[can], classes, unanswered=True))
        ),
    )


def _intervals(
    made: Predictions,
    truth: Rows,
    matrices: NDArray[np.float64],
    drawn: Draws,
) -> dict[str, Span]:
    found: dict[str, NDArray[np.float64]] = dict(scores_of_many(matrices))
    auroc, auprc = ranked_by_class(made.shares, truth, drawn_weights(drawn, RANKED))
    found |= {"auroc": mean_of_classes(auroc), "auprc": mean_of_classes(auprc)}
    if made.precision is not None:
        known = ~np.isnan(made.precision)
        member = drawn.member[known]
        count = drawn.counts @ np.bincount(member, minlength=drawn.clusters)
        value = drawn.counts @ np.bincount(member, made.precision[known], drawn.clusters)
        empty = np.full(len(count), np.nan)
        found["map_at_k"] = np.divide(value, count, out=empty, where=count > 0)
    spans: dict[str, Span] = {}
    for name, values in found.items():
        span = _span(values)
        if span is not None:
            spans[name] = span
    return spans


def _classes(
    made: Predictions,
    task: Task,
    matrix: NDArray[np.float64],
    matrices: NDArray[np.float64],
    auroc: NDArray[np.float64],
    auprc: NDArray[np.float64],
) -> tuple[ClassScores, ...]:
    support, called = matrix.sum(axis=1), matrix.sum(axis=0)
    supports, truth = matrices.sum(axis=2), task.truth[made.rows]
    found = []
    for at, name in enumerate(task.names):
        hits = matrix[at, at]
        answerable = int((made.references[truth == at] > 0).sum())
        drawn = np.divide(
            matrices[:, at, at],
            supports[:, at],
            out=np.full(len(matrices), np.nan),
            where=supports[:, at] > 0,
        )
        both = support[at] + called[at]
        of_class = None if made.precision is None else made.precision[truth == at]
        found.append(
            ClassScores(
                label=str(name),
                asked=int(support[at]),
                known=int((task.cells.labels == name).sum()),
                precision=float(hits / called[at]) if called[at] else None,
                recall=float(hits / support[at]) if answerable else None,
                recall_span=_span(drawn) if answerable else None,
                f1=float(2 * hits / both) if both else 0.0,
                auroc=_known(float(auroc[at])),
                auprc=_known(float(auprc[at])),
                map_at_k=None if of_class is None else _known(_mean(of_class)),
                answerable=answerable,
            )
        )
    return tuple(found)


def _folds(made: Predictions, truth: Rows, classes: int) -> list[FoldScores]:
    found, at = [], 0
    for name, train, test in made.folds:
        part = slice(at, at + test)
        at += test
        if test:
            matrix = confusion(truth[part], made.labels[part], classes, unanswered=True)
            found.append(FoldScores(fold=name, taught=train, asked=test, **scores(matrix)))
    return found


def _dangerous(matrix: NDArray[np.int64], names: NDArray[np.str_]) -> int:
    return sum(
        int(matrix[a, b])
        for a in range(len(names))
        for b in range(len(names))
        if matrix[a, b] and is_dangerous(str(names[a]), str(names[b]))
    )


def _span(values: NDArray[np.float64]) -> Span | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = ends(known)
    return Span(low=low, high=high)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def by_index(store: Store, task: Task, progress: Callable[[int], None]) -> IndexResult:
    """Votes through the index as it is served, beside votes by exact search of the same store.

    Args:
        store: Of the collection.
        task: Its plan says how many of its queries are sent, and how they are voted on.
        progress: Callback with the number of queries answered; may raise to stop.
    """
    cells, plan, queries = task.cells, task.plan, task.queries
    if plan.ann_sample < len(queries):
        rng = np.random.default_rng(plan.seed)
        queries = np.sort(rng.choice(queries, plan.ann_sample, replace=False))
    label = plan.where.label or tuple(str(name) for name in np.unique(cells.labels[cells.own]))
    where = plan.where.model_copy(update={"label": label})
    wide = max(plan.ks)
    group = dict(zip(cells.ids, cells.group.tolist(), strict=True))
    cases: dict[str, set[str]] = {}  # of each patient, whoever names it: an item or a record
    for patient, case in zip(cells.patients, cells.cases, strict=True):
        if patient is not None and case is not None:
            cases.setdefault(patient, set()).add(case)
    lists: dict[bool, list[list[Hit]]] = {True: [], False: []}
    for at in range(0, len(queries), AT_ONCE):
        rows = queries[at : at + AT_ONCE].tolist()
        without = [_own(cells, row, cases) for row in rows]
        for exact, found in lists.items():
            hits = store.nearest_batch(cells.vectors[rows], wide + 2, where, without, exact=exact)
            for row, one in zip(rows, hits, strict=True):
                own = cells.group[row]  # of a near-duplicate, too
                other = [h for h in one if h.score < IDENTICAL and group.get(h.item.id) != own]
                found.append(other[:wide])
        progress(at)
    number = dict(zip(cells.ids, task.truth.tolist(), strict=True))
    by_k = []
    for k in plan.ks:
        near = {exact: [one[:k] for one in found] for exact, found in lists.items()}
        predicted = {
            exact: _called(found, number, len(task.names), plan) for exact, found in near.items()
        }
        by_store = {
            exact: Scores(
                **scores(confusion(task.truth[queries], one, len(task.names), unanswered=True))
            )
            for exact, one in predicted.items()
        }
        by_k.append(
            IndexAtK(
                k=k,
                recall=agreement(near[True], near[False]),
                agree=float((predicted[True] == predicted[False]).mean()),
                exact=by_store[True],
                index=by_store[False],
            )
        )
    rule = "as a search: itself, its source, its case and its patient left out"
    return IndexResult(asked=len(queries), rule=rule, by_k=tuple(by_k))


def _own(cells: Cells, row: int, cases: Mapping[str, set[str]]) -> Filter:
    case, patient = cells.cases[row], cells.patients[row]
    own = cases.get(patient or "", set()) | ({case} if case is not None else set())
    return Filter(
        ids=(cells.ids[row],),
        source=(cells.sources[row],),
        case=tuple(sorted(own)),
        patient=() if patient is None else (patient,),
    )


def _called(
    lists: Sequence[Sequence[Hit]], number: dict[str, int], classes: int, plan: EvaluationPlan
) -> Rows:
    """The class that each list votes for, -1 for a tie; `number` has the class of each item."""
    k = max((len(hits) for hits in lists), default=1) or 1
    near_labels = np.full((len(lists), k), -1, np.int64)
    cosines = np.full((len(lists), k), -np.inf)
    for at, hits in enumerate(lists):
        for rank, hit in enumerate(hits):
            near_labels[at, rank] = number.get(hit.item.id, -1)
            cosines[at, rank] = hit.score
    found = votes(near_labels, cosines, classes, plan.weighting, plan.temperature)
    return np.where(found.tied, -1, found.first)

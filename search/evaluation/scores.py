"""From what items were called to scores, intervals, curves, and the index beside exact search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
class Told:
    """What one method called every asked item."""

    method: str
    k: int | None
    rows: Rows
    """m rows that were asked, fold after fold."""
    shares: NDArray[np.float64]
    """m x classes."""
    first: Rows
    """m class numbers, -1 where there was nobody to ask; ties given to the nearer neighbour."""
    margin: NDArray[np.float64]
    tied: NDArray[np.bool_]
    precision: NDArray[np.float64] | None
    """m average precisions of the neighbours."""
    folds: Sequence[tuple[str, int, int]] = ()
    """Name, teachers and asked of each fold, in the order of `rows`."""
    notes: tuple[str, ...] = ()

    @property
    def said(self) -> Rows:
        """m class numbers; -1 for no answer. A tied vote is none: it is never right."""
        return np.where(self.tied, -1, self.first)


def scored(
    told: Told,
    cells: Cells,
    truth: Rows,
    names: NDArray[np.str_],
    clusters: Rows,
    plan: EvaluationPlan,
) -> MethodResult:
    """Every figure of one method.

    Args:
        told: Its answers.
        cells: All items.
        truth: Class number of every item.
        names: Of the classes.
        clusters: What the bootstrap draws together, for every item.
        plan: Resamples and seed.
    """
    right_label, said, classes = truth[told.rows], told.said, len(names)
    matrix = confusion(right_label, said, classes, silent=True)
    right = (said == right_label).astype(np.float64)
    drawn = draws(clusters[told.rows], plan.resamples, plan.seed)
    matrices = drawn_matrices(right_label, said, classes, drawn, silent=True)
    auroc, auprc = ranked_by_class(told.shares, right_label, np.ones((1, len(said))))
    precision = told.precision
    intervals = _intervals(told, right_label, matrices, drawn)
    top = told.shares.max(axis=1)
    curve = reliability(top, right)
    kept = matrix[:, :classes].astype(np.int64)
    table = _classes(told, cells, matrix, matrices, names, right_label, auroc[0], auprc[0])
    asked = [one for one in table if one.recall is not None]
    return MethodResult(
        method=told.method,
        k=told.k,
        scores=Scores(
            **scores(matrix),
            auroc=_known(float(mean_of_classes(auroc)[0])),
            auprc=_known(float(mean_of_classes(auprc)[0])),
            map_at_k=None if precision is None else _known(_mean(precision)),
        ),
        intervals=intervals,
        per_fold=tuple(_folds(told, right_label, classes)),
        classes=table,
        worst=min(asked, key=lambda one: (one.recall, one.f1, one.label)).label if asked else None,
        confusion=ConfusionMatrix(
            matrix=tuple(tuple(row) for row in kept.tolist()),
            unanswered=tuple(matrix[:, classes].astype(np.int64).tolist()),
        ),
        tied=int(told.tied.sum()),
        tied_right=int((told.tied & (told.first == right_label)).sum()),
        dangerous=_dangerous(kept, names),
        reliability=curve,
        ece=ece(curve),
        by_margin=coverage_curve(told.margin, right),
        notes=told.notes,
    )


def _intervals(
    told: Told,
    truth: Rows,
    matrices: NDArray[np.float64],
    drawn: Draws,
) -> dict[str, Span]:
    found: dict[str, NDArray[np.float64]] = dict(scores_of_many(matrices))
    auroc, auprc = ranked_by_class(told.shares, truth, drawn_weights(drawn, RANKED))
    found |= {"auroc": mean_of_classes(auroc), "auprc": mean_of_classes(auprc)}
    if told.precision is not None:
        known = ~np.isnan(told.precision)
        member = drawn.member[known]
        count = drawn.counts @ np.bincount(member, minlength=drawn.clusters)
        value = drawn.counts @ np.bincount(member, told.precision[known], drawn.clusters)
        empty = np.full(len(count), np.nan)
        found["map_at_k"] = np.divide(value, count, out=empty, where=count > 0)
    spans: dict[str, Span] = {}
    for name, values in found.items():
        span = _span(values)
        if span is not None:
            spans[name] = span
    return spans


def _classes(
    told: Told,
    cells: Cells,
    matrix: NDArray[np.float64],
    matrices: NDArray[np.float64],
    names: NDArray[np.str_],
    truth: Rows,
    auroc: NDArray[np.float64],
    auprc: NDArray[np.float64],
) -> tuple[ClassScores, ...]:
    support, called = matrix.sum(axis=1), matrix.sum(axis=0)
    supports = matrices.sum(axis=2)
    found = []
    for at, name in enumerate(names):
        hits = matrix[at, at]
        drawn = np.divide(
            matrices[:, at, at],
            supports[:, at],
            out=np.full(len(matrices), np.nan),
            where=supports[:, at] > 0,
        )
        both = support[at] + called[at]
        of_class = None if told.precision is None else told.precision[truth == at]
        found.append(
            ClassScores(
                label=str(name),
                asked=int(support[at]),
                known=int((cells.labels == name).sum()),
                precision=float(hits / called[at]) if called[at] else None,
                recall=float(hits / support[at]) if support[at] else None,
                recall_span=_span(drawn),
                f1=float(2 * hits / both) if both else 0.0,
                auroc=_known(float(auroc[at])),
                auprc=_known(float(auprc[at])),
                map_at_k=None if of_class is None else _known(_mean(of_class)),
            )
        )
    return tuple(found)


def _folds(told: Told, truth: Rows, classes: int) -> list[FoldScores]:
    found, at = [], 0
    for name, taught, asked in told.folds:
        part = slice(at, at + asked)
        at += asked
        if asked:
            matrix = confusion(truth[part], told.said[part], classes, silent=True)
            found.append(FoldScores(fold=name, taught=taught, asked=asked, **scores(matrix)))
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


def by_index(
    store: Store,
    cells: Cells,
    truth: Rows,
    names: NDArray[np.str_],
    asked: Rows,
    plan: EvaluationPlan,
    tell: Callable[[int], None],
) -> IndexResult:
    """Votes through the index as it is served, beside votes by exact search of the same store.

    Args:
        store: Of the collection.
        cells: All items, also those of an uploaded set.
        truth: Class number of every item.
        names: Of the classes.
        asked: Rows that may be asked.
        plan: How many are, and the vote.
        tell: May raise to stop.
    """
    if plan.ann_sample < len(asked):
        rng = np.random.default_rng(plan.seed)
        asked = np.sort(rng.choice(asked, plan.ann_sample, replace=False))
    label = plan.where.label or tuple(str(name) for name in np.unique(cells.labels[cells.own]))
    where = plan.where.model_copy(update={"label": label})
    wide = max(plan.ks)
    lists: dict[bool, list[list[Hit]]] = {True: [], False: []}
    for at in range(0, len(asked), AT_ONCE):
        rows = asked[at : at + AT_ONCE].tolist()
        without = [_own(cells, row) for row in rows]
        for exact, found in lists.items():
            hits = store.nearest_batch(cells.vectors[rows], wide + 2, where, without, exact=exact)
            found += [[h for h in one if h.score < IDENTICAL][:wide] for one in hits]
        tell(at)
    number = {str(name): at for at, name in enumerate(names)}
    by_k = []
    for k in plan.ks:
        near = {exact: [one[:k] for one in found] for exact, found in lists.items()}
        said = {exact: _called(found, number, k, plan) for exact, found in near.items()}
        told = {
            exact: Scores(**scores(confusion(truth[asked], one, len(names), silent=True)))
            for exact, one in said.items()
        }
        by_k.append(
            IndexAtK(
                k=k,
                recall=agreement(near[True], near[False]),
                agree=float((said[True] == said[False]).mean()),
                exact=told[True],
                index=told[False],
            )
        )
    rule = "as a search: itself, its source, its case and its patient left out"
    return IndexResult(asked=len(asked), rule=rule, by_k=tuple(by_k))


def _own(cells: Cells, row: int) -> Filter:
    case, patient = cells.cases[row], cells.patients[row]
    return Filter(
        ids=(cells.ids[row],),
        source=(cells.sources[row],),
        case=() if case is None else (case,),
        patient=() if patient is None else (patient,),
    )


def _called(
    lists: Sequence[Sequence[Hit]], number: dict[str, int], k: int, plan: EvaluationPlan
) -> Rows:
    voices = np.full((len(lists), k), -1, np.int64)
    cosines = np.full((len(lists), k), -np.inf)
    for at, hits in enumerate(lists):
        for rank, hit in enumerate(hits):
            voices[at, rank] = number.get(str(hit.item.label), -1)
            cosines[at, rank] = hit.score
    found = votes(voices, cosines, len(number), plan.weighting, plan.temperature)
    return np.where(found.tied, -1, found.first)

"""Evaluation of similar cases: is the diagnosis, or another label, that of the nearest ones?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.cases.similar import similar_cases
from search.errors import BadQuestion
from search.evaluation.labelled import flattered
from search.evaluation.metrics import Draws, draws, ends
from search.evaluation.ranking import average_precision_at_k
from search.library.collection import Collection
from search.query.context import Context
from search.schemas.cases import CasePlan, CaseQuestion, Distance
from search.schemas.evaluations import (
    CaseEvaluation,
    CaseLabelScores,
    CaseScores,
    PairedDifference,
    Span,
)
from search.schemas.filters import Filter

TOPS = (1, 3, 5)
RANKED = 100
"""Cases of each ranking."""
FEWEST_CASES = 4
Floats = NDArray[np.float64]


class CannotEvaluateCases(BadQuestion):
    """Too few cases with a label."""


@dataclass(frozen=True)
class _Queries:
    """The cases that are queries, and the labels of all."""

    cases: Sequence[str]
    labels: Mapping[str, str]
    patients: Mapping[str, str | None]

    def references(self, case: str) -> list[str]:
        """Cases with a label that may be found: not of the same patient."""
        patient = self.patients[case]
        return [
            one
            for one in self.labels
            if one != case and (patient is None or self.patients[one] != patient)
        ]


def evaluate_cases(
    context: Context,
    plan: CasePlan,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CaseEvaluation:
    """Ask for the cases similar to each labelled case, its own patient left out, and score them.

    Every question goes the way of any other (`search.cases.similar.similar_cases`). The label of
    a case is that of its record, or of its column.

    Args:
        context: The collection.
        plan: Which label, which distances.
        resamples: Of the bootstrap, which draws whole patients.
        seed: Of the bootstrap, and of which cases are queries if not all are.
        progress: Callback with how far it is.

    Raises:
        CannotEvaluateCases: fewer than four cases with a label, or all with one.
        BadCase: there is no such column.
    """
    queries = _queries(context.collection, plan, seed)
    drawn = draws(
        [queries.patients[one] or f"case {one}" for one in queries.cases], resamples, seed
    )
    total, done = len(queries.cases) * len(plan.distances), 0
    values: dict[str, dict[str, Floats]] = {}
    votes: dict[str, list[str | None]] = {}
    for distance in plan.distances:
        rankings = []
        for case in queries.cases:
            rankings.append(_ranking(context, plan, case, distance, queries))
            done += 1
            progress(done, total)
        votes[distance] = [_vote(ranking[: plan.k], queries.labels) for ranking in rankings]
        values[distance] = _values(rankings, votes[distance], queries)
    chance = _chance(queries)
    return CaseEvaluation(
        column=plan.column,
        cases=len(queries.labels),
        asked=len(queries.cases),
        patients=len({one for one in queries.patients.values() if one is not None}),
        labels=dict(Counter(queries.labels.values()).most_common()),
        k=plan.k,
        chance=chance,
        scores=tuple(_scores(one, values, votes[one], queries, drawn) for one in plan.distances),
        notes=(*_notes(queries), *flattered(context.collection.card)),
    )


def _queries(collection: Collection, plan: CasePlan, seed: int) -> _Queries:
    records = {one.case: one for one in collection.cases.all(plan.of_cases)}
    found = collection.cases.labels(plan.column)
    labels = {case: str(value) for case, value in found.items() if case in records}
    patients: dict[str, str | None] = {}
    for case in list(labels):
        first = collection.store.scroll(Filter(case=(case,)), 1).items
        if not first:  # its items were removed since
            del labels[case]
            continue
        patients[case] = first[0].item.patient or records[case].patient
    if len(labels) < FEWEST_CASES or len(set(labels.values())) < 2:
        raise CannotEvaluateCases(
            f"an evaluation of cases needs at least {FEWEST_CASES} cases with a value of "
            f"{plan.column!r}, of two values, got {len(labels)} of {len(set(labels.values()))}; "
            "`hemaseek cases import` brings records in"
        )
    names = sorted(labels)
    if plan.ask is not None and plan.ask < len(names):
        chosen = np.random.default_rng(seed).choice(len(names), plan.ask, replace=False)
        names = [names[at] for at in sorted(chosen.tolist())]
    return _Queries(names, labels, patients)


def _ranking(
    context: Context, plan: CasePlan, case: str, distance: str, queries: _Queries
) -> list[str]:
    """Labelled cases of other patients, nearest first."""
    question = CaseQuestion.model_validate(
        {
            "case": case,
            "k": RANKED,
            "candidates": RANKED,
            "distance": distance,
            "model": plan.model if distance == "learned" else None,
            "found": plan.found,
            "pairs": 0,
            "of_cases": plan.of_cases,
        }
    )
    found = [one.value for one in similar_cases(context, question).cases]
    return [one for one in found if one in queries.labels]


def _vote(nearest: Sequence[str], labels: Mapping[str, str]) -> str | None:
    """The label that most of the nearest have; of equal ones that of the nearest."""
    counts = Counter(labels[one] for one in nearest)
    return counts.most_common(1)[0][0] if counts else None


def _values(
    rankings: Sequence[Sequence[str]], votes: Sequence[str | None], queries: _Queries
) -> dict[str, Floats]:
    """For each score one number for each query case."""
    relevant = np.zeros((len(rankings), RANKED), bool)
    there = np.zeros(len(rankings), np.int64)
    for at, (case, ranking) in enumerate(zip(queries.cases, rankings, strict=True)):
        label = queries.labels[case]
        relevant[at, : len(ranking)] = [queries.labels[one] == label for one in ranking]
        there[at] = sum(queries.labels[one] == label for one in queries.references(case))
    truth = [queries.labels[case] for case in queries.cases]
    found: dict[str, Floats] = {
        f"top_{n}": np.asarray(relevant[:, :n].any(axis=1), np.float64) for n in TOPS
    }
    found["map"] = np.nan_to_num(average_precision_at_k(relevant, there))
    found["vote"] = np.array([said == true for said, true in zip(votes, truth, strict=True)], float)
    return found


def _chance(queries: _Queries) -> dict[str, float]:
    """What a random order of the references would reach, exactly for the first places."""
    sums = dict.fromkeys((f"top_{top}" for top in TOPS), 0.0)
    for case in queries.cases:
        references = queries.references(case)
        n = len(references)
        right = sum(queries.labels[one] == queries.labels[case] for one in references)
        for top in TOPS:
            missed = 1.0
            for at in range(min(top, n)):
                missed *= max(0, n - right - at) / (n - at)
            sums[f"top_{top}"] += 1 - missed
    return {name: value / len(queries.cases) for name, value in sums.items()}


def _scores(
    distance: Distance,
    values: Mapping[str, Mapping[str, Floats]],
    votes: Sequence[str | None],
    queries: _Queries,
    drawn: Draws,
) -> CaseScores:
    mine = values[distance]
    truth = np.array([queries.labels[case] for case in queries.cases])
    labels = tuple(
        CaseLabelScores(
            label=str(label),
            cases=int((truth == label).sum()),
            top_1=float(mine["top_1"][truth == label].mean()),
            top_5=float(mine["top_5"][truth == label].mean()),
            vote=float(mine["vote"][truth == label].mean()),
            average_precision=float(mine["map"][truth == label].mean()),
        )
        for label in sorted(set(truth.tolist()))
    )
    facts: dict[str, Any] = {name: float(one.mean()) for name, one in mine.items()}
    return CaseScores(
        distance=distance,
        intervals={name: _span(one, drawn) for name, one in mine.items()},
        labels=labels,
        worst=min(labels, key=lambda one: (one.vote, one.top_1, one.label)).label,
        unanswered=sum(one is None for one in votes),
        over_mean=None
        if distance == "mean" or "mean" not in values
        else {name: _difference(one - values["mean"][name], drawn) for name, one in mine.items()},
        **facts,
    )


def _drawn_means(values: Floats, drawn: Draws) -> Floats:
    weights = drawn.counts[:, drawn.member]
    return np.asarray((weights * values).sum(axis=1) / weights.sum(axis=1))


def _span(values: Floats, drawn: Draws) -> Span:
    low, high = ends(_drawn_means(values, drawn))
    return Span(low=low, high=high)


def _difference(values: Floats, drawn: Draws) -> PairedDifference:
    means = _drawn_means(values, drawn)
    low, high = ends(means)
    beyond = min(float((means <= 0).mean()), float((means >= 0).mean()))
    return PairedDifference(
        difference=float(values.mean()), low=low, high=high, p=min(1.0, 2 * beyond)
    )


def _notes(queries: _Queries) -> tuple[str, ...]:
    notes = []
    if unknown := sum(one is None for one in queries.patients.values()):
        notes.append(
            f"cases without a patient id: {unknown} of {len(queries.labels)}; their own patient "
            "may be among the cases found, and the intervals are by case for them"
        )
    counts = Counter(queries.labels.values())
    if alone := sorted(label for label, n in counts.items() if n == 1):
        notes.append(
            "no other case can be found right for values that one case alone has: "
            + ", ".join(alone)
        )
    return tuple(notes)

"""Two evaluations compared over the same test items, the same patients drawn for both."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from search.errors import BadQuestion
from search.evaluation.kept import Evaluations
from search.evaluation.metrics import confusion, drawn_matrices, draws, ends, scores, scores_of_many
from search.schemas.evaluations import (
    FEWEST,
    EvaluationRecord,
    EvaluationResult,
    PairedResult,
    PairedScore,
    PairedSide,
    Span,
    Unit,
    Verdict,
)
from search.text import count

RESAMPLES = 1000


def paired(
    evaluations: Evaluations, id: str, other: str, method: str, other_method: str | None = None
) -> PairedResult:
    """Compare two evaluations over the items that both tested.

    Whole patients (sources, where no patient is known) are drawn, and the same ones for both: what
    makes a patient hard is in both scores, and falls out of their difference (Efron and Tibshirani
    1993, "An Introduction to the Bootstrap", 8.3 and 16.4). McNemar's test (1947) stands beside it
    only where no two items belong together.

    Args:
        evaluations: Of the service, as the caller sees them.
        id: Of the first evaluation.
        other: Of the second.
        method: Of the first, as its result names it: `20-NN`.
        other_method: Of the second; the same where it is left out.

    Raises:
        NoSuchEvaluation: one of them is not known.
        BadQuestion: one is not done or has no such method, both are one and the same, they have
            fewer than 20 items in common, or one was kept without its groups.
    """
    other_method = other_method or method
    one, two = _result(evaluations, id), _result(evaluations, other)
    if (id, method) == (other, other_method):
        raise BadQuestion("an evaluation does not differ from itself; name another")
    first, second = _table(evaluations, id, method), _table(evaluations, other, other_method)
    both = first.join(second, "item", right_suffix=" of the second", join_type="inner")
    alike = pc.equal(both["truth"], both["truth of the second"])
    relabelled = both.num_rows - int(pc.sum(alike).as_py() or 0)
    both = both.filter(alike).sort_by("item")
    shared = both.num_rows
    if shared < FEWEST:
        raise BadQuestion(
            f"a paired comparison needs at least {FEWEST} items that both tested, got {shared} of "
            f"{first.num_rows} and {second.num_rows}; evaluate both on the same items"
        )
    sides = [
        _side(record, result, name, table.num_rows - shared - relabelled)
        for (record, result), name, table in (
            (one, method, first),
            (two, other_method, second),
        )
    ]
    return compared(both, one[1].unit, sides[0], sides[1], relabelled)


def compared(
    both: pa.Table, unit: Unit, first: PairedSide, second: PairedSide, relabelled: int
) -> PairedResult:
    """The comparison itself.

    Args:
        both: A row for each item that both tested: `truth`, `said`, `said of the second` (null for
            no answer) and `cluster`.
        unit: What a cluster is.
        first: Whose predictions are in `said`.
        second: Whose predictions are in `said of the second`.
        relabelled: Items that were left out because their label had changed.
    """
    columns = [both[column].to_pylist() for column in ("truth", "said", "said of the second")]
    names = np.unique([label for labels in columns for label in labels if label is not None])
    number = {str(name): at for at, name in enumerate(names)}
    truth, a, b = (
        np.array([-1 if label is None else number[label] for label in labels]) for labels in columns
    )
    groups = both["cluster"].to_numpy()
    drawn = draws(groups, RESAMPLES)
    values = [_values(truth, predicted, len(names)) for predicted in (a, b)]
    many = [
        drawn_matrices(truth, predicted, len(names), drawn, unanswered=True) for predicted in (a, b)
    ]
    spread = [scores_of_many(one) for one in many]
    rows = tuple(
        _score(name, values[0][name], values[1][name], spread[0][name] - spread[1][name], len(a))
        for name in values[0]
    )
    right, also = a == truth, b == truth
    only = int((right & ~also).sum()), int((~right & also).sum())
    single = drawn.clusters == len(truth)
    f1 = rows[0]
    verdict: Verdict = "not shown"
    if f1.span.low > 0 or f1.span.high < 0:
        verdict = "first" if f1.difference > 0 else "second"
    return PairedResult(
        first=first,
        second=second,
        asked=len(truth),
        relabelled=relabelled,
        unit=unit,
        clusters=drawn.clusters,
        both_right=int((right & also).sum()),
        only_first=only[0],
        only_second=only[1],
        neither=int((~right & ~also).sum()),
        scores=rows,
        classes=tuple(_recalls(names, truth, (a, b), many)),
        mcnemar=mcnemar(*only) if single else None,
        verdict=verdict,
        words=_words(verdict, f1, first, second),
        notes=tuple(_notes(first.alone, second.alone, relabelled, drawn.clusters)),
    )


def _notes(first: int, second: int, relabelled: int, clusters: int) -> list[str]:
    notes = []
    if first or second:
        notes.append(
            f"{count(first, 'item')} tested by the first alone and {second:,} tested by the second "
            "alone are left out"
        )
    if relabelled:
        verb = "is" if relabelled == 1 else "are"
        notes.append(
            f"{count(relabelled, 'item')} with another label in the second {verb} left out"
        )
    if clusters < FEWEST:
        units = count(clusters, "patient or source", "patients or sources")
        notes.append(f"only {units}: intervals over so few are too narrow")
    return notes


def mcnemar(one: int, other: int) -> float:
    """The two-sided exact p of McNemar's test (Psychometrika 12, 1947): a fair coin for each item
    that one alone has right.

    Args:
        one: Items that the first alone has right.
        other: Items that the second alone has right.
    """
    from scipy.stats import binomtest

    if one + other == 0:
        return 1.0
    return float(binomtest(one, one + other, 0.5).pvalue)


def _words(verdict: Verdict, f1: PairedScore, first: PairedSide, second: PairedSide) -> str:
    span = f"[{f1.span.low:+.3f}, {f1.span.high:+.3f}]"
    if verdict == "not shown":
        return (
            f"No difference is shown: weighted F1 differs by {f1.difference:+.3f}, and the "
            f"interval {span} contains 0."
        )
    better = first if verdict == "first" else second
    called = better.encoder if first.encoder != second.encoder else f"evaluation {better.id[:8]}"
    if (first.encoder, first.id) == (second.encoder, second.id):
        called = better.method
    return (
        f"{called} agrees with the labels more often: weighted F1 differs by "
        f"{f1.difference:+.3f} {span}."
    )


def _values(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> dict[str, float]:
    return scores(confusion(truth, predicted, classes, unanswered=True))


def _score(
    name: str, first: float, second: float, drawn: NDArray[np.float64], items: int
) -> PairedScore:
    low, high = ends(drawn)
    return PairedScore(
        name=name,
        first=first,
        second=second,
        difference=first - second,
        span=Span(low=low, high=high),
        asked=items,
    )


def _recalls(
    names: NDArray[np.str_],
    truth: NDArray[np.int64],
    predicted: tuple[NDArray[np.int64], NDArray[np.int64]],
    many: list[NDArray[np.float64]],
) -> list[PairedScore]:
    """The recall of each label with a test item; draws without one of its items are left out."""
    found = []
    for at, name in enumerate(names):
        of_label = truth == at
        if not of_label.any():
            continue
        support = many[0][:, at].sum(axis=1)
        there = support > 0
        recalls = [one[there, at, at] / support[there] for one in many]
        first, second = (float((one[of_label] == at).mean()) for one in predicted)
        drawn = recalls[0] - recalls[1]
        found.append(_score(str(name), first, second, drawn, int(of_label.sum())))
    return found


def _result(evaluations: Evaluations, id: str) -> tuple[EvaluationRecord, EvaluationResult]:
    record = evaluations.get(id)
    if record.result is None:
        raise BadQuestion(f"evaluation {id} is {record.state}; only one that is done can be paired")
    return record, record.result


def _table(evaluations: Evaluations, id: str, method: str) -> pa.Table:
    table = evaluations.table(id, method)
    if "cluster" not in table.column_names:
        raise BadQuestion(
            f"evaluation {id} was kept without the groups of its items; evaluate again"
        )
    return table.select(["item", "truth", "said", "cluster"])


def _side(
    record: EvaluationRecord, result: EvaluationResult, method: str, alone: int
) -> PairedSide:
    return PairedSide(
        id=record.id,
        collection=record.collection,
        version=result.data.version,
        encoder=result.encoder.id,
        fingerprint=result.encoder.fingerprint,
        method=method,
        alone=alone,
    )

"""How good a case model is on the cases that it did not see, how sure, and when not to answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.evaluation.metrics import Draws, bootstrap, confusion, draws, ends, scores
from search.evaluation.ranking import drawn_weights, mean_of_classes, ranked_by_class
from search.mil.predict import calibrated
from search.schemas.evaluations import Span
from search.schemas.mil import MilClass, MilPlan, MilScores
from search.votes.reliability import ece, fit_temperature, reliability
from train.mil.fit import Fitted

NEVER = 1.01
"""A threshold that no probability reaches."""
FEWEST = 5
"""Held-out answers on which a threshold rests, at least."""
RESAMPLES = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """The scores of held-out cases, and what is fitted on them."""

    scores: MilScores
    temperature: float = 1.0
    threshold: float = 0.0
    notes: tuple[str, ...] = ()


def judged(
    fitted: Fitted,
    labels: NDArray[np.int64],
    patients: NDArray[np.str_],
    classes: tuple[str, ...],
    plan: MilPlan,
) -> Judged:
    """Scores, temperature and threshold of a model that gives classes."""
    logits, n = fitted.outputs.astype(np.float64), len(classes)
    temperature = temperature_of(logits, labels)
    shares = np.asarray(calibrated(logits, temperature), np.float64)
    said = shares.argmax(axis=1)
    right = (said == labels).astype(np.float64)
    drawn = draws(patients, RESAMPLES, plan.seed)
    auroc = ranked_by_class(shares, labels, np.ones((1, len(labels))))[0][0]
    matrix = confusion(labels, said, n)
    figures = scores(matrix)
    figures["majority"] = float(np.bincount(labels).max() / len(labels))
    spans = {
        name: Span(low=one.low, high=one.high)
        for name, one in bootstrap(labels, said, patients, n, seed=plan.seed).items()
    }
    if not np.isnan(auroc).all():
        figures["auroc"] = float(np.nanmean(auroc))
        spans["auroc"] = _auroc_span(shares, labels, drawn)
    threshold = threshold_of(shares.max(axis=1), right, plan.accuracy)
    answered = shares.max(axis=1) >= threshold
    plain = np.asarray(calibrated(logits, 1.0), np.float64).max(axis=1)
    return Judged(
        MilScores(
            figures={name: round(value, 6) for name, value in figures.items()},
            intervals=spans,
            classes=tuple(
                MilClass(
                    name=name,
                    cases=int((labels == at).sum()),
                    recall=float(matrix[at, at] / matrix[at].sum()),
                    auroc=None if np.isnan(auroc[at]) else float(auroc[at]),
                )
                for at, name in enumerate(classes)
            ),
            confusion=tuple(tuple(int(one) for one in row) for row in matrix),
            ece_before=ece(reliability(plain, right)),
            ece=ece(reliability(_crossed(logits, labels, fitted.fold), right)),
            coverage=float(answered.mean()),
            answered_accuracy=float(right[answered].mean()) if answered.any() else None,
        ),
        temperature,
        threshold,
        _remarks(figures, spans),
    )


def temperature_of(logits: Floats, labels: NDArray[np.int64]) -> float:
    """What logits are divided by so that the first class is as often right as it says."""
    shares = np.asarray(calibrated(logits, 1.0), np.float64)
    right = (shares.argmax(axis=1) == labels).astype(np.float64)
    curve = fit_temperature(np.maximum(-np.sort(-shares, axis=1), 1e-12).tolist(), right)
    return float(curve.temperature or 1.0)


def threshold_of(top: Floats, right: Floats, accuracy: float) -> float:
    """The least probability from which on so large a share of the answers is right.

    Args:
        top: The probability of each case's first class.
        right: 1 where that was right.
        accuracy: The share that is wanted.

    Returns:
        A probability; `NEVER` where at none that `FEWEST` cases reach it is.
    """
    found = NEVER
    for one in sorted(set(top.tolist()), reverse=True):
        kept = top >= one
        if kept.sum() >= min(FEWEST, len(top)) and right[kept].mean() >= accuracy:
            found = one
    return found


def c_index(risks: Floats, times: Floats, events: NDArray[np.int64]) -> tuple[float, int]:
    """The share of pairs whose order is right (Harrell 1982), and how many pairs there are.

    A pair counts where the earlier of the two times is an event; equal risks count half.
    """
    earlier = (times[:, None] < times[None, :]) & (events[:, None] == 1)
    pairs = int(earlier.sum())
    higher = (risks[:, None] > risks[None, :]) + (risks[:, None] == risks[None, :]) / 2
    return (float((higher * earlier).sum() / pairs) if pairs else float("nan")), pairs


def judged_survival(
    fitted: Fitted, times: Floats, events: NDArray[np.int64], patients: NDArray[np.str_]
) -> Judged:
    """The c-index over held-out pairs; only risks of one network are compared."""
    risks = fitted.outputs[:, 0].astype(np.float64)

    def mean(counts: NDArray[np.int64]) -> float:
        total, whole = 0.0, 0
        for fold in np.unique(fitted.fold):
            rows = np.repeat(np.flatnonzero(fitted.fold == fold), counts[fitted.fold == fold])
            value, pairs = c_index(risks[rows], times[rows], events[rows])
            total, whole = total + (value * pairs if pairs else 0.0), whole + pairs
        return total / whole if whole else float("nan")

    drawn = draws(patients, RESAMPLES // 2, 0)
    once = np.ones(len(risks), np.int64)
    values = np.array([mean(row) for row in drawn_weights(drawn, RESAMPLES // 2)])
    figures = {"c_index": mean(once), "events": float(events.sum())}
    spans = {}
    if not np.isnan(values).all():
        low, high = ends(values[~np.isnan(values)])
        spans["c_index"] = Span(low=low, high=high)
    return Judged(MilScores(figures=figures, intervals=spans))


def _auroc_span(shares: Floats, labels: NDArray[np.int64], drawn: Draws) -> Span:
    values = mean_of_classes(ranked_by_class(shares, labels, drawn_weights(drawn, RESAMPLES))[0])
    low, high = ends(values[~np.isnan(values)])
    return Span(low=low, high=high)


def _crossed(logits: Floats, labels: NDArray[np.int64], fold: NDArray[np.int64]) -> Floats:
    """The probability of each first class with a temperature fitted on the other folds."""
    top = np.zeros(len(labels))
    for one in np.unique(fold):
        own = fold == one
        if not own.all():
            share = calibrated(logits[own], temperature_of(logits[~own], labels[~own]))
            top[own] = share.max(axis=1)
    return top


def _remarks(figures: dict[str, float], spans: dict[str, Span]) -> tuple[str, ...]:
    chance = figures["majority"]
    if spans["accuracy"].low <= chance:
        return (
            f"Not shown to be better than always saying the most frequent class ({chance:.0%} "
            "right): the interval of its accuracy reaches that.",
        )
    return ()

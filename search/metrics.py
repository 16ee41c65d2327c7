"""The papers' scores from a confusion matrix, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""n class numbers, 0 to classes - 1."""
METRICS = ("weighted_f1", "balanced_accuracy", "accuracy", "macro_f1")
"""What is reported: the papers' three, and macro F1, which rare classes cannot hide in."""


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval."""

    low: float
    high: float
    level: float
    """Share of resamples inside, for instance 0.95."""
    resamples: int
    clusters: int
    """Units that were drawn: patients, fields, images."""


def confusion(
    truth: Labels, predicted: Labels, classes: int, weights: NDArray[np.number] | None = None
) -> NDArray[np.float64]:
    """Counts by (truth, predicted), classes x classes.

    Raises:
        ValueError: lengths differ, or a class number is out of range.
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} must be equal rows")
    for name, values in (("truth", truth), ("predicted", predicted)):
        if len(values) and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"{name} must hold class numbers 0 to {classes - 1}, "
                f"got {int(values.min())} to {int(values.max())}"
            )
    flat = np.bincount(truth * classes + predicted, weights=weights, minlength=classes**2)
    return flat.reshape(classes, classes).astype(np.float64)


def scores(matrix: NDArray[np.floating]) -> dict[str, float]:
    """The four `METRICS` of one confusion matrix, or of many at once.

    As scikit-learn has them: balanced accuracy is the mean recall of the classes that occur in
    the truth; F1 of a class without hits is 0; macro F1 is over the classes that occur in the
    truth or in the predictions.

    Args:
        matrix: classes x classes by (truth, predicted); must not be empty.
    """
    return {name: float(value[0]) for name, value in _many(matrix[None]).items()}


def _many(matrices: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    support = matrices.sum(axis=2)
    called = matrices.sum(axis=1)
    total = support.sum(axis=1)
    if (total <= 0).any():
        raise ValueError("no predictions to score")
    f1 = np.divide(2 * hits, support + called, out=np.zeros_like(hits), where=support + called > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    return {
        "weighted_f1": (f1 * support).sum(axis=1) / total,
        "balanced_accuracy": recall.sum(axis=1) / (support > 0).sum(axis=1),
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": f1.sum(axis=1) / (support + called > 0).sum(axis=1),
    }


def bootstrap(
    truth: Labels,
    predicted: Labels,
    clusters: Sequence[str] | NDArray[np.str_],
    classes: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Cluster bootstrap: whole clusters are drawn with replacement, never single cells.

    Cells of one patient are not independent; drawing them one by one makes intervals too
    narrow (Field and Welsh 2007, J. R. Stat. Soc. B 69). The classifier is not refitted: the
    interval covers the choice of test cases, not of training cases.

    Args:
        truth: n class numbers.
        predicted: n class numbers.
        clusters: n names; equal names are drawn together.
        classes: Number of classes.
        resamples: How often to draw.
        level: Share of resamples inside the interval.
        seed: Of the draws.
    """
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    if len(member) != len(truth):
        raise ValueError(f"{len(member)} clusters for {len(truth)} predictions")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"need resamples >= 1 and 0 < level < 1, got {resamples} and {level}")
    rng = np.random.default_rng(seed)
    matrices = np.stack(
        [
            confusion(truth, predicted, classes, np.bincount(drawn, minlength=len(names))[member])
            for drawn in (rng.integers(0, len(names), len(names)) for _ in range(resamples))
        ]
    )
    tail = (1 - level) / 2
    return {
        name: Interval(
            low=float(np.quantile(values, tail)),
            high=float(np.quantile(values, 1 - tail)),
            level=level,
            resamples=resamples,
            clusters=len(names),
        )
        for name, values in _many(matrices).items()
    }
